//! Why a connection was refused: one closed enum, and the only place that maps it to alert, label and level.
//! A new failure must break the build here, not fall into "other".

use std::fmt;

/// Why a client did not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The client presented no certificate.
    NoCertificate,
    /// The certificate does not chain to a CA of the listener.
    UnknownIssuer,
    /// The certificate, or one above it, has expired.
    Expired,
    /// The certificate, or one above it, is not valid yet.
    NotYetValid,
    /// A signature does not verify: on a certificate, or the proof of possession (CertificateVerify, Finished).
    BadSignature,
    /// The certificate lacks the clientAuth extended key usage.
    WrongKeyUsage,
    /// A revocation list names the certificate, or one above it.
    Revoked,
    /// The revocation list of one of its issuers is missing or too old to be trusted.
    CrlStale,
    /// An operator has blocked the certificate or its identity.
    Blocked,
    /// A key or signature of the chain, or its length, is not what the configuration allows.
    WeakKey,
    /// So many certificates, bytes or ways to put them together that no path is looked for, or not to the end.
    ChainTooLarge,
    /// A CA of the chain may not issue for the certificate's names.
    NameConstraint,
    /// A certificate of the chain is no CA, or one has more CAs below it than it allows.
    PathConstraint,
    /// A certificate of the chain has a critical extension that is not understood.
    CriticalExtension,
    /// The certificate is good, and no rule admits it.
    NotAuthorized,
    /// The client sent a fatal alert: it does not trust our certificate, or gave up.
    ClientRejectedServer,
    /// The first bytes are not a TLS record.
    NotTls,
    /// Bytes that break the TLS protocol.
    Malformed,
    /// No TLS version in common: the client does not speak TLS 1.3.
    Version,
    /// No cipher suite in common.
    CipherSuite,
    /// No key exchange group in common.
    Group,
    /// No application protocol in common.
    Alpn,
    /// The client asked for a server name that no certificate of the listener covers.
    Sni,
    /// The handshake was not complete in time.
    Timeout,
    /// The client went away before the handshake was complete.
    Reset,
    /// A connection limit was reached.
    OverLimit,
    /// The client's source is banned for failures before, or denied by an operator.
    Banned,
    /// Our own fault.
    Internal,
}

/// How loudly a failure is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everyday noise of an open port.
    Info,
    /// Somebody should look: an agent that cannot get in.
    Warn,
    /// A fault of the gateway.
    Error,
}

/// A TLS alert description (RFC 8446 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Failure {
    /// Every failure, in the order of the metric's documentation.
    pub const ALL: [Failure; 28] = [
        Failure::NoCertificate,
        Failure::UnknownIssuer,
        Failure::Expired,
        Failure::NotYetValid,
        Failure::BadSignature,
        Failure::WrongKeyUsage,
        Failure::Revoked,
        Failure::CrlStale,
        Failure::Blocked,
        Failure::WeakKey,
        Failure::ChainTooLarge,
        Failure::NameConstraint,
        Failure::PathConstraint,
        Failure::CriticalExtension,
        Failure::NotAuthorized,
        Failure::ClientRejectedServer,
        Failure::NotTls,
        Failure::Malformed,
        Failure::Version,
        Failure::CipherSuite,
        Failure::Group,
        Failure::Alpn,
        Failure::Sni,
        Failure::Timeout,
        Failure::Reset,
        Failure::OverLimit,
        Failure::Banned,
        Failure::Internal,
    ];

    /// The metric label and log field.
    pub const fn label(self) -> &'static str {
        match self {
            Failure::NoCertificate => "no_certificate",
            Failure::UnknownIssuer => "unknown_issuer",
            Failure::Expired => "expired",
            Failure::NotYetValid => "not_yet_valid",
            Failure::BadSignature => "bad_signature",
            Failure::WrongKeyUsage => "wrong_key_usage",
            Failure::Revoked => "revoked",
            Failure::CrlStale => "crl_stale",
            Failure::Blocked => "blocked",
            Failure::WeakKey => "weak_key",
            Failure::ChainTooLarge => "chain_too_large",
            Failure::NameConstraint => "name_constraint",
            Failure::PathConstraint => "path_constraint",
            Failure::CriticalExtension => "critical_extension",
            Failure::NotAuthorized => "not_authorized",
            Failure::ClientRejectedServer => "client_rejected_server",
            Failure::NotTls => "not_tls",
            Failure::Malformed => "malformed",
            Failure::Version => "version",
            Failure::CipherSuite => "cipher_suite",
            Failure::Group => "group",
            Failure::Alpn => "alpn",
            Failure::Sni => "sni",
            Failure::Timeout => "timeout",
            Failure::Reset => "reset",
            Failure::OverLimit => "over_limit",
            Failure::Banned => "banned",
            Failure::Internal => "internal",
        }
    }

    /// The alert the client gets, or none where the connection just ends.
    ///
    /// `Malformed` stands for several alerts of RFC 8446 section 6.2; the TLS stack picks the exact one.
    pub const fn alert(self) -> Option<Alert> {
        match self {
            Failure::NoCertificate => Some(Alert(116)), // certificate_required
            Failure::UnknownIssuer => Some(Alert(48)),  // unknown_ca
            Failure::Expired => Some(Alert(45)),        // certificate_expired
            Failure::NotYetValid => Some(Alert(45)),    // RFC 5280 has no alert of its own for it
            Failure::BadSignature => Some(Alert(51)),   // decrypt_error
            Failure::WrongKeyUsage => Some(Alert(43)),  // unsupported_certificate
            Failure::Revoked => Some(Alert(44)),        // certificate_revoked
            Failure::CrlStale => Some(Alert(48)),       // unknown_ca, as common stacks say it
            Failure::Blocked => Some(Alert(49)),        // access_denied
            Failure::WeakKey => Some(Alert(42)),        // bad_certificate, RFC 8446 section 4.4.2.4
            Failure::ChainTooLarge => Some(Alert(42)),  // bad_certificate
            Failure::NameConstraint => Some(Alert(42)), // bad_certificate
            Failure::PathConstraint => Some(Alert(42)), // bad_certificate
            Failure::CriticalExtension => Some(Alert(43)), // unsupported_certificate
            Failure::NotAuthorized => Some(Alert(49)),  // access_denied
            Failure::ClientRejectedServer => None,      // the client ended it
            Failure::NotTls => Some(Alert(10)),         // unexpected_message
            Failure::Malformed => Some(Alert(50)),      // decode_error
            Failure::Version => Some(Alert(70)),        // protocol_version
            Failure::CipherSuite => Some(Alert(40)),    // handshake_failure
            Failure::Group => Some(Alert(40)),          // handshake_failure
            Failure::Alpn => Some(Alert(120)),          // no_application_protocol
            Failure::Sni => Some(Alert(112)),           // unrecognized_name
            Failure::Timeout => None,                   // a silent peer would not read it
            Failure::Reset => None,                     // nobody is there
            Failure::OverLimit => None,                 // an alert costs what the limit protects
            Failure::Banned => None, // the kernel would have dropped its first packet
            Failure::Internal => Some(Alert(80)), // internal_error
        }
    }

    /// How loudly it is logged.
    pub const fn level(self) -> Level {
        match self {
            Failure::NotTls | Failure::Reset | Failure::Timeout | Failure::Banned => Level::Info,
            Failure::Internal => Level::Error,
            Failure::NoCertificate
            | Failure::UnknownIssuer
            | Failure::Expired
            | Failure::NotYetValid
            | Failure::BadSignature
            | Failure::WrongKeyUsage
            | Failure::Revoked
            | Failure::CrlStale
            | Failure::Blocked
            | Failure::WeakKey
            | Failure::ChainTooLarge
            | Failure::NameConstraint
            | Failure::PathConstraint
            | Failure::CriticalExtension
            | Failure::NotAuthorized
            | Failure::ClientRejectedServer
            | Failure::Malformed
            | Failure::Version
            | Failure::CipherSuite
            | Failure::Group
            | Failure::Alpn
            | Failure::Sni
            | Failure::OverLimit => Level::Warn,
        }
    }

    /// Position in `ALL`, for counters kept in an array.
    pub const fn index(self) -> usize {
        self as usize
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
    fn every_failure_stands_once_in_all_at_its_own_index() {
        for (position, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure.index(), position, "{failure}");
        }
    }

    #[test]
    fn labels_are_unique() {
        let labels: HashSet<_> = Failure::ALL.into_iter().map(Failure::label).collect();
        assert_eq!(labels.len(), Failure::ALL.len());
    }
}
