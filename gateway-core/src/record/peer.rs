//! Which side of a connection sends the records that are opened. In: the role. Out: what it may send after the handshake. Pure.

/// Which side of the connection the peer is; decides what it may send after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client sends no handshake message but KeyUpdate.
    Client,
    /// A server may send tickets too.
    Server,
}
