//! Times one connection: how long nothing has moved, how old it is, and whether it is asked to close.
//! In: notes of reads and writes, close requests from the worker. Out: the reason to close. On the connection's worker.

use std::cell::Cell;
use std::time::{Duration, Instant};

use gateway_core::close_reason::CloseReason;
use gateway_core::delivery::DeliveryState;
use gateway_core::graceful_close::{LastTransfer, QuietTimeouts, Sender};
use gateway_core::limits;

use super::Direction;
use super::table::{CloseRequest, ConnectedServer, ConnectionHandle};

/// Decides when one connection has to close.
#[derive(Debug)]
pub struct ConnectionTimer {
    handle: ConnectionHandle,
    timeouts: IdleTimeouts,
    deadlines: Deadlines,
    last_transfer: Cell<LastTransfer>,
    has_begun: Cell<bool>,
    writes: Cell<u32>,
    is_paused: Cell<bool>,
    /// The directions that have ended.
    has_received_all: Cell<bool>,
    has_sent_all: Cell<bool>,
    /// The next look at the peers is set: sent bytes have not been seen to arrive, or a side is not read from.
    is_looked_at: Cell<bool>,
    changed_at: Cell<Option<Instant>>,
}

/// How long nothing may move.
#[derive(Debug, Clone, Copy)]
pub struct IdleTimeouts {
    /// Until the connection closes for that alone.
    pub idle_timeout: Duration,
    /// Until a connection that has to close is quiet, whatever moved last.
    pub quiet_timeout: Duration,
}

/// When a connection closes, whatever happens on it.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// It is old: from now on it closes at a quiet moment.
    pub aged_at: Option<Instant>,
    /// How much later it closes without one.
    pub age_grace: Duration,
    /// Its client's certificate is about to expire: from now on it closes at a quiet moment.
    pub expiring_at: Option<Instant>,
    /// Its client's certificate expires.
    pub expires_at: Instant,
}

/// That a connection has to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseNotice {
    /// Why.
    pub reason: CloseReason,
    /// When it closes whatever is under way.
    pub at_the_latest: Instant,
}

impl CloseNotice {
    /// To close at once.
    fn at(now: Instant, reason: CloseReason) -> Self {
        CloseNotice {
            reason,
            at_the_latest: now,
        }
    }
}

/// A write that is under way. Dropping the guard without `done` breaks the write off: the connection then counts as writing until
/// its end, so that a peer cannot take what was sent for everything.
#[derive(Debug)]
#[must_use]
pub struct WriteGuard<'a>(&'a ConnectionTimer, Direction);

impl WriteGuard<'_> {
    /// Notes that some of the bytes were sent.
    pub fn progress(&self) {
        self.0.note_transfer(self.1);
    }

    /// Notes that all of them were.
    pub fn done(self) {
        self.0.writes.set(self.0.writes.get() - 1);
        self.progress();
    }
}

/// A pause in which the client's bytes wait unread. Dropping the guard ends it.
#[derive(Debug)]
pub struct PauseGuard<'a>(&'a ConnectionTimer);

impl Drop for PauseGuard<'_> {
    fn drop(&mut self) {
        self.0.is_paused.set(false);
        self.0.note_transfer(Direction::Received);
    }
}

impl ConnectionTimer {
    /// Times a connection from now on.
    pub fn new(handle: ConnectionHandle, timeouts: IdleTimeouts, deadlines: Deadlines) -> Self {
        // The client is about to send something.
        let last_transfer = LastTransfer {
            at: Instant::now(),
            sender: Sender::Client,
        };
        ConnectionTimer {
            handle,
            timeouts,
            deadlines,
            last_transfer: Cell::new(last_transfer),
            has_begun: Cell::new(false),
            writes: Cell::new(0),
            is_paused: Cell::new(false),
            has_received_all: Cell::new(false),
            has_sent_all: Cell::new(false),
            is_looked_at: Cell::new(false),
            changed_at: Cell::new(None),
        }
    }

    /// Takes the server behind the client, if it is known, and a close request for either, if there is one already.
    pub fn server_connected(&self, server: Option<ConnectedServer>, request: Option<CloseRequest>) {
        server
            .into_iter()
            .for_each(|server| self.handle.set_server(server));
        if let Some(request) = request {
            self.handle.request_close(request);
        }
    }

    /// Notes that bytes arrived and are being written.
    pub fn begin_write(&self, direction: Direction) -> WriteGuard<'_> {
        if !self.has_begun.replace(true) {
            self.handle.begin();
        }
        self.writes.set(self.writes.get() + 1);
        self.note_transfer(direction);
        WriteGuard(self, direction)
    }

    /// Notes bytes that are not a whole record of data yet. A server also sends other records than answers, such as tickets: they do
    /// not count as the start of an answer.
    pub fn note_partial(&self, direction: Direction) {
        if direction == Direction::Received || self.last_transfer.get().sender == Sender::Backend {
            self.note_transfer(direction);
        }
    }

    /// Notes the end of a direction. Its source is not read any more, so only a look tells when the source is gone.
    pub fn note_end(&self, direction: Direction) {
        match direction {
            Direction::Received => self.has_received_all.set(true),
            Direction::Sent => self.has_sent_all.set(true),
        }
        self.schedule_look();
    }

    /// Whether a direction has ended.
    pub fn has_ended(&self, direction: Direction) -> bool {
        match direction {
            Direction::Received => self.has_received_all.get(),
            Direction::Sent => self.has_sent_all.get(),
        }
    }

    fn schedule_look(&self) {
        if !self.is_looked_at.replace(true) {
            let look_at = Instant::now() + limits::DELIVERY_LOOK_INTERVAL;
            self.handle.look_at(Some(look_at));
        }
    }

    fn note_transfer(&self, direction: Direction) {
        self.schedule_look();
        self.last_transfer.set(LastTransfer {
            at: Instant::now(),
            sender: match direction {
                Direction::Received => Sender::Client,
                Direction::Sent => Sender::Backend,
            },
        });
    }

    /// Leaves the client's bytes unread, because it has sent too many. The connection is neither idle nor quiet meanwhile: the
    /// bytes may be the rest of a request.
    pub fn pause(&self) -> PauseGuard<'_> {
        self.is_paused.set(true);
        PauseGuard(self)
    }

    /// The bytes that were last under way.
    fn last_transfer(&self, now: Instant) -> LastTransfer {
        match self.is_paused.get() {
            true => LastTransfer {
                at: now,
                sender: Sender::Client,
            },
            false => self.last_transfer.get(),
        }
    }

    fn quiet_at(&self, now: Instant) -> Instant {
        self.last_transfer(now).quiet_at(QuietTimeouts {
            after_answer: limits::ANSWER_PAUSE,
            after_request: self.timeouts.quiet_timeout,
        })
    }

    /// Whether bytes are being written in either direction.
    pub fn is_writing(&self) -> bool {
        self.writes.get() > 0
    }

    /// When the change happened that the connection closes for, if there is one.
    pub fn changed_at(&self) -> Option<Instant> {
        self.changed_at.get()
    }

    /// Looks, if it is time, whether sent bytes have arrived. Returns the reason to close if a peer is gone. While a write is under
    /// way or a direction has ended, a side is not read from, and only this look tells that it is gone.
    fn look(
        &self,
        now: Instant,
        delivery_state: impl Fn() -> (DeliveryState, CloseReason),
    ) -> Option<CloseReason> {
        if !self.handle.is_look_due(now) {
            return None;
        }
        let (delivery_state, end) = delivery_state();
        let look_at = match delivery_state {
            DeliveryState::Gone => return Some(end),
            DeliveryState::Waiting => Some(now + limits::DELIVERY_LOOK_INTERVAL),
            DeliveryState::Delivered => {
                let is_half = self.has_received_all.get() || self.has_sent_all.get();
                (self.is_writing() || is_half).then(|| now + limits::DELIVERY_LOOK_INTERVAL)
            }
        };
        self.is_looked_at.set(look_at.is_some());
        self.handle.look_at(look_at);
        None
    }

    /// Waits until the connection has to close. `delivery_state` returns the worse state of its two peers, and the reason to close
    /// if that peer is gone.
    pub async fn until_end(
        &self,
        delivery_state: impl Fn() -> (DeliveryState, CloseReason),
    ) -> CloseReason {
        let mut request: Option<CloseRequest> = None;
        loop {
            let now = Instant::now();
            if let Some(end) = self.look(now, &delivery_state) {
                return end;
            }
            if now >= self.deadlines.expires_at {
                return CloseReason::Expired;
            }
            let wake_at = match self.pending_close(request, now) {
                Some((reason, at_the_latest)) => {
                    let quiet_at = self.quiet_at(now);
                    let is_quiet = now >= quiet_at && !self.is_writing();
                    if is_quiet || now >= at_the_latest {
                        let obeyed = request.filter(|request| request.reason == reason);
                        self.changed_at
                            .set(obeyed.and_then(|request| request.changed_at));
                        return reason;
                    }
                    // An answer brings the quiet moment forward, and a write that is stuck leaves none: look again after
                    // another period in either case.
                    let next_look = now + limits::ANSWER_PAUSE;
                    let look_at = match now < quiet_at {
                        true => quiet_at.min(next_look),
                        false => next_look,
                    };
                    look_at.min(at_the_latest)
                }
                None => {
                    let idle_at = self.last_transfer(now).at + self.timeouts.idle_timeout;
                    if now >= idle_at {
                        return CloseReason::Idle;
                    }
                    self.next_close(request, idle_at)
                }
            };
            let wake_at = wake_at.min(self.deadlines.expires_at);
            // Another request may come at any time, and be more urgent.
            if let Some(newest) = self.handle.close_requested(&request, wake_at).await {
                request = newest;
            }
        }
    }

    /// Notes bytes of a mode that reads and writes by itself.
    pub fn note_moved(&self, direction: Direction) {
        if !self.has_begun.replace(true) {
            self.handle.begin();
        }
        self.note_transfer(direction);
    }

    /// Waits until the connection has to close, or to prepare for that: for a mode that can tell its client so, and needs no
    /// quiet moment. `delivery_state` is as above.
    pub async fn until_notice(
        &self,
        delivery_state: impl Fn() -> (DeliveryState, CloseReason),
    ) -> CloseNotice {
        let mut request: Option<CloseRequest> = None;
        loop {
            let now = Instant::now();
            if let Some(reason) = self.look(now, &delivery_state) {
                return CloseNotice::at(now, reason);
            }
            if now >= self.deadlines.expires_at {
                return CloseNotice::at(now, CloseReason::Expired);
            }
            if let Some((reason, at_the_latest)) = self.pending_close(request, now) {
                let obeyed = request.filter(|request| request.reason == reason);
                self.changed_at
                    .set(obeyed.and_then(|request| request.changed_at));
                return CloseNotice {
                    reason,
                    at_the_latest,
                };
            }
            let idle_at = self.last_transfer(now).at + self.timeouts.idle_timeout;
            if now >= idle_at {
                return CloseNotice {
                    reason: CloseReason::Idle,
                    at_the_latest: now + self.timeouts.quiet_timeout,
                };
            }
            let wake_at = self.next_close(request, idle_at);
            if let Some(newest) = self.handle.close_requested(&request, wake_at).await {
                request = newest;
            }
        }
    }

    /// After a notice, waits until the connection has to close whatever is under way.
    pub async fn until_latest(&self, notice: CloseNotice) -> CloseReason {
        let mut request: Option<CloseRequest> = None;
        loop {
            let now = Instant::now();
            let more_urgent =
                request.filter(|request| request.at_the_latest < notice.at_the_latest);
            let (reason, at) = match more_urgent {
                Some(request) => (request.reason, request.at_the_latest),
                None => (notice.reason, notice.at_the_latest),
            };
            if now >= self.deadlines.expires_at {
                return CloseReason::Expired;
            }
            if now >= at {
                if let Some(request) = more_urgent {
                    self.changed_at.set(request.changed_at);
                }
                return reason;
            }
            let wake_at = at.min(self.deadlines.expires_at);
            if let Some(newest) = self.handle.close_requested(&request, wake_at).await {
                request = newest;
            }
        }
    }

    /// The next time at which there may be a reason to close.
    fn next_close(&self, request: Option<CloseRequest>, idle_at: Instant) -> Instant {
        let Deadlines {
            aged_at,
            expiring_at,
            expires_at,
            ..
        } = self.deadlines;
        let requested_at = request.map(|request| request.from);
        let times = [requested_at, aged_at, expiring_at, Some(expires_at)];
        times.into_iter().flatten().fold(idle_at, Instant::min)
    }

    /// Why the connection looks for a quiet moment to close, and when it closes without one.
    fn pending_close(
        &self,
        request: Option<CloseRequest>,
        now: Instant,
    ) -> Option<(CloseReason, Instant)> {
        let requested = request.filter(|request| now >= request.from);
        let requested = requested.map(|request| (request.reason, request.at_the_latest));
        let Deadlines {
            aged_at,
            age_grace,
            expiring_at,
            expires_at,
        } = self.deadlines;
        let aged = aged_at.filter(|aged_at| now >= *aged_at);
        let aged = aged.map(|aged_at| (CloseReason::Age, aged_at + age_grace));
        let expiring = expiring_at.filter(|expiring_at| now >= *expiring_at);
        let expiring = expiring.map(|_| (CloseReason::Expiring, expires_at));
        requested
            .into_iter()
            .chain(aged)
            .chain(expiring)
            .min_by_key(|(_, at_the_latest)| *at_the_latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::ConnectionTable;
    use gateway_rt::block_on;
    use std::rc::Rc;

    const LONG: Duration = Duration::from_secs(3600);
    const TIMEOUTS: IdleTimeouts = IdleTimeouts {
        idle_timeout: LONG,
        quiet_timeout: Duration::from_millis(400),
    };
    /// A guard against hanging.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn delivered() -> (DeliveryState, CloseReason) {
        (DeliveryState::Delivered, CloseReason::Internal)
    }

    fn long() -> Deadlines {
        Deadlines {
            aged_at: None,
            age_grace: LONG,
            expiring_at: None,
            expires_at: Instant::now() + LONG,
        }
    }

    fn request(reason: CloseReason, wait: Duration) -> CloseRequest {
        let now = Instant::now();
        CloseRequest {
            reason,
            from: now,
            at_the_latest: now + wait,
            changed_at: None,
        }
    }

    /// Runs a timer whose connection never has a quiet moment, and gives it `requests` while it runs.
    fn end_of_a_busy_connection(aged: bool, requests: &[CloseRequest]) -> CloseReason {
        let ended = block_on(|_| async {
            let all = Rc::new(ConnectionTable::default());
            let now = Instant::now();
            let deadlines = Deadlines {
                aged_at: aged.then_some(now),
                ..long()
            };
            let timer = Rc::new(ConnectionTimer::new(all.register(), TIMEOUTS, deadlines));
            let busy = timer.begin_write(Direction::Received);
            let asked = Rc::clone(&timer);
            let requests = requests.to_vec();
            monoio::spawn(async move {
                for request in requests {
                    monoio::time::sleep(Duration::from_millis(30)).await;
                    asked.handle.request_close(request);
                }
            });
            let ended = monoio::time::timeout(PATIENCE, timer.until_end(delivered)).await;
            drop(busy);
            ended
        });
        ended.unwrap().expect("the connection ends")
    }

    #[test]
    fn an_urgent_request_is_heard_while_a_quiet_moment_is_waited_for() {
        let urgent = request(CloseReason::Revoked, Duration::ZERO);
        assert_eq!(
            end_of_a_busy_connection(true, &[urgent]),
            CloseReason::Revoked
        );
        let patient = request(CloseReason::Untrusted, LONG);
        assert_eq!(
            end_of_a_busy_connection(false, &[patient, urgent]),
            CloseReason::Revoked
        );
        assert_eq!(
            end_of_a_busy_connection(false, &[urgent, patient]),
            CloseReason::Revoked
        );
    }

    #[test]
    fn a_quiet_connection_ends_with_the_first_request_even_one_made_before_it_was_timed() {
        let ended = block_on(|_| async {
            let all = Rc::new(ConnectionTable::default());
            let handle = all.register();
            handle.request_close(request(CloseReason::NotAuthorized, LONG));
            let timer = ConnectionTimer::new(handle, TIMEOUTS, long());
            monoio::time::timeout(PATIENCE, timer.until_end(delivered)).await
        });
        assert_eq!(ended.unwrap(), Ok(CloseReason::NotAuthorized));
    }

    #[test]
    fn a_certificate_that_ends_ends_the_connection_however_busy() {
        let ended = block_on(|_| async {
            let now = Instant::now();
            let handle = Rc::new(ConnectionTable::default()).register();
            let soon = Deadlines {
                expiring_at: Some(now),
                expires_at: now + Duration::from_millis(50),
                ..long()
            };
            let timer = ConnectionTimer::new(handle, TIMEOUTS, soon);
            let _busy = timer.begin_write(Direction::Received);
            monoio::time::timeout(PATIENCE, timer.until_end(delivered)).await
        });
        assert_eq!(ended.unwrap(), Ok(CloseReason::Expired));
    }

    #[test]
    fn a_paused_connection_is_neither_idle_nor_quiet_and_still_ends_when_it_has_to() {
        let ended = block_on(|_| async {
            let short = Duration::from_millis(20);
            let impatient = IdleTimeouts {
                idle_timeout: short,
                quiet_timeout: short,
            };
            let handle = Rc::new(ConnectionTable::default()).register();
            let timer = ConnectionTimer::new(handle, impatient, long());
            let pausing = timer.pause();
            let paused = monoio::time::timeout(10 * short, timer.until_end(delivered)).await;
            timer
                .handle
                .request_close(request(CloseReason::Untrusted, 10 * short));
            let requested_at = Instant::now();
            let requested = timer.until_end(delivered).await;
            let waited = requested_at.elapsed() >= 9 * short;
            drop(pausing);
            (paused.is_err(), requested, waited)
        });
        assert_eq!(ended.unwrap(), (true, CloseReason::Untrusted, true));
    }

    #[test]
    fn a_certificate_that_is_about_to_end_ends_a_connection_that_is_quiet() {
        let ended = block_on(|_| async {
            let handle = Rc::new(ConnectionTable::default()).register();
            let expiring = Deadlines {
                expiring_at: Some(Instant::now() + Duration::from_millis(50)),
                ..long()
            };
            let timer = ConnectionTimer::new(handle, TIMEOUTS, expiring);
            monoio::time::timeout(PATIENCE, timer.until_end(delivered)).await
        });
        assert_eq!(ended.unwrap(), Ok(CloseReason::Expiring));
    }

    /// Whether a connection that is asked to close does so within `patience`, after a transfer in this direction.
    fn goes_within(patience: Duration, direction: Direction) -> bool {
        let ended = block_on(|_| async {
            let handle = Rc::new(ConnectionTable::default()).register();
            let quiet_timeout = LONG;
            let timer = ConnectionTimer::new(
                handle,
                IdleTimeouts {
                    quiet_timeout,
                    ..TIMEOUTS
                },
                long(),
            );
            timer.begin_write(direction).done();
            timer
                .handle
                .request_close(request(CloseReason::Drained, LONG));
            monoio::time::timeout(patience, timer.until_end(delivered)).await
        });
        ended.unwrap() == Ok(CloseReason::Drained)
    }

    #[test]
    fn a_connection_goes_after_an_answer_and_not_while_one_is_waited_for() {
        assert!(goes_within(PATIENCE, Direction::Sent));
        assert!(!goes_within(4 * limits::ANSWER_PAUSE, Direction::Received));
    }

    #[test]
    fn a_connection_that_is_asked_to_close_while_an_answer_is_waited_for_goes_after_that() {
        let ended = block_on(|_| async {
            let handle = Rc::new(ConnectionTable::default()).register();
            let timeouts = IdleTimeouts {
                quiet_timeout: LONG,
                ..TIMEOUTS
            };
            let timer = Rc::new(ConnectionTimer::new(handle, timeouts, long()));
            timer.begin_write(Direction::Received).done();
            let drained = request(CloseReason::Drained, LONG);
            timer.handle.request_close(drained);
            let answered = Rc::clone(&timer);
            monoio::spawn(async move {
                monoio::time::sleep(limits::ANSWER_PAUSE).await;
                answered.begin_write(Direction::Sent).done();
            });
            monoio::time::timeout(PATIENCE, timer.until_end(delivered)).await
        });
        assert_eq!(ended.unwrap(), Ok(CloseReason::Drained));
    }

    /// Whether a connection is looked at again whose peers have taken everything, when `prepare` has been done to it.
    fn is_looked_at_again(prepare: impl FnOnce(&ConnectionTimer)) -> bool {
        let looked = block_on(|_| async {
            let handle = Rc::new(ConnectionTable::default()).register();
            let timer = ConnectionTimer::new(handle, TIMEOUTS, long());
            prepare(&timer);
            let now = Instant::now();
            timer.handle.look_at(Some(now));
            let end = timer.look(now, delivered);
            let later = now + 2 * limits::DELIVERY_LOOK_INTERVAL;
            end.is_none() && timer.handle.is_look_due(later)
        });
        looked.unwrap()
    }

    #[test]
    fn a_side_that_nobody_reads_from_is_looked_at_for_as_long_as_that_lasts() {
        assert!(!is_looked_at_again(|timer| timer
            .begin_write(Direction::Received)
            .done()));
        // A write that is dropped has not come to its end.
        assert!(is_looked_at_again(|timer| drop(
            timer.begin_write(Direction::Received)
        )));
        assert!(is_looked_at_again(
            |timer| timer.note_end(Direction::Received)
        ));
        assert!(is_looked_at_again(|timer| timer.note_end(Direction::Sent)));
    }

    #[test]
    fn a_request_whose_first_record_is_not_whole_is_no_silence_and_a_servers_ticket_no_answer() {
        let timer = block_on(|_| async {
            let handle = Rc::new(ConnectionTable::default()).register();
            let timer = ConnectionTimer::new(handle, TIMEOUTS, long());
            let past = |sender| LastTransfer {
                at: Instant::now() - Duration::from_secs(9),
                sender,
            };
            let moves = [
                (Sender::Client, Direction::Received),
                (Sender::Backend, Direction::Received),
                (Sender::Backend, Direction::Sent),
                (Sender::Client, Direction::Sent),
            ];
            moves.map(|(sender, direction)| {
                let before = past(sender);
                timer.last_transfer.set(before);
                timer.note_partial(direction);
                let after = timer.last_transfer.get();
                (after.at > before.at, after.sender == Sender::Client)
            })
        });
        let expected = [(true, true), (true, true), (true, false), (false, true)];
        assert_eq!(timer.unwrap(), expected);
    }

    #[test]
    fn a_peer_that_is_gone_ends_the_connection_and_one_that_only_pauses_does_not() {
        let ended = block_on(|_| async {
            let handle = Rc::new(ConnectionTable::default()).register();
            let timer = ConnectionTimer::new(handle, TIMEOUTS, long());
            timer.begin_write(Direction::Sent).done();
            let delivery_state = Cell::new(DeliveryState::Waiting);
            let looks = Cell::new(0);
            let look = || {
                looks.set(looks.get() + 1);
                (delivery_state.get(), CloseReason::ClientReset)
            };
            let soon = || {
                timer
                    .handle
                    .look_at(Some(Instant::now() + Duration::from_millis(30)))
            };
            soon();
            let wait = Duration::from_millis(300);
            let paused = monoio::time::timeout(wait, timer.until_end(look)).await;
            delivery_state.set(DeliveryState::Gone);
            soon();
            let gone = monoio::time::timeout(PATIENCE, timer.until_end(look)).await;
            (paused.is_err(), looks.get(), gone)
        });
        assert_eq!(ended.unwrap(), (true, 2, Ok(CloseReason::ClientReset)));
    }
}
