//! The administration endpoint: `/livez`, `/readyz`, `/metrics`, `/blocked`, `/observed`, on loopback or a Unix socket.
//! In: HTTP/1.1 requests from this host. Out: text. On the control thread, served by hyper; it has no authentication,
//! which is why no other address is accepted.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::metrics::{Health, Metrics};
use crate::config::AdminAddress;
use crate::limits;

/// The endpoint's bound socket; a Unix socket's file goes when it is dropped.
#[derive(Debug)]
pub enum AdminSocket {
    /// Loopback TCP.
    Loopback(std::net::TcpListener),
    /// Unix socket, its path, and device and number of its file.
    Unix(std::os::unix::net::UnixListener, PathBuf, (u64, u64)),
}

impl AdminSocket {
    /// Binds the socket.
    pub fn bind(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Loopback(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(AdminSocket::Loopback(listener))
            }
            AdminAddress::Unix(path) => {
                remove_stale_socket(path)?;
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                listener.set_nonblocking(true)?;
                let metadata = std::fs::symlink_metadata(path)?;
                Ok(AdminSocket::Unix(
                    listener,
                    path.clone(),
                    (metadata.dev(), metadata.ino()),
                ))
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let AdminSocket::Unix(_, path, ours) = self
            && let Ok(metadata) = std::fs::symlink_metadata(&*path)
            && (metadata.dev(), metadata.ino()) == *ours
        {
            // Gone in the meantime is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket file that nobody listens on any more, left by a process that was killed.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    let refused = || match std::os::unix::net::UnixStream::connect(path) {
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(_) => false,
    };
    if metadata.file_type().is_socket() && refused() {
        std::fs::remove_file(path)
    } else {
        Ok(())
    }
}

/// Serves until dropped.
pub async fn serve(socket: &AdminSocket, health: Arc<Health>, metrics: Metrics) -> io::Result<()> {
    match socket {
        AdminSocket::Loopback(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            serve_each(async || Ok(listener.accept().await?.0), health, metrics).await
        }
        AdminSocket::Unix(listener, ..) => {
            let listener = tokio::net::UnixListener::from_std(listener.try_clone()?)?;
            serve_each(async || Ok(listener.accept().await?.0), health, metrics).await
        }
    }
}

/// Serves what `accept` yields, so many at once.
async fn serve_each<S>(
    accept: impl AsyncFn() -> io::Result<S>,
    health: Arc<Health>,
    metrics: Metrics,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let slots = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let permit = slot.await.map_err(io::Error::other)?;
        match accept().await {
            Ok(stream) => spawn(stream, permit, &health, &metrics),
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "the administration endpoint cannot accept");
    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
}

fn spawn<S>(
    stream: S,
    permit: tokio::sync::OwnedSemaphorePermit,
    health: &Arc<Health>,
    metrics: &Metrics,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (health, metrics) = (Arc::clone(health), metrics.clone());
    let service = service_fn(move |request| {
        let response = respond(&request, &health, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    tokio::task::spawn_local(async move {
        let _permit = permit;
        // One request each, within its time: a client that does not read must not keep the slot.
        let connection = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(limits::ADMIN_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(limits::ADMIN_TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "administration request"),
            Err(_) => tracing::debug!("administration request took too long"),
        }
    });
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn respond(
    request: &Request<Incoming>,
    health: &Health,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = answer(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "only GET and HEAD\n".to_owned(),
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => answer(StatusCode::OK, TEXT, "alive\n".to_owned()),
        "/readyz" if health.is_ready() => answer(StatusCode::OK, TEXT, "ready\n".to_owned()),
        "/readyz" => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            "not taking connections\n".to_owned(),
        ),
        "/metrics" => answer(StatusCode::OK, OPEN_METRICS, metrics.encode()),
        "/blocked" => answer(StatusCode::OK, JSON, metrics.blocks()),
        "/observed" => answer(StatusCode::OK, JSON, metrics.foreseen()),
        _ => answer(
            StatusCode::NOT_FOUND,
            TEXT,
            "/livez, /readyz, /metrics, /blocked, /observed\n".to_owned(),
        ),
    }
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
