//! One worker: a pinned thread with its own ring, its own listening sockets and its own connections.
//! In: a seed with everything it needs. Out: served connections. Shares nothing on the path of a byte; the control
//! thread sends it messages.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use futures_util::future::{Either, select};
use gateway_core::balance::Server;
use gateway_core::close_reason::CloseReason;
use gateway_core::descriptors::{Descriptors, Side};
use gateway_core::failure::Failure;
use gateway_core::graceful_close::drain_spread;
use gateway_core::server_trust::ServerObjection;
use gateway_core::suppress::Suppressor;
use local_sync::oneshot;
use rustls::crypto::SecureRandom;
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::connection::{Arrival, serve};
use super::matching::{Matching, Wanted};
use super::opposite::Scrapes;
use super::pinning;
use super::silent::SilentConnections;
use super::state::{Seed, State, silent_max};
use crate::connection::Records;
use crate::connection::{Judged, Order, Orders, Reached};
use crate::guard::Gate;
use crate::limits;
use crate::rt::{
    self, AcceptStop, Across, BufferPool, Mailbox, MailboxReceiver, Socket, block_on, contain,
};
use crate::telemetry::{Audit, Event, Observer, WorkerCounters};
use crate::tls::{Observed, VerifiedPeer};

/// A message to a worker.
#[derive(Debug)]
pub(super) enum Message {
    /// The servers of a backend have changed.
    Servers {
        /// Position of the backend in the configuration.
        backend: usize,
        /// All that are known.
        servers: Vec<Server>,
    },
    /// Trust and serve this from now on, and judge the connections that are open by it.
    Reload {
        /// What to trust and serve.
        seed: Box<Seed>,
        /// Takes how many connections are closed for it.
        taken: Sender<usize>,
    },
    /// The wall clock has been set: whose certificate has ended by it has to go.
    ClockSet,
    /// A handshake slot that was waited for is there, on whichever worker it has become free.
    GoOn(u64),
    /// Count the clients by what is left of their certificates.
    CountClients,
    /// Say which clients an entry of the block list is about.
    WhoMatches {
        /// The entry.
        wanted: Arc<Wanted>,
        /// Where to tell.
        answer: Sender<Matching>,
    },
    /// Take what waits in the accept queues, then nothing more; end when all connections have, or at the deadline.
    Drain {
        /// When connections that are still open are closed.
        deadline: Instant,
        /// Takes how many those were.
        cut: Sender<usize>,
    },
}

/// What a worker is started with.
pub(super) struct Start {
    pub(super) number: usize,
    pub(super) seed: Seed,
    pub(super) sockets: Vec<TcpListener>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) records: Arc<Records>,
    pub(super) audit: Audit,
    pub(super) gate: Gate,
    pub(super) scrapes: Scrapes,
}

/// A worker's mailbox: the side that others send to, for what other workers give it, and the one that it reads.
pub(super) type OwnMailbox = (Weak<Mailbox<Message>>, MailboxReceiver<Message>);

/// Told when a worker ends although nobody asked it to.
#[derive(Debug, Clone)]
pub struct Fatal(Arc<watch::Sender<bool>>);

impl Default for Fatal {
    fn default() -> Self {
        Fatal(Arc::new(watch::Sender::new(false)))
    }
}

impl Fatal {
    /// Waits until a worker has ended.
    pub async fn wait(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = receiver.wait_for(|ended| *ended).await;
    }
}

/// Everything the connections of one worker use.
pub(super) struct Worker {
    state: RefCell<Rc<State>>,
    pub(super) orders: Rc<Orders>,
    pub(super) buffers: Rc<BufferPool>,
    pub(super) observer: Observer,
    pub(super) records: Arc<Records>,
    pub(super) gate: Gate,
    across: Across,
    pub(super) descriptors: Descriptors,
    pub(super) scrapes: Scrapes,
}

impl Worker {
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
    fn reload(&self, seed: Seed) -> usize {
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
    fn judge_all(&self) -> usize {
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
                "connections that would not get in any more are closed"
            );
        }
        ordered
    }
}

/// The order for an established client, by what is trusted in `state`. A revoked or blocked client goes at once; other closes are
/// spread, so that a rotation does not make every agent connect anew in one second.
fn judge(
    state: &State,
    position: usize,
    peer: &VerifiedPeer,
    server: Option<&Reached>,
) -> Option<Order> {
    let door = &state.doors[position];
    let of_server = || {
        let Reached { backend, chain } = server?;
        match state.servers.get(*backend)?.judge(chain)? {
            ServerObjection::Revoked => Some(CloseReason::BackendRevoked),
            ServerObjection::Untrusted => Some(CloseReason::BackendUntrusted),
        }
    };
    let of_client = peer.judge(&door.trust, SystemTime::now());
    let reason = of_client.or_else(of_server)?;
    let now = Instant::now();
    if reason.is_immediate() {
        return Some(Order {
            reason,
            from: now,
            at_the_latest: now,
            // A certificate ends by the clock, and not by a change of what is configured.
            changed_at: (reason != CloseReason::Expired).then_some(state.changed_at),
        });
    }
    let share = share(state.config.provider.secure_random);
    let from = now + state.config.close_spread.mul_f64(share);
    Some(Order {
        reason,
        from,
        at_the_latest: from + limits::CLOSE_GRACE,
        changed_at: Some(state.changed_at),
    })
}

/// The order for a client of which no byte has been passed on yet: it has to be admitted by what is trusted now. It has not
/// begun anything, so there is nothing to spread.
fn judge_newcomer(
    state: &State,
    position: usize,
    peer: &VerifiedPeer,
    server: Option<&Reached>,
) -> Option<Order> {
    let now = Instant::now();
    let at_once = |order: Order| Order {
        from: now,
        at_the_latest: now,
        ..order
    };
    let refused = || {
        let reason = peer.refused_by(&state.doors[position].trust, SystemTime::now())?;
        Some(Order {
            reason,
            from: now,
            at_the_latest: now,
            changed_at: Some(state.changed_at),
        })
    };
    judge(state, position, peer, server)
        .map(at_once)
        .or_else(refused)
}

/// Runs a worker until it is drained. The thread belongs to it.
pub(super) fn run(start: Start, mailbox: OwnMailbox, fatal: &Fatal) {
    let number = start.number;
    let _claim = pinning::pin(number);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        block_on(|driver| {
            tracing::info!(worker = number, %driver, "serving");
            start.counters.serves_on(driver);
            work(start, mailbox)
        })
    }));
    match ended {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(error)) | Err(error)) => {
            tracing::error!(worker = number, %error, "worker failed")
        }
        Err(_) => tracing::error!(worker = number, "worker panicked"),
    }
    fatal.0.send_replace(true);
}

async fn work(start: Start, (own, receiver): OwnMailbox) -> std::io::Result<()> {
    let (worker, listeners) = open(start, own)?;
    let stop = AcceptStop::new();
    let doors: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(position, listener)| {
            monoio::spawn(keep_door(
                Rc::clone(&worker),
                position,
                listener,
                stop.handle(),
            ))
        })
        .collect();
    let (ask_to_drain, asked) = oneshot::channel();
    let mut ask_to_drain = Some(ask_to_drain);
    let handle = |message| match message {
        Message::Servers { backend, servers } => {
            if let Some(known) = worker.state().servers.get(backend) {
                known.replace(&servers);
            }
            true
        }
        Message::Reload { seed, taken } => {
            // Who waited for it may have lost patience.
            let _ = taken.send(worker.reload(*seed));
            true
        }
        Message::ClockSet => {
            worker.judge_all();
            true
        }
        Message::GoOn(number) => {
            worker.across.wake(number);
            true
        }
        Message::CountClients => {
            let clients = super::matching::count(&worker.orders, SystemTime::now());
            worker.observer.publish(clients);
            true
        }
        Message::WhoMatches { wanted, answer } => {
            // Who asked may have lost patience.
            let _ = answer.send(Matching::on(&worker.state(), &worker.orders, &wanted));
            true
        }
        Message::Drain { deadline, cut } => {
            // Asked for once; the drain listens until it begins.
            let _ = ask_to_drain.take().map(|ask| ask.send((deadline, cut)));
            true
        }
    };
    let draining = async {
        let (deadline, cut) = asked.await.ok().unzip();
        stop.stop();
        let left = drain(&worker, deadline.unwrap_or_else(Instant::now), doors).await;
        // Whoever asked may be gone.
        let _ = cut.map(|cut| cut.send(left));
    };
    // Messages are taken to the end of the drain: what revokes goes on acting.
    match select(pin!(receiver.receive(handle)), pin!(draining)).await {
        Either::Left((received, draining)) => {
            received?;
            // Nobody is left who could send anything.
            draining.await;
        }
        Either::Right(((), _)) => {}
    }
    Ok(())
}

/// Lets each connection end at its first quiet moment, and cuts those off that have had none until `deadline`. Returns how many
/// those were.
///
/// Those that still come through the `doors` get the order as they come. Whoever keeps a door busy, by connecting without end or
/// by holding all handshake slots, holds up neither the order nor the deadline.
async fn drain(
    worker: &Worker,
    deadline: Instant,
    doors: Vec<monoio::task::JoinHandle<()>>,
) -> usize {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    let spread = drain_spread(worker.orders.open(), limits::DRAIN_STEP, left);
    let drained = Order {
        reason: CloseReason::Drained,
        from: now,
        at_the_latest: deadline,
        changed_at: None,
    };
    let random = worker.state().config.provider.secure_random;
    worker
        .orders
        .give_to_all(drained, || spread.mul_f64(share(random)));
    let patience = left.saturating_sub(limits::DRAIN_COUNT_MARGIN);
    let emptied = async {
        for door in doors {
            door.await;
        }
        worker.orders.until_empty().await;
    };
    if monoio::time::timeout(patience, emptied).await.is_ok() {
        return 0;
    }
    let cut = worker.orders.open();
    let recording = limits::DRAIN_COUNT_MARGIN + limits::DRAIN_RECORD_TIMEOUT;
    let _ = monoio::time::timeout(recording, worker.orders.until_empty()).await;
    cut
}

/// A random number from 0 to 1; without randomness it is 0.
fn share(random: &dyn SecureRandom) -> f64 {
    let mut bytes = [0; 2];
    let _ = random.fill(&mut bytes);
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
}

fn open(
    start: Start,
    own: Weak<Mailbox<Message>>,
) -> std::io::Result<(Rc<Worker>, Vec<rt::Listener>)> {
    let Start {
        number,
        seed,
        sockets,
        counters,
        records,
        audit,
        gate,
        scrapes,
    } = start;
    let descriptors = seed.common.descriptors.clone();
    // Its senders end the worker when they are gone, and this is none of them.
    let across = Across::new(move |number| {
        if let Some(mailbox) = own.upgrade() {
            mailbox.send(Message::GoOn(number));
        }
    });
    let config = Arc::clone(&seed.config);
    let mut listeners = Vec::new();
    let mut opened = Vec::new();
    for (listener, socket) in config.listeners.iter().zip(sockets) {
        let silent = SilentConnections::new(silent_max(listener, config.workers.get()));
        opened.push((socket.local_addr()?, Rc::new(silent)));
        listeners.push(rt::Listener::new(socket)?);
    }
    let buffers = Rc::new(BufferPool::default());
    let state = Rc::new(State::new(seed, opened, &buffers));
    let observer = Observer::new(number, config, counters, audit);
    let orders = Rc::default();
    let worker = Worker {
        state: RefCell::new(state),
        orders,
        buffers,
        observer,
        records,
        gate,
        across,
        descriptors,
        scrapes,
    };
    Ok((Rc::new(worker), listeners))
}

/// Accepts on one listener until stopped, then empties its accept queue.
///
/// With all handshake slots taken it does not accept, and neither with as many silent connections as may be: a burst waits in the
/// kernel's queue instead of being refused. A connection takes its slot when it has sent a first byte; those that were accepted
/// before, and speak only now, wait for theirs.
async fn keep_door(
    worker: Rc<Worker>,
    position: usize,
    listener: rt::Listener,
    stop: monoio::io::CancelHandle,
) {
    let mut complaints = Suppressor::new(1);
    loop {
        until_room(&worker, position).await;
        match listener.accept(stop.clone()).await {
            Ok(Some(accepted)) => admit(&worker, position, accepted).await,
            Ok(None) => break,
            Err(error) => {
                let state = worker.state();
                let listener = state.doors[position].listener.name.as_str();
                if let Some(left_out) = complaints.admit(Instant::now()) {
                    tracing::error!(listener, %error, left_out, "cannot accept");
                }
                monoio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
    while let Ok(Some(accepted)) = listener.accept_waiting().await {
        until_room(&worker, position).await;
        admit(&worker, position, accepted).await;
    }
}

/// Waits until a handshake slot is free, and a place for one more that may be silent for a moment.
async fn until_room(worker: &Worker, position: usize) {
    // Not the state: this may wait for longer than that is in force.
    let (handshakes, silent) = {
        let door = &worker.state().doors[position];
        (Arc::clone(&door.handshakes), Rc::clone(&door.silent))
    };
    // Looks, and does not queue for a slot: it would only pass it on, and with many workers through many hands.
    while handshakes.available_permits() == 0 || !silent.has_room(Instant::now()) {
        monoio::time::sleep(limits::ACCEPT_LOOK_INTERVAL).await;
    }
}

/// The socket with a descriptor of the budget. Where none is free, it waits, and all behind it in the kernel's queue, while
/// connections that stay silent make room.
async fn within_budget(worker: &Worker, socket: Socket) -> Socket {
    let descriptors = &worker.descriptors;
    let mut descriptor = descriptors.try_take(Side::Client);
    if descriptor.is_none() {
        descriptors.count_wait(Side::Client);
    }
    loop {
        if let Some(descriptor) = descriptor {
            return socket.holding(descriptor);
        }
        let now = Instant::now();
        let state = worker.state();
        state
            .doors
            .iter()
            .for_each(|door| door.silent.give_way(now));
        drop(state);
        monoio::time::sleep(limits::ACCEPT_LOOK_INTERVAL).await;
        descriptor = descriptors.try_take(Side::Client);
    }
}

/// Starts the connection's own task, inside its panic boundary.
async fn admit(worker: &Rc<Worker>, position: usize, (socket, address): (Socket, SocketAddr)) {
    let socket = within_budget(worker, socket).await;
    let worker = Rc::clone(worker);
    let silent = worker.state().doors[position].silent.enter(Instant::now());
    let place = worker.orders.register();
    let connection = place.number();
    worker.observer.emit(position, &Event::Accepted);
    let arrival = Box::new(Arrival {
        position,
        socket,
        address,
        silent,
    });
    monoio::spawn(async move {
        if let Err(message) = contain(serve(&worker, arrival, place)).await {
            worker.observer.emit(
                position,
                &Event::Panicked {
                    connection,
                    address,
                    message: &message,
                },
            );
        }
        worker.observer.emit(position, &Event::Closed);
    });
}
