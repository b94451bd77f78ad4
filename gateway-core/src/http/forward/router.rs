//! What a forwarder's owner knows, and is told: which connection takes a request, and what it came to. In: nothing.
//! Out: types.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ConnectionKey, PeerFault};
use crate::http::answer::RequestRefusal;
use crate::http::message::{AllowedTenants, HeaderList, Request, ReservedNames};

/// What is known of a client.
#[derive(Debug)]
pub struct Client {
    /// Names that it may not use.
    pub reserved: Arc<ReservedNames>,
    /// Fields that backends are told with every request.
    pub told: HeaderList,
    /// Tenants that it may speak for.
    pub tenants: AllowedTenants,
    /// The name of the tenant's field, in lower case: the client's and ours.
    pub tenant_name: Box<[u8]>,
    /// How many bytes of content a request may have.
    pub content_bytes_max: u64,
}

/// How long a backend may take, and which requests wait for it.
#[derive(Debug, Clone, Copy)]
pub struct BackendTimes {
    /// Its queue: a small number that all connections to it share.
    pub queue: usize,
    /// From the end of a request to its response.
    pub response_timeout: Option<Duration>,
    /// How long nothing of an exchange may pass.
    pub idle_timeout: Option<Duration>,
}

/// A request that needs a connection.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its client's connection.
    pub client: ConnectionKey,
    /// What it says.
    pub request: &'a Request<'a>,
    /// All that it says.
    pub list: &'a HeaderList,
    /// Its tenant.
    pub tenant: Option<&'a [u8]>,
    /// When it came.
    pub began: Instant,
    /// How many backends have refused it. None has processed it.
    pub attempts: u32,
    /// Whether it stands in a queue.
    pub is_waiting: bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// This connection, which can open a stream, takes it.
    Connection(ConnectionKey),
    /// It waits in this queue. [`Forwarder::place_waiting`](super::Forwarder::place_waiting) asks again.
    Wait(usize),
}

/// What an exchange came to.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The client's connection, which may be gone.
    pub client: ConnectionKey,
    /// That of the backend that got it last; it may be gone.
    pub backend: Option<ConnectionKey>,
    /// The header section of the request.
    pub list: &'a HeaderList,
    /// The status of the response; 0: none has begun.
    pub status: u16,
    /// The status of gRPC, if the response has said it.
    pub grpc_status: Option<u16>,
    /// Why the gateway answered, or broke off, itself.
    pub refusal: Option<RequestRefusal>,
    /// Whether the response came to its end.
    pub is_complete: bool,
    /// Content from the client, in bytes.
    pub received_bytes: u64,
    /// Content to the client, in bytes.
    pub sent_bytes: u64,
    /// When the request came.
    pub began: Instant,
    /// When the response began.
    pub responded_at: Option<Instant>,
    /// How often it was sent to a backend.
    pub attempts: u32,
}

/// The owner of a forwarder.
pub trait Router {
    /// The connection that takes a request, or its queue.
    ///
    /// # Errors
    ///
    /// None does, and why.
    fn choose(&mut self, call: &Call<'_>) -> Result<Placement, RequestRefusal>;

    /// A request has been sent to a backend.
    fn sent(&mut self, backend: ConnectionKey);

    /// It is not with that backend any more: it is over, or another one gets it.
    fn left(&mut self, backend: ConnectionKey);

    /// An exchange is over.
    fn ended(&mut self, ended: &Ended<'_>);

    /// A peer has broken a rule, and its connection is over.
    fn failed(&mut self, connection: ConnectionKey, fault: PeerFault);
}
