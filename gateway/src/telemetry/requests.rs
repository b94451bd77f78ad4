//! What requests of HTTP mode came to, counted on one worker.
//! In: requests that are over, by listener and backend. Out: numbers that another thread may read at any time. A request costs some
//! additions: nothing is allocated but at the first one of a listener to a backend.

use std::sync::OnceLock;

use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::PeerFault;
use gateway_core::http::h1::Fault;
use gateway_core::http::h2::Violation;

use super::counters::Counter;
use super::event::FinishedRequest;
use super::histogram::Histogram;
use crate::config::BackendId;

/// Upper bounds in seconds of everything that requests wait for.
const BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// Classes of the status of HTTP, as labels have them: without a response, then by the first digit.
pub(super) const STATUS_CLASSES: [&str; 5] = ["none", "2xx", "3xx", "4xx", "5xx"];

/// Statuses of gRPC by number, and one label for what is none of them.
pub(super) const GRPC_STATUSES: [&str; 18] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
    "other",
];

/// Requests of one listener.
#[derive(Debug)]
pub(super) struct RequestCounters {
    /// By backend; the last are those that none has got.
    backends: Vec<OnceLock<Box<BackendRequests>>>,
    refusals: [Counter; RequestRefusal::ALL.len()],
    dry_run_refusals: [Counter; RequestRefusal::ALL.len()],
    http1_faults: [Counter; Fault::ALL.len()],
    http2_faults: [Counter; Violation::ALL.len()],
}

/// Requests of one listener to one backend, or to none.
#[derive(Debug)]
pub(super) struct BackendRequests {
    /// By class of the response's status.
    pub(super) statuses: [Counter; STATUS_CLASSES.len()],
    /// By status of gRPC, where there is one.
    pub(super) grpc_statuses: [Counter; GRPC_STATUSES.len()],
    /// Responses that were cut off.
    pub(super) incomplete: Counter,
    /// How often a request was sent to a server again.
    pub(super) retries: Counter,
    /// Content from clients.
    pub(super) received_bytes: Counter,
    /// Content to clients.
    pub(super) sent_bytes: Counter,
    /// From the request's header section to the end of the response.
    pub(super) duration: Histogram<{ BOUNDS.len() }>,
    /// From the request's header section to the moment at which a server got it: what the gateway took.
    pub(super) wait: Histogram<{ BOUNDS.len() }>,
    /// From that moment to the header section of the response: what the server took.
    pub(super) response: Histogram<{ BOUNDS.len() }>,
}

/// One of the durations.
pub(super) type DurationOf = fn(&BackendRequests) -> &Histogram<{ BOUNDS.len() }>;

/// The position of a status among the classes.
pub(super) fn class_of(status: u16) -> usize {
    match usize::from(status / 100) {
        hundreds @ 2..=5 => hundreds - 1,
        _ => 0,
    }
}

impl RequestCounters {
    /// All zero, for so many backends.
    pub(super) fn new(backends: usize) -> Self {
        RequestCounters {
            backends: (0..=backends).map(|_| OnceLock::new()).collect(),
            refusals: std::array::from_fn(|_| Counter::default()),
            dry_run_refusals: std::array::from_fn(|_| Counter::default()),
            http1_faults: std::array::from_fn(|_| Counter::default()),
            http2_faults: std::array::from_fn(|_| Counter::default()),
        }
    }

    /// Counts a request that is over.
    pub(super) fn finished(&self, request: &FinishedRequest<'_>) {
        let nowhere = self.backends.len() - 1;
        let position = request
            .backend
            .map_or(nowhere, |BackendId(position)| position);
        let counters = self.backends[position].get_or_init(Default::default);
        let ended = request.ended;
        counters.statuses[class_of(ended.status)].add(1);
        if let Some(status) = ended.grpc_status {
            let status = usize::from(status).min(GRPC_STATUSES.len() - 1);
            counters.grpc_statuses[status].add(1);
        }
        if let Some(refusal) = ended.refusal {
            self.refusals[refusal.index()].add(1);
        }
        counters.incomplete.add(u64::from(!ended.is_complete));
        counters.retries.add(u64::from(request.retries()));
        counters.received_bytes.add(ended.received_bytes);
        counters.sent_bytes.add(ended.sent_bytes);
        counters.duration.record(request.took());
        if let Some(wait) = request.waited() {
            counters.wait.record(wait);
        }
        if let Some(response) = request.server_took() {
            counters.response.record(response);
        }
    }

    /// Counts a request that the dry run would refuse.
    pub(super) fn foreseen(&self, refusal: RequestRefusal) {
        self.dry_run_refusals[refusal.index()].add(1);
    }

    /// Requests that the dry run would refuse for this.
    pub(super) fn dry_run_refusals(&self, refusal: RequestRefusal) -> u64 {
        self.dry_run_refusals[refusal.index()].value()
    }

    /// Counts a rule of HTTP that a client has broken.
    pub(super) fn faulted(&self, fault: PeerFault) {
        self.fault(fault).add(1);
    }

    /// Requests to a backend, or to none, once there has been one.
    pub(super) fn to(&self, backend: Option<usize>) -> Option<&BackendRequests> {
        let position = backend.unwrap_or(self.backends.len() - 1);
        self.backends.get(position)?.get().map(AsRef::as_ref)
    }

    /// Requests that the gateway has answered itself for this reason.
    pub(super) fn refusals(&self, refusal: RequestRefusal) -> u64 {
        self.refusals[refusal.index()].value()
    }

    /// Connections of clients that ended by this.
    pub(super) fn faults(&self, fault: PeerFault) -> u64 {
        self.fault(fault).value()
    }

    fn fault(&self, fault: PeerFault) -> &Counter {
        match fault {
            PeerFault::Http1(fault) => &self.http1_faults[fault.index()],
            PeerFault::Http2(violation) => &self.http2_faults[violation.index()],
        }
    }
}

impl Default for BackendRequests {
    fn default() -> Self {
        BackendRequests {
            statuses: Default::default(),
            grpc_statuses: Default::default(),
            incomplete: Counter::default(),
            retries: Counter::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            duration: Histogram::new(&BOUNDS),
            wait: Histogram::new(&BOUNDS),
            response: Histogram::new(&BOUNDS),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use gateway_core::http::forward::{BackendTimes, ConnectionKey, Ended, Forwarder, HttpVersion};
    use gateway_core::http::message::{Field, HeaderList};

    use super::*;

    fn key() -> ConnectionKey {
        let times = BackendTimes {
            queue: 0,
            response_timeout: None,
            idle_timeout: None,
            ping_interval: Duration::from_secs(60),
        };
        Forwarder::new(1000, Duration::ZERO).connect(times, HttpVersion::Http2, Instant::now())
    }

    /// The header section of a request of gRPC.
    pub(in crate::telemetry) fn section() -> HeaderList {
        let mut list = HeaderList::new(1000);
        let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (name, value) in [
            (&b":method"[..], &b"POST"[..]),
            (b":path", b"/otlp/v1/traces?token=secret"),
            (b"traceparent", trace),
        ] {
            list.push(Field::new(name, value));
        }
        list
    }

    /// A request that a server got after 3 ms, began to answer after 20 ms more, and had answered 1 ms later.
    pub(in crate::telemetry) fn answered(list: &HeaderList) -> (Ended<'_>, Instant) {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let ended = Ended {
            client: key(),
            backend: Some(key()),
            list,
            status: 200,
            grpc_status: Some(0),
            refusal: None,
            is_complete: true,
            received_bytes: 526,
            sent_bytes: 7,
            began,
            sent_at: Some(at(3)),
            responded_at: Some(at(23)),
            attempts: 1,
            was_asked: true,
        };
        (ended, at(24))
    }

    fn finished<'a>(ended: &'a Ended<'a>, ended_at: Instant) -> FinishedRequest<'a> {
        FinishedRequest {
            ended,
            tenant: Some(b"team-a"),
            backend: Some(BackendId(1)),
            server: Some(SocketAddr::from(([10, 0, 0, 11], 4317)).into()),
            ended_at,
        }
    }

    #[test]
    fn a_request_is_counted_with_its_backend_and_the_time_of_server_and_gateway_apart() {
        let counters = RequestCounters::new(2);
        let list = section();
        let (ended, ended_at) = answered(&list);
        let request = finished(&ended, ended_at);
        assert!(!request.has_failed());
        counters.finished(&request);
        let [first, none] = [Some(0), None].map(|backend| counters.to(backend));
        assert!(first.is_none() && none.is_none(), "no other has any");
        let counted = counters.to(Some(1)).unwrap();
        let statuses = counted.statuses.each_ref().map(Counter::value);
        assert_eq!(statuses, [0, 1, 0, 0, 0]);
        assert_eq!(counted.grpc_statuses[0].value(), 1);
        assert_eq!(
            (counted.received_bytes.value(), counted.sent_bytes.value()),
            (526, 7)
        );
        let seconds = [&counted.duration, &counted.wait, &counted.response]
            .map(|histogram| Histogram::sum([histogram].into_iter()).seconds);
        assert_eq!(seconds, [0.024, 0.003, 0.02]);
        assert_eq!(counted.retries.value() + counted.incomplete.value(), 0);
    }

    #[test]
    fn what_the_gateway_answers_itself_is_a_failure_without_a_servers_time() {
        let counters = RequestCounters::new(2);
        let list = section();
        let (ended, ended_at) = answered(&list);
        for refusal in RequestRefusal::ALL {
            let ended = Ended {
                status: refusal.http_status(),
                grpc_status: None,
                refusal: Some(refusal),
                attempts: 3,
                ..ended
            };
            let request = FinishedRequest {
                backend: None,
                ..finished(&ended, ended_at)
            };
            assert!(request.has_failed());
            counters.finished(&request);
            assert_eq!(counters.refusals(refusal), 1, "{refusal:?}");
        }
        let counted = counters.to(None).unwrap();
        let all = RequestRefusal::ALL.len() as u64;
        let statuses: u64 = counted.statuses.iter().map(Counter::value).sum();
        assert_eq!((statuses, counted.retries.value()), (all, 2 * all));
        assert_eq!(Histogram::sum([&counted.response].into_iter()).count, 0);
    }

    #[test]
    fn whatever_is_no_success_has_failed_and_is_counted_as_what_it_is() {
        let counters = RequestCounters::new(2);
        let list = section();
        let (good, ended_at) = answered(&list);
        let cases = [
            (
                Ended {
                    status: 404,
                    ..good
                },
                3,
                0,
            ),
            (
                Ended {
                    status: 503,
                    ..good
                },
                4,
                0,
            ),
            (Ended { status: 0, ..good }, 0, 0),
            (
                Ended {
                    grpc_status: Some(14),
                    ..good
                },
                1,
                14,
            ),
            (
                Ended {
                    grpc_status: Some(700),
                    ..good
                },
                1,
                GRPC_STATUSES.len() - 1,
            ),
            (
                Ended {
                    is_complete: false,
                    ..good
                },
                1,
                0,
            ),
        ];
        for (ended, class, status) in &cases {
            let request = finished(ended, ended_at);
            assert!(request.has_failed(), "{ended:?}");
            let before = counters.to(Some(1)).map_or([0; 2], |counted| {
                [
                    counted.statuses[*class].value(),
                    counted.grpc_statuses[*status].value(),
                ]
            });
            counters.finished(&request);
            let counted = counters.to(Some(1)).unwrap();
            let now = [
                counted.statuses[*class].value(),
                counted.grpc_statuses[*status].value(),
            ];
            assert_eq!(now, before.map(|count| count + 1), "{ended:?}");
        }
        assert_eq!(counters.to(Some(1)).unwrap().incomplete.value(), 1);
    }
}
