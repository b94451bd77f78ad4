//! Connections to backends: which server, over what, with which header first.
//!
//! In: a `VerifiedPeer`; nothing is opened for anybody else. Out: a stream to a server, or the news that none could be
//! reached. On the worker; the addresses behind names come from the control thread, which resolves them.

mod attempt;
mod connect;
mod proxy_protocol;
mod resolve;

pub use connect::{Client, Connection, NotConnected, ServerFailure, Servers, Transport};
pub use proxy_protocol::{Facts as ProxyFacts, encode as proxy_header};
pub use resolve::Resolver;
