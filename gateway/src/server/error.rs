//! Why a gateway does not start, and why it does not take a new configuration.
//! In: errors of the operating system, of TLS and of the guard. Out: errors that name the setting they are about.

use std::net::SocketAddr;

use gateway_guard::GuardError;

use crate::config::AdminAddress;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be bound.
    #[error(
        "listener \"{listener}\": cannot listen on {address}: {error}{}",
        if error.kind() == std::io::ErrorKind::AddrInUse {
            ": another process does; where that is an earlier one of this gateway, use `portcullis run --takeover`"
        } else {
            ""
        }
    )]
    Listen {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The administration endpoint cannot be bound.
    #[error("[admin] address: cannot listen on {address}: {error}")]
    Admin {
        /// Its address.
        address: AdminAddress,
        /// Why.
        error: std::io::Error,
    },
    /// The audit log cannot be opened.
    #[error("[audit] file: {0}")]
    Audit(std::io::Error),
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
    /// The operating system has no randomness.
    #[error("no randomness to make ticket keys from")]
    Random,
    /// The limit on open files leaves nothing for connections.
    #[error(
        "the limit on open files is {limit}, and {own} of them are for the gateway itself (workers, listeners, files, \
         administration): nothing is left for connections. Raise it to {least} at least, two more for each further connection \
         (LimitNOFILE= in the unit, `ulimit -n`), or lower [workers] count"
    )]
    Descriptors {
        /// RLIMIT_NOFILE.
        limit: u64,
        /// What the gateway takes beside connections.
        own: u64,
        /// What it would have to be.
        least: u64,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A worker cannot serve: no ring and no epoll instance can be made, or no listener opened.
    #[error("worker {number} cannot serve: {error}")]
    Worker {
        /// Which of `[workers] count`, from 0.
        number: usize,
        /// Why.
        error: std::io::Error,
    },
}

impl StartError {
    pub(super) fn admin(address: &AdminAddress, error: std::io::Error) -> Self {
        let address = address.clone();
        StartError::Admin { address, error }
    }
}

/// Why a new configuration was not taken. The old one goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It changes what is fixed at the start.
    #[error("{0} cannot be changed while running: restart")]
    NeedsRestart(String),
    /// It cannot be served.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl ReloadError {
    /// What the operating system has said, where that is the reason.
    pub fn io(&self) -> Option<&std::io::Error> {
        match self {
            ReloadError::Start(
                StartError::Audit(error)
                | StartError::Thread(error)
                | StartError::Admin { error, .. }
                | StartError::Listen { error, .. }
                | StartError::Worker { error, .. },
            ) => Some(error),
            ReloadError::NeedsRestart(_)
            | ReloadError::Start(
                StartError::Guard(_)
                | StartError::Tls { .. }
                | StartError::Random
                | StartError::Descriptors { .. },
            ) => None,
        }
    }
}
