//! Watches one connection: how long nothing has moved, how old it is, and whether it has been ordered to end.
//! In: notes of writes, orders from the worker. Out: the reason to end it. On the connection's worker.

use std::cell::Cell;
use std::time::{Duration, Instant};

use gateway_core::close_reason::CloseReason;
use gateway_core::delivery::DeliveryState;
use gateway_core::graceful_close::{LastTransfer, QuietTimeouts, Sender};
use gateway_core::limits;

use super::Direction;
use super::table::{Order, Place, Reached};

/// What one connection is watched for.
#[derive(Debug)]
pub struct Watch {
    place: Place,
    patience: Patience,
    lifetime: Lifetime,
    last_transfer: Cell<LastTransfer>,
    has_begun: Cell<bool>,
    writes: Cell<u32>,
    is_paused: Cell<bool>,
    /// The directions that have come to their end.
    has_received_all: Cell<bool>,
    has_sent_all: Cell<bool>,
    /// It is to be looked whether the peers are there: something was sent, and it has not been seen to arrive, or a side is not
    /// read from.
    is_looked_at: Cell<bool>,
    changed_at: Cell<Option<Instant>>,
}

/// How long nothing may move.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the connection ends for that alone.
    pub idle_timeout: Duration,
    /// Until one that has to end is quiet, whatever moved last.
    pub quiet_timeout: Duration,
}

/// When a connection ends, whatever happens on it.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// It is old, and ends at the next quiet moment or shortly after.
    pub aged_at: Option<Instant>,
    /// How much later it ends without one.
    pub age_grace: Duration,
    /// Its client's certificate is about to end: from now on it ends at a quiet moment.
    pub expiring_at: Option<Instant>,
    /// Its client has proven something until now.
    pub expires_at: Instant,
}

/// A write that is under way. One that is dropped was broken off: from then on the connection counts as writing until its end,
/// so that nobody takes what was sent for all there is.
#[derive(Debug)]
#[must_use]
pub struct Writing<'a>(&'a Watch, Direction);

impl Writing<'_> {
    /// Notes that some of the bytes have been sent.
    pub fn progress(&self) {
        self.0.moved(self.1);
    }

    /// Notes that all have been.
    pub fn done(self) {
        self.0.writes.set(self.0.writes.get() - 1);
        self.progress();
    }
}

/// A pause in which the client's bytes are left waiting; ends when dropped.
#[derive(Debug)]
pub struct Pausing<'a>(&'a Watch);

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.0.is_paused.set(false);
        self.0.moved(Direction::Received);
    }
}

impl Watch {
    /// Watches a connection that has just been established.
    pub fn new(place: Place, patience: Patience, lifetime: Lifetime) -> Self {
        // The client is about to send something.
        let last_transfer = LastTransfer {
            at: Instant::now(),
            sender: Sender::Client,
        };
        Watch {
            place,
            patience,
            lifetime,
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

    /// Says which server is behind the client, if it is known, and gives the order for both, if there is one already.
    pub fn reach(&self, server: Option<Reached>, order: Option<Order>) {
        server
            .into_iter()
            .for_each(|server| self.place.reach(server));
        if let Some(order) = order {
            self.place.give(order);
        }
    }

    /// Notes that bytes arrived and are being written.
    pub fn writing(&self, direction: Direction) -> Writing<'_> {
        if !self.has_begun.replace(true) {
            self.place.begin();
        }
        self.writes.set(self.writes.get() + 1);
        self.moved(direction);
        Writing(self, direction)
    }

    /// Notes that bytes came of which none can be passed on yet: the rest of a record is to follow. A server may send other
    /// things than answers, such as tickets: they are not taken for the beginning of one.
    pub fn stirred(&self, direction: Direction) {
        if direction == Direction::Received || self.last_transfer.get().sender == Sender::Backend {
            self.moved(direction);
        }
    }

    /// Notes that nothing more comes in this direction. Its source is not read any more, so its going has to be looked for.
    pub fn ended(&self, direction: Direction) {
        match direction {
            Direction::Received => self.has_received_all.set(true),
            Direction::Sent => self.has_sent_all.set(true),
        }
        self.look_later();
    }

    /// Whether a direction has come to its end.
    pub fn has_ended(&self, direction: Direction) -> bool {
        match direction {
            Direction::Received => self.has_received_all.get(),
            Direction::Sent => self.has_sent_all.get(),
        }
    }

    fn look_later(&self) {
        if !self.is_looked_at.replace(true) {
            let look_at = Instant::now() + limits::DELIVERY_LOOK_INTERVAL;
            self.place.look_at(Some(look_at));
        }
    }

    fn moved(&self, direction: Direction) {
        self.look_later();
        self.last_transfer.set(LastTransfer {
            at: Instant::now(),
            sender: match direction {
                Direction::Received => Sender::Client,
                Direction::Sent => Sender::Backend,
            },
        });
    }

    /// Notes that bytes wait and are not read yet, because the client has sent too many. It is neither idle nor quiet then:
    /// what waits may be the rest of a request.
    pub fn pausing(&self) -> Pausing<'_> {
        self.is_paused.set(true);
        Pausing(self)
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
            after_request: self.patience.quiet_timeout,
        })
    }

    /// Whether bytes are being written in either direction.
    pub fn is_writing(&self) -> bool {
        self.writes.get() > 0
    }

    /// When the change came about for which the connection has to end, if it is for one.
    pub fn changed_at(&self) -> Option<Instant> {
        self.changed_at.get()
    }

    /// Looks, if it is time, whether what was sent has arrived; the end of the connection if a peer is gone. While a write is
    /// under way or a direction has ended, a side is not read from, and nothing else would tell that it is gone.
    fn look(
        &self,
        now: Instant,
        standing: impl Fn() -> (DeliveryState, CloseReason),
    ) -> Option<CloseReason> {
        if !self.place.is_look_due(now) {
            return None;
        }
        let (standing, end) = standing();
        let look_at = match standing {
            DeliveryState::Gone => return Some(end),
            DeliveryState::Waiting => Some(now + limits::DELIVERY_LOOK_INTERVAL),
            DeliveryState::Delivered => {
                let is_half = self.has_received_all.get() || self.has_sent_all.get();
                (self.is_writing() || is_half).then(|| now + limits::DELIVERY_LOOK_INTERVAL)
            }
        };
        self.is_looked_at.set(look_at.is_some());
        self.place.look_at(look_at);
        None
    }

    /// Waits until the connection has to end. `standing` says how the worse of its two peers stands, and what the end would be
    /// if that one were gone.
    pub async fn until_end(
        &self,
        standing: impl Fn() -> (DeliveryState, CloseReason),
    ) -> CloseReason {
        let mut order: Option<Order> = None;
        loop {
            let now = Instant::now();
            if let Some(end) = self.look(now, &standing) {
                return end;
            }
            if now >= self.lifetime.expires_at {
                return CloseReason::Expired;
            }
            let wake_at = match self.closing(order, now) {
                Some((reason, at_the_latest)) => {
                    let quiet_at = self.quiet_at(now);
                    let is_quiet = now >= quiet_at && !self.is_writing();
                    if is_quiet || now >= at_the_latest {
                        let obeyed = order.filter(|order| order.reason == reason);
                        self.changed_at
                            .set(obeyed.and_then(|order| order.changed_at));
                        return reason;
                    }
                    // A write that is stuck leaves no quiet moment: look again after another period.
                    let look_at = if now < quiet_at {
                        quiet_at
                    } else {
                        now + limits::ANSWER_PAUSE
                    };
                    look_at.min(at_the_latest)
                }
                None => {
                    let idle_at = self.last_transfer(now).at + self.patience.idle_timeout;
                    if now >= idle_at {
                        return CloseReason::Idle;
                    }
                    let ordered_at = order.map_or(idle_at, |order| order.from);
                    let Lifetime {
                        aged_at,
                        expiring_at,
                        ..
                    } = self.lifetime;
                    let times = [Some(ordered_at), aged_at, expiring_at];
                    times.into_iter().flatten().fold(idle_at, Instant::min)
                }
            };
            let wake_at = wake_at.min(self.lifetime.expires_at);
            // Another order may come at any time, and be more urgent.
            if let Some(given) = self.place.ordered(&order, wake_at).await {
                order = given;
            }
        }
    }

    /// Why the connection looks for a quiet moment to end, and when it ends without one.
    fn closing(&self, order: Option<Order>, now: Instant) -> Option<(CloseReason, Instant)> {
        let ordered = order.filter(|order| now >= order.from);
        let ordered = ordered.map(|order| (order.reason, order.at_the_latest));
        let Lifetime {
            aged_at,
            age_grace,
            expiring_at,
            expires_at,
        } = self.lifetime;
        let aged = aged_at.filter(|aged_at| now >= *aged_at);
        let aged = aged.map(|aged_at| (CloseReason::Age, aged_at + age_grace));
        let expiring = expiring_at.filter(|expiring_at| now >= *expiring_at);
        let expiring = expiring.map(|_| (CloseReason::Expiring, expires_at));
        ordered
            .into_iter()
            .chain(aged)
            .chain(expiring)
            .min_by_key(|(_, at_the_latest)| *at_the_latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Orders;
    use gateway_rt::block_on;
    use std::rc::Rc;

    const LONG: Duration = Duration::from_secs(3600);
    const PATIENT: Patience = Patience {
        idle_timeout: LONG,
        quiet_timeout: Duration::from_millis(400),
    };
    /// A guard against hanging.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn delivered() -> (DeliveryState, CloseReason) {
        (DeliveryState::Delivered, CloseReason::Internal)
    }

    fn long() -> Lifetime {
        Lifetime {
            aged_at: None,
            age_grace: LONG,
            expiring_at: None,
            expires_at: Instant::now() + LONG,
        }
    }

    fn order(reason: CloseReason, wait: Duration) -> Order {
        let now = Instant::now();
        Order {
            reason,
            from: now,
            at_the_latest: now + wait,
            changed_at: None,
        }
    }

    /// Runs a watch whose connection never has a quiet moment, and gives it `orders` while it runs.
    fn end_of_a_busy_connection(aged: bool, orders: &[Order]) -> CloseReason {
        let ended = block_on(|_| async {
            let all = Rc::new(Orders::default());
            let now = Instant::now();
            let lifetime = Lifetime {
                aged_at: aged.then_some(now),
                ..long()
            };
            let watch = Rc::new(Watch::new(all.register(), PATIENT, lifetime));
            let busy = watch.writing(Direction::Received);
            let giving = Rc::clone(&watch);
            let orders = orders.to_vec();
            monoio::spawn(async move {
                for order in orders {
                    monoio::time::sleep(Duration::from_millis(30)).await;
                    giving.place.give(order);
                }
            });
            let ended = monoio::time::timeout(PATIENCE, watch.until_end(delivered)).await;
            drop(busy);
            ended
        });
        ended.unwrap().expect("the connection ends")
    }

    #[test]
    fn an_urgent_order_is_heard_while_a_quiet_moment_is_waited_for() {
        let urgent = order(CloseReason::Revoked, Duration::ZERO);
        assert_eq!(
            end_of_a_busy_connection(true, &[urgent]),
            CloseReason::Revoked
        );
        let patient = order(CloseReason::Untrusted, LONG);
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
    fn a_quiet_connection_ends_with_the_first_order_even_one_given_before_it_was_watched() {
        let ended = block_on(|_| async {
            let all = Rc::new(Orders::default());
            let place = all.register();
            place.give(order(CloseReason::NotAuthorized, LONG));
            let watch = Watch::new(place, PATIENT, long());
            monoio::time::timeout(PATIENCE, watch.until_end(delivered)).await
        });
        assert_eq!(ended.unwrap(), Ok(CloseReason::NotAuthorized));
    }

    #[test]
    fn a_certificate_that_ends_ends_the_connection_however_busy() {
        let ended = block_on(|_| async {
            let now = Instant::now();
            let place = Rc::new(Orders::default()).register();
            let soon = Lifetime {
                expiring_at: Some(now),
                expires_at: now + Duration::from_millis(50),
                ..long()
            };
            let watch = Watch::new(place, PATIENT, soon);
            let _busy = watch.writing(Direction::Received);
            monoio::time::timeout(PATIENCE, watch.until_end(delivered)).await
        });
        assert_eq!(ended.unwrap(), Ok(CloseReason::Expired));
    }

    #[test]
    fn a_paused_connection_is_neither_idle_nor_quiet_and_still_ends_when_it_has_to() {
        let ended = block_on(|_| async {
            let short = Duration::from_millis(20);
            let impatient = Patience {
                idle_timeout: short,
                quiet_timeout: short,
            };
            let place = Rc::new(Orders::default()).register();
            let watch = Watch::new(place, impatient, long());
            let pausing = watch.pausing();
            let paused = monoio::time::timeout(10 * short, watch.until_end(delivered)).await;
            watch.place.give(order(CloseReason::Untrusted, 10 * short));
            let ordered_at = Instant::now();
            let ordered = watch.until_end(delivered).await;
            let waited = ordered_at.elapsed() >= 9 * short;
            drop(pausing);
            (paused.is_err(), ordered, waited)
        });
        assert_eq!(ended.unwrap(), (true, CloseReason::Untrusted, true));
    }

    #[test]
    fn a_certificate_that_is_about_to_end_ends_a_connection_that_is_quiet() {
        let ended = block_on(|_| async {
            let place = Rc::new(Orders::default()).register();
            let expiring = Lifetime {
                expiring_at: Some(Instant::now() + Duration::from_millis(50)),
                ..long()
            };
            let watch = Watch::new(place, PATIENT, expiring);
            monoio::time::timeout(PATIENCE, watch.until_end(delivered)).await
        });
        assert_eq!(ended.unwrap(), Ok(CloseReason::Expiring));
    }

    /// Whether a connection that is ordered to end goes before `patience` is over, after a move in this direction.
    fn goes_within(patience: Duration, direction: Direction) -> bool {
        let ended = block_on(|_| async {
            let place = Rc::new(Orders::default()).register();
            let quiet_timeout = LONG;
            let watch = Watch::new(
                place,
                Patience {
                    quiet_timeout,
                    ..PATIENT
                },
                long(),
            );
            watch.writing(direction).done();
            watch.place.give(order(CloseReason::Drained, LONG));
            monoio::time::timeout(patience, watch.until_end(delivered)).await
        });
        ended.unwrap() == Ok(CloseReason::Drained)
    }

    #[test]
    fn a_connection_goes_after_an_answer_and_not_while_one_is_waited_for() {
        assert!(goes_within(PATIENCE, Direction::Sent));
        assert!(!goes_within(4 * limits::ANSWER_PAUSE, Direction::Received));
    }

    /// Whether a connection is looked at again whose peers have taken everything, when `prepare` has been done to it.
    fn is_looked_at_again(prepare: impl FnOnce(&Watch)) -> bool {
        let looked = block_on(|_| async {
            let place = Rc::new(Orders::default()).register();
            let watch = Watch::new(place, PATIENT, long());
            prepare(&watch);
            let now = Instant::now();
            watch.place.look_at(Some(now));
            let end = watch.look(now, delivered);
            let later = now + 2 * limits::DELIVERY_LOOK_INTERVAL;
            end.is_none() && watch.place.is_look_due(later)
        });
        looked.unwrap()
    }

    #[test]
    fn a_side_that_nobody_reads_from_is_looked_at_for_as_long_as_that_lasts() {
        assert!(!is_looked_at_again(|watch| watch
            .writing(Direction::Received)
            .done()));
        // A write that is dropped has not come to its end.
        assert!(is_looked_at_again(|watch| drop(
            watch.writing(Direction::Received)
        )));
        assert!(is_looked_at_again(|watch| watch.ended(Direction::Received)));
        assert!(is_looked_at_again(|watch| watch.ended(Direction::Sent)));
    }

    #[test]
    fn a_request_whose_first_record_is_not_whole_is_no_silence_and_a_servers_ticket_no_answer() {
        let watch = block_on(|_| async {
            let place = Rc::new(Orders::default()).register();
            let watch = Watch::new(place, PATIENT, long());
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
                watch.last_transfer.set(before);
                watch.stirred(direction);
                let after = watch.last_transfer.get();
                (after.at > before.at, after.sender == Sender::Client)
            })
        });
        let expected = [(true, true), (true, true), (true, false), (false, true)];
        assert_eq!(watch.unwrap(), expected);
    }

    #[test]
    fn a_peer_that_is_gone_ends_the_connection_and_one_that_only_pauses_does_not() {
        let ended = block_on(|_| async {
            let place = Rc::new(Orders::default()).register();
            let watch = Watch::new(place, PATIENT, long());
            watch.writing(Direction::Sent).done();
            let standing = Cell::new(DeliveryState::Waiting);
            let looks = Cell::new(0);
            let look = || {
                looks.set(looks.get() + 1);
                (standing.get(), CloseReason::ClientReset)
            };
            let soon = || {
                watch
                    .place
                    .look_at(Some(Instant::now() + Duration::from_millis(30)))
            };
            soon();
            let wait = Duration::from_millis(300);
            let paused = monoio::time::timeout(wait, watch.until_end(look)).await;
            standing.set(DeliveryState::Gone);
            soon();
            let gone = monoio::time::timeout(PATIENCE, watch.until_end(look)).await;
            (paused.is_err(), looks.get(), gone)
        });
        assert_eq!(ended.unwrap(), (true, 2, Ok(CloseReason::ClientReset)));
    }
}
