//! HTTP without I/O: connections of HTTP/1 and HTTP/2, header compression, and what a message may say.
//!
//! In: received bytes, the time. Out: events, and bytes to send. Never waits, never asks for the time. A driver owns
//! the sockets; a forwarder pairs the streams of two connections.

pub mod answer;
pub mod deadline;
pub mod forward;
pub mod h1;
pub mod h2;
pub mod health;
pub mod hpack;
pub mod limits;
pub mod message;
pub mod policy;
pub mod pool;
mod protobuf;
mod queue;
pub mod retry_budget;
