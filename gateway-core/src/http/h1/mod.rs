//! HTTP/1.1 and HTTP/1.0 (RFC 9112): one exchange after the other on a connection.
//!
//! In: bytes of one connection. Out: the same events as HTTP/2 has, bytes to send, faults. No I/O, no clock. What two
//! servers could read in two ways is refused, not repaired; what passes is written anew.

mod chunks;
mod connection;
mod fault;
mod fields;
mod request;
mod response;
mod section;
mod write;

pub use connection::Http1Connection;
pub use fault::Fault;
