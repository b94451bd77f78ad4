//! `portcullis run`: serves until a signal says otherwise.
//! In: a configuration file. Out: an exit code. SIGTERM or SIGINT drains, and so does another process of the gateway that
//! takes over; a second signal ends the process at once. SIGHUP reads the configuration and everything it names again, and so does a change of any of these files.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use gateway::backend::Resolver;
use gateway::blocks::{BlockFile, warn_of_others, with_remedy};
use gateway::config::{self, Config, Paths};
use gateway::control::Claim;
use gateway::server::BlockListReloader;
use gateway::server::{Gateway, Ports, Privileges, Reloader, StartError};
use gateway::server::{Parts, Server, Siblings, Superseded};
use gateway::telemetry::{LogFilter, LogFormat, start_log};
use gateway_core::limits;
use gateway_files::FileSnapshot;
use gateway_x509::crl_ranks;
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::which::ConfigFile;

/// Arguments of `portcullis run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Take over from the process of this gateway that runs already, which then drains; without one, start as usual
    #[arg(long)]
    takeover: bool,
    /// Format of log lines on standard error
    #[arg(long, value_enum, default_value_t = LogLines::Text)]
    log_format: LogLines,
    /// Least severe level logged (error, warn, info, debug), or `MODULE=LEVEL` as in gateway=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = LogFilter::parse)]
    log_level: LogFilter,
}

/// Exit code after a second signal, as a shell reports a process that SIGTERM ended.
const ENDED_AT_ONCE: i32 = 128 + 15;

impl Run {
    /// Runs the gateway to its end.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        // Caught before anything else: a signal during the start is answered once there is something to answer with.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let privileges = Privileges::set_apart()?;
        let mut signals = runtime.block_on(async { Signals::catch() })?;
        let loaded = match config::load(&self.file.config) {
            Ok(loaded) => loaded,
            Err(errors) => {
                eprintln!("{errors}");
                return Ok(ExitCode::FAILURE);
            }
        };
        let log = start_log(self.log_format.into(), &self.log_level)?;
        // A panic's own lines would go between the log's, unthrottled and in another format.
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let resolver = Resolver::start(&loaded.config.backends)?;
        let resolving = resolver.clone();
        let starting = move || start(loaded.config, privileges, &resolving, self.takeover);
        let Some(started) = runtime.block_on(until_started(starting, &resolver, &mut signals))
        else {
            std::process::exit(ENDED_AT_ONCE);
        };
        let mut started = started?;
        drop(resolver);
        let why = runtime.block_on(serve(&mut started, &mut signals));
        let draining = until_drained(&started, why, &mut signals);
        let Some(drained) = runtime.block_on(draining) else {
            drop(log);
            std::process::exit(ENDED_AT_ONCE);
        };
        started.reloader.stop();
        Ok(match (why, drained) {
            (End::Signal | End::Superseded, true) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }
}

/// How log lines look, as the command line calls it.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogLines {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogLines> for LogFormat {
    fn from(lines: LogLines) -> Self {
        match lines {
            LogLines::Text => LogFormat::Text,
            LogLines::Json => LogFormat::Json,
        }
    }
}

/// Why the gateway drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Signal,
    /// Another process of this gateway has taken over.
    Superseded,
    /// A worker has ended by itself.
    Failed,
}

/// Answers signals until one asks for the end, or something else does.
async fn serve(started: &mut Started, signals: &mut Signals) -> End {
    let Started {
        gateway,
        reloader,
        server,
        is_to_end,
    } = started;
    if let Some(name) = is_to_end {
        tracing::info!(signal = name, "draining");
        return End::Signal;
    }
    let mut minutes = tokio::time::interval(*limits::TICKET_KEY_ROTATION.start());
    loop {
        tokio::select! {
            _ = minutes.tick() => gateway.refresh_ticket_keys(),
            asked = signals.next() => match asked {
                Asked::Reload(cause) => {
                    // Whether the rest is taken or not: the file may just have been renamed.
                    gateway.audit().reopen();
                    reloader.ask(cause);
                }
                Asked::End(name) => {
                    tracing::info!(signal = name, "draining");
                    gateway.announce_drain();
                    // It may have been refused for what takes the restart that this is a part of.
                    if gateway.reloads().refused_because.is_some() {
                        reloader.ask("a drain".to_owned());
                    }
                    return End::Signal;
                }
            },
            by = server.superseded() => {
                let Superseded { by, configuration } = by;
                tracing::info!(by, "another process of this gateway has taken over: draining");
                gateway.make_way();
                // A client that the next process does not trust has to go here too.
                let cause = "a takeover".to_owned();
                match configuration {
                    Some(file) => reloader.follow(file, cause),
                    None => reloader.ask(cause),
                }
                return End::Superseded;
            }
            () = gateway.fatal().wait() => return End::Failed,
        }
    }
}

/// Drains the gateway. `None` when a second signal asks for the end at once; the first one after the gateway has been taken over
/// from asks for what it does already.
async fn until_drained(started: &Started, why: End, signals: &mut Signals) -> Option<bool> {
    let (gateway, reloader) = (Arc::clone(&started.gateway), &started.reloader);
    let mut is_signalled = why != End::Superseded;
    let audit = gateway.audit().clone();
    let draining = std::thread::spawn(move || gateway.drain());
    let waiting = tokio::task::spawn_blocking(move || draining.join());
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            drained = &mut waiting => return Some(drained.is_ok_and(|joined| joined.is_ok())),
            asked = signals.next() => match asked {
                Asked::Reload(cause) => {
                    audit.reopen();
                    // A client that is revoked while the gateway drains has to go as well.
                    reloader.ask(cause);
                }
                Asked::End(name) if !is_signalled => {
                    is_signalled = true;
                    tracing::info!(signal = name, "draining already: another process has taken over");
                }
                Asked::End(name) => {
                    tracing::warn!(signal = name, "ending at once");
                    audit.stopped();
                    audit.finish(limits::AUDIT_FINISH_AT_ONCE_TIMEOUT);
                    return None;
                }
            },
        }
    }
}

/// A gateway that serves, and what watches its files and hears its commands.
struct Started {
    gateway: Arc<Gateway>,
    reloader: Reloader,
    server: Server,
    /// The signal that has asked meanwhile for the end.
    is_to_end: Option<&'static str>,
}

/// Runs `start` on a thread of its own, so that signals are heard meanwhile: names of backends may take their time. `None` when a
/// second signal asks for the end.
async fn until_started(
    start: impl FnOnce() -> anyhow::Result<Started> + Send + 'static,
    resolver: &Resolver,
    signals: &mut Signals,
) -> Option<anyhow::Result<Started>> {
    let starting = tokio::task::spawn_blocking(start);
    tokio::pin!(starting);
    let mut reload = None;
    let mut end = None;
    loop {
        tokio::select! {
            started = &mut starting => {
                let started = started.unwrap_or_else(|panic| Err(panic.into()));
                return Some(started.map(|started| {
                    if let Some(cause) = reload {
                        started.reloader.ask(cause);
                    }
                    Started { is_to_end: end, ..started }
                }));
            }
            asked = signals.next() => match asked {
                Asked::Reload(cause) => reload = Some(cause),
                Asked::End(_) if end.is_some() => return None,
                Asked::End(name) => {
                    end = Some(name);
                    resolver.give_up();
                }
            },
        }
    }
}

/// Starts all of it. What fails leaves no state folder that was not there: the next one would take it for that of a gateway.
fn start(
    config: Config,
    privileges: Privileges,
    resolver: &Resolver,
    takes_over: bool,
) -> anyhow::Result<Started> {
    let state = config.paths.state.clone();
    let was_there = state.exists();
    let started = start_all(config, privileges, resolver, takes_over);
    if started.is_err() && !was_there {
        // What another process has put there meanwhile stays, and the folder with it.
        let _ = std::fs::remove_dir(&state);
    }
    started
}

/// Starts all of it. After that no thread has any capability.
fn start_all(
    config: Config,
    privileges: Privileges,
    resolver: &Resolver,
    takes_over: bool,
) -> anyhow::Result<Started> {
    let paths = config.paths.clone();
    let (file, mut files) = (config.file.clone(), config.files.clone());
    let again_at = config.again_at;
    let claim = Claim::take(&paths, takes_over)?;
    let ports = match &claim {
        Ok(_) => Ports::Own,
        Err(predecessor) => {
            // Before anything is written where the list stands: the process that runs would act by it.
            predecessor.ensure_same_lists(&paths)?;
            // Not while the other one waits for this one to act by a block.
            resolver.first_servers();
            resolver.give_up();
            Ports::Shared
        }
    };
    // Before the list is read: what the other one changes from now on it tells this one.
    let siblings = Siblings::bind(&paths)?;
    if let Err(predecessor) = &claim {
        predecessor.ensure_same_lists(&paths)?;
    }
    // Before it is read: what changes in the meantime has changed since.
    let snapshot = FileSnapshot::now(&paths.block_list());
    let blocks = BlockFile::open(&paths, &BlockFile::former_place(&file));
    let blocks = blocks.map_err(with_remedy)?;
    for warning in warn_of_others(&paths, &blocks.blocks, &paths.state) {
        tracing::warn!("{warning}");
    }
    let list = blocks.blocks.list();
    let gateway = Gateway::start(config, list, privileges, resolver, ports);
    let gateway = gateway.map_err(|error| match takes_over {
        true => without_predecessor(error, &paths),
        false => error.into(),
    })?;
    let gateway = Arc::new(gateway);
    // Before the files are watched: what is written for it is no change.
    gateway.record_lists();
    let list_ranks = crl_ranks::file_in(&paths.state);
    for snapshot in files
        .iter_mut()
        .filter(|snapshot| snapshot.path() == list_ranks)
    {
        *snapshot = FileSnapshot::now(&list_ranks);
    }
    let block_list =
        BlockListReloader::start(Arc::clone(&gateway), paths.clone(), snapshot, blocks)?;
    let reloader = Reloader::start(Arc::clone(&gateway), &file, files, again_at)?;
    let parts = Parts {
        gateway: Arc::clone(&gateway),
        block_list: Arc::new(block_list),
        reloader: reloader.clone(),
        configuration: file.clone(),
    };
    // All that can fail, before the process before this one is asked to go.
    let prepared = Server::prepare(parts, siblings, &paths)?;
    let (claim, before) = match claim {
        Ok(claim) => (claim, None),
        Err(predecessor) => {
            let process = predecessor.status().process;
            (predecessor.replace(&file)?, Some(process))
        }
    };
    let server = prepared.serve(claim)?;
    gateway.set_ready();
    gateway.take_admin();
    if let Some(process) = before {
        tracing::info!(process, "took over from an earlier process of this gateway");
    }
    Ok(Started {
        gateway,
        reloader,
        server,
        is_to_end: None,
    })
}

/// The error of a takeover that has found no process of its name to take over from, and an address that one of another name has.
fn without_predecessor(error: StartError, paths: &Paths) -> anyhow::Error {
    match error {
        StartError::Listen {
            listener,
            address,
            error,
        } if error.kind() == std::io::ErrorKind::AddrInUse => anyhow!(
            "listener \"{listener}\": cannot listen on {address}: {error}: another process does, and its name is not \
             {:?}: a takeover needs the same name, and a gateway keeps the name it was started with. Give this one \
             the same `name` and `[paths]`, or stop that one first",
            &*paths.name,
        ),
        other => other.into(),
    }
}

/// The signals the gateway listens to.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: mpsc::UnboundedReceiver<String>,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: hang_ups()?,
        })
    }

    /// Waits for the next signal.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End("SIGTERM"),
            _ = self.interrupt.recv() => Asked::End("SIGINT"),
            // The sender lives as long as the process.
            Some(cause) = self.hang_up.recv() => Asked::Reload(cause),
        }
    }
}

/// Catches SIGHUP on a thread of its own, from now on, with its sender: a reload is an administrative act of an account.
fn hang_ups() -> std::io::Result<mpsc::UnboundedReceiver<String>> {
    let mut signals = SignalsInfo::<WithOrigin>::new([SIGHUP])?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let forward = move || {
        for origin in signals.forever() {
            let cause = match origin.process {
                Some(process) => format!("SIGHUP of uid {}, process {}", process.uid, process.pid),
                None => "SIGHUP".to_owned(),
            };
            // At the very end no receiver is left.
            let _ = sender.send(cause);
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(forward)?;
    Ok(receiver)
}

/// What a signal asks for.
enum Asked {
    /// To drain and end; the signal's name.
    End(&'static str),
    /// To read the configuration and everything it names again; the cause.
    Reload(String),
}
