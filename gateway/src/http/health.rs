//! Health checks of servers: each is asked whether it serves, over a connection of its own.
//! In: servers that the pools know, the configuration. Out: verdicts for the pools. One task for each server, on each worker.

use std::rc::Rc;
use std::time::Instant;

use gateway_core::endpoint::Endpoint;
use gateway_core::http::deadline::GrpcTimeout;
use gateway_core::http::forward::{PeerConnection, PeerLimits};
use gateway_core::http::h2::{Event, Role};
use gateway_core::http::health::{
    GrpcHealthReply, HealthCheck, HealthFailure, grpc_health_request, grpc_health_request_content,
    http_health_request, http_health_verdict,
};
use gateway_core::http::limits::{
    CONNECTIONS_LOOK_INTERVAL, HEADER_LIST_BYTES_MAX, HEALTH_REPLY_BYTES_MAX,
};
use gateway_core::http::message::{HeaderList, read_response};
use gateway_core::http::pool::ServerKey;

use super::worker::HttpWorker;
use crate::backend::{Connection, Servers};
use crate::config::{BackendId, HealthChecks, HealthKind};
use crate::connection::Stream;
use crate::tls::{Received, StreamError};

/// Checks a server for as long as its pool knows it.
pub(super) async fn keep_checking(
    worker: Rc<HttpWorker>,
    (backend, server, address): (BackendId, ServerKey, Endpoint),
) {
    let mut check: Option<HealthCheck> = None;
    loop {
        let Some((checks, servers)) = worker.health_checks(backend) else {
            monoio::time::sleep(CONNECTIONS_LOOK_INTERVAL).await;
            if !worker.knows(backend, server) {
                return;
            }
            continue;
        };
        let random = worker.next_random();
        let wait = match &mut check {
            Some(check) => {
                check.configure(checks.schedule);
                check.wait(random)
            }
            None => check
                .insert(HealthCheck::new(checks.schedule))
                .first_wait(random),
        };
        monoio::time::sleep(wait).await;
        if !worker.knows(backend, server) {
            return;
        }
        let Some(check) = &mut check else {
            continue;
        };
        let asking = ask(&servers, address, &checks);
        let verdict = monoio::time::timeout(check.timeout(), Box::pin(asking)).await;
        let verdict = verdict.unwrap_or(Err(HealthFailure::TimedOut));
        if let Some(is_healthy) = check.ended(verdict) {
            worker.note_health(backend, server, (is_healthy, verdict));
        }
    }
}

impl HttpWorker {
    fn health_checks(&self, backend: BackendId) -> Option<(HealthChecks, Rc<Servers>)> {
        let current = self.current.borrow();
        let checks = current.config.backends[backend.0].http.health.clone()?;
        Some((checks, Rc::clone(&current.servers[backend.0])))
    }

    fn knows(&self, backend: BackendId, server: ServerKey) -> bool {
        self.with_pool(backend, |pool| pool.servers.server(server).is_some())
    }

    fn note_health(
        &self,
        backend: BackendId,
        server: ServerKey,
        (is_healthy, verdict): (bool, Result<(), HealthFailure>),
    ) {
        let now = Instant::now();
        let address = self.with_pool(backend, |pool| {
            pool.servers.set_healthy(server, is_healthy, now);
            pool.servers
                .server(server)
                .map(|known| known.server.address)
        });
        let current = self.current.borrow();
        let name = current.config.backends[backend.0].name.as_str();
        let Some(address) = address else {
            return;
        };
        match verdict {
            Ok(()) => {
                tracing::info!(backend = name, server = %address, "the server is healthy again")
            }
            Err(failure) => tracing::warn!(
                backend = name,
                server = %address,
                reason = failure.label(),
                "the server fails its health checks and gets no requests"
            ),
        }
        drop(current);
        self.place_waiting(backend, now);
    }
}

/// Asks a server once.
async fn ask(
    servers: &Rc<Servers>,
    address: Endpoint,
    checks: &HealthChecks,
) -> Result<(), HealthFailure> {
    let connected = servers.connect_server(address).await;
    let connection = connected.map_err(|_| HealthFailure::Unreachable)?;
    let verdict = match &checks.kind {
        HealthKind::Tcp => Ok(()),
        HealthKind::Grpc(_) | HealthKind::Http(_) => exchange(servers, &connection, checks).await,
    };
    connection.stream.end_cleanly();
    verdict
}

/// The reply to a check, as it comes.
#[derive(Default)]
struct Reply {
    grpc: GrpcHealthReply,
    status: Option<u16>,
    is_over: bool,
    bytes: usize,
}

impl Reply {
    fn section(&mut self, list: &HeaderList, end_stream: bool) {
        self.grpc.section(list);
        let response = read_response(list).ok();
        let is_last = |response: &gateway_core::http::message::Response| !response.is_interim();
        if let Some(response) = response.filter(is_last) {
            self.status = self.status.or(Some(response.status));
        }
        self.is_over |= end_stream;
    }

    fn data(&mut self, bytes: &[u8], end_stream: bool) {
        self.grpc.data(bytes);
        self.bytes += bytes.len();
        self.is_over |= end_stream;
    }

    /// The verdict, once there is one: of a GET, its status alone says it.
    fn verdict(&self, kind: &HealthKind) -> Option<Result<(), HealthFailure>> {
        match (kind, self.status) {
            (HealthKind::Http(_), Some(status)) => Some(http_health_verdict(status)),
            (HealthKind::Grpc(_), _) if self.is_over => Some(self.grpc.verdict()),
            _ if self.is_over || self.bytes > HEALTH_REPLY_BYTES_MAX => {
                Some(Err(HealthFailure::Malformed))
            }
            _ => None,
        }
    }
}

/// Sends a request of ours, and reads its response as far as the verdict needs.
async fn exchange(
    servers: &Servers,
    connection: &Connection,
    checks: &HealthChecks,
) -> Result<(), HealthFailure> {
    let stream = &connection.stream;
    let limits = PeerLimits {
        header_list_bytes: HEADER_LIST_BYTES_MAX,
        streams: 0,
    };
    let version = servers.version(connection.protocol.as_deref());
    let now = Instant::now();
    let mut http = PeerConnection::new(version, Role::Client, limits, now);
    send(&mut http, servers, connection, checks)?;
    let mut list = HeaderList::new(HEADER_LIST_BYTES_MAX);
    let mut reply = Reply::default();
    let broken = |_: StreamError| HealthFailure::Malformed;
    loop {
        write(stream, &mut http).await.map_err(broken)?;
        stream.readable().await.map_err(broken)?;
        let bytes = match stream.receive(usize::MAX).map_err(broken)? {
            Some(Received::Bytes(bytes)) => bytes,
            Some(Received::End) => {
                http.end_of_input(true);
                return reply
                    .verdict(&checks.kind)
                    .unwrap_or(Err(HealthFailure::Malformed));
            }
            None => continue,
        };
        let mut rest = bytes.filled();
        while let Some(event) = http.receive(&mut rest, &mut list, Instant::now()) {
            match event {
                Event::Section { end_stream, .. } => reply.section(&list, end_stream),
                Event::Data {
                    data, end_stream, ..
                } => reply.data(data, end_stream),
                Event::Request { .. } | Event::Goaway { .. } | Event::Control => {}
                Event::Reset { .. }
                | Event::Broken { .. }
                | Event::Failed(_)
                | Event::Malformed(_) => return Err(HealthFailure::Malformed),
            }
        }
        stream.give_back(bytes);
        if let Some(verdict) = reply.verdict(&checks.kind) {
            return verdict;
        }
    }
}

/// Puts the request of a check into the output.
fn send(
    http: &mut PeerConnection,
    servers: &Servers,
    connection: &Connection,
    checks: &HealthChecks,
) -> Result<(), HealthFailure> {
    let id = http
        .open(0, Instant::now())
        .ok_or(HealthFailure::Malformed)?;
    let authority = servers.authority_of(connection.server);
    let is_tls = servers.is_tls();
    match &checks.kind {
        HealthKind::Grpc(service) => {
            let timeout = GrpcTimeout::of(checks.schedule.timeout);
            let fields = grpc_health_request(is_tls, authority.as_bytes(), &timeout);
            http.send_section(id, fields, false);
            // A few bytes, which any window takes.
            let _ = http.send_data(id, &grpc_health_request_content(service), true);
        }
        HealthKind::Http(path) => {
            let fields = http_health_request(is_tls, authority.as_bytes(), path.as_bytes());
            http.send_section(id, fields.into_iter(), true);
        }
        HealthKind::Tcp => {}
    }
    Ok(())
}

/// Writes what a connection of ours has to say.
pub(super) async fn write(stream: &Stream, http: &mut PeerConnection) -> Result<(), StreamError> {
    let output = http.take_output();
    let mut rest = &output[..];
    while !rest.is_empty() {
        let (mut prepared, taken) = stream.prepare(rest)?;
        rest = &rest[taken..];
        while !stream.try_write(&mut prepared)? {
            stream.socket().until_writable().await?;
        }
        stream.give_back(prepared);
    }
    Ok(())
}
