//! TLS 1.3 with a client certificate, always.
//!
//! In: an accepted or connected socket. Out: a `TlsStream` and, for clients, a `VerifiedPeer`; or a refusal with its
//! reason and the alert to send. On the worker that owns the connection; configurations are shared and immutable.
//! rustls does the handshake, `verifier` decides which client may enter, and `gateway_core::record` opens and seals the
//! records after the handshake.

mod alert;
mod certificates;
mod chain_cache;
mod config;
mod dry_run;
mod engine;
mod failure;
mod handshake;
mod handshake_context;
mod negotiated;
mod peer;
mod secrets;
mod server_verifier;
mod session;
mod simulation;
mod stream;
mod tickets;
mod verifier;

pub use chain_cache::for_each_client_seen;
pub use config::{BackendConfigs, ServerConfigs, listener_trust, server_configs};
pub use dry_run::DryRun;
pub use handshake::{Accepted, ConnectedBackend, HandshakeError, Refusal, accept, connect, refuse};
pub use negotiated::Negotiated;
pub use peer::VerifiedPeer;
pub use simulation::{Admissible, Inadmissible, simulate};
pub use stream::{Received, StreamError, TlsStream, sealable};
pub use tickets::Sealer as TicketSealer;
