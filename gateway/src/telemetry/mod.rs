//! Telemetry: what happened, for operators.
//!
//! In: typed events from the data path. Out: counters, log lines, the audit log. Each worker records events in counters of its
//! own; the control thread adds them up at each scrape.

mod audit;
mod clients;
mod closing;
mod counters;
mod dry_run;
mod event;
mod expiry;
mod histogram;
mod log;
mod log_queue;
mod metrics;
mod observer;
mod requests;
mod sampler;
mod server_counts;
mod tenants;
mod text;

pub use audit::{Audit, Opened, look, open};
pub use clients::{AuthorityUse, ClientCounts};
pub use counters::WorkerCounters;
pub use event::{Event, FinishedRequest, PoolCount, Presented, ServerEvent};
pub use expiry::watch_expiry;
pub use log::{LogFilter, LogFormat, LogGuard, start_log};
pub use metrics::{BlocksInForce, Health, Metrics};
pub use observer::Observer;
