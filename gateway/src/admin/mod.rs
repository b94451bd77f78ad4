//! The administration endpoint: `/livez`, `/readyz`, `/metrics`, `/blocked`, `/observed`, on loopback or a Unix socket; the
//! first three also over TLS, for clients that `[admin.tls]` admits.
//! In: HTTP/1.1 requests from this host, and from clients that a worker has authenticated. Out: text. On the control thread,
//! served by hyper. It authenticates no client of this host, which is why it accepts no other address.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use gateway_core::descriptors::Descriptor;
use gateway_core::limits;
use gateway_files::{connect_at_once, look_writable, reason};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc::Receiver;

use crate::config::AdminAddress;
use crate::local::{self, Answer, answer};
use crate::telemetry::{Health, Metrics};

/// The endpoint's bound socket; a Unix socket's file goes when it is dropped.
#[derive(Debug)]
pub enum AdminSocket {
    /// Loopback TCP.
    Loopback(std::net::TcpListener),
    /// Unix socket, where it is to be found and where it is until then, and device and number of its file.
    Unix(std::os::unix::net::UnixListener, [PathBuf; 2], (u64, u64)),
}

impl AdminSocket {
    /// Binds the socket; with `takes_over` beside the one of an earlier process of this gateway, which is found until `Place::take`.
    pub fn bind(address: &AdminAddress, takes_over: bool) -> io::Result<Self> {
        match address {
            AdminAddress::Loopback(address) => {
                if !takes_over {
                    local::await_free(*address, local::lingers_until())?;
                }
                // So that the next process of this gateway can listen before this one has gone.
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(true)?;
                socket.bind(&(*address).into())?;
                socket.listen(limits::ADMIN_BACKLOG)?;
                socket.set_nonblocking(true)?;
                Ok(AdminSocket::Loopback(socket.into()))
            }
            AdminAddress::Unix(path) => {
                look_folder(path)?;
                let file = match takes_over {
                    true => path.with_file_name(std::process::id().to_string()),
                    false => path.clone(),
                };
                remove_stale_socket(&file)?;
                let listener = std::os::unix::net::UnixListener::bind(&file)?;
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o660))?;
                listener.set_nonblocking(true)?;
                let metadata = std::fs::symlink_metadata(&file)?;
                Ok(AdminSocket::Unix(
                    listener,
                    [path.clone(), file],
                    (metadata.dev(), metadata.ino()),
                ))
            }
        }
    }
}

impl AdminSocket {
    /// Whether `bind` would succeed; of a TCP address only where it is not `ours`, another process's of this gateway. Makes
    /// nothing and listens nowhere.
    ///
    /// # Errors
    /// Why not.
    pub fn look(address: &AdminAddress, is_ours: bool) -> io::Result<()> {
        match address {
            AdminAddress::Loopback(_) if is_ours => Ok(()),
            AdminAddress::Loopback(address) => local::await_free(*address, local::lingers_until()),
            AdminAddress::Unix(path) => {
                look_folder(path)?;
                let is_in_the_way = match std::fs::symlink_metadata(path) {
                    Err(_) => false,
                    Ok(found) => !is_ours && !is_stale_socket(path, &found),
                };
                match is_in_the_way {
                    true => Err(io::ErrorKind::AddrInUse.into()),
                    false => Ok(()),
                }
            }
        }
    }

    /// What puts it where it is to be found, in the place of another process's.
    pub fn place(&self) -> Option<AdminPlace> {
        match self {
            AdminSocket::Unix(_, [path, file], _) if path != file => Some(AdminPlace {
                path: path.clone(),
                file: file.clone(),
            }),
            AdminSocket::Unix(..) | AdminSocket::Loopback(_) => None,
        }
    }
}

/// Whether a socket can be made at a path.
fn look_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    look_writable(folder).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {}", folder.display(), reason(&error)),
        )
    })
}

/// Where a socket is to be found, and where it is until then.
#[derive(Debug)]
pub struct AdminPlace {
    path: PathBuf,
    file: PathBuf,
}

impl AdminPlace {
    /// Puts it there, in one step.
    ///
    /// # Errors
    /// When the file cannot be moved.
    pub fn take(&self) -> io::Result<()> {
        std::fs::rename(&self.file, &self.path)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let AdminSocket::Unix(_, files, ours) = self else {
            return;
        };
        for file in files {
            if let Ok(metadata) = std::fs::symlink_metadata(&*file)
                && (metadata.dev(), metadata.ino()) == *ours
            {
                // Gone in the meantime is as good.
                let _ = std::fs::remove_file(file);
            }
        }
    }
}

/// Removes a socket file without a listener, left by a process that was killed.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if is_stale_socket(path, &found) => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

fn is_stale_socket(path: &Path, found: &std::fs::Metadata) -> bool {
    let refused = || match connect_at_once(path) {
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(_) => false,
    };
    found.file_type().is_socket() && refused()
}

/// Serves until dropped.
pub async fn serve(socket: &AdminSocket, health: Arc<Health>, metrics: Metrics) -> io::Result<()> {
    const WHAT: &str = "the administration endpoint";
    let respond = async move |request: Request<Incoming>, ()| {
        respond(&request, Audience::Host, &health, &metrics)
    };
    match socket {
        AdminSocket::Loopback(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            let accept = async || Ok((listener.accept().await?.0, ()));
            match local::serve(WHAT, limits::ADMIN_HEADER_TIMEOUT, accept, respond).await {}
        }
        AdminSocket::Unix(listener, ..) => {
            let listener = tokio::net::UnixListener::from_std(listener.try_clone()?)?;
            let accept = async || Ok((listener.accept().await?.0, ()));
            match local::serve(WHAT, limits::ADMIN_HEADER_TIMEOUT, accept, respond).await {}
        }
    }
}

/// A connection of a client that may read the metrics, and the right to hold its descriptor.
pub type Scrape = (UnixStream, Descriptor);

/// Serves the connections of clients that may read the metrics. A worker has authenticated each and goes on watching it.
pub async fn serve_scrapes(
    scrapes: Receiver<Scrape>,
    health: Arc<Health>,
    metrics: Metrics,
) -> Infallible {
    let scrapes = RefCell::new(scrapes);
    let accept = async || {
        let next = poll_fn(|context| scrapes.borrow_mut().poll_recv(context)).await;
        match next {
            Some((stream, descriptor)) => {
                let stream = tokio::net::UnixStream::from_std(stream)?;
                // Released with the connection.
                Ok((stream, Rc::new(descriptor)))
            }
            // The last worker has ended.
            None => std::future::pending().await,
        }
    };
    let respond = async move |request: Request<Incoming>, _: Rc<Descriptor>| {
        respond(&request, Audience::Scrapers, &health, &metrics)
    };
    // A request from far away may lose a packet.
    local::serve("the metrics page", limits::ADMIN_TIMEOUT, accept, respond).await
}

/// The kind of client that gets the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// A program that may open the endpoint on this host.
    Host,
    /// Clients of other hosts, which are to learn nothing of others by name.
    Scrapers,
}

impl Audience {
    /// The paths that there are.
    const fn paths(self) -> &'static str {
        match self {
            Audience::Host => "/livez, /readyz, /metrics, /blocked, /observed\n",
            Audience::Scrapers => "/livez, /readyz, /metrics\n",
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn respond(
    request: &Request<Incoming>,
    audience: Audience,
    health: &Health,
    metrics: &Metrics,
) -> Answer {
    let is_of_host = audience == Audience::Host;
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
        "/blocked" if is_of_host => answer(StatusCode::OK, JSON, metrics.blocks()),
        "/observed" if is_of_host => answer(StatusCode::OK, JSON, metrics.dry_run_refusals()),
        _ => answer(StatusCode::NOT_FOUND, TEXT, audience.paths().to_owned()),
    }
}
