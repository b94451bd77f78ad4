//! What each worker knows of its clients: how many there are of each kind, and which of them an entry of the block list matches.
//! In: open connections, recent clients, an entry. Out: numbers for the metrics, and for an operator to see whether an entry is
//! right. On the workers, now and then, and on the thread that waits for their answers.

use std::collections::HashSet;
use std::iter::Sum;
use std::time::SystemTime;

use gateway_core::authority::TrustDomain;
use gateway_core::block::{Block, BlockList};
use gateway_core::certificate::{Certificate, Chain, Fingerprint};

use super::state::{ListenerState, State};
use crate::connection::{ConnectedServer, ConnectionTable, OpenConnection};
use crate::telemetry::{AuthorityUse, ClientCounts};
use crate::tls;

/// Counts the clients by rule and by the time until their certificates expire, and the chains by their CA.
pub(super) fn count(connections: &ConnectionTable, now: SystemTime) -> ClientCounts {
    let mut clients = ClientCounts::default();
    connections.for_each(|connection| {
        let OpenConnection { listener, peer, .. } = connection;
        clients.count(listener, peer.rule(), peer.lifetime(), now);
        clients.count_chain(AuthorityUse::Clients(listener), peer.chain());
        if let Some(ConnectedServer { backend, chain }) = connection.server {
            clients.count_chain(AuthorityUse::Servers(*backend), chain);
        }
    });
    clients
}

/// An entry to look for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The entry alone.
    list: BlockList,
    trust_domain: Option<TrustDomain>,
}

impl Wanted {
    /// The clients that `block` matches.
    pub(super) fn new(block: Block) -> Self {
        let trust_domain = match &block {
            Block::Serial(_) | Block::Fingerprint(_) => None,
            Block::Identity(names) => names.only.trust_domain.clone(),
        };
        Wanted {
            list: BlockList::new([block]),
            trust_domain,
        }
    }
}

/// Clients by their certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    connected: HashSet<Fingerprint>,
    seen: HashSet<Fingerprint>,
}

impl Sum for Matching {
    fn sum<I: Iterator<Item = Matching>>(each: I) -> Self {
        each.fold(Matching::default(), |mut all, one| {
            all.extend(one);
            all
        })
    }
}

impl Matching {
    /// Those of one worker.
    pub(super) fn on(state: &State, connections: &ConnectionTable, wanted: &Wanted) -> Self {
        let mut matching = Matching::default();
        connections.for_each(|OpenConnection { listener, peer, .. }| {
            let trust = &state.listener(listener).trust;
            let (certificate, chain) = (peer.certificate(), peer.chain());
            if wanted
                .list
                .blocks(certificate, chain, trust.bound_to(chain))
            {
                matching.connected.insert(peer.fingerprint());
            }
        });
        // Their listeners are not known any more. Names first: most clients have another.
        let domain = wanted.trust_domain.as_ref();
        let is_meant = |certificate: &Certificate, chain: &Chain| {
            let bound_to = |listener: &ListenerState| listener.trust.bound_to(chain) == domain;
            wanted.list.blocks(certificate, chain, domain)
                && (domain.is_none() || state.listeners.iter().any(bound_to))
        };
        tls::for_each_client_seen(&mut |certificate, chain| {
            if is_meant(certificate, chain) {
                matching.seen.insert(certificate.fingerprint);
            }
        });
        matching
    }

    /// Adds the clients that another process knows.
    pub fn extend(&mut self, other: Matching) {
        self.connected.extend(other.connected);
        self.seen.extend(other.seen);
    }

    /// As text for another process: clients that are connected, and clients that were seen, up to so many of each.
    pub fn to_text(&self, most: usize) -> [Vec<String>; 2] {
        [&self.connected, &self.seen].map(|clients| {
            let clients = clients.iter().take(most);
            clients.map(ToString::to_string).collect()
        })
    }

    /// Reads the text of another process.
    pub fn from_text([connected, seen]: &[Vec<String>; 2]) -> Self {
        let read = |clients: &[String]| {
            let clients = clients.iter().map(|client| Fingerprint::parse(client));
            clients.filter_map(Result::ok).collect()
        };
        Matching {
            connected: read(connected),
            seen: read(seen),
        }
    }

    /// Clients that are connected.
    pub fn connected(&self) -> usize {
        self.connected.len()
    }

    /// Clients that were connected recently, and are not now.
    pub fn seen(&self) -> usize {
        self.seen.difference(&self.connected).count()
    }
}
