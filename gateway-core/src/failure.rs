//! Why a client was refused: one table, a row a failure: its label, TLS alert, log level and reason at the guard.
//! In: a failure. Out: what follows from it. A new failure does not compile until its row says all of it. Pure.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use std::fmt;

use gateway_common::{Reason, closed_list};

use crate::alert::Alert;
use Level::{Error, Info, Warn};

/// The alert for the client, the level of the log line, and what the guard counts it as.
type Consequences = (Option<Alert>, Level, Reason);

closed_list! {
    /// Why a client was refused.
    pub enum Failure: Consequences {
        /// The client presented no certificate.
        NoCertificate = "no_certificate", (Some(Alert::CERTIFICATE_REQUIRED), Warn, Reason::NoCertificate);
        /// The certificate does not chain to a CA of the listener.
        UnknownIssuer = "unknown_issuer", (Some(Alert::UNKNOWN_CA), Warn, Reason::UnknownIssuer);
        /// The certificate, or one above it, has expired.
        Expired = "expired", (Some(Alert::CERTIFICATE_EXPIRED), Warn, Reason::Expired);
        /// The certificate, or one above it, is not valid yet.
        // RFC 5280 has no alert of its own for it.
        NotYetValid = "not_yet_valid", (Some(Alert::CERTIFICATE_EXPIRED), Warn, Reason::NotYetValid);
        /// A signature does not verify: on a certificate, or the proof of possession (CertificateVerify, Finished).
        BadSignature = "bad_signature", (Some(Alert::DECRYPT_ERROR), Warn, Reason::BadSignature);
        /// The certificate lacks the clientAuth extended key usage.
        WrongKeyUsage = "wrong_key_usage", (Some(Alert::UNSUPPORTED_CERTIFICATE), Warn, Reason::WrongKeyUsage);
        /// A revocation list names the certificate, or one above it.
        Revoked = "revoked", (Some(Alert::CERTIFICATE_REVOKED), Warn, Reason::Revoked);
        /// The revocation list of one of its issuers is missing or too old to be trusted.
        // As common stacks say it.
        CrlStale = "crl_stale", (Some(Alert::UNKNOWN_CA), Warn, Reason::CrlStale);
        /// An operator has blocked the certificate or its identity.
        Blocked = "blocked", (Some(Alert::ACCESS_DENIED), Warn, Reason::Blocked);
        /// A key or signature of the chain, or its length, is not what the configuration allows.
        // RFC 8446 section 4.4.2.4.
        WeakKey = "weak_key", (Some(Alert::BAD_CERTIFICATE), Warn, Reason::WeakKey);
        /// Too many certificates, bytes or possible paths: the search for a path did not begin, or did not end.
        ChainTooLarge = "chain_too_large", (Some(Alert::BAD_CERTIFICATE), Warn, Reason::Malformed);
        /// A CA of the chain may not issue for the certificate's names.
        NameConstraint = "name_constraint", (Some(Alert::BAD_CERTIFICATE), Warn, Reason::UnknownIssuer);
        /// A certificate of the chain is not a CA, or has more CAs below it than it allows.
        PathConstraint = "path_constraint", (Some(Alert::BAD_CERTIFICATE), Warn, Reason::UnknownIssuer);
        /// A certificate of the chain has an unknown critical extension.
        CriticalExtension = "critical_extension", (Some(Alert::UNSUPPORTED_CERTIFICATE), Warn, Reason::UnknownIssuer);
        /// The certificate is valid, and no rule admits it.
        NotAuthorized = "not_authorized", (Some(Alert::ACCESS_DENIED), Warn, Reason::NotAuthorized);
        /// The client sent a fatal alert: it does not trust our certificate, or gave up.
        // The client ended it.
        ClientRejectedServer = "client_rejected_server", (None, Warn, Reason::ClientRejectedServer);
        /// The first bytes are not a TLS record.
        NotTls = "not_tls", (Some(Alert::UNEXPECTED_MESSAGE), Info, Reason::NotTls);
        /// Bytes that break the TLS protocol.
        Malformed = "malformed", (Some(Alert::DECODE_ERROR), Warn, Reason::Malformed);
        /// No TLS version in common: the client does not speak TLS 1.3.
        Version = "version", (Some(Alert::PROTOCOL_VERSION), Warn, Reason::Version);
        /// No cipher suite in common.
        CipherSuite = "cipher_suite", (Some(Alert::HANDSHAKE_FAILURE), Warn, Reason::CipherSuite);
        /// No key exchange group in common.
        Group = "group", (Some(Alert::HANDSHAKE_FAILURE), Warn, Reason::Group);
        /// No application protocol in common.
        Alpn = "alpn", (Some(Alert::NO_APPLICATION_PROTOCOL), Warn, Reason::Alpn);
        /// The client asked for a server name that no certificate of the listener covers.
        Sni = "sni", (Some(Alert::UNRECOGNIZED_NAME), Warn, Reason::Sni);
        /// The handshake was not complete in time.
        // A silent client would not read it.
        Timeout = "timeout", (None, Info, Reason::Timeout);
        /// The client went away before the handshake was complete.
        // There is no peer to read it.
        Reset = "reset", (None, Info, Reason::Reset);
        /// The listener or the identity was at a limit.
        // An alert costs what the limit protects.
        OverLimit = "over_limit", (None, Warn, Reason::OverLimit);
        /// The client's source is banned, or denied by an operator.
        // The kernel would have dropped its first packet.
        Banned = "banned", (None, Info, Reason::Banned);
        /// Our own fault.
        Internal = "internal", (Some(Alert::INTERNAL_ERROR), Error, Reason::Internal);
    }
}

/// The level of a failure's log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everyday noise of an open port.
    Info,
    /// An operator should look: an agent cannot get in.
    Warn,
    /// A fault of the gateway.
    Error,
}

impl Failure {
    /// The alert that the client gets; `None` where the connection just ends.
    ///
    /// `Malformed` stands for several alerts of RFC 8446 section 6.2; the TLS stack picks the exact one.
    pub const fn alert(self) -> Option<Alert> {
        let (alert, _, _) = self.row();
        alert
    }

    /// The level of its log line.
    pub const fn level(self) -> Level {
        let (_, level, _) = self.row();
        level
    }

    /// What the guard counts it as, and charges the client's source for: see [`Reason::weight`]. The guard has no
    /// reason of its own for a few failures; they count as the nearest one.
    pub const fn reason(self) -> Reason {
        let (_, _, reason) = self.row();
        reason
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::HashSet;

    #[test]
    fn every_failure_is_a_verdict_by_the_same_name_or_by_that_of_its_kind() {
        const BY_KIND: [Failure; 4] = [
            Failure::ChainTooLarge,
            Failure::NameConstraint,
            Failure::PathConstraint,
            Failure::CriticalExtension,
        ];
        let mut said = HashSet::new();
        for failure in Failure::ALL {
            let reason = failure.reason();
            assert_eq!(Reason::verdict(reason as i32), Some(reason));
            if !BY_KIND.contains(&failure) {
                assert_eq!(reason.label(), failure.label());
                said.insert(reason);
            }
        }
        assert_eq!(said.len(), Failure::ALL.len() - BY_KIND.len());
    }
}
