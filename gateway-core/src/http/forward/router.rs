//! What a forwarder's owner knows, and is told: which connection takes a request, and what it came to. In: nothing.
//! Out: types.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ConnectionKey, PeerFault};
use crate::http::answer::{Protocol, RequestRefusal};
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
    /// How large a header list may be, as RFC 9113 section 10.5.1 counts it.
    pub header_list_bytes_max: usize,
    /// How many streams may be open at once on a connection.
    pub streams_max: u32,
    /// How long it may take to send a frame or a header section.
    pub header_timeout: Duration,
    /// How long nothing may pass of an exchange whose request is not complete.
    pub request_idle_timeout: Duration,
}

/// How long a backend may take, and which requests wait for it.
#[derive(Debug, Clone, Copy)]
pub struct BackendTimes {
    /// Its queue: a small number that all connections to it share.
    pub queue: usize,
    /// From the end of a request to its response.
    pub response_timeout: Option<Duration>,
    /// How long nothing of an exchange may pass once its response has begun.
    pub idle_timeout: Option<Duration>,
    /// How long a connection of HTTP/2 with requests may be silent before its server is asked for a sign of life.
    pub ping_interval: Duration,
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
    /// What its client speaks over HTTP.
    pub protocol: Protocol,
    /// When it came.
    pub began: Instant,
    /// How many backends have refused it. None has processed it.
    pub attempts: u32,
    /// The last one of those, whose connection may be gone.
    pub refused_by: Option<ConnectionKey>,
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

/// What of a request the backend gets in another form; empty: nothing.
#[derive(Debug, Default)]
pub struct Rewrite {
    /// Path and query.
    pub path: Vec<u8>,
    /// The authority.
    pub authority: Vec<u8>,
    /// Position of the backend that gets a copy of the request, as it is sent the first time.
    pub mirror: Option<usize>,
}

impl Rewrite {
    pub(super) fn clear(&mut self) {
        self.path.clear();
        self.authority.clear();
        self.mirror = None;
    }
}

/// A request whose response has begun, for the backend that gets a copy of it.
#[derive(Debug)]
pub struct MirroredRequest {
    /// Position of the backend.
    pub backend: usize,
    /// The header section, as the first backend got it.
    pub list: HeaderList,
    /// All of its content; `None` where the request was not complete, or too large to be kept.
    pub content: Option<Vec<u8>>,
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
    /// When the backend that got it last got it.
    pub sent_at: Option<Instant>,
    /// When the response began.
    pub responded_at: Option<Instant>,
    /// How often it was sent to a backend.
    pub attempts: u32,
    /// Whether the router was asked for a connection: other requests are refused for what they say alone.
    pub was_asked: bool,
}

/// How a request left its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegEnd {
    /// The backend has answered it.
    Answered {
        /// The status of HTTP.
        status: u16,
        /// The status of gRPC.
        grpc_status: Option<u16>,
    },
    /// The backend has broken off, or was too slow.
    Failed,
    /// Its client has given it up, or the backend has not taken it.
    Abandoned,
}

/// The owner of a forwarder.
pub trait Router {
    /// The connection that takes a request, or its queue. What the backend gets instead of what the client said goes to
    /// `rewrite`, which is empty.
    ///
    /// # Errors
    ///
    /// None does, and why.
    fn choose(
        &mut self,
        call: &Call<'_>,
        rewrite: &mut Rewrite,
    ) -> Result<Placement, RequestRefusal>;

    /// A connection that was chosen has no stream left. The request waits in the queue of its backend.
    ///
    /// # Errors
    ///
    /// It has waited for long enough.
    fn full(&mut self, backend: ConnectionKey, call: &Call<'_>) -> Result<(), RequestRefusal>;

    /// A request is not with its backend any more.
    fn left(&mut self, backend: ConnectionKey, end: LegEnd);

    /// A response has begun, and nothing of the exchange waits for what becomes of this.
    fn mirror(&mut self, request: MirroredRequest);

    /// An exchange is over.
    fn ended(&mut self, ended: &Ended<'_>);

    /// A peer has broken a rule, and its connection is over.
    fn failed(&mut self, connection: ConnectionKey, fault: PeerFault);
}
