//! Requests that the gateway answers itself, because no backend does: in the client's protocol, so that it keeps what
//! it can send again and gives up what it cannot.
//!
//! In: why a request is refused, who asks. Out: a response that says so. Pure.

mod protocol;
mod refusal;
mod response;
mod status;

pub use protocol::Protocol;
pub use refusal::{Again, GrpcStatus, RequestRefusal};
pub use response::{Answer, answer, trailers};
