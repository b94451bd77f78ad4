//! The running gateway: starts all threads, knows them, and drains them.
//! In: a checked configuration. Out: threads that serve it. Everything that can fail fails here, before the first
//! connection is accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use gateway_core::admission::ConnectionLimit;

use super::control::{Control, ControlStop};
use super::worker::{self, Fatal, Message, Seed};
use super::{control, listen};
use crate::backend::{Resolver, Transport};
use crate::config::{Config, GuardMode};
use crate::guard::{Guard, GuardError, PortCount};
use crate::observe::{AdminSocket, Health, Metrics, WorkerCounters};
use crate::rt::{Mailbox, mailbox};
use crate::tls;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be bound.
    #[error("listener \"{listener}\": cannot listen on {address}: {error}")]
    Listen {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The administration endpoint cannot be bound.
    #[error("[admin] address: cannot listen: {0}")]
    Admin(std::io::Error),
    /// `[guard] required = true`, and the kernel program cannot run.
    #[error("[guard] required = true: {0}")]
    Guard(GuardError),
    /// A TLS configuration was refused.
    #[error("{what}: {error:#}")]
    Tls {
        /// Listener or backend.
        what: String,
        /// Why.
        error: anyhow::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A gateway that takes connections.
#[derive(Debug)]
pub struct Gateway {
    config: Arc<Config>,
    addresses: Vec<(String, SocketAddr)>,
    health: Arc<Health>,
    metrics: Metrics,
    workers: Vec<Worker>,
    control: JoinHandle<()>,
    control_stop: ControlStop,
    fatal: Fatal,
}

#[derive(Debug)]
struct Worker {
    mailbox: Arc<Mailbox<Message>>,
    thread: JoinHandle<()>,
}

impl Gateway {
    /// Binds everything, starts every thread, and takes connections.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        raise_descriptor_limit(&config);
        let bound = listen::bind_all(&config)?;
        let addresses = bound.addresses.clone();
        let admin = config
            .admin
            .as_ref()
            .map(AdminSocket::bind)
            .transpose()
            .map_err(StartError::Admin)?;
        let ports: Vec<_> = addresses
            .iter()
            .map(|(_, address)| address.port())
            .collect();
        let guard = start_guard(&config, &ports)?;
        let mut resolver = Resolver::new(&config.backends);
        let servers = control::first_addresses(&mut resolver).map_err(StartError::Thread)?;
        let shared = Shared::new(&config, servers)?;
        // Nothing but a thread that cannot be started fails after this.
        let mut sockets = bound.listen()?;

        let mut counters = Vec::new();
        let mut workers = Vec::new();
        let fatal = Fatal::default();
        for number in 0..config.workers.get() {
            let worker_counters = Arc::new(WorkerCounters::new(&config));
            counters.push(Arc::clone(&worker_counters));
            let seed = shared.seed(&config, number, sockets.remove(0), worker_counters);
            workers.push(Worker::start(seed, fatal.clone())?);
        }
        let metrics = Metrics::new(Arc::clone(&config), counters, guard);
        let health = Arc::new(Health::default());
        let mailboxes: Vec<_> = workers
            .iter()
            .map(|worker| Arc::clone(&worker.mailbox))
            .collect();
        let control = Control {
            resolver,
            admin,
            health: Arc::clone(&health),
            metrics: metrics.clone(),
            mailboxes,
        };
        let (control, control_stop) = control::start(control).map_err(StartError::Thread)?;
        health.set_ready(true);
        Ok(Gateway {
            config,
            addresses,
            health,
            metrics,
            workers,
            control,
            control_stop,
            fatal,
        })
    }

    /// Listeners and the addresses they got (a port of 0 in the configuration means any).
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// The metrics page in OpenMetrics text.
    pub fn metrics(&self) -> String {
        self.metrics.encode()
    }

    /// What the kernel counted on each protected port; `None` where the guard does not run.
    pub fn guard_counts(&self) -> Option<Result<Vec<PortCount>, GuardError>> {
        self.metrics.with_guard(Guard::counts)
    }

    /// Set when a worker has ended although nobody asked it to; the process should end too, and be restarted.
    pub fn fatal(&self) -> &Fatal {
        &self.fatal
    }

    /// Stops taking connections, lets those that are open finish until `drain_timeout`, and returns when all are gone.
    pub fn drain(self) {
        self.health.set_ready(false);
        let deadline = Instant::now() + self.config.drain_timeout;
        for worker in &self.workers {
            worker.mailbox.send(Message::Drain { deadline });
        }
        for worker in self.workers {
            if worker.thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        drop(self.metrics.take_guard());
        self.control_stop.stop();
        if self.control.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

impl Worker {
    fn start(seed: Seed, fatal: Fatal) -> Result<Self, StartError> {
        let (mailbox, receiver) = mailbox().map_err(StartError::Thread)?;
        let name = format!("worker-{}", seed.number);
        let run = move || worker::run(seed, receiver, &fatal);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(StartError::Thread)?;
        Ok(Worker {
            mailbox: Arc::new(mailbox),
            thread,
        })
    }
}

/// What all workers are started with.
struct Shared {
    tls: Vec<Arc<rustls::ServerConfig>>,
    transports: Vec<Transport>,
    limits: Vec<ConnectionLimit>,
    addresses: Vec<Vec<SocketAddr>>,
}

impl Shared {
    fn new(config: &Config, addresses: Vec<Vec<SocketAddr>>) -> Result<Self, StartError> {
        let mut tls = Vec::new();
        for listener in &config.listeners {
            let what = || format!("listener \"{}\"", listener.name);
            tls.push(
                tls::server_config(config, listener).map_err(|error| StartError::Tls {
                    what: what(),
                    error,
                })?,
            );
        }
        let mut transports = Vec::new();
        for (position, backend) in config.backends.iter().enumerate() {
            let users = config
                .listeners
                .iter()
                .filter(|listener| listener.backend == position);
            let protocols: Vec<_> = users.flat_map(|listener| listener.alpn.clone()).collect();
            let what = || format!("backend \"{}\"", backend.name);
            transports.push(
                Transport::new(config, backend, &protocols).map_err(|error| StartError::Tls {
                    what: what(),
                    error,
                })?,
            );
        }
        let limit = |listener: &Arc<_>| {
            let listener: &crate::config::Listener = listener;
            ConnectionLimit::new(listener.max_connections)
        };
        Ok(Shared {
            tls,
            transports,
            limits: config.listeners.iter().map(limit).collect(),
            addresses,
        })
    }

    fn seed(
        &self,
        config: &Arc<Config>,
        number: usize,
        sockets: Vec<std::net::TcpListener>,
        counters: Arc<WorkerCounters>,
    ) -> Seed {
        Seed {
            number,
            config: Arc::clone(config),
            sockets,
            tls: self.tls.clone(),
            transports: self.transports.clone(),
            limits: self.limits.clone(),
            addresses: self.addresses.clone(),
            counters,
        }
    }
}

/// Attaches the kernel program, if the configuration asks for it.
fn start_guard(config: &Config, ports: &[u16]) -> Result<Option<Guard>, StartError> {
    if config.guard.mode == GuardMode::Off {
        return Ok(None);
    }
    match Guard::attach(&config.guard.interfaces, ports) {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if config.guard.required => Err(StartError::Guard(error)),
        Err(error) => {
            tracing::warn!(%error, "running without the guard");
            Ok(None)
        }
    }
}

/// Raises the soft limit on descriptors to the hard one, and says so when even that is too low.
fn raise_descriptor_limit(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    ) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    let connections: usize = config
        .listeners
        .iter()
        .map(|listener| listener.max_connections)
        .sum();
    // A client's socket and its backend's.
    let needed = 2 * connections as u64;
    if let Some(maximum) = limit.maximum.filter(|maximum| *maximum < needed) {
        tracing::warn!(
            maximum,
            needed,
            "the limit on open files is below twice max_connections; raise LimitNOFILE or lower max_connections"
        );
    }
}
