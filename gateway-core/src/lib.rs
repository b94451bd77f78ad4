//! Decisions of the gateway, without I/O, clock or runtime.
//!
//! In: plain data and the time, as arguments. Out: a decision. Tests run on invented time, thousands of cases in a
//! second. The crate cannot do what its dependencies cannot do.
#![forbid(unsafe_code)]
// Tests invent the time from a start that is real, and count in several threads at once.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod alert;
pub mod alpn;
pub mod anchors;
pub mod authority;
pub mod balance;
pub mod block;
pub mod certificate;
pub mod client_hello;
pub mod clock;
pub mod close_reason;
pub mod connection_limit;
pub mod delivery;
pub mod descriptors;
pub mod diagnosis;
pub mod endpoint;
pub mod expiry;
pub mod failure;
pub mod graceful_close;
pub mod handshake_record;
pub mod http;
pub mod identity;
pub mod limit;
pub mod limits;
pub mod lineage;
pub mod names;
pub mod pattern;
pub mod pattern_map;
pub mod protocol_detection;
pub mod record;
pub mod rest;
pub mod revocation;
pub mod server_trust;
pub mod sources;
pub mod stream_route;
pub mod succession;
pub mod suppress;
pub mod trust;
pub mod visible;
