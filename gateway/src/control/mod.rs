//! The control socket: how commands speak to the running gateway, and how one process takes over from another.
//!
//! In: requests of this host's administrators, known by what the kernel says of them (SO_PEERCRED). Out: answers in JSON,
//! and a gateway that has done what was asked. On a thread of its own, so that nothing else the gateway does, and no peer
//! that is slow or silent, keeps a command waiting. Always there: it follows from the gateway's name, not from its
//! configuration.

mod claim;
mod client;
mod peer;
mod protocol;
mod running;
mod server;
mod siblings;

pub use claim::{BoundSocket, Claim, ClaimError, Predecessor};
pub use client::{AskError, Client};
pub use peer::{Peer, account_name};
pub use protocol::{
    BLOCK, BLOCKED, BlockChange, BlockChanged, CHECK, DependentConnections, ListenerStatus, RELOAD,
    ReloadOutcome, Reloads, STATUS, Status, Successor, TAKE_OVER, UNBLOCK, WorkerStatus,
};
pub use running::{Running, running};
pub use server::{Parts, Prepared, ServeError, Server, Superseded};
pub use siblings::{Siblings, Told};
