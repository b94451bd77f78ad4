//! A connection to a server, which the requests of all clients share: made, read, and taken out when it ends.
//! In: a server's address, a client that was authenticated. Out: a link of the forwarder. One task for each.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use futures_util::future::{Either, select};
use gateway_core::endpoint::Endpoint;
use gateway_core::http::forward::{BackendTimes, PeerConnection};
use gateway_core::http::pool::ServerKey;
use gateway_rt::catch_panic;

use super::link::{Link, LinkPeer, ServerLink};
use super::worker::HttpWorker;
use crate::backend::Connection;
use crate::config::{BackendId, ListenerId};
use crate::telemetry::Event;
use crate::tls::StreamError;

/// A server, as a connection is made to it.
type Target = (BackendId, ServerKey, Endpoint);

/// Connects a server and serves that connection to its end. A client of `listener` needs it first. The requests that wait are
/// placed when it stands, or cannot be made.
pub(super) async fn connect(worker: Rc<HttpWorker>, target: Target, listener: ListenerId) {
    let (backend, ..) = target;
    let serving = catch_panic(connect_and_serve(&worker, target, listener));
    if let Err(panic) = serving.await {
        tracing::error!(
            panic,
            "a connection to a server panicked; please report this"
        );
    }
    // Where no connection stands, each failed attempt would only have all that wait decided anew: the next look does it.
    if worker.with_pool(backend, |pool| pool.has_links()) {
        worker.place_waiting(backend, Instant::now());
    }
}

async fn connect_and_serve(
    worker: &Rc<HttpWorker>,
    (backend, server, address): Target,
    listener: ListenerId,
) {
    let servers = Rc::clone(&worker.current.borrow().servers[backend.0]);
    let connected = servers.connect_server(address).await;
    let now = Instant::now();
    worker.with_pool(backend, |pool| {
        pool.end_connecting(server, connected.is_ok(), now);
    });
    let connection = match connected {
        Ok(connection) => connection,
        Err(failure) => {
            let is_spared = worker.with_pool(backend, |pool| match failure.is_servers() {
                true => pool.servers.connect_failed(server, now),
                false => {
                    pool.servers.disconnected(server);
                    false
                }
            });
            let failed = Event::ServerFailed {
                backend,
                server: failure.server,
                name: &servers.name_of(failure.server),
                error: &failure.error,
                is_spared,
            };
            worker.observer.emit(listener, &failed);
            return;
        }
    };
    let link = open(worker, (backend, server, address), connection, now);
    worker.place_waiting(backend, now);
    let error = serve(worker, &link).await;
    let has_broken = error.is_some();
    close(worker, &link, has_broken).await;
}

/// Adds a connection that stands to the forwarder and the pool.
fn open(
    worker: &Rc<HttpWorker>,
    (backend, server, address): Target,
    connection: Connection,
    now: Instant,
) -> Rc<Link> {
    let times = {
        let current = worker.current.borrow();
        let http = &current.config.backends[backend.0].http;
        BackendTimes {
            queue: backend.0,
            response_timeout: Some(http.response_timeout),
            idle_timeout: Some(http.stream_idle_timeout),
            ping_interval: http.ping_interval,
        }
    };
    let version = {
        let current = worker.current.borrow();
        current.servers[backend.0].version(connection.protocol.as_deref())
    };
    let key = worker.forwarder.borrow_mut().connect(times, version, now);
    let peer = ServerLink::new((backend, server, address), connection.chain, now);
    let link = worker.add_link(
        (key, version),
        Rc::new(connection.stream),
        LinkPeer::Server(Box::new(peer)),
    );
    let is_back = worker.with_pool(backend, |pool| {
        pool.add(server, &link);
        pool.note_version(server, version);
        pool.servers.connected(server, now)
    });
    if is_back {
        let current = worker.current.borrow();
        let backend = current.config.backends[backend.0].name.as_str();
        tracing::info!(backend, server = %address, "the server can be reached again");
    }
    worker.notify();
    link
}

/// Reads and writes until the connection ends. `None`: it has come to its end as connections do.
async fn serve(worker: &HttpWorker, link: &Rc<Link>) -> Option<StreamError> {
    let reading = pin!(read(worker, link));
    let writing = pin!(link.keep_writing(|| worker.flush(link)));
    match select(reading, writing).await {
        Either::Left((Ok(()), _)) => None,
        Either::Left((Err(error), _)) | Either::Right((error, _)) => Some(error),
    }
}

/// Reads until the server has ended the connection, or it has served its last request.
async fn read(worker: &HttpWorker, link: &Link) -> Result<(), StreamError> {
    loop {
        let readable = pin!(worker.readable(link));
        let over = pin!(link.until(|| worker.is_over(link)));
        match select(readable, over).await {
            Either::Left((ready, _)) => ready?,
            Either::Right(_) => return Ok(()),
        }
        match worker.read_once(link, usize::MAX, |_| {}) {
            Ok(true) => worker.note_retired(link),
            Ok(false) => {
                worker.end_of_input(link, true);
                return Ok(());
            }
            Err(error) => {
                worker.end_of_input(link, false);
                return Err(error);
            }
        }
    }
}

async fn close(worker: &HttpWorker, link: &Rc<Link>, has_broken: bool) {
    let Some(known) = link.server() else {
        return;
    };
    let now = Instant::now();
    let had_requests = known.in_flight.get() > 0;
    let cause = worker.with_pool(known.backend, |pool| {
        pool.remove(known.server, link);
        match has_broken && had_requests {
            true => pool.servers.broken(known.server, now),
            false => {
                pool.servers.disconnected(known.server);
                None
            }
        }
    });
    worker.report_ejection(known, cause);
    worker.remove_link(link);
}

impl HttpWorker {
    /// Whether a server's connection has nothing left to do.
    fn is_over(&self, link: &Link) -> bool {
        let Some(server) = link.server() else {
            return true;
        };
        server.is_distrusted.get() || self.is_so(link, PeerConnection::is_over)
    }

    /// Gives a server's connection no more requests, if it takes none.
    fn note_retired(&self, link: &Link) {
        let Some(server) = link.server() else {
            return;
        };
        let is_retired = self.is_so(link, PeerConnection::is_retired);
        if is_retired && !server.is_retired.replace(true) {
            let now = Instant::now();
            self.with_pool(server.backend, |pool| {
                pool.servers.pass_over(server.server, now);
            });
        }
    }

    /// Closes the connection to a server that is trusted no more.
    pub(super) fn evaluate_server(&self, link: &Link) {
        let Some(server) = link.server() else {
            return;
        };
        let current = self.current.borrow();
        let servers = &current.servers[server.backend.0];
        let chain = server.chain.as_ref();
        let objection = chain.and_then(|chain| servers.evaluate_server(chain));
        if objection.is_some() {
            let backend = current.config.backends[server.backend.0].name.as_str();
            tracing::warn!(
                backend,
                server = %server.address,
                "closing the connection to a server that is trusted no more"
            );
            server.is_distrusted.set(true);
            server.is_retired.set(true);
            link.stream.reset_on_close();
            link.wake();
        }
    }
}
