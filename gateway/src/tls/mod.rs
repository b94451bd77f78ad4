//! TLS 1.3 with a client certificate, always.
//!
//! In: an accepted or connected socket. Out: a `TlsStream` and, for clients, a `VerifiedPeer`; or a refusal with its
//! reason and the alert to send. On the worker that owns the connection; configurations are shared and immutable.
//! The handshake is done by rustls; who may enter is decided by `verifier`; records after the handshake are opened and sealed by
//! `gateway_core::record`.

mod alert;
mod certificates;
mod config;
mod engine;
mod failure;
mod handshake;
mod negotiated;
mod observed;
mod peer;
mod proven;
mod rehearsal;
mod scratch;
mod server_verifier;
mod session;
mod stream;
mod tickets;
mod verifier;

pub use config::{BackendConfigs, listener_trust, server_config};
pub use handshake::{Accepted, Connected, HandshakeError, Refusal, accept, connect, refuse};
pub use negotiated::Negotiated;
pub use observed::Observed;
pub use peer::VerifiedPeer;
pub use proven::for_each_client_seen;
pub use rehearsal::{Admissible, Inadmissible, rehearse};
pub use session::ProtocolError;
pub use stream::{Received, StreamError, TlsStream, sealable};
pub use tickets::Sealer as TicketSealer;
