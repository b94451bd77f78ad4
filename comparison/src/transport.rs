//! What carries the bytes between a client and a measured server. In: nothing. Out: a choice that every server is
//! configured by.

/// What stands between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS 1.3 with certificates on both sides.
    Tls,
    /// Nothing: the same work without TLS.
    Plain,
}
