//! Mode "http": requests of authenticated clients, each to a server of its backend, over connections that all clients
//! share.
//!
//! In: an established connection. Out: the end of it; events. On the worker that accepted it. The forwarder of
//! `gateway_core` decides everything about bytes; this folder reads and writes them, keeps the time, and connects
//! servers. Each readable connection is read once, and all that it said is passed on; then every connection that has
//! something to say is written to once.

mod dry_run;
mod health;
mod health_service;
mod link;
mod mirror;
mod pool;
mod report;
mod routing;
mod serve;
mod server;
mod worker;

pub use serve::{HttpClient, Serving};
pub use worker::{Current, HttpWorker};
