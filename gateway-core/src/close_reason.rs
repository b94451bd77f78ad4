//! Why an established connection ended: one closed enum, and the only place that names it for metrics and logs.
//! In: what refuses a client, or what is objected to it. Out: the reason its connection closes for. Pure.

use crate::failure::Failure;
use crate::trust::Objection;

/// Why a connection ended. The label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Both directions came to their clean end.
    Finished,
    /// The client's bytes ended without close_notify.
    ClientTruncated,
    /// The client's connection broke.
    ClientReset,
    /// The client broke the TLS protocol, or sent a fatal alert.
    ClientProtocol,
    /// No server of the backend could be reached.
    BackendUnreachable,
    /// The backend's bytes ended without close_notify.
    BackendTruncated,
    /// The backend's connection broke.
    BackendReset,
    /// The backend broke the TLS protocol, or sent a fatal alert.
    BackendProtocol,
    /// The backend ended it cleanly before the client did, and had not sent a byte.
    BackendUnanswered,
    /// The backend refused our certificate.
    BackendRefusedUs,
    /// Nothing moved for the idle timeout.
    Idle,
    /// The maximum connection age was reached.
    Age,
    /// The client's certificate ended.
    Expired,
    /// It was about to end, and the connection had a quiet moment.
    Expiring,
    /// A revocation list names the client's certificate, or one above it.
    Revoked,
    /// An operator has blocked the client.
    Blocked,
    /// The CA its certificate leads to is not trusted any more.
    Untrusted,
    /// No rule admits it any more, or another one than before.
    NotAuthorized,
    /// A revocation list that its chain needs became too old, or is missing, before a byte of it was passed on.
    CrlStale,
    /// A revocation list names the backend's certificate, or one above it.
    BackendRevoked,
    /// The CA the backend's certificate leads to is not trusted any more.
    BackendUntrusted,
    /// The gateway is going down.
    Drained,
    /// A fault of the gateway.
    Internal,
}

impl CloseReason {
    /// Every end.
    pub const ALL: [CloseReason; 23] = [
        CloseReason::Finished,
        CloseReason::ClientTruncated,
        CloseReason::ClientReset,
        CloseReason::ClientProtocol,
        CloseReason::BackendUnreachable,
        CloseReason::BackendTruncated,
        CloseReason::BackendReset,
        CloseReason::BackendProtocol,
        CloseReason::BackendUnanswered,
        CloseReason::BackendRefusedUs,
        CloseReason::Idle,
        CloseReason::Age,
        CloseReason::Expired,
        CloseReason::Expiring,
        CloseReason::Revoked,
        CloseReason::Blocked,
        CloseReason::Untrusted,
        CloseReason::NotAuthorized,
        CloseReason::CrlStale,
        CloseReason::BackendRevoked,
        CloseReason::BackendUntrusted,
        CloseReason::Drained,
        CloseReason::Internal,
    ];

    /// The metric label and log field.
    pub const fn label(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::ClientTruncated => "client_truncated",
            CloseReason::ClientReset => "client_reset",
            CloseReason::ClientProtocol => "client_protocol",
            CloseReason::BackendUnreachable => "backend_unreachable",
            CloseReason::BackendTruncated => "backend_truncated",
            CloseReason::BackendReset => "backend_reset",
            CloseReason::BackendProtocol => "backend_protocol",
            CloseReason::BackendUnanswered => "backend_unanswered",
            CloseReason::BackendRefusedUs => "backend_refused_us",
            CloseReason::Idle => "idle",
            CloseReason::Age => "age",
            CloseReason::Expired => "expired",
            CloseReason::Expiring => "expiring",
            CloseReason::Revoked => "revoked",
            CloseReason::Blocked => "blocked",
            CloseReason::Untrusted => "untrusted",
            CloseReason::NotAuthorized => "not_authorized",
            CloseReason::CrlStale => "crl_stale",
            CloseReason::BackendRevoked => "backend_revoked",
            CloseReason::BackendUntrusted => "backend_untrusted",
            CloseReason::Drained => "drained",
            CloseReason::Internal => "internal",
        }
    }

    /// Whether it is what a reload says of a client, or of the server behind it, that may not stay.
    pub const fn is_by_judgement(self) -> bool {
        matches!(
            self,
            CloseReason::Revoked
                | CloseReason::Blocked
                | CloseReason::Untrusted
                | CloseReason::NotAuthorized
                | CloseReason::CrlStale
                | CloseReason::BackendRevoked
                | CloseReason::BackendUntrusted
        )
    }

    /// Whether a reload closes the connection at once. Other closes are spread over time, so that clients do not all connect
    /// anew in the same second.
    pub const fn is_immediate(self) -> bool {
        matches!(
            self,
            CloseReason::Revoked
                | CloseReason::Blocked
                | CloseReason::BackendRevoked
                | CloseReason::Expired
        )
    }

    /// Whether the backend ended it, other than by an answer and a clean end. That no server could be reached is reported by
    /// itself.
    pub const fn is_backends_fault(self) -> bool {
        matches!(
            self,
            CloseReason::BackendTruncated
                | CloseReason::BackendReset
                | CloseReason::BackendProtocol
                | CloseReason::BackendUnanswered
                | CloseReason::BackendRefusedUs
        )
    }

    /// What it was, if the backend had ended the connection before without a word: the client's part in it was to notice.
    pub const fn after_no_answer(self) -> Self {
        match self {
            CloseReason::Finished
            | CloseReason::ClientTruncated
            | CloseReason::ClientReset
            | CloseReason::Idle => CloseReason::BackendUnanswered,
            other => other,
        }
    }

    /// How a connection ends whose client would be refused for this if it came now.
    pub const fn of_refusal(failure: Failure) -> Self {
        match failure {
            Failure::Blocked => CloseReason::Blocked,
            Failure::Revoked => CloseReason::Revoked,
            Failure::Expired => CloseReason::Expired,
            Failure::CrlStale => CloseReason::CrlStale,
            Failure::NotAuthorized => CloseReason::NotAuthorized,
            // Its chain is none that is taken any more: roots, keys, signatures.
            Failure::UnknownIssuer
            | Failure::NotYetValid
            | Failure::BadSignature
            | Failure::WrongKeyUsage
            | Failure::WeakKey
            | Failure::ChainTooLarge
            | Failure::NameConstraint
            | Failure::PathConstraint
            | Failure::CriticalExtension
            | Failure::Malformed
            // Nothing is known that speaks for it any more.
            | Failure::NoCertificate
            | Failure::Internal
            // No certificate is refused for these: they end handshakes, and the client is past its own.
            | Failure::ClientRejectedServer
            | Failure::NotTls
            | Failure::Version
            | Failure::CipherSuite
            | Failure::Group
            | Failure::Alpn
            | Failure::Sni
            | Failure::Timeout
            | Failure::Reset
            | Failure::OverLimit
            | Failure::Banned => CloseReason::Untrusted,
        }
    }

    /// How a connection ends whose client is objected to.
    pub const fn of_objection(objection: &Objection) -> Option<Self> {
        match objection {
            Objection::Blocked => Some(CloseReason::Blocked),
            Objection::Revoked => Some(CloseReason::Revoked),
            Objection::Expired => Some(CloseReason::Expired),
            Objection::Untrusted | Objection::Constrained => Some(CloseReason::Untrusted),
            Objection::NotAuthorized(_) => Some(CloseReason::NotAuthorized),
            // Refuses newcomers and takes nobody's connection away.
            Objection::CrlStale(_) => None,
        }
    }

    /// Position in `ALL`, for counters kept in an array.
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_close_reason_stands_once_in_all_at_its_own_index() {
        for (position, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), position, "{reason:?}");
        }
    }

    #[test]
    fn labels_are_unique() {
        let labels: HashSet<_> = CloseReason::ALL.map(CloseReason::label).into();
        assert_eq!(labels.len(), CloseReason::ALL.len());
    }
}
