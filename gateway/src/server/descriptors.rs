//! The budget of descriptors: what RLIMIT_NOFILE leaves for connections. In: the limit, the configuration. Out: a budget that
//! all workers share, and words for operators when it is nearly used up. At the start, then on the control thread.
//!
//! A reserve keeps administration possible while clients take all they can get: no connection can have the descriptors with which
//! an operator blocks a client, a list is read, or metrics are shown.

use std::fs;
use std::io;
use std::sync::OnceLock;

use gateway_core::descriptors::{Descriptors, Side};
use gateway_core::http::limits::HTTP_CLIENTS_PER_SERVER;
use gateway_core::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::StartError;
use crate::config::{Config, Listener, Mode};

/// What this process had open when it began.
static INHERITED: OnceLock<u64> = OnceLock::new();
/// Descriptors that `run` opens before it divides the limit, at most: its runtime, signals, log, claim and resolver.
const OPENED_BEFORE: u64 = 24;

/// The budget, and what it was derived from.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) descriptors: Descriptors,
    /// What the gateway takes or holds back beside connections.
    own: u64,
    /// What the limit is too low for, in words.
    pub(super) shortfall: Option<String>,
    stage: Stage,
    waits: u64,
}

/// What was said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Plenty,
    Near,
    Reached,
}

/// Raises the soft limit to the hard one, and divides it. To be called before sockets are bound.
pub(super) fn divide(config: &Config) -> Result<Budget, StartError> {
    if let Err(error) = raise() {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    let own = own(config);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < own + limits::CONNECTION_DESCRIPTORS_MIN {
        return Err(StartError::Descriptors {
            limit,
            own,
            least: own + limits::CONNECTION_DESCRIPTORS_MIN,
        });
    }
    // Also those that have sent nothing yet.
    let clients = |one: &Listener| (one.max_connections + one.max_handshakes) as u64;
    let all_clients: u64 = config.listeners.iter().map(|one| clients(one)).sum();
    let connections = config.listeners.iter().map(|one| match one.mode {
        // A client's socket and its server's.
        Mode::Stream => 2 * clients(one),
        Mode::Http(_) => clients(one) + clients(one).div_ceil(HTTP_CLIENTS_PER_SERVER),
    });
    let connections = connections.sum::<u64>();
    let needed = own + connections;
    let shortfall = (limit < needed).then(|| {
        format!(
            "the limit on open files is below what max_connections and max_handshakes of all listeners take: it is {limit}, they \
             take {needed}. Clients beyond {} will wait in the accept queue; raise LimitNOFILE or lower max_connections",
            (limit - own) * all_clients / connections
        )
    });
    Ok(Budget {
        descriptors: Descriptors::new(left(limit, own)),
        own,
        shortfall,
        stage: Stage::Plenty,
        waits: 0,
    })
}

/// As `divide`, and says in the log what the limit is too low for.
pub(super) fn divide_and_tell(config: &Config) -> Result<Budget, StartError> {
    let budget = divide(config)?;
    if let Some(shortfall) = &budget.shortfall {
        tracing::warn!("{shortfall}");
    }
    Ok(budget)
}

fn raise() -> Result<(), rustix::io::Errno> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
}

/// What is open already, what the workers will open, and what is held back.
fn own(config: &Config) -> u64 {
    // What a parent process has left open counts too.
    let open = open_at_start();
    let workers = config.workers.get() as u64;
    let listening_sockets = workers * config.listeners.len() as u64;
    // A question for a name takes a socket and a file.
    let servers = config.backends.iter().map(|backend| backend.servers.len());
    let questions = servers.sum::<usize>().min(limits::RESOLUTIONS_MAX) as u64;
    open + workers * limits::DESCRIPTORS_PER_WORKER
        + listening_sockets * limits::DESCRIPTORS_PER_LISTENING_SOCKET
        + 2 * questions
        + limits::DESCRIPTORS_HELD_BACK
}

/// Notes what a parent process has left open. To be called before anything else is opened.
pub fn note_inherited() {
    INHERITED.get_or_init(|| open().unwrap_or(0));
}

/// What is open when the gateway divides the limit. `check`, which opens less, has to come to the same number.
fn open_at_start() -> u64 {
    let open = open().unwrap_or(0);
    let expected = INHERITED.get().map(|inherited| inherited + OPENED_BEFORE);
    open.max(expected.unwrap_or(0))
}

fn open() -> io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as u64)
}

fn left(limit: u64, own: u64) -> u32 {
    u32::try_from(limit.saturating_sub(own)).unwrap_or(u32::MAX)
}

impl Budget {
    /// Follows the limit, which may have been changed from outside (prlimit(1)), and says when little or nothing is left.
    pub(super) fn look(&mut self) {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        self.descriptors.set_max(left(limit, self.own));
        self.look_at_reserve(limit);
        let waits = Side::ALL.iter().map(|side| self.descriptors.waits(*side));
        let waits_before = std::mem::replace(&mut self.waits, waits.sum());
        let (used, max) = (self.descriptors.used(), u64::from(self.descriptors.max()));
        let waited = self.waits - waits_before;
        let stage = stage(self.stage, (used, max), waited > 0);
        let before = std::mem::replace(&mut self.stage, stage);
        match (before, stage) {
            (Stage::Plenty | Stage::Near, Stage::Reached) => tracing::error!(
                limit,
                used,
                max,
                "no descriptor is left for connections: new clients wait in the accept queue until others leave; \
                 raise LimitNOFILE (prlimit(1) does it for a running process), or find the client that opens so many \
                 connections"
            ),
            (Stage::Plenty, Stage::Near) => tracing::warn!(
                limit,
                used,
                max,
                "descriptors for connections are running out: raise LimitNOFILE, or lower max_connections"
            ),
            (Stage::Near | Stage::Reached, Stage::Plenty) => {
                tracing::info!(
                    limit,
                    used,
                    max,
                    "there are descriptors for connections again"
                );
            }
            (_, Stage::Plenty | Stage::Near | Stage::Reached) => {}
        }
    }

    /// Says when a limit that has become smaller takes what is held back. What connections hold stays theirs until they end.
    fn look_at_reserve(&self, limit: u64) {
        let used = self.descriptors.used();
        let missing = missing(limit, self.own, used);
        let before = self.descriptors.missing();
        self.descriptors.set_missing(missing);
        let held_back = limits::DESCRIPTORS_HELD_BACK;
        if missing > 0 && before == 0 {
            tracing::error!(
                limit,
                used,
                missing,
                held_back,
                "the limit on open files was lowered, and takes descriptors that are set aside for administration: \
                 `block`, the administration endpoint and reloads fail when all of them are gone; raise it again \
                 (prlimit --pid PID --nofile=N)"
            );
        } else if missing == 0 && before > 0 {
            tracing::info!(
                limit,
                used,
                held_back,
                "all descriptors for administration are there again"
            );
        }
    }
}

/// Descriptors that are missing of those held back, because `used` by connections and the gateway's own are beyond the limit.
fn missing(limit: u64, own: u64, used: u64) -> u64 {
    own.saturating_add(used)
        .saturating_sub(limit)
        .min(limits::DESCRIPTORS_HELD_BACK)
}

/// The stage after this one. What was said is said again only when there was plenty in between.
fn stage(before: Stage, (used, max): (u64, u64), has_waited: bool) -> Stage {
    let is_plenty = used < max - max / 5;
    match before {
        _ if has_waited => Stage::Reached,
        Stage::Near | Stage::Reached if !is_plenty => before,
        _ if used >= max - max / 10 => Stage::Near,
        _ => Stage::Plenty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_a_lower_limit_takes_from_those_held_back_are_counted() {
        let held_back = limits::DESCRIPTORS_HELD_BACK;
        let own = held_back + 50;
        assert_eq!(missing(own + 100, own, 100), 0);
        assert_eq!(missing(own + 90, own, 100), 10);
        assert_eq!(missing(own - 10, own, 0), 10);
        assert_eq!(missing(1, own, 1000), held_back);
        assert_eq!(missing(u64::MAX, own, 1000), 0);
    }

    #[test]
    fn an_end_of_descriptors_is_told_once_until_there_are_plenty_again() {
        let max = 100;
        assert_eq!(stage(Stage::Plenty, (89, max), false), Stage::Plenty);
        assert_eq!(stage(Stage::Plenty, (90, max), false), Stage::Near);
        assert_eq!(stage(Stage::Near, (80, max), false), Stage::Near);
        assert_eq!(stage(Stage::Near, (100, max), true), Stage::Reached);
        assert_eq!(stage(Stage::Reached, (85, max), false), Stage::Reached);
        assert_eq!(stage(Stage::Reached, (79, max), false), Stage::Plenty);
    }
}
