//! TLS alerts by their names in RFC 8446 section 6.2. In: a number. Out: its name. Pure.

use std::fmt::{self, Display, Formatter};

/// A TLS alert description (RFC 8446 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Alert {
    /// A message that has no place here.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// A record that is not authentic.
    pub const BAD_RECORD_MAC: Self = Self(20);
    /// A record, or what it holds, is too long.
    pub const RECORD_OVERFLOW: Self = Self(22);
    /// No acceptable set of parameters.
    pub const HANDSHAKE_FAILURE: Self = Self(40);
    /// A certificate that is corrupt or not acceptable.
    pub const BAD_CERTIFICATE: Self = Self(42);
    /// A certificate of an unsupported type.
    pub const UNSUPPORTED_CERTIFICATE: Self = Self(43);
    /// A revoked certificate.
    pub const CERTIFICATE_REVOKED: Self = Self(44);
    /// A certificate that is not valid now.
    pub const CERTIFICATE_EXPIRED: Self = Self(45);
    /// A field that is out of range or contradicts another.
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    /// A chain that leads to no trusted CA.
    pub const UNKNOWN_CA: Self = Self(48);
    /// A valid certificate that is not admitted.
    pub const ACCESS_DENIED: Self = Self(49);
    /// A message that cannot be decoded.
    pub const DECODE_ERROR: Self = Self(50);
    /// A signature, a Finished or a PSK binder that does not verify.
    pub const DECRYPT_ERROR: Self = Self(51);
    /// A protocol version that is not supported.
    pub const PROTOCOL_VERSION: Self = Self(70);
    /// A fault that is not the peer's.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// An extension that the message must have.
    pub const MISSING_EXTENSION: Self = Self(109);
    /// A server name that no certificate covers.
    pub const UNRECOGNIZED_NAME: Self = Self(112);
    /// No certificate where one is required.
    pub const CERTIFICATE_REQUIRED: Self = Self(116);
    /// No application protocol in common.
    pub const NO_APPLICATION_PROTOCOL: Self = Self(120);
}

impl Display for Alert {
    /// The name in the registry of alerts (RFC 8446 section 6, RFC 8447 section 16), or the number of one that has none.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            22 => "record_overflow",
            40 => "handshake_failure",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            120 => "no_application_protocol",
            other => return write!(f, "number {other}"),
        };
        f.write_str(name)
    }
}
