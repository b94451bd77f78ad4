//! The journal: every deed, and what agents, servers, audit log and metrics said, each with its time.
//! In: facts, from every thread. Out: one JSON object a line, in the order of their times. The rules see nothing else,
//! so a run can be judged again, and a test can doctor one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Milliseconds since the run began, on a clock that is never set.
pub type Milliseconds = u64;

/// A fact with its time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Milliseconds,
    /// What.
    #[serde(flatten)]
    pub fact: Fact,
}

/// One fact of a journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// A run begins.
    Began {
        /// The seed that repeats it.
        seed: u64,
        /// The gateway's program.
        program: String,
    },
    /// A deed, for the reader.
    Deed {
        /// Its kind.
        name: String,
        /// Whether it begins, or is undone.
        begins: bool,
    },
    /// From now on clients with these certificates have no right to be served. Written after the publication.
    Forbidden(Forbidden),
    /// From now on this reason no longer forbids them. Written before the publication.
    Allowed {
        /// Their serial numbers.
        serials: Vec<String>,
        /// The reason.
        why: Why,
    },
    /// A disturbance of all clients begins.
    Disturbed {
        /// What.
        what: Disturbance,
    },
    /// It ends.
    Calmed {
        /// What.
        what: Disturbance,
    },
    /// One connection of an agent, written at its end.
    Visit(Visit),
    /// One connection of a client without any right, written at its end.
    Stranger(Stranger),
    /// One connection to a server, written at its end.
    Delivery(Delivery),
    /// A line of the audit log, when it was read.
    Audit {
        /// The line.
        line: Value,
    },
    /// A line of the gateway's log at level ERROR or WARN, or of a panic.
    Log {
        /// Which process's.
        process: String,
        /// The line.
        line: String,
    },
    /// A look at the gateway while no client is connected.
    RollCall(RollCall),
    /// The gateway was asked for a reload that it must refuse.
    Spoilt,
    /// The last process got SIGTERM.
    Terminated {
        /// How long it took.
        took: Milliseconds,
        /// Its exit code, if it had one.
        code: Option<i32>,
    },
    /// The soak itself failed.
    Trouble {
        /// What, and why.
        what: String,
    },
}

/// Certificates that lost a right, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Forbidden {
    /// Serial numbers of certificates, or the `key` of a server.
    pub serials: Vec<String>,
    /// Why.
    pub why: Why,
    /// Within how many milliseconds the gateway must act.
    pub within: Milliseconds,
    /// Whether open connections must end too.
    pub closes: bool,
}

/// Why clients have no right to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A list names the certificate.
    Revoked,
    /// An operator has blocked it.
    Blocked,
    /// Its CA is gone.
    Untrusted,
    /// No rule admits it.
    NotAuthorized,
    /// It has ended.
    Expired,
    /// Its CA has ended.
    CaEnded,
    /// Its CA's list has ended.
    StaleList,
    /// A list names the certificate of the server behind it.
    ServerRevoked,
}

impl Why {
    /// The reasons of a refusal that fit, as the audit log words them.
    pub fn refusals(self) -> &'static [&'static str] {
        match self {
            Why::Revoked => &["revoked"],
            Why::Blocked => &["blocked"],
            Why::Untrusted => &["unknown_issuer"],
            Why::NotAuthorized => &["not_authorized"],
            Why::Expired => &["expired"],
            // A reload leaves out a CA that has ended.
            Why::CaEnded => &["expired", "unknown_issuer"],
            Why::StaleList => &["crl_stale"],
            // The next server is tried.
            Why::ServerRevoked => &[],
        }
    }

    /// The reasons of an end that fit, likewise.
    pub fn ends(self) -> &'static [&'static str] {
        match self {
            Why::Untrusted => &["untrusted"],
            Why::ServerRevoked => &["backend_revoked"],
            Why::CaEnded => &["expired", "untrusted"],
            Why::Revoked | Why::Blocked | Why::NotAuthorized | Why::Expired | Why::StaleList => {
                self.refusals()
            }
        }
    }
}

/// What is out of order, and excuses failures of clients with every right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disturbance {
    /// The interface between agents and gateway is gone.
    Interface,
    /// The gateway has no descriptors for clients.
    Budget,
    /// The gateway can open no descriptor at all.
    Descriptors,
    /// One process takes over from another, which drains.
    Takeover,
    /// Servers answer no SYN, or reset what they have.
    Servers,
}

/// One connection of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Visit {
    /// Its number, which the server is told first of all.
    pub number: u64,
    /// The agent's SPIFFE ID.
    pub identity: String,
    /// Serial number of the certificate that it presented, in hexadecimal.
    pub serial: String,
    /// Its own address, once there was a connection.
    pub peer: Option<String>,
    /// When it began to connect.
    pub began: Milliseconds,
    /// When the server first answered.
    pub served: Option<Milliseconds>,
    /// Bytes that were sent.
    pub sent: u64,
    /// Bytes that came back.
    pub received: u64,
    /// Whether it had said that it was done.
    pub said_goodbye: bool,
    /// How it came out.
    pub outcome: Outcome,
    /// What the agent saw, where that was not what it wanted.
    pub detail: Option<String>,
}

/// How a visit came out, as the agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was answered, and both sides said goodbye.
    Finished,
    /// The agent went away without a word, as it wanted.
    Left,
    /// The gateway ended it between two exchanges, by FIN.
    Dismissed,
    /// No server answered, or it broke off.
    Lost,
    /// What came back was not what had to come.
    Corrupted,
}

/// One connection of a client without any right.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stranger {
    /// The number that no server may ever be told.
    pub number: u64,
    /// What it tried.
    pub kind: String,
    /// When it began.
    pub began: Milliseconds,
    /// Whether it was sent anything but TLS's own.
    pub was_served: bool,
}

/// One connection to a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Which server.
    pub server: String,
    /// The number that the client told; none where not even that arrived.
    pub number: Option<u64>,
    /// The SPIFFE ID that the client claimed.
    pub claimed: Option<String>,
    /// The SPIFFE ID that the gateway told.
    pub told: Option<String>,
    /// The tenant that the gateway told.
    pub tenant: Option<String>,
    /// When the first byte of the client's came.
    pub first: Option<Milliseconds>,
    /// When the last one came.
    pub last: Option<Milliseconds>,
    /// The client's bytes.
    pub received: u64,
    /// Bytes that were sent back.
    pub sent: u64,
    /// Whether each byte was the one that the client has to send.
    pub is_intact: bool,
    /// Whether the gateway said that it was all.
    pub is_finished: bool,
}

impl Delivery {
    /// What stands for its server where certificates of agents are known by their serial numbers.
    pub fn key(&self) -> String {
        server_key(&self.server)
    }
}

/// The same of a server by its name.
pub fn server_key(name: &str) -> String {
    format!("server {name}")
}

/// A look at the gateway while no client is connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RollCall {
    /// Process id.
    pub process: u32,
    /// Whether no other process of the name has lived since the last roll call.
    pub is_alone: bool,
    /// Whether it says that it is ready.
    pub is_ready: bool,
    /// The page of metrics.
    pub metrics: String,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

/// Where facts are written down. Clones write into the same journal.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Mutex<BufWriter<File>>>,
    began: Instant,
}

impl Journal {
    /// Begins a journal in a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub fn begin(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self {
            shared: Arc::new(Mutex::new(BufWriter::new(file))),
            began: Instant::now(),
        })
    }

    /// The time now.
    pub fn now(&self) -> Milliseconds {
        self.began.elapsed().as_millis() as Milliseconds
    }

    /// Writes a fact down.
    ///
    /// # Panics
    ///
    /// When the disk is full: a run with gaps is worth nothing.
    pub fn note(&self, fact: Fact) {
        let mut file = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the lines are in the order of their times.
        let entry = Entry {
            at: self.now(),
            fact,
        };
        let line = serde_json::to_string(&entry).expect("a fact has text for keys");
        writeln!(file, "{line}").expect("the journal can be written");
    }

    /// Puts everything so far into the file.
    ///
    /// # Errors
    ///
    /// When the disk is full.
    pub fn flush(&self) -> Result<()> {
        let mut file = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().context("writing the journal")
    }
}

/// Reads a journal.
///
/// # Errors
///
/// When it cannot be read, with the line.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), index + 1))
        })
        .collect()
}
