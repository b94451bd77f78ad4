//! What a worker trusts and serves at this moment: made from one checked configuration, swapped whole on a reload.
//! In: a seed, made once for all workers. Out: doors and servers of one worker. New connections take the newest state;
//! those that are open are judged by it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use gateway_core::admission::ConnectionLimit;
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
    tls: Vec<Arc<ServerConfig>>,
    transports: Vec<Transport>,
    limits: Vec<ConnectionLimit>,
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
    /// Makes everything that can fail. `limits` go on from an earlier seed, because its connections are still open.
    pub(super) fn new(
        config: Arc<Config>,
        addresses: Vec<Vec<SocketAddr>>,
        limits: Option<Vec<ConnectionLimit>>,
    ) -> Result<Self, StartError> {
        let mut tls = Vec::new();
        for listener in &config.listeners {
            let what = || format!("listener \"{}\"", listener.name);
            let made = tls::server_config(&config, listener);
            tls.push(made.map_err(|error| StartError::Tls {
                what: what(),
                error,
            })?);
        }
        let mut transports = Vec::new();
        for (position, backend) in config.backends.iter().enumerate() {
            let users = config
                .listeners
                .iter()
                .filter(|listener| listener.backend == position);
            let protocols: Vec<_> = users.flat_map(|listener| listener.alpn.clone()).collect();
            let what = || format!("backend \"{}\"", backend.name);
            let made = Transport::new(&config, backend, &protocols);
            transports.push(made.map_err(|error| StartError::Tls {
                what: what(),
                error,
            })?);
        }
        let limit = |listener: &Arc<Listener>| ConnectionLimit::new(listener.max_connections);
        let limits = limits.unwrap_or_else(|| config.listeners.iter().map(limit).collect());
        Ok(Seed {
            config,
            tls,
            transports,
            limits,
            addresses,
        })
    }

    /// The limits, for the seed that comes after this one.
    pub(super) fn limits(&self) -> Vec<ConnectionLimit> {
        self.limits.clone()
    }
}

/// What one worker trusts and serves at this moment.
pub(super) struct State {
    pub(super) config: Arc<Config>,
    pub(super) doors: Vec<Door>,
    pub(super) servers: Vec<Servers>,
}

/// A listener, as one worker sees it.
pub(super) struct Door {
    pub(super) listener: Arc<Listener>,
    pub(super) address: SocketAddr,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) limit: ConnectionLimit,
    pub(super) handshakes: Rc<Semaphore>,
}

impl State {
    /// A worker's state. Addresses and handshake slots belong to its sockets and stay what they were.
    pub(super) fn new(
        seed: Seed,
        sockets: impl IntoIterator<Item = (SocketAddr, Rc<Semaphore>)>,
        buffers: &Rc<BufferPool>,
    ) -> Self {
        let Seed {
            config,
            tls,
            transports,
            limits,
            addresses,
        } = seed;
        let parts = config.listeners.iter().zip(sockets).zip(tls).zip(limits);
        let doors = parts.map(|(((listener, (address, handshakes)), tls), limit)| Door {
            listener: Arc::clone(listener),
            address,
            tls,
            limit,
            handshakes,
        });
        let doors = doors.collect();
        let mut servers = Vec::new();
        for ((backend, transport), addresses) in
            config.backends.iter().zip(transports).zip(addresses)
        {
            let of_backend = Servers::new(Arc::clone(backend), transport, Rc::clone(buffers));
            of_backend.replace(&addresses);
            servers.push(of_backend);
        }
        State {
            config,
            doors,
            servers,
        }
    }

    /// Address and handshake slots of each listener, for the state that comes after this one.
    pub(super) fn sockets(&self) -> Vec<(SocketAddr, Rc<Semaphore>)> {
        self.doors
            .iter()
            .map(|door| (door.address, Rc::clone(&door.handshakes)))
            .collect()
    }
}
