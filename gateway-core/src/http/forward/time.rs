//! Times of exchanges: the client's deadline, how long a backend may take, how long nothing may pass. In: the time.
//! Out: refusals. Exchanges are looked at in turn, so that no look takes long, however many there are.

use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::router::{BackendTimes, Router};
use super::{ConnectionKey, Forwarder, Known};
use crate::http::answer::RequestRefusal;
use crate::http::limits::{BACKEND_FRAME_TIMEOUT, CONNECTIONS_LOOKED_AT, EXCHANGES_LOOKED_AT};

impl Exchange {
    /// Why its time is over, if it is.
    fn overdue(
        &self,
        request_idle_timeout: Duration,
        times: Option<BackendTimes>,
        now: Instant,
    ) -> Option<RequestRefusal> {
        let is_past = |since: Instant, timeout| now.saturating_duration_since(since) >= timeout;
        let is_unread = self.client.waiting > 0;
        if self.client.is_gone || (self.client.has_sent_end && !is_unread) {
            return None;
        }
        // What waits is all that the exchange is kept for, and the backend's connection with it.
        if is_unread && is_past(self.moved, request_idle_timeout) {
            return Some(RequestRefusal::RequestTimeout);
        }
        if self.client.has_sent_end {
            return None;
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(RequestRefusal::DeadlineExceeded);
        }
        if !self.client.has_received_end && is_past(self.moved, request_idle_timeout) {
            return Some(RequestRefusal::RequestTimeout);
        }
        let times = times?;
        let is_sent = self.client.has_received_end && !self.has_response;
        let is_late = |timeout| is_sent && is_past(self.moved, timeout);
        let is_idle = |timeout| self.has_response && is_past(self.moved, timeout);
        let is_overdue =
            times.response_timeout.is_some_and(is_late) || times.idle_timeout.is_some_and(is_idle);
        is_overdue.then_some(RequestRefusal::BackendTimeout)
    }
}

impl Forwarder {
    /// Ends exchanges whose time is over, and asks again for those that wait. To be called several times a second.
    pub fn check_time(&mut self, router: &mut impl Router, now: Instant) {
        let places = self.exchanges.places();
        let end = places.min(self.looked_at + EXCHANGES_LOOKED_AT);
        for key in self.looked_at..end {
            let Some(exchange) = self.exchanges.get(key) else {
                continue;
            };
            let backend = exchange.backend.as_ref().map(|leg| leg.connection);
            let times = backend.and_then(|backend| self.times(backend));
            let client = self.client(exchange.client.connection);
            let timeout = client.map_or(Duration::MAX, |client| client.request_idle_timeout);
            if let Some(refusal) = exchange.overdue(timeout, times, now) {
                self.end_overdue(key, refusal, router, now);
            }
        }
        self.looked_at = if end == places { 0 } else { end };
        self.place_in_turn(router, now);
    }

    /// Ends connections whose peers are too slow, and gives back memory that idle ones do not need. To be called about
    /// once a second.
    pub fn check_connections(&mut self, router: &mut impl Router, now: Instant) {
        let end = self.peers.places().min(self.tended + CONNECTIONS_LOOKED_AT);
        for slot in self.tended..end {
            let Some(peer) = self.peers.get_mut(slot) else {
                continue;
            };
            let (timeout, is_asked) = match &peer.known {
                Known::Client { client, .. } => (client.header_timeout, false),
                Known::Backend(times) => {
                    let is_asked = peer.connection.keep_alive(times.ping_interval, now);
                    (BACKEND_FRAME_TIMEOUT, is_asked)
                }
            };
            peer.connection.shrink();
            let key = ConnectionKey {
                slot,
                serial: peer.serial,
            };
            if let Some(violation) = peer.connection.check_time(timeout, now) {
                router.failed(key, violation);
                self.take_streams(key, violation.code(), router, now);
            }
            if is_asked {
                self.mark(key);
            }
        }
        self.tended = if end == self.peers.places() { 0 } else { end };
        self.place_due(router, now);
    }

    /// What is known of a backend.
    pub(super) fn times(&self, backend: ConnectionKey) -> Option<BackendTimes> {
        let peer = self
            .peers
            .get(backend.slot)
            .filter(|peer| peer.serial == backend.serial)?;
        match &peer.known {
            Known::Backend(times) => Some(*times),
            Known::Client { .. } => None,
        }
    }

    /// A stream of a connection has ended: it may have room for a request that waits.
    pub(super) fn note_room(&mut self, backend: ConnectionKey) {
        if let Some(times) = self.times(backend) {
            self.queues.note_room(times.queue);
        }
    }
}
