//! What a client is relayed to: a server of its listener's backend, or the gateway's own metrics page.
//! In: an established connection. Out: a stream to relay to, or why there is none; events about the server. On the worker that
//! accepted the connection; the control thread writes the page, at the other end of a pair of sockets.

use std::io;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use gateway_core::close_reason::CloseReason;
use gateway_core::delivery::DeliveryState;
use gateway_core::descriptors::Side;
use gateway_core::diagnosis;
use gateway_core::endpoint::Endpoint;
use gateway_core::stream_route::StreamContext;
use gateway_rt::Socket;

use super::context::WorkerContext;
use super::established::{Established, HandshakeResult, Transferred};
use crate::backend::{ClientConnection, Connection, NotConnected, Origin, ServerFailure};
use crate::config::{BackendId, Destination, ListenerId};
use crate::connection::{ConnectedServer, OpenConnection, PlainStream, Stream};
use crate::relay::Outcome;
use crate::telemetry::Event;

/// What a client is relayed to.
pub(super) struct Upstream {
    pub(super) stream: Stream,
    /// `None`: the metrics page.
    pub(super) server: Option<UpstreamServer>,
}

/// The server behind a client, for reports about its end.
pub(super) struct UpstreamServer {
    backend: BackendId,
    address: Endpoint,
    /// The application protocol that the client chose.
    protocol: Option<Vec<u8>>,
}

/// What was connected.
enum UpstreamConnection {
    Server(BackendId, Box<Connection>),
    MetricsPage(Stream),
}

/// Connects what is behind the client's listener.
pub(super) async fn connect_upstream(
    context: &WorkerContext,
    established: &Established,
    handshake: HandshakeResult,
) -> Result<Upstream, CloseReason> {
    let connected = {
        let connecting = pin!(connect(context, established, &handshake));
        // Nothing has been sent yet.
        let delivery_state = || (DeliveryState::Delivered, CloseReason::Internal);
        // The timer is asked first: for a client that may not stay, no backend is connected.
        let closing = pin!(established.timer.until_end(delivery_state));
        match select(closing, connecting).await {
            Either::Left((end, _)) => return Err(end),
            Either::Right((connected, _)) => connected?,
        }
    };
    match connected {
        UpstreamConnection::Server(backend, connection) => {
            note_server(context, established, &handshake, (backend, &*connection));
            Ok(Upstream {
                stream: connection.stream,
                server: Some(UpstreamServer {
                    backend,
                    address: connection.server,
                    protocol: handshake.negotiated.protocol,
                }),
            })
        }
        UpstreamConnection::MetricsPage(stream) => Ok(Upstream {
            stream,
            server: None,
        }),
    }
}

/// Connects a server of the listener's backend, or the metrics page.
async fn connect(
    context: &WorkerContext,
    established: &Established,
    handshake: &HandshakeResult,
) -> Result<UpstreamConnection, CloseReason> {
    let HandshakeResult {
        state, negotiated, ..
    } = handshake;
    let Established { info, client, .. } = established;
    let listener = state.listener(info.listener);
    let backend = match &listener.config.destination {
        Destination::Backend(backend) => *backend,
        Destination::Streams(routes) => {
            let peer = &established.peer;
            let found = routes.find(&StreamContext {
                server_name: negotiated.server_name.as_deref(),
                protocol: negotiated.protocol.as_deref(),
                identity: &peer.identity().name,
                tenant: peer.tenant(),
            });
            BackendId(found.ok_or(CloseReason::NoRoute)?)
        }
        Destination::Routes(_) => unreachable!("routes are for requests, this is for streams"),
        Destination::Metrics(_) => return context.open_page().map(UpstreamConnection::MetricsPage),
    };
    let local = client.socket().local_address();
    let connection = ClientConnection {
        address: info.address,
        listener_address: local.unwrap_or(listener.address),
        cipher_suite: negotiated.cipher_suite,
        is_resumed: negotiated.is_resumed,
        protocol: negotiated.protocol.as_deref(),
    };
    let origin = Origin::peer(&established.peer, connection);
    let servers = &state.servers[backend.0];
    let failed = |failure: &ServerFailure| {
        let failed = Event::ServerFailed {
            backend,
            server: failure.server,
            name: &servers.name_of(failure.server),
            error: &failure.error,
            is_spared: failure.is_spared,
        };
        context.observer.emit(info.listener, &failed);
    };
    let presence = || client.socket().presence();
    match servers.connect(&origin, presence, failed).await {
        Ok(connection) => Ok(UpstreamConnection::Server(backend, connection)),
        Err(NotConnected::Unreachable { known }) => {
            let unreachable = Event::Unreachable { backend, known };
            context.observer.emit(info.listener, &unreachable);
            Err(CloseReason::BackendUnreachable)
        }
        Err(NotConnected::ClientGone) => Err(CloseReason::ClientReset),
    }
}

/// Notes the server, for evaluations on a reload. Evaluates client and server here if a reload has happened meanwhile.
fn note_server(
    context: &WorkerContext,
    established: &Established,
    handshake: &HandshakeResult,
    (backend, connection): (BackendId, &Connection),
) {
    let chain = connection.chain.as_ref();
    let server = chain.map(|chain| ConnectedServer {
        backend,
        chain: chain.clone(),
    });
    let listener = established.info.listener;
    let opened = OpenConnection::new(listener, &established.peer, server.as_ref(), false);
    let request = context.evaluate_if_changed(&handshake.state, &opened, &handshake.certificates);
    established.timer.server_connected(server, request);
}

impl UpstreamServer {
    /// Reports a server that has ended the connection without an answer and a clean end. The worker avoids the server for a while
    /// only if it refused the gateway's certificate: a client may cause anything else.
    pub(super) fn report_end(
        &self,
        context: &WorkerContext,
        listener: ListenerId,
        (outcome, transferred): (Outcome, &Transferred),
    ) {
        let Outcome {
            end,
            answers_in_http1,
        } = outcome;
        if !end.is_backends_fault() && !answers_in_http1 {
            return;
        }
        let state = context.state();
        let (backend, server) = (self.backend, self.address);
        let servers = &state.servers[backend.0];
        let name = &servers.name_of(server);
        if end == CloseReason::BackendRefusedUs {
            servers.refused_us(server);
            let failed = Event::ServerFailed {
                backend,
                server,
                name,
                error: &RefusedUs,
                is_spared: false,
            };
            return context.observer.emit(listener, &failed);
        }
        let facts = diagnosis::Facts {
            protocol: self.protocol.as_deref(),
            is_tls: servers.is_tls(),
            has_proxy_header: servers.has_proxy_header(),
            received_bytes: transferred.received_bytes(),
            sent_bytes: transferred.sent_bytes(),
            answers_in_http1,
        };
        if end.is_backends_fault() || facts.is_other_language() {
            let ended = Event::EndedByServer {
                backend,
                server,
                name,
                end,
                meaning: diagnosis::diagnose(&facts),
            };
            context.observer.emit(listener, &ended);
        }
    }
}

/// A server refuses the gateway.
#[derive(Debug, thiserror::Error)]
#[error("refused the gateway's certificate")]
struct RefusedUs;

impl WorkerContext {
    /// Connects the metrics page. Both ends count as descriptors of connections; where none is left for them, the client has to
    /// come back later.
    fn open_page(&self) -> Result<Stream, CloseReason> {
        let mut descriptors = [Side::Server; 2].map(|side| self.descriptors.try_take(side));
        let [Some(own), Some(others)] = descriptors.each_mut().map(Option::take) else {
            self.descriptors.count_wait(Side::Server);
            return Err(CloseReason::BackendUnreachable);
        };
        let opened = Socket::to_other_thread().and_then(|(socket, other)| {
            let handed = self.scrapes.try_send((other, others));
            handed.map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(socket.holding(own))
        });
        match opened {
            Ok(socket) => {
                let stream = PlainStream::new(socket, Rc::clone(&self.buffers));
                Ok(Stream::Plain(stream))
            }
            Err(error) => {
                tracing::debug!(%error, "cannot reach the metrics page");
                Err(CloseReason::BackendUnreachable)
            }
        }
    }
}
