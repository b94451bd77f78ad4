//! Connections to backends: which server, over what, with which header first.
//!
//! In: an `Origin`, which only a `VerifiedPeer` makes. Out: a stream to a server, or that none could be reached. On the
//! worker; the resolver's thread finds the addresses behind names.

mod attempt;
mod connect;
mod origin;
mod proxy_protocol;
mod resolve;
mod servers;
mod service;

pub use connect::{Connection, NotConnected};
pub use origin::{ClientConnection, Origin};
pub use proxy_protocol::{ProxiedConnection, encode as proxy_header};
pub use resolve::Resolver;
pub use servers::{ServerFailure, Servers, Transport};
