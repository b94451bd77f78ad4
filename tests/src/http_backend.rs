//! A backend that speaks HTTP by hyper, does to each request what the test's script says, and writes down what came.
//! In: connections from the gateway, in clear or over mTLS, HTTP/2 or HTTP/1.1. Out: requests as hyper took them, and the
//! bytes of each connection as they were, which also show what hyper would forgive.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, version};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::frames::Field;
use crate::gateway::Workspace;
use crate::reply::{Content, End, Reads, Reply};
use crate::wait::eventually;

/// The version of HTTP that a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/2: in clear with prior knowledge, over TLS by ALPN.
    Http2,
    /// HTTP/1.1.
    Http1,
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    /// The number of its connection.
    pub connection: usize,
    /// `POST`
    pub method: String,
    /// Path and query.
    pub path: String,
    /// What `:authority` said in HTTP/2.
    pub authority: Option<String>,
    /// Its fields; those of one name stand together.
    pub fields: Vec<Field>,
    /// As much of the content as came.
    pub content: Vec<u8>,
    /// Its trailers.
    pub trailers: Vec<Field>,
    /// Whether it came to its end; `None` while it has not ended at all.
    pub is_whole: Option<bool>,
}

impl Arrived {
    /// All values of a name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(held, _)| held == name);
        fields.map(|(_, value)| value.as_str()).collect()
    }
}

type Script = dyn Fn(&Arrived) -> Reply + Send + Sync;

/// How long content has to leave before a stream or a connection breaks off: h2 drops what it has not written.
const LEAVING: Duration = Duration::from_millis(100);

/// What all connections may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    Retire,
    Die,
}

/// A listening backend. Stops when dropped.
pub struct HttpBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
    order: watch::Sender<Order>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    speaks: Speaks,
    script: Box<Script>,
    tls: Option<TlsAcceptor>,
    requests: Mutex<Vec<Arrived>>,
    tapes: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
}

impl HttpBackend {
    /// In clear.
    pub fn clear(
        address: SocketAddr,
        speaks: Speaks,
        script: impl Fn(&Arrived) -> Reply + Send + Sync + 'static,
    ) -> HttpBackend {
        HttpBackend::start(address, speaks, None, Box::new(script))
    }

    /// Over mTLS, with the certificate that `Workspace::backend_keys` makes the gateway expect.
    pub fn over_mtls(
        workspace: &Workspace,
        port: u16,
        speaks: Speaks,
        script: impl Fn(&Arrived) -> Reply + Send + Sync + 'static,
    ) -> HttpBackend {
        let tls = acceptor(workspace, speaks);
        HttpBackend::start(workspace.host.at(port), speaks, Some(tls), Box::new(script))
    }

    fn start(
        address: SocketAddr,
        speaks: Speaks,
        tls: Option<TlsAcceptor>,
        script: Box<Script>,
    ) -> HttpBackend {
        let listener = TcpListener::bind(address).expect("the backend's address is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            speaks,
            script,
            tls,
            requests: Mutex::default(),
            tapes: Mutex::default(),
        });
        let (order, orders) = watch::channel(Order::Serve);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime can be made");
                runtime.block_on(async {
                    tokio::select! {
                        () = shared.accept(listener, orders) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        HttpBackend {
            address,
            shared,
            order,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, in the order of their heads' arrival.
    pub fn requests(&self) -> Vec<Arrived> {
        locked(&self.shared.requests).clone()
    }

    /// Waits until so many requests have ended, whole or not.
    ///
    /// # Panics
    ///
    /// When more have begun.
    pub fn ended(&self, count: usize) -> Vec<Arrived> {
        eventually(&format!("{count} requests end at the backend"), || {
            let requests = self.requests();
            let all = requests.iter().all(|request| request.is_whole.is_some());
            assert!(requests.len() <= count, "{requests:?}");
            (requests.len() == count && all).then_some(requests)
        })
    }

    /// What came on each connection, inside of TLS.
    pub fn tapes(&self) -> Vec<Vec<u8>> {
        let tapes = locked(&self.shared.tapes);
        tapes.iter().map(|tape| locked(tape).clone()).collect()
    }

    /// Sends GOAWAY on every connection, in HTTP/1.1 closes them after the response.
    pub fn retire(&self) {
        self.order.send_replace(Order::Retire);
    }

    /// Ends every connection by RST. Those that come later are served.
    pub fn die(&self) {
        self.order.send_replace(Order::Die);
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener, orders: watch::Receiver<Order>) {
        listener
            .set_nonblocking(true)
            .expect("a socket can be told not to block");
        let listener =
            tokio::net::TcpListener::from_std(listener).expect("the runtime takes a listener");
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                continue;
            };
            let socket = socket.into_std().expect("the socket is whole");
            let second = socket.try_clone().expect("a descriptor can be doubled");
            let socket =
                tokio::net::TcpStream::from_std(socket).expect("the runtime takes a socket");
            let mut orders = orders.clone();
            // Only what is ordered from now on concerns it.
            orders.borrow_and_update();
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                match shared.tls.clone() {
                    None => shared.serve(socket, second, orders).await,
                    Some(acceptor) => {
                        // The gateway may be shown a certificate that it does not want.
                        if let Ok(stream) = acceptor.accept(socket).await {
                            shared.serve(stream, second, orders).await;
                        }
                    }
                }
            });
        }
    }

    /// Serves a connection; `second` is its socket once more, to end it by RST.
    async fn serve<S>(
        self: Arc<Self>,
        stream: S,
        second: TcpStream,
        mut orders: watch::Receiver<Order>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tape = Arc::new(Mutex::new(Vec::new()));
        let connection = {
            let mut tapes = locked(&self.tapes);
            tapes.push(Arc::clone(&tape));
            tapes.len() - 1
        };
        let stream = TokioIo::new(Tapped { stream, tape });
        let (die, mut death) = watch::channel(false);
        let die = Arc::new(die);
        let speaks = self.speaks;
        let service = service_fn(move |request| {
            Arc::clone(&self).reply(connection, request, Arc::clone(&die))
        });
        // hyper's two kinds of connection have no trait in common.
        macro_rules! drive {
            ($served:expr) => {{
                let mut served = std::pin::pin!($served);
                loop {
                    tokio::select! {
                        _ = served.as_mut() => return,
                        _ = death.changed() => break,
                        changed = orders.changed() => match changed.map(|()| *orders.borrow()) {
                            Ok(Order::Serve) => {}
                            Ok(Order::Retire) => served.as_mut().graceful_shutdown(),
                            Ok(Order::Die) => break,
                            Err(_) => return,
                        },
                    }
                }
                // Both descriptors of the socket go when this function returns; the last one sends RST.
                let _ = SockRef::from(&second).set_linger(Some(Duration::ZERO));
            }};
        }
        match speaks {
            Speaks::Http2 => {
                drive!(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service))
            }
            Speaks::Http1 => drive!(http1::Builder::new().serve_connection(stream, service)),
        }
    }

    /// The service: one request, by the script.
    async fn reply(
        self: Arc<Self>,
        connection: usize,
        request: Request<Incoming>,
        die: Arc<watch::Sender<bool>>,
    ) -> Result<Response<Channel<Bytes, h2::Error>>, h2::Error> {
        let (head, mut body) = request.into_parts();
        let arrived = Arrived {
            connection,
            method: head.method.to_string(),
            path: head
                .uri
                .path_and_query()
                .map_or(String::new(), ToString::to_string),
            authority: head.uri.authority().map(ToString::to_string),
            fields: fields(&head.headers),
            ..Arrived::default()
        };
        let reply = (self.script)(&arrived);
        let number = {
            let mut requests = locked(&self.requests);
            requests.push(arrived);
            requests.len() - 1
        };
        tokio::time::sleep(reply.delay).await;
        let (mut sender, channel) = Channel::new(1);
        let mut response = Response::new(channel);
        *response.status_mut() = reply.status.try_into().expect("a script's status is one");
        response.headers_mut().extend(map(&reply.fields));
        if reply.reads == Reads::First {
            self.read(number, &mut body, None).await;
        }
        if !reply.has_head {
            match reply.end {
                End::Reset(code) => return Err(h2::Error::from(h2::Reason::from(code))),
                End::Death => die.send_replace(true),
                End::Whole | End::Silence => false,
            };
            std::future::pending::<()>().await;
        }
        tokio::spawn(async move {
            match (&reply.content, reply.reads) {
                (Content::Echo, _) => self.read(number, &mut body, Some(&mut sender)).await,
                (_, Reads::Meanwhile) => {
                    let shared = Arc::clone(&self);
                    tokio::spawn(async move { shared.read(number, &mut body, None).await });
                }
                // What is neither read nor dropped gives the gateway no credit.
                (_, Reads::Never) => {
                    tokio::spawn(async move {
                        let _unread = body;
                        std::future::pending::<()>().await;
                    });
                }
                (_, Reads::First) => {}
            }
            send(reply, sender, &die).await;
        });
        Ok(response)
    }

    /// Reads a request's content to its end, and sends it back if asked.
    async fn read(
        &self,
        number: usize,
        body: &mut Incoming,
        mut back: Option<&mut Sender<Bytes, h2::Error>>,
    ) {
        let mut is_whole = true;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                is_whole = false;
                break;
            };
            match frame.into_data() {
                Ok(data) => {
                    locked(&self.requests)[number].content.extend(&data);
                    if let Some(back) = &mut back {
                        // The gateway may have reset the stream.
                        let _ = back.send_data(data).await;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        locked(&self.requests)[number].trailers = fields(&trailers);
                    }
                }
            }
        }
        locked(&self.requests)[number].is_whole = Some(is_whole);
    }
}

/// What follows the head.
async fn send(reply: Reply, mut sender: Sender<Bytes, h2::Error>, die: &watch::Sender<bool>) {
    if let Content::Pieces(pieces) = reply.content {
        for piece in pieces {
            if sender.send_data(piece.into()).await.is_err() {
                return;
            }
        }
    }
    match reply.end {
        End::Whole if reply.trailers.is_empty() => {}
        End::Whole => {
            let _ = sender.send_trailers(map(&reply.trailers)).await;
        }
        // What was sent is to leave first.
        End::Reset(code) => {
            tokio::time::sleep(LEAVING).await;
            sender.abort(h2::Error::from(h2::Reason::from(code)));
        }
        End::Death => {
            tokio::time::sleep(LEAVING).await;
            die.send_replace(true);
            // Dropped, the sender would end the content properly.
            std::future::pending::<()>().await;
        }
        End::Silence => std::future::pending().await,
    }
}

fn fields(map: &HeaderMap) -> Vec<Field> {
    let fields = map.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    fields.collect()
}

fn map(fields: &[(&'static str, String)]) -> HeaderMap {
    let fields = fields.iter().map(|(name, value)| {
        let value = HeaderValue::from_str(value).expect("a script's values are valid");
        (HeaderName::from_static(name), value)
    });
    fields.collect()
}

fn acceptor(workspace: &Workspace, speaks: Speaks) -> TlsAcceptor {
    let own = workspace.backend();
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(workspace.gateways.certificate());
    let root = root.expect("the CA can be read");
    roots.add(root).expect("it is a certificate");
    let provider = Arc::new(provider::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .expect("there is a root");
    let chain = CertificateDer::pem_file_iter(&own.certificate).and_then(Iterator::collect);
    let key = PrivateKeyDer::from_pem_file(&own.key).expect("the key can be read");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.expect("the certificate can be read"), key)
        .expect("the key belongs to the certificate");
    config.alpn_protocols = vec![match speaks {
        Speaks::Http2 => b"h2".to_vec(),
        Speaks::Http1 => b"http/1.1".to_vec(),
    }];
    TlsAcceptor::from(Arc::new(config))
}

/// A stream whose received bytes are kept.
struct Tapped<S> {
    stream: S,
    tape: Arc<Mutex<Vec<u8>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        locked(&self.tape).extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A thread that panicked with the lock has failed the test already.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Closing;
    use crate::frames::{Said, Sections, code, take_frame};
    use crate::http2_client::Http2Client;

    const POST: [(&[u8], &[u8]); 5] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/a?b"),
        (b":authority", b"backend.test"),
        (b"x-sent", b"1"),
    ];

    fn serving(
        speaks: Speaks,
        script: impl Fn(&Arrived) -> Reply + Send + Sync + 'static,
    ) -> (Workspace, HttpBackend) {
        let workspace = Workspace::new();
        let backend = HttpBackend::over_mtls(&workspace, 14317, speaks, script);
        (workspace, backend)
    }

    fn client(workspace: &Workspace, backend: &HttpBackend) -> Http2Client {
        Http2Client::connect(&workspace.backend_client(), backend.address())
    }

    #[test]
    fn a_request_is_recorded_and_its_content_comes_back_with_trailers() {
        let (workspace, backend) = serving(Speaks::Http2, |_| Reply::grpc());
        let mut client = client(&workspace, &backend);
        // More than both windows of the answer, so that the client has to give credit.
        let content = vec![7; 60_000];
        for _ in 0..3 {
            let stream = client.request(&POST, &content);
            let answer = client.answer(stream);
            assert_eq!(answer.status(), Some(200));
            assert_eq!(answer.grpc_status(), Some(0));
            assert_eq!(answer.content, content);
        }
        let requests = backend.ended(3);
        assert_eq!(requests[2].path, "/a?b");
        assert_eq!(requests[2].authority.as_deref(), Some("backend.test"));
        assert_eq!(requests[2].values("x-sent"), ["1"]);
        assert_eq!(requests[2].content, content);
        assert_eq!(requests[2].is_whole, Some(true));
        let mut tape = backend.tapes().remove(0).split_off(24);
        let mut sections = Sections::default();
        let frames = std::iter::from_fn(|| take_frame(&mut tape));
        let said: Vec<_> = frames.filter_map(|frame| sections.take(&frame)).collect();
        assert!(matches!(&said[0], Said::Section(fields, false) if fields.len() == POST.len()));
    }

    #[test]
    fn a_stream_is_reset_before_and_after_the_head() {
        let (workspace, backend) = serving(Speaks::Http2, |request| match request.path.as_str() {
            "/a?b" => Reply::status(200)
                .without_head()
                .reset(code::REFUSED_STREAM),
            _ => Reply::status(200)
                .content(b"half")
                .reset(code::INTERNAL_ERROR),
        });
        let mut client = client(&workspace, &backend);
        let stream = client.request(&POST, b"x");
        assert_eq!(client.answer(stream).reset, Some(code::REFUSED_STREAM));
        let mut other = POST;
        other[2].1 = b"/other";
        let stream = client.request(&other, b"x");
        let answer = client.answer(stream);
        assert_eq!(answer.status(), Some(200));
        assert_eq!(answer.reset, Some(code::INTERNAL_ERROR));
    }

    #[test]
    fn a_backend_leaves_by_goaway_or_by_reset() {
        let (workspace, backend) = serving(Speaks::Http2, |_| Reply::status(204));
        let builder = workspace.backend_client();
        let mut client = Http2Client::connect(&builder, backend.address());
        let stream = client.request(&POST, b"");
        assert_eq!(client.answer(stream).status(), Some(204));
        backend.retire();
        client.read_to_end();
        assert_eq!(client.goaway(), Some(code::NO_ERROR));
        let mut client = Http2Client::connect(&builder, backend.address());
        let stream = client.request(&POST, b"");
        assert_eq!(client.answer(stream).status(), Some(204));
        backend.die();
        assert_eq!(client.read_to_end(), Closing::Reset);
    }

    #[test]
    fn http_1_is_recorded_as_it_came() {
        let backend =
            HttpBackend::clear(SocketAddr::from(([127, 0, 0, 1], 0)), Speaks::Http1, |_| {
                Reply::status(200).content(b"{}").field("x-a", "b")
            });
        let answer = crate::http::post_json(backend.address(), "/p", "[]").unwrap();
        assert_eq!(answer, (200, "{}".to_owned()));
        let request = backend.ended(1).remove(0);
        assert_eq!(
            (request.method.as_str(), request.content),
            ("POST", b"[]".to_vec())
        );
        assert!(backend.tapes()[0].starts_with(b"POST /p HTTP/1.0\r\nHost: localhost\r\n"));
    }
}
