//! What a worker trusts and serves at this moment: made from one checked configuration, replaced whole on a reload.
//! In: a shared state, made once for all workers. Out: listeners and servers of one worker. New connections take the newest
//! state, and the worker evaluates open connections under it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use gateway_core::balance::Server;
use gateway_core::block::BlockList;
use gateway_core::connection_limit::ConnectionLimit;
use gateway_core::descriptors::Descriptors;
use gateway_core::limits;
use gateway_core::trust::Trust;
use gateway_rt::BufferPool;
use tokio::sync::Semaphore;

use crate::backend::{Servers, Transport};
use crate::config::{BackendId, Config, Listener, ListenerId};
use crate::crypto::KeyRing;
use crate::http::Current;
use crate::tls::{self, DryRun, ServerConfigs};

use super::error::StartError;
use super::silent::SilentConnections;

/// What every worker's state is made of. Immutable; a reload makes another.
#[derive(Clone)]
pub(super) struct SharedState {
    pub(super) config: Arc<Config>,
    pub(super) blocks: Arc<BlockList>,
    /// `None` where no client can resume.
    pub(super) ticket_keys: Option<Arc<KeyRing>>,
    trust: Vec<Arc<Trust>>,
    dry_run: Vec<Option<Arc<DryRun>>>,
    tls: Vec<ServerConfigs>,
    pub(super) limits: Arc<SharedLimits>,
    backends: Option<Backends>,
    /// When the configuration or the block list became this.
    pub(super) changed_at: Instant,
}

/// The limits that all workers count against together, for as long as the process lives.
pub(super) struct SharedLimits {
    /// Descriptors for connections.
    pub(super) descriptors: Descriptors,
    listeners: Vec<ListenerLimits>,
}

/// The limits of a listener, over all workers.
struct ListenerLimits {
    connections: ConnectionLimit,
    /// Handshakes: a client takes a slot with its first byte. The client that has waited longest gets the next one, on any worker.
    handshakes: Arc<Semaphore>,
}

impl SharedLimits {
    /// Those of the listeners of `config`.
    pub(super) fn new(config: &Config, descriptors: Descriptors) -> Self {
        let of_listener = |listener: &Arc<Listener>| ListenerLimits {
            connections: ConnectionLimit::new(listener.max_connections),
            handshakes: Arc::new(Semaphore::new(listener.max_handshakes)),
        };
        SharedLimits {
            descriptors,
            listeners: config.listeners.iter().map(of_listener).collect(),
        }
    }
}

/// How to reach the backends. A shared state without it leaves them as they are.
#[derive(Clone)]
struct Backends {
    transports: Vec<Transport>,
    /// The servers that are known of each. A backend without any keeps those that it had.
    servers: Vec<Vec<Server>>,
}

impl std::fmt::Debug for SharedState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SharedState")
            .field("file", &self.config.file)
            .finish_non_exhaustive()
    }
}

impl SharedState {
    /// Makes everything that can fail, from nothing.
    pub(super) fn new(
        config: Arc<Config>,
        blocks: Arc<BlockList>,
        servers: Vec<Vec<Server>>,
        descriptors: Descriptors,
    ) -> Result<Self, StartError> {
        let limits = Arc::new(SharedLimits::new(&config, descriptors));
        let backends = Some(Backends::new(&config, servers)?);
        let ticket_keys = ticket_keys(&config, None)?;
        SharedState::assemble(config, blocks, ticket_keys, limits, backends)
    }

    /// The state after this one, by another configuration. `set_servers` gives it the servers, before it is published. The
    /// limits stay the same ones: the connections that they count are still open.
    pub(super) fn with_config(&self, config: Arc<Config>) -> Result<Self, StartError> {
        let backends = Some(Backends::new(&config, Vec::new())?);
        let blocks = Arc::clone(&self.blocks);
        let ticket_keys = ticket_keys(&config, Some(self))?;
        let limits = Arc::clone(&self.limits);
        SharedState::assemble(config, blocks, ticket_keys, limits, backends)
    }

    /// Sets the servers that are known of each backend.
    pub(super) fn set_servers(&mut self, servers: Vec<Vec<Server>>) {
        if let Some(backends) = &mut self.backends {
            backends.servers = servers;
        }
    }

    /// The state after this one, with another block list.
    pub(super) fn with_blocks(&self, blocks: Arc<BlockList>) -> Result<Self, StartError> {
        let (config, ticket_keys) = (Arc::clone(&self.config), self.ticket_keys.clone());
        let limits = Arc::clone(&self.limits);
        SharedState::assemble(config, blocks, ticket_keys, limits, None)
    }

    /// The state after this one, with a new ticket key. `None` unless keys live in memory and it is time.
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
        let limits = Arc::clone(&self.limits);
        SharedState::assemble(config, blocks, keys, limits, None).map(Some)
    }

    fn assemble(
        config: Arc<Config>,
        blocks: Arc<BlockList>,
        ticket_keys: Option<Arc<KeyRing>>,
        limits: Arc<SharedLimits>,
        backends: Option<Backends>,
    ) -> Result<Self, StartError> {
        let mut trust = Vec::new();
        let mut tls = Vec::new();
        for (position, listener) in config.listeners.iter().enumerate() {
            let of_listener = tls::listener_trust(&config, ListenerId(position), &blocks);
            let made = tls::server_configs(&config, listener, &of_listener, ticket_keys.as_deref());
            tls.push(made.map_err(|error| StartError::Tls {
                what: format!("listener \"{}\"", listener.name),
                error,
            })?);
            trust.push(of_listener);
        }
        let dry_run = dry_run(&config, &blocks);
        Ok(SharedState {
            config,
            blocks,
            ticket_keys,
            trust,
            dry_run,
            tls,
            limits,
            backends,
            changed_at: Instant::now(),
        })
    }
}

/// The keys to seal tickets with: those of the file, else those in memory, else new ones.
fn ticket_keys(
    config: &Config,
    before: Option<&SharedState>,
) -> Result<Option<Arc<KeyRing>>, StartError> {
    let Some(resumption) = &config.resumption else {
        return Ok(None);
    };
    if let Some(keys) = &resumption.keys {
        return Ok(Some(Arc::clone(keys)));
    }
    let in_memory = |before: &&SharedState| {
        let resumption = before.config.resumption.as_ref();
        resumption.is_some_and(|resumption| resumption.keys.is_none())
    };
    if let Some(keys) = before
        .filter(in_memory)
        .and_then(|before| before.ticket_keys.clone())
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
        let candidate = config.dry_run.as_ref()?;
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
                .filter(|listener| listener.backends().contains(&BackendId(position)));
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
    /// When the configuration became this. The time until a connection closes for it counts from here.
    pub(super) changed_at: Instant,
    pub(super) listeners: Vec<ListenerState>,
    pub(super) servers: Rc<Vec<Rc<Servers>>>,
}

/// A listener, as one worker sees it.
pub(super) struct ListenerState {
    pub(super) config: Arc<Listener>,
    pub(super) address: SocketAddr,
    pub(super) trust: Arc<Trust>,
    pub(super) dry_run: Option<Arc<DryRun>>,
    pub(super) tls: ServerConfigs,
    pub(super) limit: ConnectionLimit,
    /// Slots for handshakes, over all workers.
    pub(super) handshakes: Arc<Semaphore>,
    /// Connections that have sent nothing yet, on this worker.
    pub(super) silent: Rc<SilentConnections>,
}

/// How many connections of a listener may be silent at once, on each of so many workers. The kernel spreads connections at random,
/// so one worker may get a few more than its share.
pub(super) fn silent_max(listener: &Listener, workers: usize) -> usize {
    let share = listener.max_handshakes.div_ceil(workers);
    share.max(limits::SILENT_CONNECTIONS_MIN)
}

impl State {
    /// A listener, as this worker sees it.
    pub(super) fn listener(&self, ListenerId(position): ListenerId) -> &ListenerState {
        &self.listeners[position]
    }

    /// What HTTP mode takes of it.
    pub(super) fn current(&self) -> Current {
        let dry_run = self.listeners.iter();
        Current {
            config: Arc::clone(&self.config),
            servers: Rc::clone(&self.servers),
            dry_run: dry_run.map(|listener| listener.dry_run.clone()).collect(),
        }
    }

    /// A worker's first state.
    pub(super) fn new(
        shared: SharedState,
        sockets: impl IntoIterator<Item = (SocketAddr, Rc<SilentConnections>)>,
        buffers: &Rc<BufferPool>,
    ) -> Self {
        State::assemble(shared, sockets, Rc::default(), buffers)
    }

    /// The state after this one. Addresses and silent connections belong to the worker's sockets and stay the same.
    pub(super) fn next(&self, shared: SharedState, buffers: &Rc<BufferPool>) -> Self {
        let sockets = self
            .listeners
            .iter()
            .map(|listener| (listener.address, Rc::clone(&listener.silent)));
        State::assemble(shared, sockets, Rc::clone(&self.servers), buffers)
    }

    fn assemble(
        shared: SharedState,
        sockets: impl IntoIterator<Item = (SocketAddr, Rc<SilentConnections>)>,
        known_servers: Rc<Vec<Rc<Servers>>>,
        buffers: &Rc<BufferPool>,
    ) -> Self {
        let SharedState {
            config,
            trust,
            dry_run,
            tls,
            limits,
            backends,
            changed_at,
            ..
        } = shared;
        let opened = config.listeners.iter().zip(sockets);
        let parts = opened.zip(trust).zip(dry_run).zip(tls);
        let parts = parts.zip(&limits.listeners);
        let listeners = parts.map(
            |(((((listener, (address, silent)), trust), dry_run), tls), of_listener)| {
                ListenerState {
                    config: Arc::clone(listener),
                    address,
                    trust,
                    dry_run,
                    tls,
                    limit: of_listener.connections.clone(),
                    handshakes: Arc::clone(&of_listener.handshakes),
                    silent,
                }
            },
        );
        let listeners = listeners.collect();
        let servers = match backends {
            Some(backends) => {
                let resources = (buffers, &limits.descriptors);
                Rc::new(servers(&config, backends, &known_servers, resources))
            }
            None => known_servers,
        };
        State {
            config,
            changed_at,
            listeners,
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
        // A backend keeps its position for as long as the process lives; new ones come behind.
        let servers = match before.get(position) {
            Some(before) => servers.after(before),
            None => servers,
        };
        servers.replace(&known.next().unwrap_or_default());
        Rc::new(servers)
    });
    servers.collect()
}
