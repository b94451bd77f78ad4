//! What a path asks a backend to do, so that a test can have any answer through any proxy.
//! In: a path. Out: a `Behaviour`. Segments that mean nothing here are left to whoever routes by them.
//!
//! `/v1/traces/status=503/delay=200ms` is answered with 503 after 200 ms; the order does not matter.

use std::time::Duration;

use ::h2::Reason;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behaviour {
    /// `status=NUMBER`: of HTTP.
    pub(super) status: u16,
    /// `grpc-status=NUMBER`: of gRPC.
    pub(super) grpc_status: u8,
    /// `delay=DURATION`: before the answer.
    pub(super) delay: Duration,
    /// `pause=DURATION`: takes nothing for so long, once a mebibyte of content has come; then it goes on.
    pub(super) pause: Duration,
    /// `bytes=NUMBER`: of content in the answer.
    pub(super) bytes: u64,
    /// `early`: answers before the content of the request has come.
    pub(super) is_early: bool,
    /// `stall`: takes no content and never answers.
    pub(super) stalls: bool,
    /// `reset=NUMBER`: resets the stream with that code instead of an answer; in HTTP/1 ends the connection.
    pub(super) reset: Option<Reason>,
}

impl Behaviour {
    /// Reads a path.
    pub(super) fn of(path: &str) -> Self {
        let mut behaviour = Self {
            status: 200,
            grpc_status: 0,
            delay: Duration::ZERO,
            pause: Duration::ZERO,
            bytes: 0,
            is_early: false,
            stalls: false,
            reset: None,
        };
        for segment in path.split('/') {
            behaviour.take(segment);
        }
        behaviour
    }

    fn take(&mut self, segment: &str) {
        match segment.split_once('=') {
            None if segment == "stall" => self.stalls = true,
            None if segment == "early" => self.is_early = true,
            Some(("status", value)) => self.status = number(value, self.status),
            Some(("grpc-status", value)) => self.grpc_status = number(value, self.grpc_status),
            Some(("bytes", value)) => self.bytes = number(value, self.bytes),
            Some(("reset", value)) => self.reset = value.parse().ok().map(|code: u32| code.into()),
            Some(("delay", value)) => self.delay = duration(value),
            Some(("pause", value)) => self.pause = duration(value),
            _ => {}
        }
    }
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_default()
}

fn number<T: std::str::FromStr>(text: &str, default: T) -> T {
    text.parse().unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_it_wants_in_any_order_and_else_gets_success() {
        let plain = Behaviour::of("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        assert_eq!((plain.status, plain.grpc_status, plain.bytes), (200, 0, 0));
        let asked =
            Behaviour::of("/v1/delay=200ms/pause=2s/status=503/grpc-status=14/bytes=70000/reset=7");
        let expected = Behaviour {
            status: 503,
            grpc_status: 14,
            delay: Duration::from_millis(200),
            pause: Duration::from_secs(2),
            bytes: 70_000,
            is_early: false,
            stalls: false,
            reset: Some(Reason::REFUSED_STREAM),
        };
        assert_eq!(asked, expected);
        assert!(Behaviour::of("/a/stall").stalls && Behaviour::of("/early/").is_early);
    }
}
