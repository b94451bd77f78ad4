//! On whose behalf a backend is connected.
//! In: a verified peer. Out: the origin that every connection to a backend asks for. On the worker. As an origin is made of a
//! `VerifiedPeer` alone, no byte goes to a backend before the client's Finished.

use std::net::SocketAddr;

use crate::tls::VerifiedPeer;

/// What a client's own connection is like.
pub struct ClientConnection<'a> {
    /// The client's address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub listener_address: SocketAddr,
    /// Its cipher suite.
    pub cipher_suite: &'a str,
    /// Whether it resumed with a ticket: it presented its certificate before, not on this connection.
    pub is_resumed: bool,
    /// The application protocol it chose.
    pub protocol: Option<&'a [u8]>,
}

/// The client on whose behalf a connection is made. Its fields are private: `Origin::peer` is the only way to one.
pub struct Origin<'a> {
    peer: &'a VerifiedPeer,
    connection: ClientConnection<'a>,
}

impl<'a> Origin<'a> {
    /// A client that has proven possession of its key.
    pub fn peer(peer: &'a VerifiedPeer, connection: ClientConnection<'a>) -> Self {
        Origin { peer, connection }
    }

    /// The client.
    pub(super) fn verified_peer(&self) -> &'a VerifiedPeer {
        self.peer
    }

    /// Its connection.
    pub(super) fn connection(&self) -> &ClientConnection<'a> {
        &self.connection
    }
}
