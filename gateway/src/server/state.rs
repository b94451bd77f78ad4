//! What a worker trusts and serves at this moment: made from one checked configuration, swapped whole on a reload.
//! In: a seed, made once for all workers. Out: doors and servers of one worker. New connections take the newest state;
//! those that are open are judged by it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use gateway_core::admission::ConnectionLimit;
use gateway_core::balance::Server;
use gateway_core::block::BlockList;
use gateway_core::descriptors::Descriptors;
use gateway_core::limits;
use gateway_core::trust::Trust;
use gateway_rt::BufferPool;
use rustls::ServerConfig;
use tokio::sync::Semaphore;

use crate::backend::{Servers, Transport};
use crate::config::{BackendId, Config, Listener, ListenerId};
use crate::crypto::KeyRing;
use crate::tls::{self, DryRun};

use super::error::StartError;
use super::silent::SilentConnections;

/// What every worker's state is made of; shared and immutable.
#[derive(Clone)]
pub(super) struct Seed {
    pub(super) config: Arc<Config>,
    pub(super) blocks: Arc<BlockList>,
    /// `None` where nobody resumes.
    pub(super) ticket_keys: Option<Arc<KeyRing>>,
    trust: Vec<Arc<Trust>>,
    dry_run: Vec<Option<Arc<DryRun>>>,
    tls: Vec<Arc<ServerConfig>>,
    pub(super) common: Arc<Common>,
    backends: Option<Backends>,
    /// When what was configured, or who was blocked, became this.
    pub(super) changed_at: Instant,
}

/// What all workers count together, for as long as the process lives.
pub(super) struct Common {
    /// Descriptors for connections.
    pub(super) descriptors: Descriptors,
    listeners: Vec<Shared>,
}

/// What the workers share of a listener.
struct Shared {
    connections: ConnectionLimit,
    /// Those in a handshake: whoever has sent a first byte takes one. Whoever waits longest gets the next, on whichever worker.
    handshakes: Arc<Semaphore>,
}

impl Common {
    /// For the listeners of `config`.
    pub(super) fn new(config: &Config, descriptors: Descriptors) -> Self {
        let shared = |listener: &Arc<Listener>| Shared {
            connections: ConnectionLimit::new(listener.max_connections),
            handshakes: Arc::new(Semaphore::new(listener.max_handshakes)),
        };
        Common {
            descriptors,
            listeners: config.listeners.iter().map(shared).collect(),
        }
    }
}

/// How to reach the backends. A seed without it leaves them as they are.
#[derive(Clone)]
struct Backends {
    transports: Vec<Transport>,
    /// What is known of their servers. Of a backend that nothing is known of, the servers before go on.
    servers: Vec<Vec<Server>>,
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
        servers: Vec<Vec<Server>>,
        descriptors: Descriptors,
    ) -> Result<Self, StartError> {
        let common = Arc::new(Common::new(&config, descriptors));
        let backends = Some(Backends::new(&config, servers)?);
        let ticket_keys = ticket_keys(&config, None)?;
        Seed::assemble(config, blocks, ticket_keys, common, backends)
    }

    /// The seed after this one, by another configuration, for the servers that it gets before it is handed out. The limits go
    /// on: their connections are still open.
    pub(super) fn with_config(&self, config: Arc<Config>) -> Result<Self, StartError> {
        let backends = Some(Backends::new(&config, Vec::new())?);
        let blocks = Arc::clone(&self.blocks);
        let ticket_keys = ticket_keys(&config, Some(self))?;
        let common = Arc::clone(&self.common);
        Seed::assemble(config, blocks, ticket_keys, common, backends)
    }

    /// Says which servers are known of each backend.
    pub(super) fn set_servers(&mut self, servers: Vec<Vec<Server>>) {
        if let Some(backends) = &mut self.backends {
            backends.servers = servers;
        }
    }

    /// The seed after this one, with other blocks.
    pub(super) fn with_blocks(&self, blocks: Arc<BlockList>) -> Result<Self, StartError> {
        let (config, ticket_keys) = (Arc::clone(&self.config), self.ticket_keys.clone());
        let common = Arc::clone(&self.common);
        Seed::assemble(config, blocks, ticket_keys, common, None)
    }

    /// The seed after this one, with a new ticket key; `None` unless keys live in memory and it is time.
    pub(super) fn with_fresh_ticket_keys(
        &self,
        now: SystemTime,
    ) -> Result<Option<Self>, StartError> {
        let (Some(resumption), Some(keys)) = (&self.config.resumption, &self.ticket_keys) else {
            return Ok(None);
        };
        let age = resumption.max_authentication_age;
        if resumption.keys.is_some() || !keys.is_due(age, now) {
            return Ok(None);
        }
        let random = self.config.provider.secure_random;
        let keys = keys
            .rotated(now, age, random)
            .map_err(|_| StartError::Random)?;
        let (config, blocks) = (Arc::clone(&self.config), Arc::clone(&self.blocks));
        let keys = Some(Arc::new(keys));
        let common = Arc::clone(&self.common);
        Seed::assemble(config, blocks, keys, common, None).map(Some)
    }

    fn assemble(
        config: Arc<Config>,
        blocks: Arc<BlockList>,
        ticket_keys: Option<Arc<KeyRing>>,
        common: Arc<Common>,
        backends: Option<Backends>,
    ) -> Result<Self, StartError> {
        let mut trust = Vec::new();
        let mut tls = Vec::new();
        for (position, listener) in config.listeners.iter().enumerate() {
            let of_listener = tls::listener_trust(&config, ListenerId(position), &blocks);
            let made = tls::server_config(&config, listener, &of_listener, ticket_keys.as_deref());
            tls.push(made.map_err(|error| StartError::Tls {
                what: format!("listener \"{}\"", listener.name),
                error,
            })?);
            trust.push(of_listener);
        }
        let dry_run = dry_run(&config, &blocks);
        Ok(Seed {
            config,
            blocks,
            ticket_keys,
            trust,
            dry_run,
            tls,
            common,
            backends,
            changed_at: Instant::now(),
        })
    }
}

/// The keys to seal tickets with: those of the file, else those that were in memory before, else new ones.
fn ticket_keys(config: &Config, before: Option<&Seed>) -> Result<Option<Arc<KeyRing>>, StartError> {
    let Some(resumption) = &config.resumption else {
        return Ok(None);
    };
    if let Some(keys) = &resumption.keys {
        return Ok(Some(Arc::clone(keys)));
    }
    let in_memory = |seed: &&Seed| {
        let resumption = seed.config.resumption.as_ref();
        resumption.is_some_and(|resumption| resumption.keys.is_none())
    };
    if let Some(keys) = before
        .filter(in_memory)
        .and_then(|seed| seed.ticket_keys.clone())
    {
        return Ok(Some(keys));
    }
    let keys = KeyRing::generate(SystemTime::now(), config.provider.secure_random);
    keys.map(|keys| Some(Arc::new(keys)))
        .map_err(|_| StartError::Random)
}

/// The dry run of the observed configuration, for each listener that it has too.
fn dry_run(config: &Config, blocks: &Arc<BlockList>) -> Vec<Option<Arc<DryRun>>> {
    let of_listener = |listener: &Arc<Listener>| {
        let candidate = config.observe.as_ref()?;
        let mut others = candidate.listeners.iter();
        let position = others.position(|other| other.name == listener.name)?;
        Some(Arc::new(DryRun::new(
            candidate,
            ListenerId(position),
            blocks,
        )))
    };
    config.listeners.iter().map(of_listener).collect()
}

impl Backends {
    fn new(config: &Config, servers: Vec<Vec<Server>>) -> Result<Self, StartError> {
        let mut transports = Vec::new();
        for (position, backend) in config.backends.iter().enumerate() {
            let users = config
                .listeners
                .iter()
                .filter(|listener| listener.backend() == Some(BackendId(position)));
            let protocols: Vec<_> = users.flat_map(|listener| listener.alpn.clone()).collect();
            let made = Transport::new(config, backend, &protocols);
            transports.push(made.map_err(|error| StartError::Tls {
                what: format!("backend \"{}\"", backend.name),
                error,
            })?);
        }
        Ok(Backends {
            transports,
            servers,
        })
    }
}

/// What one worker trusts and serves at this moment.
pub(super) struct State {
    pub(super) config: Arc<Config>,
    /// When what was configured became this: what a connection that is closed for it is timed from.
    pub(super) changed_at: Instant,
    pub(super) doors: Vec<Door>,
    pub(super) servers: Rc<Vec<Rc<Servers>>>,
}

/// A listener, as one worker sees it.
pub(super) struct Door {
    pub(super) listener: Arc<Listener>,
    pub(super) address: SocketAddr,
    pub(super) trust: Arc<Trust>,
    pub(super) dry_run: Option<Arc<DryRun>>,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) limit: ConnectionLimit,
    /// Handshakes at once, over all workers.
    pub(super) handshakes: Arc<Semaphore>,
    /// Connections before it, on this worker.
    pub(super) silent: Rc<SilentConnections>,
}

/// How many connections of a listener may be silent at once, on each of so many workers. The kernel deals connections out at
/// random: however few that are for each, a few more may come to one of them.
pub(super) fn silent_max(listener: &Listener, workers: usize) -> usize {
    let share = listener.max_handshakes.div_ceil(workers);
    share.max(limits::SILENT_CONNECTIONS_MIN)
}

impl State {
    /// A listener, as this worker sees it.
    pub(super) fn door(&self, ListenerId(position): ListenerId) -> &Door {
        &self.doors[position]
    }

    /// A worker's first state.
    pub(super) fn new(
        seed: Seed,
        sockets: impl IntoIterator<Item = (SocketAddr, Rc<SilentConnections>)>,
        buffers: &Rc<BufferPool>,
    ) -> Self {
        State::assemble(seed, sockets, Rc::default(), buffers)
    }

    /// The state after this one. Addresses and silent connections belong to the worker's sockets and stay what they were.
    pub(super) fn next(&self, seed: Seed, buffers: &Rc<BufferPool>) -> Self {
        let sockets = self
            .doors
            .iter()
            .map(|door| (door.address, Rc::clone(&door.silent)));
        State::assemble(seed, sockets, Rc::clone(&self.servers), buffers)
    }

    fn assemble(
        seed: Seed,
        sockets: impl IntoIterator<Item = (SocketAddr, Rc<SilentConnections>)>,
        known_servers: Rc<Vec<Rc<Servers>>>,
        buffers: &Rc<BufferPool>,
    ) -> Self {
        let Seed {
            config,
            trust,
            dry_run,
            tls,
            common,
            backends,
            changed_at,
            ..
        } = seed;
        let listeners = config.listeners.iter().zip(sockets);
        let parts = listeners.zip(trust).zip(dry_run).zip(tls);
        let parts = parts.zip(&common.listeners);
        let doors = parts.map(
            |(((((listener, (address, silent)), trust), dry_run), tls), shared)| Door {
                listener: Arc::clone(listener),
                address,
                trust,
                dry_run,
                tls,
                limit: shared.connections.clone(),
                handshakes: Arc::clone(&shared.handshakes),
                silent,
            },
        );
        let doors = doors.collect();
        let servers = match backends {
            Some(backends) => {
                let resources = (buffers, &common.descriptors);
                Rc::new(servers(&config, backends, &known_servers, resources))
            }
            None => known_servers,
        };
        State {
            config,
            changed_at,
            doors,
            servers,
        }
    }
}

fn servers(
    config: &Config,
    backends: Backends,
    before: &[Rc<Servers>],
    (buffers, descriptors): (&Rc<BufferPool>, &Descriptors),
) -> Vec<Rc<Servers>> {
    let mut known = backends.servers.into_iter();
    let parts = config.backends.iter().zip(backends.transports).enumerate();
    let servers = parts.map(|(position, (backend, transport))| {
        let mut random = [0; 8];
        // Without randomness all begin with the first server.
        let _ = config.provider.secure_random.fill(&mut random);
        let random = usize::from_ne_bytes(random);
        let resources = (Rc::clone(buffers), descriptors.clone());
        let servers = Servers::new(Arc::clone(backend), transport, resources, random);
        // The set of backends is the same for as long as the process lives.
        let servers = match before.get(position) {
            Some(before) => servers.after(before),
            None => servers,
        };
        servers.replace(&known.next().unwrap_or_default());
        Rc::new(servers)
    });
    servers.collect()
}
