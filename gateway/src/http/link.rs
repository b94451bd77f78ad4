//! The socket side of one of the forwarder's connections: what was taken from the forwarder is sealed and written, as far as the
//! peer takes it.
//! In: plaintext of the forwarder. Out: bytes on the socket. On its worker. A link whose peer takes everything holds no buffer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use gateway_core::certificate::Chain;
use gateway_core::endpoint::Endpoint;
use gateway_core::http::forward::{Client, ConnectionKey, HttpVersion};
use gateway_core::http::h2::Stall;
use gateway_core::http::limits::{
    HEADER_LIST_BYTES_MAX, HEADER_TIMEOUT_DEFAULT, HTTP2_FURTHER_IDLE, SERVER_STALL,
};
use gateway_core::http::message::{AllowedTenants, HeaderList, ReservedNames, SCOPE_ORG_ID};
use gateway_core::http::policy::Rights;
use gateway_core::http::pool::ServerKey;
use gateway_core::identity::TenantLimits;
use gateway_rt::Buffer;

use super::dry_run::RequestDryRun;
use crate::config::{BackendId, HttpMode, ListenerId};
use crate::connection::{ConnectionId, RateLimiter, Stream};
use crate::tls::{StreamError, VerifiedPeer};

/// Whose connection it is.
pub(super) enum LinkPeer {
    /// A client.
    Client(ClientLink),
    /// A server of a backend. Boxed: there are many more clients.
    Server(Box<ServerLink>),
}

/// A client.
pub(super) struct ClientLink {
    /// What events call the connection.
    pub(super) id: ConnectionId,
    pub(super) listener: ListenerId,
    pub(super) address: SocketAddr,
    pub(super) peer: VerifiedPeer,
    /// Of an identity with limits.
    pub(super) limiter: Option<Rc<RateLimiter>>,
    /// What follows from the configuration in force.
    pub(super) known: RefCell<KnownClient>,
}

/// What is known of a client.
pub(super) struct KnownClient {
    /// For the forwarder.
    pub(super) client: Rc<Client>,
    /// What it may call.
    pub(super) rights: Arc<Rights>,
    /// What each of its tenants may use, if that is limited.
    pub(super) tenant_limits: Option<Box<TenantLimits>>,
    /// How its requests are served; `None`: not at all.
    pub(super) mode: Option<Arc<HttpMode>>,
    /// What an observed configuration says of its requests.
    pub(super) dry_run: Option<Rc<RequestDryRun>>,
}

impl KnownClient {
    /// A client that may call nothing.
    pub(super) fn without_rights() -> Self {
        let client = Client {
            reserved: Arc::new(ReservedNames::new([])),
            told: HeaderList::new(0),
            tenants: AllowedTenants::None,
            tenant_name: SCOPE_ORG_ID.into(),
            content_bytes_max: 0,
            header_list_bytes_max: HEADER_LIST_BYTES_MAX,
            streams_max: 1,
            header_timeout: HEADER_TIMEOUT_DEFAULT,
            request_idle_timeout: HEADER_TIMEOUT_DEFAULT,
        };
        KnownClient {
            client: Rc::new(client),
            rights: Arc::default(),
            tenant_limits: None,
            mode: None,
            dry_run: None,
        }
    }
}

/// A server of a backend.
pub(super) struct ServerLink {
    pub(super) backend: BackendId,
    pub(super) server: ServerKey,
    pub(super) address: Endpoint,
    /// Its verified chain; none over plain TCP.
    pub(super) chain: Option<Chain>,
    /// Requests that it has now.
    pub(super) in_flight: Cell<u32>,
    /// When the last one left it, or it was opened.
    pub(super) left_at: Cell<Instant>,
    /// That the server gives no credit for the connection, as looks have found.
    stall: Cell<Option<Stall>>,
    /// Whether clients keep to their shares of the connection's window.
    pub(super) has_shares: Cell<bool>,
    /// Whether it gets no more.
    pub(super) is_retired: Cell<bool>,
    /// Whether it closes at once, because its chain is trusted no more.
    pub(super) is_distrusted: Cell<bool>,
}

impl ServerLink {
    pub(super) fn new(
        (backend, server, address): (BackendId, ServerKey, Endpoint),
        chain: Option<Chain>,
        now: Instant,
    ) -> Self {
        ServerLink {
            backend,
            server,
            address,
            chain,
            in_flight: Cell::new(0),
            left_at: Cell::new(now),
            stall: Cell::new(None),
            has_shares: Cell::new(true),
            is_retired: Cell::new(false),
            is_distrusted: Cell::new(false),
        }
    }

    /// Notes what a look has found: since when nothing passes, at the least, because the server gives no credit. What passed between
    /// two looks counts: a server that is slow takes something of everybody.
    pub(super) fn note_stalled(&self, stall: Option<Stall>, now: Instant) {
        let known = self.stall.get().map_or(now, |stall| stall.since);
        self.stall.set(stall.map(|stall| Stall {
            since: known.max(stall.since),
            ..stall
        }));
    }

    /// Whether the server has given no credit for the connection for so long that content of no request passes.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        self.lasting_stall(now).is_some()
    }

    /// The same, and so that nothing more fits into its window.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.lasting_stall(now).is_some_and(|stall| stall.is_spent)
    }

    fn lasting_stall(&self, now: Instant) -> Option<Stall> {
        let lasts = |stall: &Stall| now.saturating_duration_since(stall.since) >= SERVER_STALL;
        self.stall.get().filter(lasts)
    }

    /// Whether it has had no requests for so long that a further connection ends.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.left_at.get());
        self.in_flight.get() == 0 && idle >= HTTP2_FURTHER_IDLE
    }
}

/// One connection.
pub(super) struct Link {
    pub(super) key: ConnectionKey,
    pub(super) stream: Rc<Stream>,
    pub(super) peer: LinkPeer,
    pub(super) version: HttpVersion,
    /// What was received and is not welcome yet.
    unread: RefCell<Vec<u8>>,
    output: RefCell<Output>,
    /// Plaintext that was taken from the forwarder, in bytes.
    taken_bytes: Cell<u64>,
    /// Whether the peer takes nothing now.
    is_blocked: Cell<bool>,
    blocked_since: Cell<Option<Instant>>,
    failed: Cell<Option<StreamError>>,
    /// The task that serves the connection.
    waker: Cell<Option<Waker>>,
    /// Whether that waits for what is written, or for requests that end, and not only for its peer.
    awaits_progress: Cell<bool>,
}

/// What is to be written.
#[derive(Default)]
struct Output {
    /// Sealed.
    prepared: Option<Buffer>,
    /// Taken from the forwarder, and not sealed yet, from this position on.
    rest: Vec<u8>,
    position: usize,
}

impl Link {
    pub(super) fn new(
        (key, version): (ConnectionKey, HttpVersion),
        stream: Rc<Stream>,
        peer: LinkPeer,
    ) -> Self {
        Link {
            key,
            stream,
            peer,
            version,
            unread: RefCell::default(),
            output: RefCell::default(),
            taken_bytes: Cell::new(0),
            is_blocked: Cell::new(false),
            blocked_since: Cell::new(None),
            failed: Cell::new(None),
            waker: Cell::new(None),
            awaits_progress: Cell::new(false),
        }
    }

    /// Takes what was received and is not welcome yet.
    pub(super) fn take_unread(&self) -> Vec<u8> {
        self.unread.take()
    }

    /// Keeps what is not welcome yet. Nothing more is read meanwhile.
    pub(super) fn keep_unread(&self, bytes: &[u8]) {
        self.unread.borrow_mut().extend_from_slice(bytes);
    }

    /// Whether something waits to be welcome.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.borrow().is_empty()
    }

    pub(super) fn client(&self) -> Option<&ClientLink> {
        match &self.peer {
            LinkPeer::Client(client) => Some(client),
            LinkPeer::Server(_) => None,
        }
    }

    pub(super) fn server(&self) -> Option<&ServerLink> {
        match &self.peer {
            LinkPeer::Client(_) => None,
            LinkPeer::Server(server) => Some(server),
        }
    }

    /// Writes what is left, and then what `take` puts into the buffer that it is given, until there is no more or the peer takes
    /// none. `take` gets an empty buffer.
    pub(super) fn flush(&self, scratch: &mut Vec<u8>, mut take: impl FnMut(&mut Vec<u8>)) {
        if self.is_blocked.get() {
            return;
        }
        let mut output = self.output.borrow_mut();
        let written = loop {
            match self.write_rest(&mut output) {
                Ok(true) => {}
                other => break other,
            }
            take(scratch);
            self.taken_bytes
                .set(self.taken_bytes.get() + scratch.len() as u64);
            if scratch.is_empty() {
                break Ok(true);
            }
            match self.write_all(&mut output, scratch) {
                Ok(true) => {}
                other => break other,
            }
        };
        match written {
            Ok(is_all) => {
                self.is_blocked.set(!is_all);
                self.blocked_since
                    .set((!is_all).then(|| self.blocked_since.get().unwrap_or_else(Instant::now)));
            }
            Err(error) => {
                self.failed.set(Some(error));
                return self.wake();
            }
        }
        match self.is_blocked.get() {
            true => self.wake(),
            false => self.note_progress(),
        }
    }

    /// Writes what an earlier flush has left. Whether that is all.
    fn write_rest(&self, output: &mut Output) -> Result<bool, StreamError> {
        if let Some(mut prepared) = output.prepared.take()
            && !self.write(&mut prepared)?
        {
            output.prepared = Some(prepared);
            return Ok(false);
        }
        if output.position == output.rest.len() {
            return Ok(true);
        }
        let rest = std::mem::take(&mut output.rest);
        let is_all = self.write_from(output, &rest, output.position)?;
        if !is_all {
            output.rest = rest;
        }
        Ok(is_all)
    }

    fn write_all(&self, output: &mut Output, plaintext: &mut Vec<u8>) -> Result<bool, StreamError> {
        let is_all = self.write_from(output, plaintext, 0)?;
        if !is_all && output.position < plaintext.len() {
            output.rest = std::mem::take(plaintext);
        }
        Ok(is_all)
    }

    /// Writes plaintext from a position on. `position` of the output tells how much of it was sealed.
    fn write_from(
        &self,
        output: &mut Output,
        plaintext: &[u8],
        from: usize,
    ) -> Result<bool, StreamError> {
        output.position = from;
        while output.position < plaintext.len() {
            let (mut prepared, taken) = self.stream.prepare(&plaintext[output.position..])?;
            output.position += taken;
            if !self.write(&mut prepared)? {
                prepared.shrink();
                output.prepared = Some(prepared);
                return Ok(false);
            }
            self.stream.give_back(prepared);
        }
        output.position = 0;
        Ok(true)
    }

    fn write(&self, prepared: &mut Buffer) -> Result<bool, StreamError> {
        self.stream.try_write(prepared)
    }

    /// Plaintext that was taken from the forwarder, in bytes.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.taken_bytes.get()
    }

    /// Since when the peer takes nothing.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since.get()
    }

    /// Wakes the task that serves the connection, if it waits for something to be written or to end. Most wait for their peer
    /// alone, and are spared a look at each response.
    pub(super) fn note_progress(&self) {
        if self.awaits_progress.get() {
            self.wake();
        }
    }

    /// Wakes the task that serves the connection.
    pub(super) fn wake(&self) {
        self.awaits_progress.set(false);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until a condition holds; it is looked at when the link is woken.
    pub(super) async fn until(&self, condition: impl Fn() -> bool) {
        poll_fn(|context| {
            if condition() {
                return Poll::Ready(());
            }
            // Nearly always the same one.
            let known = self.waker.take();
            let known = known.filter(|waker| waker.will_wake(context.waker()));
            self.waker
                .set(Some(known.unwrap_or_else(|| context.waker().clone())));
            Poll::Pending
        })
        .await;
    }

    /// Waits until a condition holds, which what is written and requests that end can bring about.
    pub(super) async fn until_progress(&self, condition: impl Fn() -> bool) {
        self.until(|| {
            let holds = condition();
            if !holds {
                self.awaits_progress.set(true);
            }
            holds
        })
        .await;
    }

    /// Waits until the peer takes more, whenever it takes nothing. Ends with the error of a write.
    pub(super) async fn keep_writing(&self, flush: impl Fn()) -> StreamError {
        loop {
            let has_failed = Cell::new(None);
            self.until(|| {
                has_failed.set(self.failed.take());
                let failed = has_failed.take();
                let is_due = failed.is_some() || self.is_blocked.get();
                has_failed.set(failed);
                is_due
            })
            .await;
            if let Some(error) = has_failed.take() {
                return error;
            }
            // Boxed: most connections never wait for their peer.
            if let Err(error) = Box::pin(self.stream.socket().until_writable()).await {
                return error.into();
            }
            self.is_blocked.set(false);
            flush();
        }
    }
}
