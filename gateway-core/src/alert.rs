//! TLS alerts by their names in RFC 8446 section 6.2. In: a number. Out: its name. Pure.

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
