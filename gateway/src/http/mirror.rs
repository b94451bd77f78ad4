//! Copies of requests, for backends that mirror others: sent once the response to the client has begun, and responses discarded.
//! In: copies. Out: requests on connections that no client shares. On the worker, in tasks that nothing waits for: a copy for which
//! there is no room is dropped, and none is sent twice.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use gateway_core::http::forward::{MirroredRequest, PeerConnection, PeerLimits};
use gateway_core::http::h2::{Event, Role};
use gateway_core::http::limits::{
    HEADER_LIST_BYTES_MAX, MIRROR_CONNECTIONS_MAX, MIRROR_IDLE_TIMEOUT, MIRROR_TIMEOUT,
    MIRRORED_BYTES_MAX,
};
use gateway_core::http::message::HeaderList;
use gateway_core::http::pool::{RequestEnd, Wish};
use gateway_rt::{Presence, catch_panic};
use monoio::time::timeout;

use super::health::write;
use super::worker::HttpWorker;
use crate::backend::Connection;
use crate::config::BackendId;
use crate::tls::Received;

/// Copies that wait, of all backends of a worker.
#[derive(Default)]
pub(super) struct Mirrors {
    /// By backend.
    queues: RefCell<Vec<Rc<MirrorQueue>>>,
    bytes: Rc<Cell<usize>>,
}

/// Copies that wait for one backend.
#[derive(Default)]
struct MirrorQueue {
    copies: RefCell<VecDeque<RequestCopy>>,
    /// Tasks that send copies.
    senders: Cell<usize>,
    /// Of those that wait for one.
    idle: RefCell<Vec<Waker>>,
}

/// A copy, which counts as waiting until it is sent or dropped.
struct RequestCopy {
    list: HeaderList,
    content: Vec<u8>,
    bytes: usize,
    all_bytes: Rc<Cell<usize>>,
}

impl Drop for RequestCopy {
    fn drop(&mut self) {
        self.all_bytes.set(self.all_bytes.get() - self.bytes);
    }
}

/// A connection for copies, which has one at a time.
struct MirrorConnection {
    connection: Connection,
    http: PeerConnection,
}

/// A copy is lost: there is no server, or it broke off.
struct Lost;

impl Mirrors {
    fn queue(&self, BackendId(position): BackendId) -> Rc<MirrorQueue> {
        let mut queues = self.queues.borrow_mut();
        if queues.len() <= position {
            queues.resize_with(position + 1, Rc::default);
        }
        Rc::clone(&queues[position])
    }

    /// The copy, if there is room for it.
    fn admit(&self, request: MirroredRequest) -> Option<RequestCopy> {
        let content = request.content?;
        let bytes = request.list.size() + content.len();
        let all = self.bytes.get() + bytes;
        if all > MIRRORED_BYTES_MAX {
            return None;
        }
        self.bytes.set(all);
        Some(RequestCopy {
            list: request.list,
            content,
            bytes,
            all_bytes: Rc::clone(&self.bytes),
        })
    }
}

impl MirrorQueue {
    /// The next copy; waits for one.
    async fn next(&self) -> RequestCopy {
        poll_fn(|context| match self.copies.borrow_mut().pop_front() {
            Some(copy) => Poll::Ready(copy),
            None => {
                self.idle.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl HttpWorker {
    /// Takes a request whose response has begun, for the backend that gets a copy.
    pub(super) fn mirror(&self, request: MirroredRequest) {
        let backend = BackendId(request.backend);
        let Some(copy) = self.mirrors.admit(request) else {
            return self.observer.count_mirrored(backend, false);
        };
        let queue = self.mirrors.queue(backend);
        queue.copies.borrow_mut().push_back(copy);
        let idle = queue.idle.take();
        let none_is_idle = idle.is_empty();
        idle.into_iter().for_each(Waker::wake);
        if none_is_idle
            && queue.senders.get() < MIRROR_CONNECTIONS_MAX
            && let Some(worker) = self.own()
        {
            queue.senders.set(queue.senders.get() + 1);
            monoio::spawn(keep_sending(worker, backend, queue));
        }
    }
}

/// Sends copies until there are none for a while.
async fn keep_sending(worker: Rc<HttpWorker>, backend: BackendId, queue: Rc<MirrorQueue>) {
    let mut open = None;
    while let Ok(copy) = timeout(MIRROR_IDLE_TIMEOUT, queue.next()).await {
        let sending = timeout(MIRROR_TIMEOUT, send(&worker, backend, &copy, open.take()));
        // A panic costs this copy and its connection.
        let sent = catch_panic(sending).await;
        open = sent.ok().and_then(Result::ok).and_then(Result::ok);
        worker.observer.count_mirrored(backend, open.is_some());
    }
    queue.senders.set(queue.senders.get() - 1);
}

/// Sends a copy, on a connection that is open or another one. Returns the connection when the response has ended.
async fn send(
    worker: &HttpWorker,
    backend: BackendId,
    copy: &RequestCopy,
    open: Option<MirrorConnection>,
) -> Result<MirrorConnection, Lost> {
    let usable = open.filter(|open| {
        let is_there = open.connection.stream.socket().presence() == Presence::Here;
        is_there && open.http.can_open() && !open.http.is_retired()
    });
    let mut open = match usable {
        Some(open) => open,
        None => connect(worker, backend).await?,
    };
    open.exchange(copy).await?;
    Ok(open)
}

async fn connect(worker: &HttpWorker, backend: BackendId) -> Result<MirrorConnection, Lost> {
    let now = Instant::now();
    let wish = Wish {
        random: worker.next_random(),
        key_hash: None,
        tried: &[],
    };
    let chosen = worker.with_pool(backend, |pool| {
        let server = pool.servers.choose(&wish, now).ok()?;
        let address = pool.servers.server(server)?.server.address;
        pool.servers.ended(server, RequestEnd::Unjudged, now);
        Some(address)
    });
    let servers = Rc::clone(&worker.current.borrow().servers[backend.0]);
    let connected = servers.connect_server(chosen.ok_or(Lost)?).await;
    let connection = connected.map_err(|_| Lost)?;
    let limits = PeerLimits {
        header_list_bytes: HEADER_LIST_BYTES_MAX,
        streams: 0,
    };
    let version = servers.version(connection.protocol.as_deref());
    let http = PeerConnection::new(version, Role::Client, limits, now);
    Ok(MirrorConnection { connection, http })
}

impl MirrorConnection {
    /// Sends a copy, and reads its response to the end.
    async fn exchange(&mut self, copy: &RequestCopy) -> Result<(), Lost> {
        let MirrorConnection { connection, http } = self;
        let stream = &connection.stream;
        let id = http.open(0, Instant::now()).ok_or(Lost)?;
        http.send_section(id, copy.list.iter(), copy.content.is_empty());
        if !copy.content.is_empty() {
            // What finds no room waits in the connection.
            let _ = http.send_data(id, &copy.content, true);
        }
        let mut list = HeaderList::new(HEADER_LIST_BYTES_MAX);
        loop {
            while !http.output().is_empty() {
                write(stream, http).await.map_err(|_| Lost)?;
                while http.send_queued().is_some() {}
            }
            stream.readable().await.map_err(|_| Lost)?;
            let (bytes, is_end) = match stream.receive(usize::MAX).map_err(|_| Lost)? {
                Some(Received::Bytes(bytes)) => (Some(bytes), false),
                Some(Received::End) => (None, true),
                None => continue,
            };
            let mut rest = bytes.as_ref().map_or(&[] as &[u8], |bytes| bytes.filled());
            let mut is_over = false;
            while let Some(event) = http.receive(&mut rest, &mut list, Instant::now()) {
                match event {
                    Event::Section { end_stream, .. } => is_over |= end_stream,
                    Event::Data {
                        data, end_stream, ..
                    } => {
                        let count = data.len();
                        is_over |= end_stream;
                        http.release(id, count, Instant::now());
                    }
                    Event::Request { .. } | Event::Goaway { .. } | Event::Control => {}
                    Event::Reset { .. }
                    | Event::Broken { .. }
                    | Event::Failed(_)
                    | Event::Malformed(_) => return Err(Lost),
                }
            }
            while http.send_queued().is_some() {}
            if let Some(bytes) = bytes {
                stream.give_back(bytes);
            }
            if is_over {
                return Ok(());
            }
            if is_end {
                // A response of HTTP/1 may end with its connection, which is seen to be gone next time.
                return match http.end_of_input(true) {
                    Some(Event::Data {
                        end_stream: true, ..
                    }) => Ok(()),
                    _ => Err(Lost),
                };
            }
        }
    }
}
