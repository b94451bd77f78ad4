//! Connects a client's stream to one of a backend's servers.
//! In: the origin. Out: a stream, over the first server in turn that can be reached. On the worker; nothing of the client's
//! has been sent to a server that failed, so the next may be tried, and one that is slow need not be waited for.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use gateway_core::alpn;
use gateway_core::balance::{Next, Server, Turn};
use gateway_core::certificate::Chain;
use gateway_core::descriptors::{Descriptor, Side};
use gateway_core::endpoint::Endpoint;
use gateway_core::limits;
use gateway_rt::{Presence, Socket};
use rustix::io::Errno;
use rustls::ClientConfig;

use super::attempt::{Attempt, first_of};
use super::origin::Origin;
use super::proxy_protocol;
use super::servers::{Probe, Remark, ServerFailure, Servers, Transport};
use crate::config::ProxyProtocol;
use crate::connection::{PlainStream, Stream};
use crate::tls::{self, ConnectedBackend, HandshakeError};

/// Why a client has no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotConnected {
    /// None of the backend could be reached.
    Unreachable {
        /// How many are known; none where no name could be resolved.
        known: usize,
    },
    /// The client has gone meanwhile.
    ClientGone,
}

/// A connection to one of the servers.
pub struct Connection {
    /// The stream to read and write.
    pub stream: Stream,
    /// The server.
    pub server: Endpoint,
    /// Its verified chain; none over plain TCP.
    pub chain: Option<Chain>,
    /// The application protocol that it chose.
    pub protocol: Option<Vec<u8>>,
}

/// The outcome of an attempt.
enum AttemptOutcome {
    /// TCP stands, since the attempt began then.
    Socket(Probe, Socket, Instant),
    /// So does everything above it.
    Connected(Box<Connection>),
    /// The server cannot be reached.
    Failed(ServerFailure),
    /// The attempt at this server panicked, which says nothing about the server.
    Panicked(Endpoint),
}

/// One client's way to a server.
struct Race {
    turn: Turn,
    attempts: Vec<Attempt<AttemptOutcome>>,
    /// The server that is past TCP: while one is, no further one is tried.
    handshaking: Option<Endpoint>,
    /// The last one that was begun, and when.
    newest: Option<(Endpoint, Instant)>,
    another_at: Instant,
    /// It has waited for a descriptor.
    has_waited: bool,
}

impl Race {
    fn new(now: Instant) -> Self {
        Race {
            turn: Turn::default(),
            attempts: Vec::new(),
            handshaking: None,
            newest: None,
            another_at: now,
            has_waited: false,
        }
    }

    /// A server cannot be slow to answer any more.
    fn answered(&mut self, server: Endpoint) {
        self.newest = self.newest.filter(|(newest, _)| *newest != server);
    }

    fn failed(&mut self, server: Endpoint) {
        self.handshaking = self
            .handshaking
            .filter(|handshaking| *handshaking != server);
        self.answered(server);
        self.another_at = Instant::now();
    }
}

impl Servers {
    /// Connects to the first server in turn that can be reached, while `presence` says that the client is there. Reports each
    /// server that cannot be reached to `failed`, and those whose attempts failed since the last call.
    ///
    /// A server that does not answer gets a second attempt beside it after a while (RFC 8305); its own attempt goes on, so that its
    /// outcome is known. However many servers there are, a client waits for `CONNECT_TIMEOUTS` times the time of one.
    pub async fn connect(
        self: &Rc<Self>,
        origin: &Origin<'_>,
        presence: impl Fn() -> Presence,
        mut failed: impl FnMut(&ServerFailure),
    ) -> Result<Box<Connection>, NotConnected> {
        self.known.unreported.take().iter().for_each(&mut failed);
        let timeout = self.backend.connect_timeout;
        let mut deadline = Instant::now() + limits::CONNECT_TIMEOUTS * timeout;
        let mut race = Race::new(Instant::now());
        loop {
            let now = Instant::now();
            if now >= race.another_at
                && race.handshaking.is_none()
                && !self.try_another(&mut race, now)
            {
                break;
            }
            let look_at = (now + limits::CLIENT_LOOK_INTERVAL).min(deadline);
            let wake_at = match race.handshaking {
                Some(_) => look_at,
                None => look_at.min(race.another_at),
            };
            let waiting = first_of(&mut race.attempts);
            match monoio::time::timeout_at(wake_at.into(), waiting).await {
                Ok(AttemptOutcome::Socket(probe, ..)) if race.handshaking.is_some() => {
                    // Another one was faster; that this one is there is all there is to know.
                    race.answered(probe.server);
                }
                Ok(AttemptOutcome::Socket(probe, socket, began)) => {
                    race.handshaking = Some(probe.server);
                    race.newest = None;
                    let handshaking = self.handshake(probe, (socket, began), origin);
                    race.attempts.push(handshaking);
                }
                Ok(AttemptOutcome::Connected(connection)) => return Ok(connection),
                Ok(AttemptOutcome::Failed(failure)) => {
                    failed(&failure);
                    race.failed(failure.server);
                }
                Ok(AttemptOutcome::Panicked(server)) => race.failed(server),
                Err(_) => match presence() {
                    Presence::Gone => return Err(NotConnected::ClientGone),
                    // It may still be there to read: but hardly for long.
                    Presence::Finished => deadline = deadline.min(now + timeout),
                    Presence::Here => {}
                },
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        let known = self.known.balance.borrow().count();
        Err(NotConnected::Unreachable { known })
    }

    /// Connects this server, for requests of any client or a health check. The caller keeps what is known of the server.
    pub async fn connect_server(
        self: &Rc<Self>,
        server: Endpoint,
    ) -> Result<Connection, ServerFailure> {
        let failed = |error| ServerFailure {
            server,
            error,
            is_spared: false,
        };
        let Some(descriptor) = self.descriptors.try_take(Side::Server) else {
            self.descriptors.count_wait(Side::Server);
            return Err(failed(io::Error::from(Errno::MFILE).into()));
        };
        let config = self.transport.config_for_requests();
        let connecting = async {
            let socket = Socket::connect(server).await?.holding(descriptor);
            self.establish(socket, Ok(None), config).await
        };
        let outcome = monoio::time::timeout(self.backend.connect_timeout, connecting).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        let established = outcome.map_err(failed)?;
        self.remark(server, &established, false);
        Ok(Connection {
            stream: established.stream,
            server,
            chain: established.chain,
            protocol: established.protocol,
        })
    }

    /// The addresses that are known.
    pub fn addresses(&self) -> Vec<Server> {
        self.known.balance.borrow().servers().collect()
    }

    /// Begins another attempt, if a server is left. `false`: there is nothing left to wait for.
    fn try_another(self: &Rc<Self>, race: &mut Race, now: Instant) -> bool {
        let mut balance = self.known.balance.borrow_mut();
        let head_start = balance.head_start();
        if let Some((address, began)) = race.newest.take()
            && now >= began + head_start
        {
            balance.slow(address);
        }
        race.another_at = now + head_start;
        let Some(descriptor) = self.descriptors.try_take(Side::Server) else {
            let is_first = race.attempts.is_empty() && !race.has_waited;
            if is_first {
                self.descriptors.count_wait(Side::Server);
                race.has_waited = true;
            }
            race.another_at = now + limits::SERVER_LOOK_INTERVAL;
            return true;
        };
        match balance.next(&mut race.turn, now) {
            Next::Try(address) => {
                race.newest = Some((address, now));
                let probe = Probe::new(&self.known, address);
                race.attempts.push(self.begin(probe, descriptor));
                true
            }
            Next::Wait => {
                race.another_at = now + limits::SERVER_LOOK_INTERVAL;
                true
            }
            Next::Exhausted => !race.attempts.is_empty(),
        }
    }

    /// Begins to connect to a server.
    fn begin(self: &Rc<Self>, probe: Probe, descriptor: Descriptor) -> Attempt<AttemptOutcome> {
        let servers = Rc::clone(self);
        let address = probe.server;
        let connecting = async move {
            let began = Instant::now();
            let connecting = Socket::connect(address);
            let outcome = monoio::time::timeout(servers.backend.connect_timeout, connecting).await;
            match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(socket) => {
                    let socket = socket.holding(descriptor);
                    let mut balance = servers.known.balance.borrow_mut();
                    balance.connected(address, began.elapsed());
                    if !servers.is_tls() {
                        balance.succeeded(address);
                    }
                    AttemptOutcome::Socket(probe, socket, began)
                }
                Err(error) => servers.not_reached(address, error.into()),
            }
        };
        let panicked = move || AttemptOutcome::Panicked(address);
        Attempt::begin(connecting, panicked, self.record_failure())
    }

    /// Does what comes after TCP: the header, TLS.
    fn handshake(
        self: &Rc<Self>,
        probe: Probe,
        (socket, began): (Socket, Instant),
        origin: &Origin<'_>,
    ) -> Attempt<AttemptOutcome> {
        let servers = Rc::clone(self);
        let address = probe.server;
        let header = match self.backend.proxy_protocol {
            ProxyProtocol::Off => Ok(None),
            ProxyProtocol::Outside | ProxyProtocol::Inside => {
                proxy_protocol::header(origin).map(Some)
            }
        };
        let protocol = origin.connection().protocol;
        let config = self.transport.config(protocol);
        let speaks_http2 = protocol == Some(alpn::HTTP_2);
        let handshaking = async move {
            // To the end of the attempt, however it ends.
            let _probe = probe;
            let handshaking = servers.establish(socket, header, config);
            let until = began + servers.backend.connect_timeout;
            let outcome = monoio::time::timeout_at(until.into(), handshaking).await;
            match outcome.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
                Ok(established) => {
                    servers.known.balance.borrow_mut().succeeded(address);
                    servers.remark(address, &established, speaks_http2);
                    AttemptOutcome::Connected(Box::new(Connection {
                        stream: established.stream,
                        server: address,
                        chain: established.chain,
                        protocol: established.protocol,
                    }))
                }
                Err(error) => servers.not_reached(address, error),
            }
        };
        let panicked = move || AttemptOutcome::Panicked(address);
        Attempt::begin(handshaking, panicked, self.record_failure())
    }

    async fn establish(
        &self,
        socket: Socket,
        header: Result<Option<Vec<u8>>, proxy_header::Error>,
        config: Option<Arc<ClientConfig>>,
    ) -> Result<ReadyConnection, HandshakeError> {
        let header = header.map_err(io::Error::other)?;
        let is_inside = self.backend.proxy_protocol == ProxyProtocol::Inside;
        if let Some(header) = header.as_deref().filter(|_| !is_inside) {
            proxy_protocol::send_outside(&socket, header).await?;
        }
        let buffers = Rc::clone(&self.buffers);
        let (Transport::Tls { server_name, .. }, Some(config)) = (&self.transport, config) else {
            return Ok(ReadyConnection {
                stream: Stream::Plain(PlainStream::new(socket, buffers)),
                chain: None,
                certificate_requested: true,
                protocol: None,
            });
        };
        let connected = tls::connect(socket, &config, server_name.clone(), buffers).await?;
        let ConnectedBackend {
            stream,
            chain,
            certificate_requested,
            protocol,
        } = connected;
        if let Some(header) = header.as_deref().filter(|_| is_inside) {
            proxy_protocol::send_inside(&stream, &self.buffers, header).await?;
        }
        Ok(ReadyConnection {
            stream: Stream::Tls(stream),
            chain,
            certificate_requested,
            protocol,
        })
    }

    /// Says, once of each server, what an operator should know of it.
    fn remark(&self, server: Endpoint, established: &ReadyConnection, speaks_http2: bool) {
        let backend = self.backend.name.as_str();
        let is_new = |remark| self.known.remarked.borrow_mut().insert((server, remark));
        if !established.certificate_requested && is_new(Remark::NoCertificateRequest) {
            tracing::warn!(backend, %server, "the server does not request the gateway's certificate: it accepts \
                                              telemetry from every client");
        }
        let chose_none = self.is_tls() && established.protocol.is_none();
        if speaks_http2 && chose_none && is_new(Remark::ChoseNoProtocol) {
            tracing::warn!(backend, %server, "the server chose no application protocol for a client that speaks h2: \
                                              if it speaks HTTP/1.1 only, remove h2 from the listener's alpn");
        }
    }

    fn not_reached(&self, server: Endpoint, error: HandshakeError) -> AttemptOutcome {
        let mut balance = self.known.balance.borrow_mut();
        let is_spared = match is_ours(&error) || is_about_protocol(&error) {
            true => false,
            false => balance.failed(server, Instant::now()),
        };
        AttemptOutcome::Failed(ServerFailure {
            server,
            error,
            is_spared,
        })
    }

    /// Records the failures of abandoned attempts.
    fn record_failure(&self) -> impl FnOnce(AttemptOutcome) + use<> {
        let known = Rc::clone(&self.known);
        move |outcome| match outcome {
            AttemptOutcome::Socket(..)
            | AttemptOutcome::Connected(_)
            | AttemptOutcome::Panicked(_) => {}
            AttemptOutcome::Failed(failure) => {
                let mut unreported = known.unreported.borrow_mut();
                if unreported.len() < limits::SERVER_NEWS_MAX {
                    unreported.push(failure);
                }
            }
        }
    }
}

/// A connection with everything above TCP.
struct ReadyConnection {
    stream: Stream,
    chain: Option<Chain>,
    certificate_requested: bool,
    /// `None` over plain TCP too.
    protocol: Option<Vec<u8>>,
}

/// Whether this host is to blame, out of descriptors, memory or ports, and not the server.
pub(super) fn is_ours(error: &HandshakeError) -> bool {
    const OURS: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    match error {
        HandshakeError::Io(error) => {
            Errno::from_io_error(error).is_some_and(|errno| OURS.contains(&errno))
        }
        HandshakeError::Closed
        | HandshakeError::TooLarge(_)
        | HandshakeError::Record(_)
        | HandshakeError::Certificate(_)
        | HandshakeError::Tls(_) => false,
    }
}

/// Whether the server only does not speak the client's protocol (RFC 7301 section 3.2): clients with other protocols may still
/// reach it.
fn is_about_protocol(error: &HandshakeError) -> bool {
    use rustls::{AlertDescription, Error};
    matches!(
        error,
        HandshakeError::Tls(Error::AlertReceived(
            AlertDescription::NoApplicationProtocol
        ))
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use gateway_core::balance::Server;
    use rustls::{AlertDescription, Error};

    use super::*;
    use crate::backend::servers::Known;

    #[test]
    fn a_refused_protocol_and_a_want_of_descriptors_do_not_speak_against_a_server() {
        let alert = |description| HandshakeError::Tls(Error::AlertReceived(description));
        let no_protocol = alert(AlertDescription::NoApplicationProtocol);
        assert!(is_about_protocol(&no_protocol) && !is_ours(&no_protocol));
        let refused = alert(AlertDescription::HandshakeFailure);
        assert!(!is_about_protocol(&refused) && !is_ours(&refused));
        let descriptors = HandshakeError::Io(Errno::MFILE.into());
        assert!(is_ours(&descriptors) && !is_about_protocol(&descriptors));
    }

    #[test]
    fn a_server_whose_attempt_panics_is_tried_by_the_next_client() {
        use gateway_rt::on_each_driver;
        on_each_driver(async || {
            let server = SocketAddr::from(([127, 0, 0, 1], 4317)).into();
            let known = Rc::new(Known::new(0));
            let begun = Instant::now();
            let later = begun + limits::SERVER_COOL_DOWN;
            known.balance.borrow_mut().replace(&[Server {
                source: 0,
                address: server,
                share: None,
            }]);
            known.balance.borrow_mut().failed(server, begun);
            let next = || {
                let mut balance = known.balance.borrow_mut();
                balance.next(&mut Turn::default(), later)
            };
            assert_eq!(next(), Next::Try(server));
            let probe = Probe::new(&known, server);
            assert_eq!(next(), Next::Wait, "one client tries whether it is back");
            let broken = async move {
                let _probe = probe;
                panic!("a broken attempt")
            };
            let mut attempts = vec![Attempt::begin(broken, || (), |()| {})];
            first_of(&mut attempts).await;
            assert_eq!(next(), Next::Try(server));
        });
    }
}
