//! One worker: a pinned thread with its own ring, its own listening sockets and its own connections.
//! In: a start with everything that it needs; messages of other threads. Out: served connections. Shares nothing on the path of
//! a byte.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Instant, SystemTime};

use futures_util::future::{Either, select};
use gateway_core::close_reason::CloseReason;
use gateway_core::descriptors::Side;
use gateway_core::failure::Failure;
use gateway_core::graceful_close::drain_spread;
use gateway_core::limits;
use gateway_core::suppress::Suppressor;
use gateway_guard::SourceAdmission;
use gateway_rt::{
    self, AcceptStop, Across, BufferPool, Mailbox, MailboxReceiver, Socket, Turns, block_on,
    catch_panic,
};
use local_sync::oneshot;
use tokio::sync::watch;

use super::connection::serve;
use super::context::{Scrapes, WorkerContext};
use super::established::{ConnectionInfo, NewConnection};
use super::evaluation::share;
use super::matching::Matching;
use super::message::Message;
use super::pinning;
use super::silent::SilentConnections;
use super::state::{SharedState, State, silent_max};
use crate::config::{ListenerId, Mode};
use crate::connection::{CloseRequest, UsageTable};
use crate::http::HttpWorker;
use crate::telemetry::{Audit, Event, Observer, WorkerCounters};

/// What a worker is started with.
pub(super) struct Start {
    pub(super) number: usize,
    pub(super) shared: SharedState,
    pub(super) sockets: Vec<TcpListener>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) usage: Arc<UsageTable>,
    pub(super) audit: Audit,
    pub(super) source_admission: SourceAdmission,
    pub(super) scrapes: Scrapes,
}

/// A worker's mailbox: the side that other threads send to, and the side that the worker reads.
pub(super) type OwnMailbox = (Weak<Mailbox<Message>>, MailboxReceiver<Message>);

/// Told once: that a worker serves, or why it cannot.
pub(super) type Serves = mpsc::Sender<io::Result<()>>;

/// Set when a worker ends by itself.
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

/// Runs a worker until it is drained. The thread belongs to it.
pub(super) fn run(start: Start, mailbox: OwnMailbox, serves: &Serves, fatal: &Fatal) {
    let number = start.number;
    let _claim = pinning::pin(number);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        block_on(|driver| {
            tracing::info!(worker = number, %driver, "serving");
            start.counters.serves_on(driver);
            work(start, mailbox, serves)
        })
    }));
    match ended {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(error)) | Err(error)) => {
            tracing::error!(worker = number, %error, "worker failed");
            // One that served has told so.
            let _ = serves.send(Err(error));
        }
        Err(_) => tracing::error!(worker = number, "worker panicked"),
    }
    fatal.0.send_replace(true);
}

async fn work(start: Start, (own, receiver): OwnMailbox, serves: &Serves) -> io::Result<()> {
    let (worker, listeners) = open(start, own)?;
    let stop = AcceptStop::new();
    let accepting: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(position, listener)| {
            monoio::spawn(accept_loop(
                Rc::clone(&worker),
                ListenerId(position),
                listener,
                stop.handle(),
            ))
        })
        .collect();
    let _ = serves.send(Ok(()));
    let (ask_to_drain, asked) = oneshot::channel();
    let mut ask_to_drain = Some(ask_to_drain);
    let handle_message = |message| match message {
        Message::Servers { backend, servers } => {
            if let Some(known) = worker.state().servers.get(backend.0) {
                known.replace(&servers);
            }
            true
        }
        Message::Reload { shared, closed } => {
            // The thread that asked may have stopped waiting.
            let _ = closed.send(worker.reload(*shared));
            true
        }
        Message::ClockSet => {
            worker.evaluate_all();
            true
        }
        Message::GoOn(number) => {
            worker.across.wake(number);
            true
        }
        Message::CountClients => {
            let clients = super::matching::count(&worker.connections, SystemTime::now());
            worker.observer.publish(clients);
            worker.observer.publish_pools(worker.http.count());
            true
        }
        Message::WhoMatches { wanted, matching } => {
            // The thread that asked may have stopped waiting.
            let _ = matching.send(Matching::on(&worker.state(), &worker.connections, &wanted));
            true
        }
        Message::Drain { deadline, cut } => {
            // The first request counts; the drain listens until it begins.
            let _ = ask_to_drain.take().map(|ask| ask.send((deadline, cut)));
            true
        }
    };
    let draining = async {
        let (deadline, cut) = asked.await.ok().unzip();
        stop.stop();
        let left = drain(&worker, deadline.unwrap_or_else(Instant::now), accepting).await;
        // The thread that asked may be gone.
        let _ = cut.map(|cut| cut.send(left));
    };
    // The worker takes messages to the end of the drain: revocations go on acting.
    match select(pin!(receiver.receive(handle_message)), pin!(draining)).await {
        Either::Left((received, draining)) => {
            received?;
            // No sender is left.
            draining.await;
        }
        Either::Right(((), _)) => {}
    }
    Ok(())
}

/// Lets each connection end at its first quiet moment, and resets at `deadline` those that have had none. Returns how many those
/// were.
///
/// Connections that the accept loops still take get the request as they come. A client that keeps a loop busy, by connecting
/// without end or by holding all handshake slots, delays neither the request nor the deadline.
async fn drain(
    worker: &WorkerContext,
    deadline: Instant,
    accepting: Vec<monoio::task::JoinHandle<()>>,
) -> usize {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    let spread = drain_spread(worker.connections.open(), limits::DRAIN_STEP, left);
    let drained = CloseRequest {
        reason: CloseReason::Drained,
        from: now,
        at_the_latest: deadline,
        changed_at: None,
    };
    let random = worker.state().config.provider.secure_random;
    worker
        .connections
        .close_all(drained, || spread.mul_f64(share(random)));
    let patience = left.saturating_sub(limits::DRAIN_COUNT_MARGIN);
    let emptied = async {
        for accepting in accepting {
            accepting.await;
        }
        worker.connections.until_empty().await;
    };
    if monoio::time::timeout(patience, emptied).await.is_ok() {
        return 0;
    }
    let cut = worker.connections.open();
    let recording = limits::DRAIN_COUNT_MARGIN + limits::DRAIN_RECORD_TIMEOUT;
    let _ = monoio::time::timeout(recording, worker.connections.until_empty()).await;
    report_unauthenticated(worker);
    cut
}

/// Reports the clients that had not finished their handshake when the drain was over: they are cut off with the process.
fn report_unauthenticated(worker: &WorkerContext) {
    let report = |listener, address| {
        let refused = Event::Refused {
            failure: Failure::Timeout,
            address,
            detail: "the gateway was going down, and drain_timeout was over before the handshake was complete",
            presented: None,
            server_name: None,
            ticket_refusal: None,
        };
        worker.observer.emit(listener, &refused);
    };
    worker.connections.for_each_unauthenticated(report);
}

fn open(
    start: Start,
    own: Weak<Mailbox<Message>>,
) -> std::io::Result<(Rc<WorkerContext>, Vec<gateway_rt::Listener>)> {
    let Start {
        number,
        shared,
        sockets,
        counters,
        usage,
        audit,
        source_admission,
        scrapes,
    } = start;
    let descriptors = shared.limits.descriptors.clone();
    // Weak: the worker ends when all senders are gone, and this is none of them.
    let across = Across::new(move |number| {
        if let Some(mailbox) = own.upgrade() {
            mailbox.send(Message::GoOn(number));
        }
    });
    let config = Arc::clone(&shared.config);
    let mut listeners = Vec::new();
    let mut opened = Vec::new();
    for (listener, socket) in config.listeners.iter().zip(sockets) {
        let silent = SilentConnections::new(silent_max(listener, config.workers.get()));
        opened.push((socket.local_addr()?, Rc::new(silent)));
        listeners.push(gateway_rt::Listener::new(socket)?);
    }
    let buffers = Rc::new(BufferPool::default());
    let state = Rc::new(State::new(shared, opened, &buffers));
    let observer = Rc::new(Observer::new(number, config, counters, audit));
    let mut random = [0; 8];
    // Without randomness every worker chooses servers in the same order.
    let _ = state.config.provider.secure_random.fill(&mut random);
    let http = HttpWorker::new(
        state.current(),
        Rc::clone(&observer),
        Arc::clone(&usage),
        (Turns::new()?, u64::from_ne_bytes(random)),
    );
    let connections = Rc::default();
    let worker = WorkerContext {
        state: RefCell::new(state),
        connections,
        buffers,
        observer,
        http,
        usage,
        source_admission,
        across,
        descriptors,
        scrapes,
    };
    Ok((Rc::new(worker), listeners))
}

/// Accepts on one listener until stopped, then empties its accept queue.
///
/// While all handshake slots are taken, or all places for silent connections, it does not accept: a burst waits in the kernel's
/// queue instead of being refused. A connection takes its slot with its first byte. One that was accepted before, and sends its
/// first byte only now, waits for a slot.
async fn accept_loop(
    worker: Rc<WorkerContext>,
    position: ListenerId,
    listener: gateway_rt::Listener,
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
                let listener = state.listener(position).config.name.as_str();
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

/// Waits until a handshake slot is free, and a place for one more silent connection.
async fn until_room(worker: &WorkerContext, position: ListenerId) {
    // Not the state: this may wait longer than the state is in force.
    let (handshakes, silent) = {
        let state = worker.state();
        let listener = state.listener(position);
        (
            Arc::clone(&listener.handshakes),
            Rc::clone(&listener.silent),
        )
    };
    // Looks, and does not queue for a slot: it would only pass the slot on.
    while handshakes.available_permits() == 0 || !silent.has_room(Instant::now()) {
        monoio::time::sleep(limits::ACCEPT_LOOK_INTERVAL).await;
    }
}

/// The socket with a descriptor of the budget. Where none is free, this waits, and with it the kernel's queue, while silent
/// connections make room.
async fn within_budget(worker: &WorkerContext, listener: ListenerId, socket: Socket) -> Socket {
    let descriptors = &worker.descriptors;
    let side = match worker.state().config.listeners[listener.0].mode {
        Mode::Stream => Side::Client,
        Mode::Http(_) => Side::HttpClient,
    };
    let mut descriptor = descriptors.try_take(side);
    if descriptor.is_none() {
        descriptors.count_wait(side);
    }
    loop {
        if let Some(descriptor) = descriptor {
            return socket.holding(descriptor);
        }
        let now = Instant::now();
        let state = worker.state();
        state
            .listeners
            .iter()
            .for_each(|listener| listener.silent.give_way(now));
        drop(state);
        monoio::time::sleep(limits::ACCEPT_LOOK_INTERVAL).await;
        descriptor = descriptors.try_take(side);
    }
}

/// Starts the connection's own task, inside its panic boundary.
async fn admit(
    worker: &Rc<WorkerContext>,
    listener: ListenerId,
    (socket, address): (Socket, SocketAddr),
) {
    let socket = within_budget(worker, listener, socket).await;
    let worker = Rc::clone(worker);
    let silent = worker
        .state()
        .listener(listener)
        .silent
        .enter(Instant::now());
    let handle = worker.connections.register();
    handle.accept(listener, address);
    worker.observer.emit(listener, &Event::Accepted);
    let info = ConnectionInfo {
        listener,
        id: handle.id(),
        address,
    };
    let new = Box::new(NewConnection {
        info,
        handle,
        socket,
        silent,
    });
    monoio::spawn(async move {
        if let Err(message) = catch_panic(serve(&worker, new)).await {
            let panicked = Event::Panicked {
                connection: info.id,
                address: info.address,
                message: &message,
            };
            worker.observer.emit(info.listener, &panicked);
        }
        worker.observer.emit(info.listener, &Event::Closed);
    });
}
