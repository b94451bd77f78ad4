//! One worker: a pinned thread with its own ring, its own listening sockets and its own connections.
//! In: a seed with everything it needs. Out: served connections. Shares nothing on the path of a byte; the control
//! thread sends it messages.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_core::admission::ConnectionLimit;
use gateway_core::suppress::Suppressor;
use local_sync::semaphore::Semaphore;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustls::ServerConfig;
use tokio::sync::watch;

use super::connection::{Arrival, serve};
use crate::backend::{Servers, Transport};
use crate::config::{Config, Listener};
use crate::limits;
use crate::observe::{Event, Observer, WorkerCounters};
use crate::relay::{Order, Orders};
use crate::rt::{self, AcceptStop, BufferPool, MailboxReceiver, Socket, block_on, contain};

/// A message to a worker.
#[derive(Debug)]
pub(super) enum Message {
    /// The addresses of a backend have changed.
    Addresses {
        /// Position of the backend in the configuration.
        backend: usize,
        /// All its addresses.
        addresses: Vec<SocketAddr>,
    },
    /// Take what waits in the accept queues, then nothing more; end when all connections have, or at the deadline.
    Drain {
        /// When connections that are still open are closed.
        deadline: Instant,
    },
}

/// What a worker is started with.
pub(super) struct Seed {
    pub(super) number: usize,
    pub(super) config: Arc<Config>,
    pub(super) sockets: Vec<TcpListener>,
    pub(super) tls: Vec<Arc<ServerConfig>>,
    pub(super) transports: Vec<Transport>,
    pub(super) limits: Vec<ConnectionLimit>,
    pub(super) addresses: Vec<Vec<SocketAddr>>,
    pub(super) counters: Arc<WorkerCounters>,
}

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
    pub(super) config: Arc<Config>,
    pub(super) doors: Vec<Door>,
    pub(super) servers: Vec<Servers>,
    pub(super) orders: Rc<Orders>,
    pub(super) buffers: Rc<BufferPool>,
    pub(super) observer: Observer,
}

/// A listener, as one worker sees it.
pub(super) struct Door {
    pub(super) listener: Arc<Listener>,
    pub(super) address: SocketAddr,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) limit: ConnectionLimit,
    pub(super) handshakes: Rc<Semaphore>,
}

/// Runs a worker until it is drained. The thread belongs to it.
pub(super) fn run(seed: Seed, receiver: MailboxReceiver<Message>, fatal: &Fatal) {
    let number = seed.number;
    pin(number);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        block_on(|driver| {
            tracing::info!(worker = number, %driver, "serving");
            work(seed, receiver)
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

/// Pins this thread to the CPU at position `number` among those the process may use.
fn pin(number: usize) {
    let allowed = match sched_getaffinity(None) {
        Ok(allowed) => allowed,
        Err(error) => {
            return tracing::warn!(%error, "cannot tell which CPUs may be used; not pinned");
        }
    };
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .collect();
    let Some(cpu) = cpus.get(number % cpus.len().max(1)) else {
        return;
    };
    let mut only = CpuSet::new();
    only.set(*cpu);
    if let Err(error) = sched_setaffinity(None, &only) {
        tracing::warn!(worker = number, cpu, %error, "cannot pin the worker");
    }
}

async fn work(seed: Seed, receiver: MailboxReceiver<Message>) -> std::io::Result<()> {
    let (worker, listeners) = open(seed)?;
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
    let deadline = Cell::new(None);
    let handle = |message| match message {
        Message::Addresses { backend, addresses } => {
            worker.servers[backend].replace(&addresses);
            true
        }
        Message::Drain { deadline: at } => {
            deadline.set(Some(at));
            false
        }
    };
    receiver.receive(handle).await?;
    stop.stop();
    for door in doors {
        door.await;
    }
    drain(&worker, deadline.get().unwrap_or_else(Instant::now)).await;
    Ok(())
}

/// Lets connections finish until shortly before `deadline`, then closes the quiet ones, then all.
async fn drain(worker: &Worker, deadline: Instant) {
    const CLOSING: Duration = Duration::from_millis(500);
    let finished = worker.orders.until_empty();
    let patience = deadline
        .saturating_duration_since(Instant::now())
        .saturating_sub(CLOSING);
    if monoio::time::timeout(patience, finished).await.is_ok() {
        return;
    }
    let open = worker.orders.open();
    tracing::warn!(
        open,
        "drain deadline: closing connections that are still open"
    );
    worker.orders.give(Order {
        at_the_latest: deadline,
    });
    // Twice the time, so that every connection's own end can be recorded.
    let _ = monoio::time::timeout(2 * CLOSING, worker.orders.until_empty()).await;
}

fn open(seed: Seed) -> std::io::Result<(Rc<Worker>, Vec<rt::Listener>)> {
    let Seed {
        config,
        sockets,
        tls,
        transports,
        limits,
        addresses,
        counters,
        ..
    } = seed;
    let buffers = Rc::new(BufferPool::default());
    let mut listeners = Vec::new();
    let mut doors = Vec::new();
    for (((listener, socket), tls), limit) in
        config.listeners.iter().zip(sockets).zip(tls).zip(limits)
    {
        let share = listener.max_handshakes.div_ceil(config.workers.get());
        doors.push(Door {
            listener: Arc::clone(listener),
            address: socket.local_addr()?,
            tls,
            limit,
            handshakes: Rc::new(Semaphore::new(share)),
        });
        listeners.push(rt::Listener::new(socket)?);
    }
    let mut servers = Vec::new();
    for ((backend, transport), addresses) in config.backends.iter().zip(transports).zip(addresses) {
        let of_backend = Servers::new(Arc::clone(backend), transport, Rc::clone(&buffers));
        of_backend.replace(&addresses);
        servers.push(of_backend);
    }
    let observer = Observer::new(Arc::clone(&config), counters);
    let worker = Worker {
        config,
        doors,
        servers,
        orders: Rc::default(),
        buffers,
        observer,
    };
    Ok((Rc::new(worker), listeners))
}

/// Accepts on one listener until stopped, then empties its accept queue.
///
/// With all handshake slots taken it does not accept: a burst waits in the kernel's queue instead of being refused.
async fn keep_door(
    worker: Rc<Worker>,
    position: usize,
    listener: rt::Listener,
    stop: monoio::io::CancelHandle,
) {
    let slots = &worker.doors[position].handshakes;
    let mut complaints = Suppressor::new(1);
    loop {
        let Ok(slot) = Rc::clone(slots).acquire_owned().await else {
            return;
        };
        match listener.accept(stop.clone()).await {
            Ok(Some((socket, address))) => admit(
                &worker,
                Arrival {
                    position,
                    socket,
                    address,
                    slot,
                },
            ),
            Ok(None) => break,
            Err(error) => {
                let listener = worker.doors[position].listener.name.as_str();
                if let Some(left_out) = complaints.admit(Instant::now()) {
                    tracing::error!(listener, %error, left_out, "cannot accept");
                }
                monoio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
    while let Ok(Some((socket, address))) = listener.accept_waiting().await {
        let Ok(slot) = Rc::clone(slots).acquire_owned().await else {
            return;
        };
        admit(
            &worker,
            Arrival {
                position,
                socket,
                address,
                slot,
            },
        );
    }
}

/// Starts the connection's own task, inside its panic boundary.
fn admit(worker: &Rc<Worker>, arrival: Arrival) {
    let worker = Rc::clone(worker);
    let (position, address) = (arrival.position, arrival.address);
    let place = worker.orders.register();
    worker.observer.emit(position, &Event::Accepted);
    monoio::spawn(async move {
        if let Err(message) = contain(serve(&worker, arrival, place)).await {
            worker.observer.emit(
                position,
                &Event::Panicked {
                    address,
                    message: &message,
                },
            );
        }
        worker.observer.emit(position, &Event::Closed);
    });
}

/// Ends a socket that is refused before anything was read from it.
pub(super) fn turn_away(socket: Socket) {
    socket.reset_on_close();
}
