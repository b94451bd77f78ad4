//! What can happen on a listener as it is configured: series of what cannot are left out.
//! In: a reason, the configuration. Out: yes or no. What can happen has its series from the start, at zero, so that its first
//! increase is seen as one.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use gateway_core::close_reason::CloseReason;
use gateway_core::failure::Failure;
use gateway_core::http::forward::PeerFault;
use gateway_core::http::h2::ErrorCode;

use crate::config::{BackendTransport, Config, Destination, GuardMode, Listener};

/// Whether clients of the listener can be refused for this.
pub(super) fn can_fail(config: &Config, listener: &Listener, failure: Failure) -> bool {
    match failure {
        Failure::Revoked | Failure::CrlStale => has_lists(listener),
        Failure::Banned => config.guard.mode == GuardMode::Enforce,
        Failure::Alpn => !listener.alpn.is_empty(),
        Failure::NoCertificate
        | Failure::UnknownIssuer
        | Failure::Expired
        | Failure::NotYetValid
        | Failure::BadSignature
        | Failure::WrongKeyUsage
        | Failure::Blocked
        | Failure::WeakKey
        | Failure::ChainTooLarge
        | Failure::NameConstraint
        | Failure::PathConstraint
        | Failure::CriticalExtension
        | Failure::NotAuthorized
        | Failure::ClientRejectedServer
        | Failure::NotTls
        | Failure::Malformed
        | Failure::Version
        | Failure::CipherSuite
        | Failure::Group
        | Failure::Sni
        | Failure::Timeout
        | Failure::Reset
        | Failure::OverLimit
        | Failure::Internal => true,
    }
}

/// Whether connections of the listener can end so.
pub(super) fn can_end(config: &Config, listener: &Listener, end: CloseReason) -> bool {
    let backends = match &listener.destination {
        Destination::Backend(_) | Destination::Streams(_) => listener.backends(),
        // Connections to these are not of one client.
        Destination::Routes(_) | Destination::Metrics(_) => Vec::new(),
    };
    let known = backends
        .iter()
        .filter_map(|backend| config.backends.get(backend.0));
    let mut tls = known.filter_map(|backend| match &backend.transport {
        BackendTransport::Tls(tls) => Some(tls),
        BackendTransport::LoopbackPlaintext | BackendTransport::DangerousPlaintext => None,
    });
    match end {
        CloseReason::Age => listener.times.max_connection_age.is_some(),
        CloseReason::Expiring => listener.expiry_drain.is_some(),
        CloseReason::Revoked | CloseReason::CrlStale => has_lists(listener),
        CloseReason::NoRoute => match &listener.destination {
            Destination::Streams(routes) => routes.backend().is_none(),
            Destination::Backend(_) | Destination::Routes(_) | Destination::Metrics(_) => false,
        },
        // Of the metrics page for want of descriptors.
        CloseReason::BackendUnreachable => true,
        CloseReason::BackendReset | CloseReason::BackendUnanswered => !backends.is_empty(),
        // Only TLS can be cut off or broken, and refuse or lose trust.
        CloseReason::BackendTruncated
        | CloseReason::BackendProtocol
        | CloseReason::BackendRefusedUs
        | CloseReason::BackendUntrusted => tls.next().is_some(),
        CloseReason::BackendRevoked => tls.any(|tls| tls.revocation.lists().next().is_some()),
        CloseReason::Finished
        | CloseReason::ClientTruncated
        | CloseReason::ClientReset
        | CloseReason::ClientProtocol
        | CloseReason::Idle
        | CloseReason::Expired
        | CloseReason::Blocked
        | CloseReason::Untrusted
        | CloseReason::NotAuthorized
        | CloseReason::Mode
        | CloseReason::Drained
        | CloseReason::Internal => true,
    }
}

/// Whether clients of the listener get tickets, and may come back with one.
pub(super) fn can_resume(config: &Config, listener: &Listener) -> bool {
    listener.resumption && config.resumption.is_some()
}

/// Whether the listener's clients send requests that the gateway reads.
pub(super) fn can_request(listener: &Listener) -> bool {
    listener.mode.is_http()
}

/// Whether a rule is broken by masses alone.
pub(super) fn is_flood(fault: PeerFault) -> bool {
    fault.code() == ErrorCode::EnhanceYourCalm
}

fn has_lists(listener: &Listener) -> bool {
    listener.revocation.lists().next().is_some()
}
