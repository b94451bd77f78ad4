//! A client's connection in HTTP mode: read until it ends, or has to.
//! In: an established connection. Out: why it ended. One task for each.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use futures_util::future::{Either, select};
use gateway_core::close_reason::CloseReason;
use gateway_core::delivery::DeliveryState;
use gateway_core::http::forward::{HttpVersion, PeerConnection};
use gateway_core::limits;
use monoio::time::timeout;

use super::link::{ClientLink, KnownClient, Link, LinkPeer};
use super::worker::HttpWorker;
use crate::config::ListenerId;
use crate::connection::{
    CloseNotice, ConnectionId, ConnectionTimer, Direction, RateLimiter, Stream,
};
use crate::tls::{StreamError, VerifiedPeer};

/// A client that was authenticated.
pub struct HttpClient {
    /// What events call the connection.
    pub id: ConnectionId,
    /// Its listener.
    pub listener: ListenerId,
    /// Its address.
    pub address: SocketAddr,
    /// What is known of it.
    pub peer: VerifiedPeer,
    /// Its connection.
    pub stream: Rc<Stream>,
    /// The version of HTTP that it speaks.
    pub version: HttpVersion,
    /// Of an identity with limits.
    pub limiter: Option<Rc<RateLimiter>>,
}

/// Serves one client.
pub struct Serving<'a, R, S> {
    worker: &'a HttpWorker,
    link: Rc<Link>,
    timer: &'a ConnectionTimer,
    /// Hears of bytes in each direction.
    report: R,
    /// Hears that what the client sends is read later.
    slowed: S,
    /// Whether the client must see that a response is not complete.
    is_cut_off: Cell<bool>,
    limiter: Option<Rc<RateLimiter>>,
}

impl<'a, R: Fn(Direction, usize), S: Fn()> Serving<'a, R, S> {
    /// Begins to serve a client.
    pub fn begin(
        worker: &'a HttpWorker,
        client: HttpClient,
        timer: &'a ConnectionTimer,
        (report, slowed): (R, S),
    ) -> Self {
        let HttpClient {
            id,
            listener,
            address,
            peer,
            stream,
            version,
            limiter,
        } = client;
        let known = worker.known_client((listener, address), &peer);
        let known = known.unwrap_or_else(KnownClient::without_rights);
        let client = Rc::clone(&known.client);
        let identity = worker.identities.hash_one(peer.identity());
        let known = ClientLink {
            id,
            listener,
            address,
            peer,
            limiter: limiter.clone(),
            known: RefCell::new(known),
        };
        let key = worker
            .forwarder
            .borrow_mut()
            .accept(client, identity, version, Instant::now());
        let link = worker.add_link((key, version), stream, LinkPeer::Client(known));
        worker.notify();
        Serving {
            worker,
            link,
            timer,
            report,
            slowed,
            is_cut_off: Cell::new(false),
            limiter,
        }
    }

    /// Serves to the end, and closes the connection. Returns why it ended, and how many bytes were sent.
    pub async fn run(&self) -> (CloseReason, u64) {
        let end = self.until_end().await;
        let is_cut_off = self.worker.is_so(&self.link, PeerConnection::is_cut_off);
        self.is_cut_off.set(is_cut_off);
        self.worker.remove_link(&self.link);
        Box::pin(self.close(end)).await;
        (end, self.link.taken_bytes())
    }

    async fn until_end(&self) -> CloseReason {
        let moving = pin!(self.move_bytes());
        let closing = pin!(self.until_closed());
        // The timer is asked first: a client that may not stay gets no request through.
        match select(closing, moving).await {
            Either::Left((end, _)) | Either::Right((end, _)) => end,
        }
    }

    /// Reads and writes until the client ends the connection, or it has served its last request.
    async fn move_bytes(&self) -> CloseReason {
        let reading = pin!(self.read());
        let writing = pin!(self.link.keep_writing(|| self.worker.flush(&self.link)));
        match select(reading, writing).await {
            Either::Left((Ok(()), _)) => CloseReason::Finished,
            Either::Left((Err(error), _)) | Either::Right((error, _)) => match error {
                StreamError::Truncated => CloseReason::ClientTruncated,
                StreamError::Io(_) => CloseReason::ClientReset,
                StreamError::Protocol(_) => CloseReason::ClientProtocol,
                StreamError::Seal(_) | StreamError::Keys => CloseReason::Internal,
            },
        }
    }

    async fn read(&self) -> Result<(), StreamError> {
        let stream = &self.link.stream;
        loop {
            // What was left over has been charged, and nothing may come behind it.
            let limiter = self.limiter.as_ref().filter(|limiter| limiter.is_due());
            if let Some(limiter) = limiter.filter(|_| !self.link.has_unread()) {
                // Boxed: most connections never pause, and pay nothing for it.
                Box::pin(limiter.wait(stream, self.timer, || (self.slowed)())).await?;
            }
            if !self.until_readable().await? {
                return Ok(());
            }
            let came = |bytes| {
                self.timer.note_moved(Direction::Received);
                (self.report)(Direction::Received, bytes);
            };
            let bytes_max = limits::PACED_READ_BYTES;
            let read = self.worker.read_once(&self.link, bytes_max, came);
            if let Some(limiter) = &self.limiter {
                limiter.charge(stream.take_cost());
            }
            match read {
                Ok(true) => {}
                Ok(false) => {
                    self.worker.end_of_input(&self.link, true);
                    // It may still wait for its responses. Boxed: that comes once.
                    Box::pin(self.link.until_progress(|| self.has_answered_all())).await;
                    return Ok(());
                }
                Err(error) => {
                    self.worker.end_of_input(&self.link, false);
                    return Err(error);
                }
            }
        }
    }

    /// Waits until there is something to read. Returns whether there is: if not, the connection has served its last request.
    async fn until_readable(&self) -> Result<bool, StreamError> {
        let readable = pin!(self.worker.readable(&self.link));
        let over = pin!(self.link.until(|| self.is_over()));
        match select(readable, over).await {
            Either::Left((ready, _)) => ready.map(|()| true),
            Either::Right(_) => Ok(false),
        }
    }

    /// Whether every request has its response, and that is written.
    fn has_answered_all(&self) -> bool {
        let has_none = |connection: &PeerConnection| connection.open_streams() == 0;
        self.is_written() && self.worker.is_so(&self.link, has_none)
    }

    fn is_written(&self) -> bool {
        let is_empty = |connection: &PeerConnection| connection.output().is_empty();
        self.link.blocked_since().is_none() && self.worker.is_so(&self.link, is_empty)
    }

    /// Whether the connection has nothing left to do, and everything is written.
    fn is_over(&self) -> bool {
        self.is_written() && self.worker.is_so(&self.link, PeerConnection::is_over)
    }

    /// Waits until the connection has to close. The client is told so first, if there is time, and what is under way comes to its
    /// end.
    async fn until_closed(&self) -> CloseReason {
        let delivery_state = || {
            let is_blocked = self.link.blocked_since().is_some();
            let state = match is_blocked {
                true => self.link.stream.peer_state(false),
                false => DeliveryState::Delivered,
            };
            (state, CloseReason::ClientReset)
        };
        loop {
            let notice = self.timer.until_notice(delivery_state).await;
            if notice.reason == CloseReason::Idle && self.has_requests() {
                self.timer.note_moved(Direction::Received);
                continue;
            }
            if notice.at_the_latest <= Instant::now() {
                return notice.reason;
            }
            self.go_away();
            // Boxed: that comes once.
            return Box::pin(self.until_over(notice)).await;
        }
    }

    /// Waits until what is under way has come to its end, or must.
    async fn until_over(&self, notice: CloseNotice) -> CloseReason {
        let over = pin!(self.link.until(|| self.is_over()));
        let latest = pin!(self.timer.until_latest(notice));
        match select(latest, over).await {
            Either::Left((reason, _)) => reason,
            Either::Right(_) => notice.reason,
        }
    }

    fn has_requests(&self) -> bool {
        let has_some = |connection: &PeerConnection| connection.open_streams() > 0;
        self.worker.is_so(&self.link, has_some)
    }

    fn go_away(&self) {
        let mut forwarder = self.worker.forwarder.borrow_mut();
        if let Some(connection) = forwarder.connection(self.link.key) {
            connection.go_away(Instant::now());
        }
        forwarder.mark(self.link.key);
        drop(forwarder);
        self.worker.notify();
    }

    /// Closes the connection so that the client cannot take a cut-off response for a complete one.
    async fn close(&self, end: CloseReason) {
        let stream = &self.link.stream;
        let is_clean = !self.is_cut_off.get()
            && matches!(
                end,
                CloseReason::Finished
                    | CloseReason::Idle
                    | CloseReason::Age
                    | CloseReason::Expiring
                    | CloseReason::Mode
                    | CloseReason::Drained
            );
        if !is_clean {
            stream.reset_on_close();
            return;
        }
        stream.end_cleanly();
        let ending = async {
            stream.finish().await?;
            stream.linger().await
        };
        let _ = timeout(limits::LINGER_TIMEOUT, ending).await;
    }
}
