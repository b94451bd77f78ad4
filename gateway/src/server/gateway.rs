//! The running gateway: starts all threads, sends them new states, and drains them.
//! In: a checked configuration. Out: threads that serve it. Everything that can fail fails here, before the first
//! connection is accepted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use gateway_core::block::{Block, BlockList};
use gateway_core::limits;
use gateway_guard::{GuardError, GuardHandle, PortCount};
use gateway_rt::{Mailbox, mailbox};
use gateway_x509::crl_ranks;
use tokio::sync::mpsc;

use super::answers::Answers;
use super::control_thread::{Control, ControlStop};
use super::error::{ReloadError, StartError};
use super::listen::Ports;
use super::matching::{Matching, Wanted};
use super::message::Message;
use super::privilege::Privileges;
use super::state::SharedState;
use super::worker::{self, Fatal};
use super::{control_thread, descriptors, fixed, guard_start};
use crate::admin::{AdminPlace, AdminSocket};
use crate::backend::Resolver;
use crate::config::{Config, ListFiles, Unread};
use crate::connection::UsageTable;
use crate::telemetry::{self, Audit, BlocksInForce, Health, Metrics, WorkerCounters};

/// A gateway that accepts connections.
#[derive(Debug)]
pub struct Gateway {
    shared: Mutex<SharedState>,
    resolver: Resolver,
    pub(super) addresses: Vec<(String, SocketAddr)>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Metrics,
    pub(super) guard: Arc<GuardHandle>,
    pub(super) mailboxes: Vec<Arc<Mailbox<Message>>>,
    audit: Audit,
    pub(super) control_stop: ControlStop,
    admin_place: Option<AdminPlace>,
    pub(super) is_superseded: AtomicBool,
    pub(super) reloads: Mutex<Reloads>,
    threads: Mutex<Option<Threads>>,
    fatal: Fatal,
}

/// The outcomes of reloads, whatever their cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloads {
    /// When the last one was taken.
    pub taken_at: Option<SystemTime>,
    /// When the last one was refused.
    pub refused_at: Option<SystemTime>,
    /// Why, if none was taken since.
    pub refused_because: Option<String>,
}

/// What a drain waits for.
#[derive(Debug)]
struct Threads {
    workers: Vec<JoinHandle<()>>,
    control: JoinHandle<()>,
}

impl Gateway {
    /// Binds the sockets, starts all threads and accepts connections, except from blocked clients. `privileges` does what takes
    /// capabilities, and ends before anything else begins.
    ///
    /// `resolver` has begun with the names of the configuration; the start waits for its first answers, or until it gives up.
    pub fn start(
        config: Config,
        blocks: BlockList,
        privileges: Privileges,
        resolver: &Resolver,
        ports: Ports,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let budget = descriptors::divide_and_tell(&config)?;
        let (bound, guard) = guard_start::bind_and_guard(&config, &privileges, ports)?;
        privileges.end();
        let addresses = bound.addresses.clone();
        let (admin, admin_place) = bind_admin(&config, ports)?;
        let servers = resolver.first_servers();
        let descriptors = budget.descriptors.clone();
        let shared = SharedState::new(Arc::clone(&config), Arc::new(blocks), servers, descriptors)?;
        let audit = start_audit(&config)?;
        // Nothing but a worker that cannot serve fails after this.
        let sockets = bound.listen()?;
        let counters = counters_for(sockets.len(), &config);
        let mut workers = Vec::new();
        let fatal = Fatal::default();
        let usage = Arc::new(UsageTable::default());
        let (scrapes, scraped) = mpsc::channel(limits::ADMIN_TLS_CONNECTIONS_MAX);
        for (number, sockets) in sockets.into_iter().enumerate() {
            let start = worker::Start {
                number,
                shared: shared.clone(),
                sockets,
                counters: Arc::clone(&counters[number]),
                usage: Arc::clone(&usage),
                audit: audit.clone(),
                source_admission: guard.source_admission(),
                scrapes: scrapes.clone(),
            };
            workers.push(start_worker(start, fatal.clone())?);
        }
        let (mailboxes, workers) = wait_until_all_serve(workers)?;
        let guard = Arc::new(guard);
        let metrics = Metrics::new(
            Arc::clone(&config),
            counters,
            Arc::clone(&guard),
            audit.clone(),
            usage,
            budget.descriptors.clone(),
        );
        let health = Arc::new(Health::default());
        publish_servers(resolver, mailboxes.clone());
        let control = Control {
            admin,
            scraped,
            health: Arc::clone(&health),
            metrics: metrics.clone(),
            mailboxes: mailboxes.clone(),
            guard: Arc::clone(&guard),
            audit: audit.clone(),
            budget,
        };
        let (control, control_stop) = control_thread::start(control).map_err(StartError::Thread)?;
        audit.started(&config);
        Ok(Gateway {
            shared: Mutex::new(shared),
            resolver: resolver.clone(),
            addresses,
            health,
            metrics,
            guard,
            mailboxes,
            audit,
            control_stop,
            admin_place,
            is_superseded: AtomicBool::new(false),
            reloads: Mutex::default(),
            threads: Mutex::new(Some(Threads { workers, control })),
            fatal,
        })
    }

    /// Answers at the administration endpoint from now on, where another process did until now.
    pub fn take_admin(&self) {
        if let Some(Err(error)) = self.admin_place.as_ref().map(AdminPlace::take) {
            tracing::error!(%error, "cannot put the administration endpoint in its place: restart");
        }
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
        self.guard.counts()
    }

    /// Why the kernel programs do not run, where they should.
    pub fn guard_obstacle(&self) -> Option<&str> {
        self.guard.obstacle()
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Trusts and serves `config` from now on, or nothing of it, and says why. Open connections stay, unless the new state
    /// rejects their clients; returns how many close. `changed_at` is when the configuration changed.
    pub fn reload(&self, config: Config, changed_at: Instant) -> Result<usize, ReloadError> {
        let outcome = self.try_reload(config, changed_at);
        self.metrics.count_reload(outcome.is_ok());
        outcome
    }

    /// Counts a new configuration that was refused before it got here.
    pub fn count_refused_reload(&self) {
        self.metrics.count_reload(false);
    }

    fn try_reload(&self, config: Config, changed_at: Instant) -> Result<usize, ReloadError> {
        let current = Arc::clone(&self.lock_shared().config);
        let fixed = fixed::differences(&current, &config);
        if fixed.is_empty() {
            return Ok(self.put_in_force(config, changed_at)?);
        }
        let fixed = fixed.join("; ");
        if self.is_ready() {
            return Err(ReloadError::NeedsRestart(fixed));
        }
        // The restart is under way, and the next process serves by that configuration. Clients that it does not trust go here too.
        tracing::info!(
            fixed,
            "settings that need a restart are for the next process; CAs, lists and rules act here too"
        );
        Ok(self.put_in_force(current.trusting_as(&config), changed_at)?)
    }

    /// Reads revocation lists again and puts them in force, although the rest of a configuration was refused: the lists in force,
    /// and those that `named` adds to the same listeners and backends. No revocation waits for the rest. Returns how many
    /// connections are closed, or `None` where nothing is new; adds what cannot be read to `unread`. Called by the thread that
    /// reloads.
    pub fn revoke(
        &self,
        named: &[ListFiles],
        changed_at: Instant,
        unread: &mut Unread,
    ) -> Result<Option<usize>, StartError> {
        // Read without the lock: a block must not have to wait for a long list.
        let config = Arc::clone(&self.lock_shared().config);
        match config.with_lists_reread(named, SystemTime::now(), unread) {
            Some(config) => self.put_in_force(config, changed_at).map(Some),
            None => Ok(None),
        }
    }

    /// Records the revocation lists in force, over restarts: older ones are refused from now on.
    pub fn record_lists(&self) {
        let config = Arc::clone(&self.lock_shared().config);
        if let Err(error) = crl_ranks::record(&config.paths.state, config.lists()) {
            tracing::warn!(%error, "after a restart the gateway will not recognise older revocation lists");
        }
    }

    /// The file that records the newest revocation lists.
    pub fn list_ranks_file(&self) -> PathBuf {
        crl_ranks::file_in(&self.lock_shared().config.paths.state)
    }

    /// The revocation lists in force.
    pub fn list_files(&self) -> Vec<ListFiles> {
        self.lock_shared().config.list_files()
    }

    fn put_in_force(&self, config: Config, changed_at: Instant) -> Result<usize, StartError> {
        let config = Arc::new(config);
        let mut current = self.lock_shared();
        let mut shared = current.with_config(Arc::clone(&config))?;
        if config.audit != current.config.audit {
            // The last step that can fail.
            let opened = telemetry::open(config.audit.clone()).map_err(StartError::Audit)?;
            self.audit.switch(opened);
        }
        // After a takeover both processes share the kernel programs, which go by the policy of the next one.
        if !self.is_superseded.load(Ordering::Relaxed) {
            // The configuration is in force even if the kernel does not take its policy.
            self.guard.follow(&config.guard.policy);
        }
        // Clients that the new state does not trust go at once: this waits for no name.
        let answers = self.resolver.follow(&config.backends, |servers| {
            shared.set_servers(servers);
            self.publish(&mut current, shared, changed_at)
        });
        self.metrics.reload(config);
        drop(current);
        Ok(answers.wait())
    }

    /// Blocks the clients that `blocks` matches from now on, and no others. `changed_at` is when the list changed. Returns how
    /// many connections are closed, when every worker has taken the list.
    pub fn block(&self, blocks: BlockList, changed_at: Instant) -> Result<usize, StartError> {
        let mut current = self.lock_shared();
        let shared = current.with_blocks(Arc::new(blocks))?;
        let answers = self.publish(&mut current, shared, changed_at);
        drop(current);
        Ok(answers.wait())
    }

    /// Shows on the metrics page and at the administration endpoint which block list is in force.
    pub fn note_blocks(&self, blocks: BlocksInForce) {
        self.metrics.set_blocks(blocks);
    }

    /// Makes a new ticket key, if keys live in memory and it is time. To be called about once a minute.
    pub fn refresh_ticket_keys(&self) {
        let mut current = self.lock_shared();
        match current.with_fresh_ticket_keys(SystemTime::now()) {
            Ok(None) => {}
            Ok(Some(shared)) => {
                let changed_at = current.changed_at;
                // Nothing waits for it: the new state still opens tickets of the old key.
                let _ = self.publish(&mut current, shared, changed_at);
                tracing::info!("new ticket key");
            }
            Err(error) => {
                tracing::error!(%error, "cannot make a new ticket key; the old keys stay in use")
            }
        }
    }

    /// Sends a state to every worker. The answers tell how many connections each worker closes for it.
    fn publish(
        &self,
        current: &mut SharedState,
        mut shared: SharedState,
        changed_at: Instant,
    ) -> Answers<usize> {
        self.audit_keys(current, &shared);
        shared.changed_at = changed_at;
        let answers = self.ask_workers(|closed| Message::Reload {
            shared: Box::new(shared.clone()),
            closed,
        });
        *current = shared;
        answers
    }

    /// Asks every worker which clients an entry matches. A worker answers by what it knows before its next message.
    pub fn ask_who_matches(&self, block: Block) -> Answers<Matching> {
        let wanted = Arc::new(Wanted::new(block));
        self.ask_workers(|matching| Message::WhoMatches {
            wanted: Arc::clone(&wanted),
            matching,
        })
    }

    fn ask_workers<T>(&self, message: impl Fn(Sender<T>) -> Message) -> Answers<T> {
        let (answer, answers) = channel();
        for mailbox in &self.mailboxes {
            mailbox.send(message(answer.clone()));
        }
        Answers::new(self.mailboxes.len(), answers)
    }

    fn audit_keys(&self, before: &SharedState, now: &SharedState) {
        let Some(keys) = &now.ticket_keys else { return };
        let before = before.ticket_keys.as_ref();
        if before.is_none_or(|before| !keys.seals_as(before)) {
            let distrusted = before.is_some_and(|before| before.epoch() < keys.epoch());
            self.audit.keys_rotated(keys, distrusted);
        }
    }

    pub(super) fn lock_shared(&self) -> MutexGuard<'_, SharedState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Set when a worker has ended by itself: the process should end too, and be restarted.
    pub fn fatal(&self) -> &Fatal {
        &self.fatal
    }

    /// Announces that no more connections are accepted. From now on a reload closes connections of clients that it does not trust,
    /// even if other settings need a restart.
    pub fn announce_drain(&self) {
        self.health.set_ready(false);
    }

    /// Stops accepting, lets open connections finish until `drain_timeout`, and returns when all have ended.
    pub fn drain(&self) {
        self.announce_drain();
        let drain_timeout = self.lock_shared().config.drain_timeout;
        let deadline = Instant::now() + drain_timeout;
        let (cut, left) = channel();
        for mailbox in &self.mailboxes {
            let cut = cut.clone();
            mailbox.send(Message::Drain { deadline, cut });
        }
        drop(cut);
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Another caller drains already, and waits.
        let Some(Threads { workers, control }) = threads else {
            return;
        };
        for worker in workers {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        let connections: usize = left.try_iter().sum();
        if connections > 0 {
            tracing::warn!(
                connections,
                drain_timeout_seconds = drain_timeout.as_secs_f64(),
                "drain_timeout is over: connections that were busy to the end were cut off"
            );
        }
        self.control_stop.stop();
        if control.join().is_err() {
            tracing::error!("the control thread panicked");
        }
        self.audit.stopped();
        self.audit.finish(limits::AUDIT_FINISH_TIMEOUT);
    }
}

fn counters_for(workers: usize, config: &Config) -> Vec<Arc<WorkerCounters>> {
    let counters = (0..workers).map(|_| Arc::new(WorkerCounters::new(config)));
    counters.collect()
}

fn start_audit(config: &Config) -> Result<Audit, StartError> {
    let opened = telemetry::open(config.audit.clone()).map_err(StartError::Audit)?;
    Audit::start(opened).map_err(StartError::Thread)
}

fn bind_admin(
    config: &Config,
    ports: Ports,
) -> Result<(Option<AdminSocket>, Option<AdminPlace>), StartError> {
    let takes_over = ports == Ports::Shared;
    let admin = config.admin.as_ref().map(|address| {
        AdminSocket::bind(address, takes_over).map_err(|error| StartError::admin(address, error))
    });
    let admin = admin.transpose()?;
    let place = admin.as_ref().and_then(AdminSocket::place);
    Ok((admin, place))
}

/// Sends every worker the servers that names resolve to.
fn publish_servers(resolver: &Resolver, mailboxes: Vec<Arc<Mailbox<Message>>>) {
    resolver.publish_to(move |backend, servers| {
        for mailbox in &mailboxes {
            let servers = servers.clone();
            mailbox.send(Message::Servers { backend, servers });
        }
    });
}

/// The way to each worker.
type Mailboxes = Vec<Arc<Mailbox<Message>>>;

/// A worker's thread, and the ways to it.
struct StartedWorker {
    mailbox: Arc<Mailbox<Message>>,
    thread: JoinHandle<()>,
    /// Hears once whether it serves.
    served: std::sync::mpsc::Receiver<std::io::Result<()>>,
}

fn start_worker(start: worker::Start, fatal: Fatal) -> Result<StartedWorker, StartError> {
    let (mailbox, receiver) = mailbox().map_err(StartError::Thread)?;
    let mailbox = Arc::new(mailbox);
    let own = Arc::downgrade(&mailbox);
    let name = format!("worker-{}", start.number);
    let (serves, served) = std::sync::mpsc::channel();
    let run = move || worker::run(start, (own, receiver), &serves, &fatal);
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(run)
        .map_err(StartError::Thread)?;
    Ok(StartedWorker {
        mailbox,
        thread,
        served,
    })
}

/// A process that cannot serve on each of its workers does not start: it would take over from one that can, and then end.
fn wait_until_all_serve(
    workers: Vec<StartedWorker>,
) -> Result<(Mailboxes, Vec<JoinHandle<()>>), StartError> {
    for (number, worker) in workers.iter().enumerate() {
        // A worker that panics sends nothing.
        let served = worker.served.recv();
        let served = served.unwrap_or_else(|_| Err(std::io::Error::other("it panicked")));
        served.map_err(|error| StartError::Worker { number, error })?;
    }
    let parts = workers
        .into_iter()
        .map(|worker| (worker.mailbox, worker.thread));
    Ok(parts.unzip())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that has sent this, and ended.
    fn worker(told: Option<std::io::Result<()>>) -> StartedWorker {
        let (serves, served) = std::sync::mpsc::channel();
        if let Some(told) = told {
            serves.send(told).unwrap();
        }
        StartedWorker {
            mailbox: Arc::new(mailbox().unwrap().0),
            thread: std::thread::spawn(|| {}),
            served,
        }
    }

    #[test]
    fn a_start_fails_with_the_error_of_the_worker_that_cannot_serve() {
        let error = |second| {
            let workers = vec![worker(Some(Ok(()))), worker(second)];
            wait_until_all_serve(workers)
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        let no_ring = std::io::Error::other("no ring");
        assert_eq!(error(Some(Err(no_ring))), "worker 1 cannot serve: no ring");
        assert_eq!(error(None), "worker 1 cannot serve: it panicked");
        let all = vec![worker(Some(Ok(()))), worker(Some(Ok(())))];
        assert_eq!(wait_until_all_serve(all).unwrap().0.len(), 2);
    }
}
