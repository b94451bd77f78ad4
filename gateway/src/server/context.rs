//! What the connections of one worker share: the state in force, their table, buffers, observer, usage and guard.
//! In: a new state, a clock that was set. Out: close requests to connections that may not stay. One per worker, on its thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use gateway_core::descriptors::Descriptors;
use gateway_core::failure::Failure;
use gateway_guard::SourceAdmission;
use gateway_rt::{Across, BufferPool};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::evaluation::{evaluate_chain, evaluate_connection};
use super::state::{SharedState, State};
use crate::admin::Scrape;
use crate::config::ListenerId;
use crate::connection::{CloseRequest, ConnectionTable, OpenConnection, UsageTable};
use crate::http::HttpWorker;
use crate::telemetry::{Event, Observer};
use crate::tls::VerifiedPeer;

/// Takes connections of clients that may read the metrics to the control thread, which writes the page.
pub(super) type Scrapes = tokio::sync::mpsc::Sender<Scrape>;

/// Everything the connections of one worker use.
pub(super) struct WorkerContext {
    pub(super) state: RefCell<Rc<State>>,
    pub(super) connections: Rc<ConnectionTable>,
    pub(super) buffers: Rc<BufferPool>,
    pub(super) observer: Rc<Observer>,
    pub(super) http: Rc<HttpWorker>,
    pub(super) usage: Arc<UsageTable>,
    pub(super) source_admission: SourceAdmission,
    pub(super) across: Across,
    pub(super) descriptors: Descriptors,
    pub(super) scrapes: Scrapes,
}

impl WorkerContext {
    /// One of a listener's handshake slots. The client that has waited longest, on any worker, gets the next one.
    pub(super) async fn handshake_slot(&self, slots: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return slot;
        }
        // Boxed: most clients need not wait, and every connection would hold the memory.
        let slot = Box::pin(self.across.wait(Arc::clone(slots).acquire_owned())).await;
        slot.expect("the slots of a listener are never closed")
    }

    /// What is trusted and served at this moment.
    pub(super) fn state(&self) -> Rc<State> {
        Rc::clone(&self.state.borrow())
    }

    /// Re-evaluates a connection that was authenticated under `before`, or whose server was connected under it. Returns a close
    /// request if a reload has happened since and the new state rejects it. `certificates` are what the client has sent.
    pub(super) fn evaluate_if_changed(
        &self,
        before: &Rc<State>,
        connection: &OpenConnection<'_>,
        certificates: &[CertificateDer<'static>],
    ) -> Option<CloseRequest> {
        let state = self.state();
        if Rc::ptr_eq(before, &state) {
            return None;
        }
        evaluate_connection(&state, connection)
            .or_else(|| evaluate_chain(&state, connection.listener, certificates))
    }

    /// Reports a client that is admitted, and that the observed configuration would refuse.
    pub(super) fn dry_run_new_client(
        &self,
        state: &State,
        listener: ListenerId,
        certificates: &[CertificateDer<'static>],
        peer: &VerifiedPeer,
    ) {
        let Some(dry_run) = &state.listener(listener).dry_run else {
            return;
        };
        let now = SystemTime::now();
        let why = dry_run.would_refuse(certificates, now);
        self.report_dry_run(listener, peer, why);
    }

    /// Reports the open connections that the observed configuration would close.
    fn dry_run_open_clients(&self, state: &State) {
        let now = SystemTime::now();
        self.connections
            .for_each(|OpenConnection { listener, peer, .. }| {
                let dry_run = state.listener(listener).dry_run.as_ref();
                let why = dry_run.and_then(|dry_run| dry_run.would_close(peer, now));
                self.report_dry_run(listener, peer, why);
            });
    }

    fn report_dry_run(
        &self,
        listener: ListenerId,
        peer: &VerifiedPeer,
        why: Option<(Failure, String)>,
    ) {
        if let Some((failure, detail)) = why {
            let detail = &detail;
            let refused = Event::DryRunRefused {
                failure,
                detail,
                peer,
            };
            self.observer.emit(listener, &refused);
        }
    }

    /// Puts a new state in force, and requests the close of every connection that it rejects. Returns how many.
    pub(super) fn reload(&self, shared: SharedState) -> usize {
        let has_new_dry_run = self.observer.reload(&shared.config);
        let state = Rc::new(self.state().next(shared, &self.buffers));
        self.state.replace(Rc::clone(&state));
        if has_new_dry_run {
            self.dry_run_open_clients(&state);
        }
        let closing = self.evaluate_all();
        // Behind the evaluation, which finds the rule of each client anew.
        let has_lost_trust = |id| self.connections.has_lost_trust(id);
        self.http.reload(state.current(), has_lost_trust);
        closing
    }

    /// Evaluates every open connection under the state in force and by the clock as it is. Returns how many have to close.
    pub(super) fn evaluate_all(&self) -> usize {
        let state = self.state();
        let evaluate = |connection: OpenConnection<'_>| evaluate_connection(&state, &connection);
        let closing = self.connections.evaluate_all(evaluate);
        if closing > 0 {
            tracing::warn!(
                connections = closing,
                "closing connections of clients that would be refused now, or served in another mode"
            );
        }
        closing
    }
}
