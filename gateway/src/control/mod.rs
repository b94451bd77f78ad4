//! The control socket's language: how commands find and ask the running gateway, and how a process claims its gateway's name.
//!
//! In: requests of this host's administrators, known by what the kernel says of them (SO_PEERCRED). Out: answers in JSON. The
//! gateway's own side is in `server`. The socket is always there: it follows from the gateway's name, not from its
//! configuration.

mod claim;
mod client;
mod peer;
pub mod protocol;
mod running;

pub use claim::{BoundSocket, Claim, ClaimError, Predecessor};
pub use client::{AskError, Client};
pub use peer::{Peer, account_name};
pub use protocol::{
    ACCEPTED, AcceptedList, BLOCK, BLOCKED, BlockChange, BlockChanged, CHECK, DependentConnections,
    ListenerStatus, RELOAD, ReloadOutcome, ReloadStatus, STATUS, Status, Successor, TAKE_OVER,
    UNBLOCK, WorkerStatus,
};
pub use running::{RunningGateway, running};
