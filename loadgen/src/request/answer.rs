//! The answer to a request, and what a real agent would do with it.
//! In: a status, trailers. Out: a `Fate`, and a `Failure` unless the request was acknowledged. Pure.

use http::HeaderMap;
use tonic::Code;

use super::RequestKind;
use crate::failure::{Failure, FailureKind};

/// What came back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// Of HTTP.
    pub(crate) status: u16,
    /// Of gRPC, from the trailers or from the header fields of an answer without content.
    pub(crate) grpc: Option<Code>,
    /// Whether details came with the gRPC status, which may tell when to try again.
    pub(crate) has_details: bool,
    /// Content that came with it.
    pub(crate) bytes: u64,
}

/// What an agent does with a request after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Forgets it: it was taken.
    Acknowledged,
    /// Sends it again.
    SentAgain,
    /// Drops it.
    Dropped,
}

impl Answer {
    /// An answer with this status and nothing more so far.
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            grpc: None,
            has_details: false,
            bytes: 0,
        }
    }

    /// Takes the gRPC status out of header fields or trailers, if it is there.
    pub(crate) fn read_status(&mut self, fields: &HeaderMap) {
        if let Some(status) = fields.get("grpc-status") {
            self.grpc = Some(Code::from_bytes(status.as_bytes()));
        }
        self.has_details |= fields.contains_key("grpc-status-details-bin");
    }

    /// What an agent does now. OTLP and gRPC: the table of the OTLP specification; remote write: its specification,
    /// whose 429 is dropped by default.
    pub(crate) fn fate(&self, kind: RequestKind) -> Fate {
        let is_tried_again = match kind {
            RequestKind::Grpc | RequestKind::GrpcStream => match self.grpc {
                Some(Code::Ok) if self.status == 200 => return Fate::Acknowledged,
                Some(Code::ResourceExhausted) => self.has_details,
                Some(code) => matches!(
                    code,
                    Code::Cancelled
                        | Code::DeadlineExceeded
                        | Code::Aborted
                        | Code::OutOfRange
                        | Code::Unavailable
                        | Code::DataLoss
                ),
                // gRPC's own mapping of HTTP statuses makes these UNAVAILABLE.
                None => matches!(self.status, 429 | 502 | 503 | 504),
            },
            _ if (200..300).contains(&self.status) => return Fate::Acknowledged,
            RequestKind::Otlp => matches!(self.status, 429 | 502 | 503 | 504),
            RequestKind::RemoteWrite | RequestKind::Post => self.status >= 500,
        };
        match is_tried_again {
            true => Fate::SentAgain,
            false => Fate::Dropped,
        }
    }

    /// The failure that this answer is.
    pub(crate) fn failure(&self) -> Failure {
        match self.grpc {
            Some(code) if self.status == 200 => {
                Failure::new(FailureKind::GrpcStatus(code), code.description())
            }
            _ if (200..300).contains(&self.status) => {
                Failure::new(FailureKind::Protocol, "the answer has no gRPC status")
            }
            _ => Failure::new(
                FailureKind::HttpStatus(self.status),
                "the answer to a request",
            ),
        }
    }

    /// What its class is counted under.
    pub(crate) fn class(&self) -> &'static str {
        match self.status / 100 {
            2 => "answers 2xx",
            3 => "answers 3xx",
            4 => "answers 4xx",
            5 => "answers 5xx",
            _ => "answers of no class",
        }
    }
}

/// What a gRPC status is counted under.
pub(crate) fn grpc_label(code: Code) -> &'static str {
    match code {
        Code::Ok => "grpc ok",
        Code::Cancelled => "grpc cancelled",
        Code::Unknown => "grpc unknown",
        Code::InvalidArgument => "grpc invalid_argument",
        Code::DeadlineExceeded => "grpc deadline_exceeded",
        Code::NotFound => "grpc not_found",
        Code::AlreadyExists => "grpc already_exists",
        Code::PermissionDenied => "grpc permission_denied",
        Code::ResourceExhausted => "grpc resource_exhausted",
        Code::FailedPrecondition => "grpc failed_precondition",
        Code::Aborted => "grpc aborted",
        Code::OutOfRange => "grpc out_of_range",
        Code::Unimplemented => "grpc unimplemented",
        Code::Internal => "grpc internal",
        Code::Unavailable => "grpc unavailable",
        Code::DataLoss => "grpc data_loss",
        Code::Unauthenticated => "grpc unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_send_again_what_their_specifications_say() {
        let http = |status| Answer::new(status);
        let grpc = |code| Answer {
            grpc: Some(code),
            ..Answer::new(200)
        };
        let told = Answer {
            has_details: true,
            ..grpc(Code::ResourceExhausted)
        };
        let (again, dropped) = (Fate::SentAgain, Fate::Dropped);
        let cases = [
            (RequestKind::Grpc, grpc(Code::Ok), Fate::Acknowledged),
            (RequestKind::Grpc, grpc(Code::Unavailable), again),
            (RequestKind::Grpc, grpc(Code::ResourceExhausted), dropped),
            (RequestKind::Grpc, told, again),
            (RequestKind::Grpc, grpc(Code::Internal), dropped),
            (RequestKind::Grpc, http(200), dropped),
            (RequestKind::GrpcStream, http(503), again),
            (RequestKind::Otlp, http(200), Fate::Acknowledged),
            (RequestKind::Otlp, http(429), again),
            (RequestKind::Otlp, http(500), dropped),
            (RequestKind::RemoteWrite, http(204), Fate::Acknowledged),
            (RequestKind::RemoteWrite, http(429), dropped),
            (RequestKind::RemoteWrite, http(500), again),
        ];
        for (kind, answer, fate) in cases {
            assert_eq!(answer.fate(kind), fate, "{kind:?}: {answer:?}");
        }
    }
}
