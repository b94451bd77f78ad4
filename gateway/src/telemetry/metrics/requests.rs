//! The requests' part of the metrics page: what they came to, how long they took, and whose they were.
//! In: the workers' counters. Out: samples. On the control thread.

use std::collections::BTreeMap;

use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::PeerFault;
use gateway_core::http::h1::Fault;
use gateway_core::http::h2::Violation;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::possible::{can_request, is_flood};
use super::{Encoded, Metrics, counter, histogram};
use crate::config::{Config, Listener};
use crate::telemetry::counters::ListenerCounters;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::requests::{BackendRequests, DurationOf, GRPC_STATUSES, STATUS_CLASSES};

/// The backend of requests that none has got.
const NONE: &str = "";

/// What all workers have counted of one listener's requests to one backend.
struct Counted<'a> {
    labels: [(&'a str, &'a str); 2],
    workers: Vec<&'a BackendRequests>,
}

impl Counted<'_> {
    fn sum(&self, of: impl Fn(&BackendRequests) -> u64) -> u64 {
        self.workers.iter().map(|counters| of(counters)).sum()
    }
}

impl Metrics {
    pub(super) fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let config = self.config();
        let counted = self.counted_requests(&config);
        let help = "Finished requests, by the first digit of the response's status; none if no response began";
        let mut metric = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for counted in &counted {
            for (class, status) in STATUS_CLASSES.into_iter().enumerate() {
                let value = counted.sum(|counters| counters.statuses[class].value());
                let [listener, backend] = counted.labels;
                if value > 0 {
                    counter(&mut metric, &[listener, backend, ("status", status)], value)?;
                }
            }
        }
        let help = "Responses of gRPC, by status";
        let mut metric =
            encoder.encode_descriptor("grpc_responses", help, None, MetricType::Counter)?;
        for counted in &counted {
            for (number, status) in GRPC_STATUSES.into_iter().enumerate() {
                let value = counted.sum(|counters| counters.grpc_statuses[number].value());
                let [listener, backend] = counted.labels;
                if value > 0 {
                    counter(&mut metric, &[listener, backend, ("status", status)], value)?;
                }
            }
        }
        self.encode_request_sums(encoder, &counted)?;
        self.encode_refusals(encoder)
    }

    fn encode_request_sums(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        counted: &[Counted<'_>],
    ) -> Encoded {
        type Of = fn(&BackendRequests) -> u64;
        let sums: [(&str, &str, Of); 2] = [
            (
                "request_retries",
                "How often a request was sent to a server again, because the one before had not processed it",
                |counters| counters.retries.value(),
            ),
            (
                "responses_incomplete",
                "Responses that ended before they were complete",
                |counters| counters.incomplete.value(),
            ),
        ];
        for (name, help, of) in sums {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for counted in counted {
                counter(&mut metric, &counted.labels, counted.sum(of))?;
            }
        }
        let help = "Content of requests and responses: received from clients, sent to clients";
        let unit = Some(&Unit::Bytes);
        let mut metric =
            encoder.encode_descriptor("request_content", help, unit, MetricType::Counter)?;
        let directions: [(&str, Of); 2] = [
            ("received", |counters| counters.received_bytes.value()),
            ("sent", |counters| counters.sent_bytes.value()),
        ];
        for counted in counted {
            for (direction, of) in directions {
                let [listener, backend] = counted.labels;
                let labels = [listener, backend, ("direction", direction)];
                counter(&mut metric, &labels, counted.sum(of))?;
            }
        }
        Ok(())
    }

    fn encode_refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let can_request = |_: &Config, listener: &Listener| can_request(listener);
        let help = "Requests that the gateway answered or broke off itself, by reason";
        let mut metric =
            encoder.encode_descriptor("requests_refused", help, None, MetricType::Counter)?;
        for refusal in RequestRefusal::ALL {
            let of = |counters: &ListenerCounters| counters.requests.refusals(refusal);
            for (listener, value) in self.possible_sums(of, can_request) {
                let labels = [("listener", listener.as_str()), ("reason", refusal.label())];
                counter(&mut metric, &labels, value)?;
            }
        }
        let help = "Connections of clients that ended because the client broke a rule of HTTP";
        let mut metric =
            encoder.encode_descriptor("http_faults", help, None, MetricType::Counter)?;
        let http1 = Fault::ALL.into_iter().map(PeerFault::Http1);
        let http2 = Violation::ALL.into_iter().map(PeerFault::Http2);
        for fault in http1.chain(http2) {
            let of = |counters: &ListenerCounters| counters.requests.faults(fault);
            // Of more than seventy, those that are attacks are there from the start.
            let is_expected =
                |config: &Config, one: &Listener| is_flood(fault) && can_request(config, one);
            let version = match fault {
                PeerFault::Http1(_) => "1",
                PeerFault::Http2(_) => "2",
            };
            for (listener, value) in self.possible_sums(of, is_expected) {
                let labels = [
                    ("listener", listener.as_str()),
                    ("version", version),
                    ("fault", fault.label()),
                ];
                counter(&mut metric, &labels, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn encode_request_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let config = self.config();
        let counted = self.counted_requests(&config);
        let durations: [(&str, &str, DurationOf); 3] = [
            (
                "request_duration",
                "Time from the header section of a request to the end of its response",
                |counters| &counters.duration,
            ),
            (
                "request_wait",
                "Time from the header section of a request to the moment at which a server got it: queue, connecting, retries",
                |counters| &counters.wait,
            ),
            (
                "backend_response",
                "Time from the moment at which a server got a request to the header section of its response",
                |counters| &counters.response,
            ),
        ];
        for (name, help, of) in durations {
            let unit = Some(&Unit::Seconds);
            let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
            for counted in &counted {
                let sum = Histogram::sum(counted.workers.iter().map(|counters| of(counters)));
                if sum.count > 0 {
                    histogram(&mut metric, &counted.labels, &sum)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn encode_tenants(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let mut sums = BTreeMap::new();
        for worker in &self.0.workers {
            worker.tenants().add_to(&mut sums);
        }
        let help = "Finished requests of a tenant, by the first digit of the response's status";
        let mut metric =
            encoder.encode_descriptor("tenant_requests", help, None, MetricType::Counter)?;
        for (tenant, sum) in &sums {
            for (status, value) in STATUS_CLASSES.into_iter().zip(sum.statuses) {
                if value > 0 {
                    let labels = [("tenant", tenant.as_str()), ("status", status)];
                    counter(&mut metric, &labels, value)?;
                }
            }
        }
        let help =
            "Content of a tenant's requests and responses: received from clients, sent to clients";
        let unit = Some(&Unit::Bytes);
        let mut metric =
            encoder.encode_descriptor("tenant_content", help, unit, MetricType::Counter)?;
        for (tenant, sum) in &sums {
            for (direction, value) in [("received", sum.received_bytes), ("sent", sum.sent_bytes)] {
                let labels = [("tenant", tenant.as_str()), ("direction", direction)];
                counter(&mut metric, &labels, value)?;
            }
        }
        Ok(())
    }

    /// Every listener and backend between which there have been requests.
    fn counted_requests<'a>(&'a self, config: &'a Config) -> Vec<Counted<'a>> {
        let mut counted = Vec::new();
        for (position, listener) in config.listeners.iter().enumerate() {
            let named = config.backends.iter().enumerate();
            let named = named.map(|(backend, one)| (Some(backend), one.name.as_str()));
            for (backend, name) in named.chain([(None, NONE)]) {
                let workers = self.0.workers.iter();
                let workers = workers
                    .filter_map(|worker| worker.listeners[position].requests.to(backend))
                    .collect::<Vec<_>>();
                if !workers.is_empty() {
                    let labels = [("listener", listener.name.as_str()), ("backend", name)];
                    counted.push(Counted { labels, workers });
                }
            }
        }
        counted
    }
}
