//! The open connections of one worker: close requests to them, and the times at which they want to be woken.
//! In: a connection's client and server, close requests from the worker. Out: to each connection its request and its wake-ups; to
//! the worker what is open. One timer serves all connections, because each timer of the runtime takes three quarters of a kibibyte.
//! One table per worker, nothing shared.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::select;
use gateway_core::certificate::Chain;
use gateway_core::close_reason::CloseReason;

use crate::config::{BackendId, ListenerId};
use crate::tls::VerifiedPeer;

/// A connection, by its number on its worker; no later connection gets the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Asks a connection to close: at the first quiet moment after one instant, and at another instant in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseRequest {
    /// Why.
    pub reason: CloseReason,
    /// When the connection starts to look for a quiet moment.
    pub from: Instant,
    /// When it closes even if bytes are moving.
    pub at_the_latest: Instant,
    /// When the change happened that the connection closes for, if there is one.
    pub changed_at: Option<Instant>,
}

/// A server that is connected over TLS.
#[derive(Debug, Clone)]
pub struct ConnectedServer {
    /// Its backend. The listener may have another backend since a reload.
    pub backend: BackendId,
    /// Its verified chain.
    pub chain: Chain,
}

/// An open connection whose client is authenticated.
#[derive(Debug, Clone, Copy)]
pub struct OpenConnection<'a> {
    /// Its listener.
    pub listener: ListenerId,
    /// Its client.
    pub peer: &'a VerifiedPeer,
    /// The server behind it, once that is connected over TLS.
    pub server: Option<&'a ConnectedServer>,
    /// None of its bytes has been passed on yet: the rules for new clients hold.
    pub is_new: bool,
    /// It is served in mode "http". The listener may have another mode since a reload.
    pub is_http: bool,
}

impl<'a> OpenConnection<'a> {
    /// A connection of which nothing has been passed on yet.
    pub fn new(
        listener: ListenerId,
        peer: &'a VerifiedPeer,
        server: Option<&'a ConnectedServer>,
        is_http: bool,
    ) -> Self {
        OpenConnection {
            listener,
            peer,
            server,
            is_new: true,
            is_http,
        }
    }
}

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    inner: RefCell<TableState>,
}

#[derive(Debug, Default)]
struct TableState {
    to_all: Option<CloseRequest>,
    last: ConnectionId,
    entries: HashMap<ConnectionId, TableEntry>,
    empty: Option<Waker>,
    /// When connections want to be woken.
    due: BTreeSet<(Instant, ConnectionId)>,
    /// A task wakes them.
    is_timed: bool,
    time_keeper: Option<Waker>,
}

#[derive(Debug, Default)]
struct TableEntry {
    /// The listener and the client's address, as long as that is not authenticated. Boxed: it soon is.
    unauthenticated: Option<Box<(ListenerId, SocketAddr)>>,
    /// The listener and the client, once that is authenticated.
    established: Option<(ListenerId, VerifiedPeer)>,
    /// Bytes have been passed on.
    has_begun: bool,
    is_http: bool,
    /// The server behind it, once that is connected over TLS.
    server: Option<Box<ConnectedServer>>,
    /// Boxed: few connections have one.
    request: Option<Box<CloseRequest>>,
    /// When the connection wants to see whether what it has sent has arrived.
    look_at: Option<Instant>,
    wake_at: Option<Instant>,
    waker: Option<Waker>,
}

/// One connection's entry in the table; dropping the handle removes it.
#[derive(Debug)]
pub struct ConnectionHandle {
    table: Rc<ConnectionTable>,
    id: ConnectionId,
}

impl ConnectionTable {
    /// Adds a new connection.
    pub fn register(self: &Rc<Self>) -> ConnectionHandle {
        let mut inner = self.inner.borrow_mut();
        inner.last.0 += 1;
        let id = inner.last;
        let request = inner.to_all;
        inner.entries.insert(
            id,
            TableEntry {
                request: request.map(Box::new),
                ..TableEntry::default()
            },
        );
        ConnectionHandle {
            table: Rc::clone(self),
            id,
        }
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.inner.borrow().entries.len()
    }

    /// Asks every connection to close. Open connections start to look for their quiet moment after a `delay` of their own; later
    /// connections start at once.
    pub fn close_all(&self, request: CloseRequest, mut delay: impl FnMut() -> Duration) {
        let mut inner = self.inner.borrow_mut();
        inner.to_all = Some(request);
        for entry in inner.entries.values_mut() {
            let from = (request.from + delay()).min(request.at_the_latest);
            entry.request_close(CloseRequest { from, ..request });
        }
    }

    /// Evaluates every authenticated client and the server behind it: requests the close that `evaluate` returns, or withdraws an
    /// earlier request where the client may stay after all. Returns how many connections got a new request.
    pub fn evaluate_all(
        &self,
        mut evaluate: impl FnMut(OpenConnection<'_>) -> Option<CloseRequest>,
    ) -> usize {
        let mut inner = self.inner.borrow_mut();
        let to_all = inner.to_all;
        let mut requested = 0;
        for entry in inner.entries.values_mut() {
            let Some(request) = entry.open().map(&mut evaluate) else {
                continue;
            };
            requested += usize::from(entry.replace_request(request, to_all));
        }
        requested
    }

    /// Whether a connection is asked to close because its client would not get in any more.
    pub fn has_lost_trust(&self, id: ConnectionId) -> bool {
        let inner = self.inner.borrow();
        let request = inner.entries.get(&id).and_then(TableEntry::request);
        request.is_some_and(|request| request.reason.is_loss_of_trust())
    }

    /// Shows every connection whose client is authenticated.
    pub fn for_each(&self, show: impl FnMut(OpenConnection<'_>)) {
        let inner = self.inner.borrow();
        inner
            .entries
            .values()
            .filter_map(TableEntry::open)
            .for_each(show);
    }

    /// Shows every connection whose client is not authenticated: its listener, and the client's address.
    pub fn for_each_unauthenticated(&self, mut show: impl FnMut(ListenerId, SocketAddr)) {
        let inner = self.inner.borrow();
        let entries = inner.entries.values();
        entries
            .filter_map(|entry| entry.unauthenticated.as_deref())
            .for_each(|(listener, address)| show(*listener, *address));
    }

    /// Waits until no connection is open.
    pub async fn until_empty(&self) {
        poll_fn(|context| {
            let mut inner = self.inner.borrow_mut();
            if inner.entries.is_empty() {
                return Poll::Ready(());
            }
            inner.empty = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl TableEntry {
    /// The connection, once its client is authenticated.
    fn open(&self) -> Option<OpenConnection<'_>> {
        let (listener, peer) = self.established.as_ref()?;
        Some(OpenConnection {
            listener: *listener,
            peer,
            server: self.server.as_deref(),
            is_new: !self.has_begun,
            is_http: self.is_http,
        })
    }

    fn request(&self) -> Option<CloseRequest> {
        self.request.as_deref().copied()
    }

    /// Takes the outcome of an evaluation; where that withdraws a request, the one `to_all` remains. Returns whether there is a
    /// new one.
    fn replace_request(
        &mut self,
        evaluated: Option<CloseRequest>,
        to_all: Option<CloseRequest>,
    ) -> bool {
        let known = self.request().map(|request| request.reason);
        match evaluated {
            // Drawn anew at each reload, the earliest of many random moments would count.
            Some(request) if known == Some(request.reason) => false,
            Some(request) => {
                self.request_close(request);
                true
            }
            None if known.is_some_and(CloseReason::is_of_a_reload) => {
                self.request = to_all.map(Box::new);
                self.waker.take().into_iter().for_each(Waker::wake);
                false
            }
            None => false,
        }
    }

    /// Of several requests the one that closes the connection first counts.
    fn request_close(&mut self, request: CloseRequest) {
        if self
            .request()
            .is_none_or(|known| request.at_the_latest < known.at_the_latest)
        {
            self.request = Some(Box::new(request));
            self.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl ConnectionHandle {
    /// The connection.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Notes where a client comes from that is to be authenticated.
    pub fn accept(&self, listener: ListenerId, address: SocketAddr) {
        if let Some(entry) = self.table.inner.borrow_mut().entries.get_mut(&self.id) {
            entry.unauthenticated = Some(Box::new((listener, address)));
        }
    }

    /// Names the client, so that it can be evaluated again, and the mode in which it will be served.
    pub fn establish(&self, listener: ListenerId, peer: VerifiedPeer, is_http: bool) {
        if let Some(entry) = self.table.inner.borrow_mut().entries.get_mut(&self.id) {
            entry.unauthenticated = None;
            entry.established = Some((listener, peer));
            entry.is_http = is_http;
        }
    }

    /// Notes that bytes are passed on.
    pub(super) fn begin(&self) {
        if let Some(entry) = self.table.inner.borrow_mut().entries.get_mut(&self.id) {
            entry.has_begun = true;
        }
    }

    /// Names the server behind the client, so that it can be evaluated again.
    pub(super) fn set_server(&self, server: ConnectedServer) {
        if let Some(entry) = self.table.inner.borrow_mut().entries.get_mut(&self.id) {
            entry.server = Some(Box::new(server));
        }
    }

    /// Ends `close_requested` at this time too, until another time is set or none.
    pub(super) fn look_at(&self, at: Option<Instant>) {
        let mut inner = self.table.inner.borrow_mut();
        let Some(entry) = inner.entries.get_mut(&self.id) else {
            return;
        };
        entry.look_at = at;
        let is_earlier = |at: &Instant| entry.wake_at.is_some_and(|wake_at| *at < wake_at);
        if let Some(at) = at.filter(is_earlier) {
            inner.wake_at(self.id, at);
        }
    }

    /// Whether the time to look has come.
    pub(super) fn is_look_due(&self, now: Instant) -> bool {
        let inner = self.table.inner.borrow();
        let look_at = inner.entries.get(&self.id).and_then(|entry| entry.look_at);
        look_at.is_some_and(|look_at| now >= look_at)
    }

    /// Asks this connection to close.
    pub fn request_close(&self, request: CloseRequest) {
        if let Some(entry) = self.table.inner.borrow_mut().entries.get_mut(&self.id) {
            entry.request_close(request);
        }
    }

    /// Waits until the close request is another than `known`, or is withdrawn; `None` when it is `wake_at` before that.
    pub(super) fn close_requested(
        &self,
        known: &Option<CloseRequest>,
        wake_at: Instant,
    ) -> impl Future<Output = Option<Option<CloseRequest>>> {
        poll_fn(move |context| {
            let mut inner = self.table.inner.borrow_mut();
            let entry = inner.entries.entry(self.id).or_default();
            if entry.request() != *known {
                return Poll::Ready(Some(entry.request()));
            }
            let wake_at = entry
                .look_at
                .map_or(wake_at, |look_at| wake_at.min(look_at));
            if Instant::now() >= wake_at {
                return Poll::Ready(None);
            }
            entry.waker = Some(context.waker().clone());
            inner.wake_at(self.id, wake_at);
            if !inner.is_timed {
                inner.is_timed = true;
                monoio::spawn(keep_time(Rc::downgrade(&self.table)));
            }
            Poll::Pending
        })
    }
}

impl TableState {
    /// Notes when a connection wants to be woken, instead of when it wanted before.
    fn wake_at(&mut self, id: ConnectionId, at: Instant) {
        let entry = self.entries.entry(id).or_default();
        let before = entry.wake_at.replace(at);
        if before == Some(at) {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, id));
        }
        self.due.insert((at, id));
        if self.due.first() == Some(&(at, id)) {
            self.time_keeper.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Wakes every connection whose time has come.
    fn wake_due(&mut self, now: Instant) {
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.wake_at = None;
                entry.waker.take().into_iter().for_each(Waker::wake);
            }
        }
    }
}

/// Wakes the connections at their times, until none wants to be woken.
async fn keep_time(table: Weak<ConnectionTable>) {
    loop {
        let Some(earliest) = earliest(&table) else {
            return;
        };
        let earlier = poll_fn(|context| {
            let Some(table) = table.upgrade() else {
                return Poll::Ready(());
            };
            let mut inner = table.inner.borrow_mut();
            if inner.due.first().is_some_and(|(at, _)| *at < earliest) {
                return Poll::Ready(());
            }
            inner.time_keeper = Some(context.waker().clone());
            Poll::Pending
        });
        select(
            pin!(earlier),
            pin!(monoio::time::sleep_until(earliest.into())),
        )
        .await;
        if let Some(table) = table.upgrade() {
            table.inner.borrow_mut().wake_due(Instant::now());
        }
    }
}

/// The next time at which a connection wants to be woken. `None` ends the task; the next connection that wants to be starts it anew.
fn earliest(table: &Weak<ConnectionTable>) -> Option<Instant> {
    let table = table.upgrade()?;
    let mut inner = table.inner.borrow_mut();
    let earliest = inner.due.first().map(|(at, _)| *at);
    inner.is_timed = earliest.is_some();
    earliest
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        let mut inner = self.table.inner.borrow_mut();
        let entry = inner.entries.remove(&self.id);
        if let Some(at) = entry.and_then(|entry| entry.wake_at) {
            inner.due.remove(&(at, self.id));
        }
        if inner.entries.is_empty() {
            inner.empty.take().into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(reason: CloseReason, wait_seconds: u64) -> CloseRequest {
        let now = Instant::now();
        CloseRequest {
            reason,
            from: now,
            at_the_latest: now + Duration::from_secs(wait_seconds),
            changed_at: None,
        }
    }

    fn request_of(handle: &ConnectionHandle) -> Option<CloseRequest> {
        handle.table.inner.borrow().entries[&handle.id].request()
    }

    #[test]
    fn of_several_requests_the_one_that_ends_first_counts_whichever_came_first() {
        let (soon, late) = (
            request(CloseReason::Revoked, 1),
            request(CloseReason::Untrusted, 2),
        );
        for given in [[soon, late], [late, soon]] {
            let handle = Rc::new(ConnectionTable::default()).register();
            given
                .into_iter()
                .for_each(|request| handle.request_close(request));
            assert_eq!(request_of(&handle), Some(soon));
        }
    }

    #[test]
    fn every_connection_is_woken_at_its_own_time_and_those_that_are_gone_are_forgotten() {
        let all = Rc::new(ConnectionTable::default());
        let woken = gateway_rt::block_on(|_| {
            let all = Rc::clone(&all);
            async move {
                let begin = Instant::now();
                let wait = |milliseconds| {
                    let handle = all.register();
                    monoio::spawn(async move {
                        let at = begin + Duration::from_millis(milliseconds);
                        let request = handle.close_requested(&None, at).await;
                        (request, Instant::now() >= at)
                    })
                };
                // The second is due before the first, the third long after the test.
                let waiting = [wait(60), wait(30), wait(30)];
                let long = wait(3_600_000);
                let mut woken = Vec::new();
                for waiting in waiting {
                    woken.push(waiting.await);
                }
                // Only the connection that waits for an hour is left: a request still gets through.
                let request = request(CloseReason::Drained, 1);
                all.close_all(request, || Duration::ZERO);
                assert_eq!(long.await, (Some(Some(request)), false));
                woken
            }
        });
        assert_eq!(woken.unwrap(), [(None, true); 3]);
        let inner = all.inner.borrow();
        assert!(inner.due.is_empty() && inner.entries.is_empty());
    }

    #[test]
    fn a_request_to_all_holds_for_connections_that_come_later_too() {
        let all = Rc::new(ConnectionTable::default());
        let before = all.register();
        let drained = request(CloseReason::Drained, 1);
        let delay = Duration::from_millis(300);
        all.close_all(drained, || delay);
        let delayed = CloseRequest {
            from: drained.from + delay,
            ..drained
        };
        assert_eq!(request_of(&before), Some(delayed));
        assert_eq!(request_of(&all.register()), Some(drained));
    }

    #[test]
    fn a_repeated_request_keeps_its_moment_and_a_withdrawn_one_leaves_what_holds_for_all() {
        let mut entry = TableEntry::default();
        let (first, earlier) = (
            request(CloseReason::Untrusted, 9),
            request(CloseReason::Untrusted, 5),
        );
        assert!(entry.replace_request(Some(first), None));
        assert!(!entry.replace_request(Some(earlier), None));
        assert_eq!(entry.request(), Some(first));
        let revoked = request(CloseReason::Revoked, 0);
        assert!(entry.replace_request(Some(revoked), None));
        assert_eq!(entry.request(), Some(revoked));
        let drained = request(CloseReason::Drained, 1);
        assert!(!entry.replace_request(None, Some(drained)));
        assert_eq!(entry.request(), Some(drained));
        assert!(
            !entry.replace_request(None, None),
            "a drain is no evaluation"
        );
        assert_eq!(entry.request(), Some(drained));
    }
}
