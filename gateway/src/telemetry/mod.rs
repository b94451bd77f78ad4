//! Hears of everything and tells operators.
//!
//! In: typed events from the data path. Out: counters, log lines, the audit log. Events are recorded on
//! the workers into counters of their own; the control thread adds them up when somebody asks.

mod audit;
mod clients;
mod closing;
mod counters;
mod event;
mod expiry;
mod foreseen;
mod log;
mod log_queue;
mod metrics;
mod observer;
mod server_counts;
mod text;

pub use audit::{Audit, Opened, look, open};
pub use clients::{AuthorityUse, ClientCounts};
pub use counters::WorkerCounters;
pub use event::{Event, Presented};
pub use expiry::watch_expiry;
pub use log::{LogFormat, LogGuard, start_log};
pub use metrics::{BlocksInForce, Health, Metrics};
pub use observer::Observer;
