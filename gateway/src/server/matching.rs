//! What each worker knows of its clients: how many there are of which kind.
//! In: open connections. Out: numbers for the metrics. On the workers, now and then.

use std::time::SystemTime;

use crate::observe::{AuthorityUse, Clients};
use crate::relay::{Orders, Reached};

/// Counts the clients by rule and by what is left of their certificates, and chains that end with their CA.
pub(super) fn count(connections: &Orders, now: SystemTime) -> Clients {
    let mut clients = Clients::default();
    connections.for_each(|position, peer, server| {
        clients.count(position, peer.rule(), peer.lifetime(), now);
        clients.count_chain(AuthorityUse::Clients(position), peer.chain());
        if let Some(Reached { backend, chain }) = server {
            clients.count_chain(AuthorityUse::Servers(*backend), chain);
        }
    });
    clients
}
