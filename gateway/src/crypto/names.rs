//! Names of negotiated parameters as the field writes them (RFC 8446 appendix B.4, IANA), for metrics, logs and
//! headers. rustls spells suites of TLS 1.3 differently.
//! In: rustls' values. Out: names. On any thread. Pure.

use rustls::{CipherSuite, NamedGroup};

/// The IANA name of a cipher suite of TLS 1.3.
pub fn cipher_suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        _ => "unknown",
    }
}

/// The IANA name of a key exchange group.
pub fn group_name(group: NamedGroup) -> &'static str {
    group.as_str().unwrap_or("unknown")
}
