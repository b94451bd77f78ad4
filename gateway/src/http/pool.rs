//! The servers of one backend as requests see them, with the connections that are open to each.
//! In: choices of the forwarder, connections that come and go. Out: a connection for a request, or that one has to be made. On its
//! worker.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use gateway_core::balance::{Patience, Server, ServerShare};
use gateway_core::endpoint::Endpoint;
use gateway_core::http::forward::{ConnectionKey, Forwarder, HttpVersion};
use gateway_core::http::h2::ErrorCode;
use gateway_core::http::limits::{
    HTTP1_CONNECTING_MAX, HTTP2_CONNECTIONS_MAX, HTTP2_FURTHER_RETRY,
    HTTP2_STALLED_CONNECTIONS_MAX, RETRY_ALLOWANCE, SERVER_PASS_OVER,
};
use gateway_core::http::pool::{PoolServer, PoolSettings, ServerKey, ServerPool};
use gateway_core::http::retry_budget::RetryBudget;
use gateway_core::limits;

use super::link::{Link, ServerLink};
use crate::config::{Backend, Config};

/// The servers of one backend.
pub(super) struct Pool {
    pub(super) servers: ServerPool,
    pub(super) retries: RetryBudget,
    /// The addresses that the pool was given last.
    addresses: Vec<Server>,
    shares: Vec<ServerShare>,
    links: BTreeMap<ServerKey, Vec<Rc<Link>>>,
    /// Connections that are being made, by server.
    connecting: BTreeMap<ServerKey, u32>,
    /// When a further connection to a server could not be made. Of servers to which one stands.
    failed_at: BTreeMap<ServerKey, Instant>,
    /// Servers that speak HTTP/1: a connection has one request at a time.
    of_http1: BTreeSet<ServerKey>,
    /// Servers that give credit only when most of a window is used. Of servers to which a connection stands.
    credit_late: BTreeSet<ServerKey>,
}

impl Pool {
    /// Pools for the backends from position `first` on, without servers.
    pub(super) fn of_all(config: &Config, first: usize) -> Vec<Pool> {
        let backends = config.backends.iter().skip(first);
        backends
            .map(|backend| Pool {
                servers: ServerPool::new(settings(config, backend)),
                retries: RetryBudget::new(RETRY_ALLOWANCE, Instant::now()),
                addresses: Vec::new(),
                shares: Vec::new(),
                links: BTreeMap::new(),
                connecting: BTreeMap::new(),
                failed_at: BTreeMap::new(),
                of_http1: BTreeSet::new(),
                credit_late: BTreeSet::new(),
            })
            .collect()
    }

    pub(super) fn configure(&mut self, config: &Config, backend: &Backend, now: Instant) {
        self.servers.configure(settings(config, backend), now);
    }

    /// Takes the addresses to use from now on, of a backend with these shares. Returns the servers that are new.
    pub(super) fn replace(
        &mut self,
        addresses: &[Server],
        shares: &[ServerShare],
        now: Instant,
    ) -> Vec<(ServerKey, Endpoint)> {
        if self.addresses == addresses && self.shares == shares {
            return Vec::new();
        }
        self.addresses = addresses.to_vec();
        self.shares = shares.to_vec();
        let before: Vec<ServerKey> = self.servers.servers(now).map(|(key, ..)| key).collect();
        let server = |server: &Server| {
            let written = || shares.get(server.source).copied().unwrap_or_default();
            let share = server.share.unwrap_or_else(written);
            PoolServer {
                server: *server,
                weight: share.weight,
                is_backup: share.is_backup,
            }
        };
        let servers: Vec<_> = addresses.iter().map(server).collect();
        self.servers.replace(&servers, now);
        let all = self.servers.servers(now).map(|(key, ..)| key);
        let new = all.filter(|key| !before.contains(key));
        new.filter_map(|key| Some((key, self.servers.server(key)?.server.address)))
            .collect()
    }

    /// The open connection to a server that has the fewest requests; one without any, where it has one at a time. One that is
    /// stalled only where all are; one that was made beside stalled ones, and is not needed since they go on, not at all.
    pub(super) fn link(&self, server: ServerKey, now: Instant) -> Option<&Rc<Link>> {
        let links = self.links.get(&server)?.iter();
        let mut flowing = 0;
        let usable = links.filter_map(|link| {
            let known = link.server().filter(|known| !known.is_retired.get())?;
            let (is_stalled, in_flight) = (known.is_stalled(now), known.in_flight.get());
            // Where clients have their shares, others have theirs.
            let stall = (is_stalled, known.is_spent(now));
            let is_usable = match link.version {
                HttpVersion::Http1 => in_flight == 0,
                HttpVersion::Http2 => {
                    flowing += usize::from(!is_stalled);
                    is_stalled || flowing <= HTTP2_CONNECTIONS_MAX
                }
            };
            is_usable.then_some(((stall, in_flight), link))
        });
        usable.min_by_key(|(load, _)| *load).map(|(_, link)| link)
    }

    /// Looks at all connections of HTTP/2: which are stalled. One that has been idle ends, unless it is the first that a request
    /// would get.
    pub(super) fn look(&self, forwarder: &mut Forwarder, now: Instant) {
        for links in self.links.values() {
            let of_http2 = || {
                let links = links.iter();
                let links = links.filter(|link| link.version == HttpVersion::Http2);
                links.filter_map(|link| Some((link.key, link.server()?)))
            };
            for (key, known) in of_http2() {
                if let Some(connection) = forwarder.connection(key) {
                    known.note_stalled(connection.stalled(), now);
                }
            }
            let usable = || of_http2().filter(|(_, known)| !known.is_retired.get());
            let first = usable().min_by_key(|(_, known)| known.is_stalled(now));
            let first = first.map(|(key, _)| key);
            for (key, known) in usable() {
                if Some(key) != first
                    && known.is_idle(now)
                    && let Some(connection) = forwarder.connection(key)
                    && connection.open_streams() == 0
                {
                    known.is_retired.set(true);
                    connection.close(ErrorCode::NoError);
                    forwarder.mark(key);
                }
            }
        }
    }

    /// The connections on which clients have to keep to their shares from now on, and those on which they need not any more. They do,
    /// unless the server has been seen to give credit late. To see that, they do not on the oldest connection while it is stalled.
    pub(super) fn share_changes(
        &mut self,
        forwarder: &mut Forwarder,
        now: Instant,
    ) -> Vec<(ConnectionKey, bool)> {
        let mut changes = Vec::new();
        for (server, links) in &self.links {
            let usable = || {
                let links = links.iter();
                let known = links.filter_map(|link| Some((link.key, link.server()?)));
                known.filter(|(_, known)| !known.is_retired.get())
            };
            let mut credits_late = |(key, _): (ConnectionKey, &ServerLink)| {
                let connection = forwarder.connection(key);
                connection.is_some_and(|connection| connection.credits_late())
            };
            if usable().any(&mut credits_late) {
                self.credit_late.insert(*server);
            }
            let have_none = self.credit_late.contains(server);
            for (position, (key, known)) in usable().enumerate() {
                let is_lifted = have_none || (position == 0 && known.is_stalled(now));
                if known.has_shares.replace(!is_lifted) == is_lifted {
                    changes.push((key, !is_lifted));
                }
            }
        }
        changes
    }

    /// Whether a connection to any server stands.
    pub(super) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Notes the version of HTTP that a server speaks.
    pub(super) fn note_version(&mut self, server: ServerKey, version: HttpVersion) {
        match version {
            HttpVersion::Http1 => self.of_http1.insert(server),
            HttpVersion::Http2 => self.of_http1.remove(&server),
        };
    }

    /// Takes the right to make a connection to a server, unless enough are being made already, or stand.
    pub(super) fn begin_connecting(&mut self, server: ServerKey, now: Instant) -> bool {
        let is_of_http1 = self.of_http1.contains(&server);
        let most = if is_of_http1 { HTTP1_CONNECTING_MAX } else { 1 };
        let connecting = self.connecting.get(&server).copied().unwrap_or(0);
        let has_enough = !is_of_http1 && self.has_enough(server, now);
        if connecting >= most || has_enough || !self.servers.try_connect(server) {
            return false;
        }
        *self.connecting.entry(server).or_default() += 1;
        true
    }

    /// Whether no further connection of HTTP/2 is to be made to a server for now.
    fn has_enough(&self, server: ServerKey, now: Instant) -> bool {
        let Some(links) = self.links.get(&server) else {
            return false;
        };
        let usable = || {
            let known = links.iter().filter_map(|link| link.server());
            known.filter(|known| !known.is_retired.get())
        };
        let stalled = usable().filter(|known| known.is_stalled(now)).count();
        let counted = links.len() - stalled.min(HTTP2_STALLED_CONNECTIONS_MAX);
        let failed_at = self.failed_at.get(&server);
        let has_failed =
            failed_at.is_some_and(|at| now.saturating_duration_since(*at) < HTTP2_FURTHER_RETRY);
        // What waits asks again at once: without a pause each failure would lead to the next attempt.
        counted >= HTTP2_CONNECTIONS_MAX || (has_failed && usable().next().is_some())
    }

    /// Whether a connection to a server is being made.
    pub(super) fn is_connecting(&self, server: ServerKey) -> bool {
        self.connecting.contains_key(&server)
    }

    /// Whether a connection to a server stands.
    pub(super) fn has_link_to(&self, server: ServerKey) -> bool {
        self.links.contains_key(&server)
    }

    /// A connection that was being made stands, or cannot be made.
    pub(super) fn end_connecting(&mut self, server: ServerKey, stands: bool, now: Instant) {
        if stands {
            self.failed_at.remove(&server);
        } else if self.has_link_to(server) {
            self.failed_at.insert(server, now);
        }
        if let Some(count) = self.connecting.get_mut(&server) {
            *count -= 1;
            if *count == 0 {
                self.connecting.remove(&server);
            }
        }
    }

    /// All connections to servers.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values().flatten().map(AsRef::as_ref)
    }

    pub(super) fn add(&mut self, server: ServerKey, link: &Rc<Link>) {
        self.links.entry(server).or_default().push(Rc::clone(link));
    }

    pub(super) fn remove(&mut self, server: ServerKey, link: &Link) {
        if let Some(links) = self.links.get_mut(&server) {
            links.retain(|other| other.key != link.key);
            if links.is_empty() {
                self.links.remove(&server);
                self.failed_at.remove(&server);
                self.credit_late.remove(&server);
            }
        }
    }
}

/// The bounds of a backend hold over all workers: each has its part of them.
fn settings(config: &Config, backend: &Backend) -> PoolSettings {
    let part = |all: u32| all.div_ceil(u32::try_from(config.workers.get()).unwrap_or(u32::MAX));
    PoolSettings {
        patience: Patience {
            first: limits::SERVER_COOL_DOWN,
            longest: limits::SERVER_COOL_DOWN_MAX,
            longest_beside: limits::ADDRESS_COOL_DOWN_MAX,
            retry: limits::SERVER_RETRY,
            head_start: limits::HEAD_START,
            head_start_max: limits::HEAD_START_MAX,
        },
        max_requests: part(backend.http.max_requests),
        max_connections: part(backend.http.max_connections),
        slow_start: backend.http.slow_start,
        pass_over: SERVER_PASS_OVER,
        ejection: backend.http.ejection,
    }
}
