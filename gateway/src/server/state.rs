//! What a worker trusts and serves at this moment: made from one checked configuration, swapped whole on a reload.
//! In: a seed, made once for all workers. Out: doors and servers of one worker. New connections take the newest state;
//! those that are open are judged by it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use gateway_core::admission::ConnectionLimit;
use gateway_core::block::BlockList;
use gateway_core::trust::Trust;
use local_sync::semaphore::Semaphore;
use rustls::ServerConfig;

use crate::backend::{Servers, Transport};
use crate::config::{Config, Listener};
use crate::rt::BufferPool;
use crate::tls;

use super::gateway::StartError;

/// What every worker's state is made of; shared and immutable.
#[derive(Clone)]
pub(super) struct Seed {
    pub(super) config: Arc<Config>,
    pub(super) blocks: Arc<BlockList>,
    trust: Vec<Arc<Trust>>,
    tls: Vec<Arc<ServerConfig>>,
    limits: Vec<ConnectionLimit>,
    backends: Option<Backends>,
}

/// How to reach the backends. A seed without it leaves them as they are.
#[derive(Clone)]
struct Backends {
    transports: Vec<Transport>,
    addresses: Vec<Vec<SocketAddr>>,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Seed")
            .field("file", &self.config.file)
            .finish_non_exhaustive()
    }
}

impl Seed {
    /// Makes everything that can fail, from nothing.
    pub(super) fn new(
        config: Arc<Config>,
        blocks: Arc<BlockList>,
        addresses: Vec<Vec<SocketAddr>>,
    ) -> Result<Self, StartError> {
        let limit = |listener: &Arc<Listener>| ConnectionLimit::new(listener.max_connections);
        let limits = config.listeners.iter().map(limit).collect();
        let backends = Some(Backends::new(&config, addresses)?);
        Seed::assemble(config, blocks, limits, backends)
    }

    /// The seed after this one, by another configuration. The limits go on: their connections are still open.
    pub(super) fn with_config(
        &self,
        config: Arc<Config>,
        addresses: Vec<Vec<SocketAddr>>,
    ) -> Result<Self, StartError> {
        let backends = Some(Backends::new(&config, addresses)?);
        let blocks = Arc::clone(&self.blocks);
        Seed::assemble(config, blocks, self.limits.clone(), backends)
    }

    /// The seed after this one, with other blocks.
    pub(super) fn with_blocks(&self, blocks: Arc<BlockList>) -> Result<Self, StartError> {
        Seed::assemble(Arc::clone(&self.config), blocks, self.limits.clone(), None)
    }

    fn assemble(
        config: Arc<Config>,
        blocks: Arc<BlockList>,
        limits: Vec<ConnectionLimit>,
        backends: Option<Backends>,
    ) -> Result<Self, StartError> {
        let mut trust = Vec::new();
        let mut tls = Vec::new();
        for (position, listener) in config.listeners.iter().enumerate() {
            let of_listener = tls::listener_trust(&config, position, &blocks);
            let made = tls::server_config(&config, listener, &of_listener);
            tls.push(made.map_err(|error| StartError::Tls {
                what: format!("listener \"{}\"", listener.name),
                error,
            })?);
            trust.push(of_listener);
        }
        Ok(Seed {
            config,
            blocks,
            trust,
            tls,
            limits,
            backends,
        })
    }
}

impl Backends {
    fn new(config: &Config, addresses: Vec<Vec<SocketAddr>>) -> Result<Self, StartError> {
        let mut transports = Vec::new();
        for (position, backend) in config.backends.iter().enumerate() {
            let users = config
                .listeners
                .iter()
                .filter(|listener| listener.backend == position);
            let protocols: Vec<_> = users.flat_map(|listener| listener.alpn.clone()).collect();
            let made = Transport::new(config, backend, &protocols);
            transports.push(made.map_err(|error| StartError::Tls {
                what: format!("backend \"{}\"", backend.name),
                error,
            })?);
        }
        Ok(Backends {
            transports,
            addresses,
        })
    }
}

/// What one worker trusts and serves at this moment.
pub(super) struct State {
    pub(super) config: Arc<Config>,
    pub(super) doors: Vec<Door>,
    pub(super) servers: Rc<Vec<Servers>>,
}

/// A listener, as one worker sees it.
pub(super) struct Door {
    pub(super) listener: Arc<Listener>,
    pub(super) address: SocketAddr,
    pub(super) trust: Arc<Trust>,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) limit: ConnectionLimit,
    pub(super) handshakes: Rc<Semaphore>,
}

impl State {
    /// A worker's first state.
    pub(super) fn new(
        seed: Seed,
        sockets: impl IntoIterator<Item = (SocketAddr, Rc<Semaphore>)>,
        buffers: &Rc<BufferPool>,
    ) -> Self {
        State::assemble(seed, sockets, Rc::default(), buffers)
    }

    /// The state after this one. Addresses and handshake slots belong to the worker's sockets and stay what they were.
    pub(super) fn next(&self, seed: Seed, buffers: &Rc<BufferPool>) -> Self {
        let sockets = self
            .doors
            .iter()
            .map(|door| (door.address, Rc::clone(&door.handshakes)));
        State::assemble(seed, sockets, Rc::clone(&self.servers), buffers)
    }

    fn assemble(
        seed: Seed,
        sockets: impl IntoIterator<Item = (SocketAddr, Rc<Semaphore>)>,
        known_servers: Rc<Vec<Servers>>,
        buffers: &Rc<BufferPool>,
    ) -> Self {
        let Seed {
            config,
            trust,
            tls,
            limits,
            backends,
            ..
        } = seed;
        let listeners = config.listeners.iter().zip(sockets);
        let parts = listeners.zip(trust).zip(tls).zip(limits);
        let doors = parts.map(
            |((((listener, (address, handshakes)), trust), tls), limit)| Door {
                listener: Arc::clone(listener),
                address,
                trust,
                tls,
                limit,
                handshakes,
            },
        );
        let doors = doors.collect();
        let servers = backends.map_or(known_servers, |backends| {
            Rc::new(servers(&config, backends, buffers))
        });
        State {
            config,
            doors,
            servers,
        }
    }
}

fn servers(config: &Config, backends: Backends, buffers: &Rc<BufferPool>) -> Vec<Servers> {
    let Backends {
        transports,
        addresses,
    } = backends;
    let parts = config.backends.iter().zip(transports).zip(addresses);
    let servers = parts.map(|((backend, transport), addresses)| {
        let servers = Servers::new(Arc::clone(backend), transport, Rc::clone(buffers));
        servers.replace(&addresses);
        servers
    });
    servers.collect()
}
