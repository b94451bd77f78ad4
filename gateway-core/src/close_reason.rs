//! Why an established connection closed: one table, a row a reason, with its label and its cause.
//! In: a reason, or the failure or objection that makes one. Out: what follows from it. Pure.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use gateway_common::closed_list;

use crate::failure::Failure;
use crate::trust::Objection;

closed_list! {
    /// Why a connection closed.
    pub enum CloseReason: Cause {
        /// Both directions ended cleanly.
        Finished = "finished", Cause::Ordinary;
        /// The client's bytes ended without close_notify.
        ClientTruncated = "client_truncated", Cause::Ordinary;
        /// The client's connection broke.
        ClientReset = "client_reset", Cause::Ordinary;
        /// The client broke the TLS protocol, or sent a fatal alert.
        ClientProtocol = "client_protocol", Cause::ClientFault;
        /// No route of its listener takes it, and the listener has no backend of its own.
        NoRoute = "no_route", Cause::Gateway;
        /// No server of the backend could be reached.
        BackendUnreachable = "backend_unreachable", Cause::Gateway;
        /// The backend's bytes ended without close_notify.
        BackendTruncated = "backend_truncated", Cause::BackendFault;
        /// The backend's connection broke.
        BackendReset = "backend_reset", Cause::BackendFault;
        /// The backend broke the TLS protocol, or sent a fatal alert.
        BackendProtocol = "backend_protocol", Cause::BackendFault;
        /// The backend closed it cleanly before the client did, without sending a byte.
        BackendUnanswered = "backend_unanswered", Cause::BackendFault;
        /// The backend refused the gateway's certificate.
        BackendRefusedUs = "backend_refused_us", Cause::BackendFault;
        /// Nothing moved for the idle timeout.
        Idle = "idle", Cause::Ordinary;
        /// The maximum connection age was reached.
        Age = "age", Cause::Gateway;
        /// The client's certificate ended.
        Expired = "expired", Cause::Expiry;
        /// The client's certificate was about to end, and the connection had a quiet moment.
        Expiring = "expiring", Cause::Gateway;
        /// A revocation list names the client's certificate, or one above it.
        Revoked = "revoked", Cause::Revocation;
        /// An operator has blocked the client.
        Blocked = "blocked", Cause::Revocation;
        /// The listener no longer trusts the CA of its certificate.
        Untrusted = "untrusted", Cause::Trust;
        /// No rule admits it any more, or another one does.
        NotAuthorized = "not_authorized", Cause::Trust;
        /// A revocation list that its chain needs became too old, or is missing, before its first byte was passed on.
        CrlStale = "crl_stale", Cause::Trust;
        /// A revocation list names the backend's certificate, or one above it.
        BackendRevoked = "backend_revoked", Cause::Revocation;
        /// The backend no longer trusts the CA of its server's certificate.
        BackendUntrusted = "backend_untrusted", Cause::Trust;
        /// Its listener has another mode now.
        Mode = "mode", Cause::Change;
        /// The gateway is shutting down.
        Drained = "drained", Cause::Gateway;
        /// A fault of the gateway.
        Internal = "internal", Cause::Gateway;
    }
}

/// What ends a connection.
#[derive(Clone, Copy)]
enum Cause {
    /// The client and the backend, or their silence.
    Ordinary,
    /// A fault of the client.
    ClientFault,
    /// A fault of the backend.
    BackendFault,
    /// A list of revoked or blocked certificates.
    Revocation,
    /// A reload that trusts the client, or its server, no longer.
    Trust,
    /// A reload that serves it in another way.
    Change,
    /// The end of a certificate.
    Expiry,
    /// The gateway: its bounds in time, its drain, a fault of its own, or no server that it could reach.
    Gateway,
}

impl CloseReason {
    /// Whether the gateway no longer trusts the client or its server.
    pub const fn is_loss_of_trust(self) -> bool {
        match self.row() {
            Cause::Revocation | Cause::Trust => true,
            Cause::Ordinary
            | Cause::ClientFault
            | Cause::BackendFault
            | Cause::Change
            | Cause::Expiry
            | Cause::Gateway => false,
        }
    }

    /// Whether the connection may stay after all, if another reload undoes what it closes for.
    pub const fn is_of_a_reload(self) -> bool {
        self.is_loss_of_trust() || matches!(self.row(), Cause::Change)
    }

    /// Whether the connection closes at once. A reload spreads other closes over time, so that clients do not all
    /// reconnect in one second.
    pub const fn is_immediate(self) -> bool {
        match self.row() {
            Cause::Revocation | Cause::Expiry => true,
            Cause::Ordinary
            | Cause::ClientFault
            | Cause::BackendFault
            | Cause::Trust
            | Cause::Change
            | Cause::Gateway => false,
        }
    }

    /// Whether the backend closed it, other than by an answer and a clean end. An unreachable backend is reported
    /// apart.
    pub const fn is_backends_fault(self) -> bool {
        matches!(self.row(), Cause::BackendFault)
    }

    /// The reason if the backend had closed before without an answer: the client has only noticed that.
    pub const fn after_no_answer(self) -> Self {
        match self.row() {
            Cause::Ordinary => CloseReason::BackendUnanswered,
            Cause::ClientFault
            | Cause::BackendFault
            | Cause::Revocation
            | Cause::Trust
            | Cause::Change
            | Cause::Expiry
            | Cause::Gateway => self,
        }
    }

    /// Why an open connection closes when a new one of its client would fail by `failure`.
    pub const fn from_failure(failure: Failure) -> Self {
        match failure {
            Failure::Blocked => CloseReason::Blocked,
            Failure::Revoked => CloseReason::Revoked,
            Failure::Expired => CloseReason::Expired,
            Failure::CrlStale => CloseReason::CrlStale,
            Failure::NotAuthorized => CloseReason::NotAuthorized,
            // The gateway does not accept the chain any more: its root, a key or a signature.
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
            // Nothing is known any more that proves the client.
            | Failure::NoCertificate
            | Failure::Internal
            // These end handshakes, which the client has behind it.
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

    /// Why an open connection closes on an objection to its client; `None` if it stays open.
    pub const fn from_objection(objection: &Objection) -> Option<Self> {
        match objection {
            Objection::Blocked => Some(CloseReason::Blocked),
            Objection::Revoked => Some(CloseReason::Revoked),
            Objection::Expired => Some(CloseReason::Expired),
            Objection::Untrusted | Objection::Constrained => Some(CloseReason::Untrusted),
            Objection::NotAuthorized(_) => Some(CloseReason::NotAuthorized),
            // It refuses new clients and closes no open connection.
            Objection::CrlStale(_) => None,
        }
    }
}
