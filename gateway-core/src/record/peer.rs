//! The peer's side of a connection. In: the side. Out: what it may send after the handshake. Pure.

/// The peer's side of the connection: decides what it may send after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client sends no handshake message but KeyUpdate.
    Client,
    /// A server may send tickets too.
    Server,
}
