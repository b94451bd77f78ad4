//! Resolves the names of backends, again and again, through the system's resolver, so that /etc/hosts and nsswitch count; services
//! by their records.
//! In: the backends. Out: their servers, when they change. On a thread of its own, and one more for each question that is
//! open: the resolver may be silent for as long as it likes, and nothing but the names it is asked for waits. Outlives
//! every reload, with what it knows.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gateway_core::balance::Server;
use gateway_core::limits;
use gateway_core::names::{Change, Name, Names, Resolved, Schedule};

use super::service;
use crate::config::{Backend, BackendId, BackendTransport};

/// Takes a backend and its servers.
type Publish = Box<dyn Fn(BackendId, Vec<Server>) + Send>;

/// Speaks to the resolver's thread, which ends when the last of these is dropped.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<ResolverShared>,
    _alive: Arc<Alive>,
}

/// Ends the thread when it is dropped.
struct Alive(Arc<ResolverShared>);

struct ResolverShared {
    state: Mutex<ResolverState>,
    changed: Condvar,
}

struct ResolverState {
    names: Names,
    publish: Option<Publish>,
    /// What the workers were told last.
    published: Vec<Vec<Server>>,
    /// No thread waits for the first answers any more.
    is_given_up: bool,
    is_stopped: bool,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_stopped = true;
        state.publish = None;
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Resolver {
    /// Begins to resolve the names of `backends`.
    pub fn start(backends: &[Arc<Backend>]) -> io::Result<Self> {
        let mut names = Names::new(Schedule {
            interval: limits::RESOLVE_INTERVAL,
            retry: limits::RESOLVE_RETRY,
            patience: limits::RESOLVE_TIMEOUT,
            open_max: limits::RESOLUTIONS_MAX,
        });
        names.follow(as_written(backends), Instant::now());
        let shared = Arc::new(ResolverShared {
            state: Mutex::new(ResolverState {
                published: names.servers(),
                names,
                publish: None,
                is_given_up: false,
                is_stopped: false,
            }),
            changed: Condvar::new(),
        });
        let running = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || running.run())?;
        Ok(Resolver {
            _alive: Arc::new(Alive(Arc::clone(&shared))),
            shared,
        })
    }

    /// Waits until every name has been answered for, or has failed, or the resolver has been silent for too long; no longer
    /// than until `give_up`. Returns the servers that are known.
    pub fn first_servers(&self) -> Vec<Vec<Server>> {
        let until = Instant::now() + limits::RESOLVE_TIMEOUT;
        let mut state = self.shared.lock();
        while !state.names.is_settled() && !state.is_given_up {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.wait(state, Some(left));
        }
        state.names.servers()
    }

    /// Ends the wait for first answers.
    pub fn give_up(&self) {
        self.shared.lock().is_given_up = true;
        self.shared.changed.notify_all();
    }

    /// Hands servers to `publish` from now on: at once those that are known, then those that change.
    pub fn publish_to(&self, publish: impl Fn(BackendId, Vec<Server>) + Send + 'static) {
        let mut state = self.shared.lock();
        state.publish = Some(Box::new(publish));
        state.published.clear();
        state.publish_changes();
    }

    /// Resolves the names of other backends from now on, without a wait: `begin` gets the servers that are known of them
    /// already. Nothing is published while it runs, and nothing of the backends before after it.
    pub fn follow<T>(
        &self,
        backends: &[Arc<Backend>],
        begin: impl FnOnce(Vec<Vec<Server>>) -> T,
    ) -> T {
        let mut state = self.shared.lock();
        state.names.follow(as_written(backends), Instant::now());
        state.published = state.names.servers();
        let begun = begin(state.published.clone());
        self.shared.changed.notify_all();
        begun
    }
}

fn as_written(backends: &[Arc<Backend>]) -> Vec<gateway_core::names::Backend> {
    let of_one = |backend: &Arc<Backend>| gateway_core::names::Backend {
        servers: backend.servers.clone(),
        is_loopback_only: matches!(backend.transport, BackendTransport::LoopbackPlaintext),
    };
    backends.iter().map(of_one).collect()
}

impl ResolverState {
    fn publish_changes(&mut self) {
        let Some(publish) = &self.publish else { return };
        let servers = self.names.servers();
        for (position, servers) in servers.iter().enumerate() {
            if self.published.get(position) != Some(servers) {
                let listed = servers.iter().map(|server| server.address.to_string());
                let listed = listed.collect::<Vec<_>>().join(", ");
                tracing::debug!(backend = position, servers = listed, "servers");
                publish(BackendId(position), servers.clone());
            }
        }
        self.published = servers;
    }
}

impl ResolverShared {
    fn lock(&self) -> MutexGuard<'_, ResolverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, ResolverState>,
        time: Option<Duration>,
    ) -> MutexGuard<'a, ResolverState> {
        match time {
            Some(time) => {
                let waited = self.changed.wait_timeout(state, time);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    /// Asks for what is due, until the resolver is dropped.
    fn run(self: Arc<Self>) {
        let mut state = self.lock();
        while !state.is_stopped {
            let now = Instant::now();
            let overdue = state.names.overdue(now);
            if !overdue.is_empty() {
                // A thread that waits for the first answers waits no longer.
                self.changed.notify_all();
            }
            for (name, change) in overdue {
                tell(&name, change, "the resolver does not answer");
            }
            for name in state.names.due(now) {
                if let Err(error) = self.ask(name.clone()) {
                    let change = state.names.answered(&name, None, now);
                    tell(&name, change, &error);
                }
            }
            let next_at = state.names.next_at();
            let time = next_at.map(|at| at.saturating_duration_since(Instant::now()));
            state = self.wait(state, time);
        }
    }

    /// Asks for one name, on a detached thread.
    fn ask(self: &Arc<Self>, name: Name) -> io::Result<()> {
        let shared = Arc::clone(self);
        let asking = move || {
            // Whatever happens to it, the name must not stay open.
            let answer = std::panic::catch_unwind(|| find(&name));
            let answer = answer.unwrap_or_else(|_| Err(io::Error::other("the look-up panicked")));
            shared.take(&name, answer);
        };
        let thread = std::thread::Builder::new().name("look-up".to_owned());
        thread.spawn(asking).map(drop)
    }

    fn take(&self, name: &Name, answer: io::Result<Vec<Resolved>>) {
        let mut state = self.lock();
        let (found, error) = match answer {
            Ok(found) => (Some(found), None),
            Err(error) => (None, Some(error)),
        };
        let change = state.names.answered(name, found, Instant::now());
        match error {
            Some(error) => tell(name, change, &error),
            None => tell(name, change, ""),
        }
        state.publish_changes();
        self.changed.notify_all();
    }
}

/// Asks for a name, and waits for the answer.
fn find(name: &Name) -> io::Result<Vec<Resolved>> {
    match name {
        Name::Host { host, port } => {
            let found = (host.as_str(), *port).to_socket_addrs()?;
            Ok(found.map(Resolved::from).collect())
        }
        Name::Service(service) => service::look_up(service),
    }
}

/// Says what an operator wants to know: the first failure of a name, and its end.
fn tell(name: &Name, change: Change, error: &(impl fmt::Display + ?Sized)) {
    match change {
        Change::Lost => {
            tracing::warn!(%name, %error, "cannot resolve a backend's server; its last addresses, if any, stay in use");
        }
        Change::Found => tracing::info!(%name, "a backend's server can be resolved again"),
        Change::Nothing => {}
    }
}
