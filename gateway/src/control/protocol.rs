//! What commands and gateway say to each other: HTTP/1 over the control socket, with JSON bodies. In: nothing. Out: the
//! messages, and the paths they go to. The version stands in each path, so that a command of another version is told so
//! instead of misunderstood.

use std::path::PathBuf;

use gateway_core::revocation::AuthorityId;
use serde::{Deserialize, Serialize};

use crate::blocks::Entry;
#[cfg(doc)]
use crate::blocks::News;
use crate::telemetry::BlocksInForce;

/// GET: [`Status`].
pub const STATUS: &str = "/v1/status";
/// POST a [`BlockChange`]: [`BlockChanged`].
pub const BLOCK: &str = "/v1/block";
/// POST a [`BlockChange`]: [`BlockChanged`].
pub const UNBLOCK: &str = "/v1/unblock";
/// GET: the entries of the list in force.
pub const BLOCKED: &str = "/v1/blocked";
/// POST: [`ReloadOutcome`].
pub const RELOAD: &str = "/v1/reload";
/// POST: [`ReloadOutcome`] of a reload that is not done.
pub const CHECK: &str = "/v1/check";
/// POST a list of [`AcceptedList`]: nothing. What is in the state folder already, for the record.
pub const ACCEPTED: &str = "/v1/accepted";
/// POST a [`Successor`]: nothing, once the name is given up. For the next process of the same gateway.
pub const TAKE_OVER: &str = "/v1/takeover";

/// POST a [`News`]: [`Acted`]. From one process of a gateway to another, over the socket of that process.
pub const HEED: &str = "/v1/heed";

/// What a gateway says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// `serving` or `draining`.
    pub state: String,
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub process: u32,
    /// When it was ready, RFC 3339.
    pub started_at: String,
    /// Its configuration file.
    pub configuration: PathBuf,
    /// The folder of its block list.
    pub state_folder: PathBuf,
    /// Its workers.
    pub workers: Vec<WorkerStatus>,
    /// Its listeners.
    pub listeners: Vec<ListenerStatus>,
    /// `off`, or whether the kernel programs run.
    pub guard: String,
    /// The block list in force.
    pub blocks: BlocksInForce,
    /// What came of reloads.
    pub reloads: ReloadStatus,
    /// Connections that stand on a CA alone; none in the answer of an earlier version.
    #[serde(default)]
    pub dependents: Vec<DependentConnections>,
}

/// Connections that end with a CA and cannot come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependentConnections {
    /// What the CA is used for, as `check` says it.
    pub usage: String,
    /// The CA: a digest over its name and key.
    pub authority: AuthorityId,
    /// How many there are.
    pub connections: u64,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub number: usize,
    /// What moves its bytes; `None` until it runs.
    pub driver: Option<String>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The address that it got.
    pub address: String,
    /// Connections that are open.
    pub connections: u64,
}

/// What came of reloads, of whatever cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// When the last one was taken, RFC 3339.
    pub taken_at: Option<String>,
    /// When the last one was refused.
    pub refused_at: Option<String>,
    /// Why, if nothing was taken since.
    pub refused_because: Option<String>,
}

/// A block, or the end of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockChange {
    /// The client that it means, and the account that asks for it. Only root may speak for another account.
    pub entry: Entry,
}

/// What came of a block, or of the end of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockChanged {
    /// The entry that was there before, if there was one.
    pub before: Option<Entry>,
    /// The list in force, with the connections that were closed for this change.
    pub in_force: BlocksInForce,
    /// Where the file is kept that was no block list, and why it was none.
    #[serde(default)]
    pub aside: Option<(PathBuf, String)>,
    /// Clients connected when the change came that it is about.
    #[serde(default)]
    pub connected: usize,
    /// Clients that were connected lately, and are not now, that it is about.
    #[serde(default)]
    pub seen: usize,
    /// Other processes of the gateway that have not said that they act by it, and why.
    #[serde(default)]
    pub unreached: Vec<String>,
}

/// What came of a change in another process of the gateway, once each of its workers acts by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// Clients that it is about, by the digests of their certificates: those connected to that process, and those that were lately.
    pub clients: [Vec<String>; 2],
    /// Connections of that process that were closed for it.
    pub closed: usize,
}

/// A revocation list that an operator has accepted although it is older than one that was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedList {
    /// The CA.
    pub issuer: String,
    /// Number and time of the list.
    pub list: String,
    /// Number and time of the one that was in force.
    pub before: String,
    /// The account of the operator, as the command names it.
    pub by: String,
}

/// The process that takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// The configuration that it serves by.
    pub configuration: PathBuf,
}

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadOutcome {
    /// Why nothing of it was taken; empty where it was.
    pub refused: Vec<String>,
    /// Connections that are closed for it.
    pub closed: usize,
}

/// What is answered instead where something fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failed {
    /// Why.
    pub error: String,
}
