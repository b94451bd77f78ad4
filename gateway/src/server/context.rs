//! What the connections of one worker share: the state in force, their table, buffers, observer, usage and guard.
//! In: a new state, a clock that was set. Out: orders to connections that may not stay. One per worker, on its thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use gateway_core::close_reason::CloseReason;
use gateway_core::descriptors::Descriptors;
use gateway_core::failure::Failure;
use gateway_guard::Gate;
use gateway_rt::{Across, BufferPool};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::evaluation::{judge, judge_newcomer};
use super::state::{Seed, State};
use crate::admin::Scrape;
use crate::connection::{Judged, Order, Orders, Reached, Records};
use crate::telemetry::{Event, Observer};
use crate::tls::{Observed, VerifiedPeer};

/// Takes the connections of those who may read the metrics to the control thread, which has the page.
pub(super) type Scrapes = tokio::sync::mpsc::Sender<Scrape>;

/// Everything the connections of one worker use.
pub(super) struct WorkerContext {
    pub(super) state: RefCell<Rc<State>>,
    pub(super) orders: Rc<Orders>,
    pub(super) buffers: Rc<BufferPool>,
    pub(super) observer: Observer,
    pub(super) records: Arc<Records>,
    pub(super) gate: Gate,
    pub(super) across: Across,
    pub(super) descriptors: Descriptors,
    pub(super) scrapes: Scrapes,
}

impl WorkerContext {
    /// One of a listener's handshake slots, as soon as one is free on any worker and nobody has waited for it longer.
    pub(super) async fn handshake_slot(&self, slots: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return slot;
        }
        // Boxed: most need not wait, and every connection would keep the room.
        let slot = Box::pin(self.across.wait(Arc::clone(slots).acquire_owned())).await;
        slot.expect("the slots of a listener are never closed")
    }

    /// What is trusted and served at this moment.
    pub(super) fn state(&self) -> Rc<State> {
        Rc::clone(&self.state.borrow())
    }

    /// The order for a client that has just got in by `before`, or whose server has just been connected by it, if that has
    /// been replaced in the meantime and they would not get in now. Its whole chain is verified anew: the new state may have
    /// another key policy, too.
    pub(super) fn judge_if_changed(
        &self,
        before: &Rc<State>,
        position: usize,
        (peer, certificates): (&VerifiedPeer, &[CertificateDer<'static>]),
        server: Option<&Reached>,
    ) -> Option<Order> {
        let state = self.state();
        if Rc::ptr_eq(before, &state) {
            return None;
        }
        let order = judge_newcomer(&state, position, peer, server);
        order.or_else(|| {
            let blocks = &state.doors[position].trust.blocks;
            let by_now = Observed::new(&state.config, position, blocks);
            let (failure, _) = by_now.would_refuse(certificates, SystemTime::now())?;
            let at_once = Instant::now();
            Some(Order {
                reason: CloseReason::from_failure(failure),
                from: at_once,
                at_the_latest: at_once,
                changed_at: Some(state.changed_at),
            })
        })
    }

    /// Tells of a client that has just got in, and that the observed configuration would have refused.
    pub(super) fn foresee_newcomer(
        &self,
        state: &State,
        position: usize,
        certificates: &[CertificateDer<'static>],
        peer: &VerifiedPeer,
    ) {
        let Some(observed) = &state.doors[position].observed else {
            return;
        };
        let now = SystemTime::now();
        let why = observed.would_refuse(certificates, now);
        self.tell_foreseen(position, peer, why);
    }

    /// Tells of the open connections that the observed configuration would close.
    fn foresee(&self, state: &State) {
        let now = SystemTime::now();
        self.orders.for_each(|position, peer, _| {
            let observed = state.doors[position].observed.as_ref();
            let why = observed.and_then(|observed| observed.would_close(peer, now));
            self.tell_foreseen(position, peer, why);
        });
    }

    fn tell_foreseen(&self, position: usize, peer: &VerifiedPeer, why: Option<(Failure, String)>) {
        if let Some((failure, detail)) = why {
            let detail = &detail;
            let foreseen = Event::Foreseen {
                failure,
                detail,
                peer,
            };
            self.observer.emit(position, &foreseen);
        }
    }

    /// Swaps the state and orders everybody to end who would not get in any more. Returns how many.
    pub(super) fn reload(&self, seed: Seed) -> usize {
        let observes_another = self.observer.reload(&seed.config);
        let state = Rc::new(self.state().next(seed, &self.buffers));
        self.state.replace(Rc::clone(&state));
        if observes_another {
            self.foresee(&state);
        }
        self.judge_all()
    }

    /// Judges every client that has got in, and the server behind it, by what is trusted now and by the clock as it is. Returns
    /// how many have to go.
    pub(super) fn judge_all(&self) -> usize {
        let state = self.state();
        let ordered = self.orders.judge(|place, peer, server| match place {
            Judged {
                position,
                is_new: true,
            } => judge_newcomer(&state, position, peer, server),
            Judged {
                position,
                is_new: false,
            } => judge(&state, position, peer, server),
        });
        if ordered > 0 {
            tracing::warn!(
                connections = ordered,
                "closing connections of clients that would be refused now"
            );
        }
        ordered
    }
}
