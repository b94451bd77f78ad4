//! The gateway's side of the control socket. In: requests, and the peer that sends each. Out: the outcome of what it asks for. On
//! a thread of its own; slow work runs on further threads, so that the next request need not wait for it.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use gateway_core::limits;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use super::siblings::{SiblingAnswers, Siblings};
use super::{BlockListReloader, Changed, Heeded};
use super::{Gateway, Reload, Reloader};
use crate::blocks::{News, for_the_record};
use crate::config::Paths;
use crate::control::Peer;
use crate::control::protocol::{
    self, AcceptedList, Acted, BlockChange, BlockChanged, DependentConnections, Failed,
    ListenerStatus, ReloadOutcome, ReloadStatus, Status, Successor, WorkerStatus,
};
use crate::control::{BoundSocket, Claim, ClaimError};
use crate::local::{self, Answer, answer};

const JSON: &str = "application/json";

/// Why the control socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot be bound or put in its place.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A thread or what it waits with cannot be made.
    #[error("cannot serve the control socket: {0}")]
    Thread(#[from] io::Error),
}

/// What the answers need.
#[derive(Debug)]
pub struct Parts {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Its block list.
    pub block_list: Arc<BlockListReloader>,
    /// Its reloads.
    pub reloader: Reloader,
    /// Its configuration file.
    pub configuration: PathBuf,
}

/// The control socket of a gateway that runs.
#[derive(Debug)]
pub struct Server {
    held: Arc<Mutex<Held>>,
    siblings: Arc<Siblings>,
    superseded: mpsc::UnboundedReceiver<Superseded>,
}

/// A control socket that is served, and has no name yet.
#[derive(Debug)]
pub struct Prepared(Server);

/// Another process of the gateway has taken over.
#[derive(Debug)]
pub struct Superseded {
    /// Which.
    pub by: String,
    /// The configuration that it serves by, if it has said so.
    pub configuration: Option<PathBuf>,
}

/// What a process holds of the name.
#[derive(Debug)]
struct Held {
    /// `None` before it has the name, and when it has been asked for it.
    claim: Option<Claim>,
    socket: BoundSocket,
}

struct Service {
    parts: Parts,
    siblings: Arc<Siblings>,
    paths: Paths,
    held: Arc<Mutex<Held>>,
    started: SystemTime,
    superseded: mpsc::UnboundedSender<Superseded>,
    closed: Notify,
}

impl Server {
    /// Does all that can fail before this process has the name: another process that has it gives it up only when nothing is left
    /// but to take it. The socket is served from now on, but commands do not find it yet.
    ///
    /// # Errors
    /// When it cannot be bound, or its thread cannot be started.
    pub fn prepare(
        parts: Parts,
        (siblings, sibling_listener): (Siblings, UnixListener),
        paths: &Paths,
    ) -> Result<Prepared, ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits::CONTROL_THREADS_MAX)
            .build()?;
        let (listener, socket) = BoundSocket::bind(paths)?;
        let [listener, sibling_listener] = {
            let _inside = runtime.enter();
            let listen = tokio::net::UnixListener::from_std;
            [listen(listener)?, listen(sibling_listener)?]
        };
        let siblings = Arc::new(siblings);
        let held = Arc::new(Mutex::new(Held {
            claim: None,
            socket,
        }));
        let (tell, superseded) = mpsc::unbounded_channel();
        let service = Service {
            parts,
            siblings: Arc::clone(&siblings),
            paths: paths.clone(),
            held: Arc::clone(&held),
            started: SystemTime::now(),
            superseded: tell,
            closed: Notify::new(),
        };
        let serve =
            move || LocalSet::new().block_on(&runtime, service.run(listener, sibling_listener));
        std::thread::Builder::new()
            .name("commands".to_owned())
            .spawn(serve)?;
        let server = Server {
            held,
            siblings,
            superseded,
        };
        Ok(Prepared(server))
    }

    /// Waits until another process of this gateway has taken over: which.
    pub async fn superseded(&mut self) -> Superseded {
        match self.superseded.recv().await {
            Some(by) => by,
            // The thread lives as long as the process.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.siblings.leave();
        if let Some(claim) = lock(&self.held).claim.take() {
            // Still ours, because the name is. Gone in the meantime is as good.
            let _ = std::fs::remove_file(claim.paths().control_socket());
        }
    }
}

impl Prepared {
    /// Serves commands under the name that `claim` holds.
    ///
    /// # Errors
    /// When the socket cannot be put in its place. A process that had the name before takes it back then.
    pub fn serve(self, claim: Claim) -> Result<Server, ServeError> {
        let Prepared(server) = self;
        let mut held = lock(&server.held);
        claim.publish(&mut held.socket)?;
        held.claim = Some(claim);
        drop(held);
        Ok(server)
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    async fn run(
        self,
        listener: tokio::net::UnixListener,
        sibling_listener: tokio::net::UnixListener,
    ) {
        let service = Arc::new(self);
        // To the end of the process: a client that is blocked while it drains has to go too.
        tokio::task::spawn_local(Arc::clone(&service).listen_to_siblings(sibling_listener));
        let accept = async || {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::of(&stream)?;
            Ok((stream, peer))
        };
        let responding = Arc::clone(&service);
        let respond =
            async move |request, peer| Arc::clone(&responding).respond(request, peer).await;
        tokio::select! {
            never = local::serve("the control socket", limits::ADMIN_HEADER_TIMEOUT, accept, respond) => match never {},
            () = service.closed.notified() => {}
        }
        drop(listener);
        // Answers that are under way are given to their end, while this process drains.
        std::future::pending::<()>().await;
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Answer {
        let (get, post) = (
            request.method() == Method::GET,
            request.method() == Method::POST,
        );
        match request.uri().path() {
            protocol::STATUS if get => json(&self.status()),
            protocol::BLOCKED if get => {
                let block_list = Arc::clone(&self.parts.block_list);
                done(blocking(move || block_list.entries()).await)
            }
            path @ (protocol::BLOCK | protocol::UNBLOCK) if post => {
                let is_block = path == protocol::BLOCK;
                done(self.change(request, peer, is_block).await)
            }
            protocol::RELOAD if post => done(self.reload(peer).await),
            protocol::CHECK if post => done(self.check().await),
            protocol::ACCEPTED if post => done(self.note_accepted(request, peer).await),
            protocol::TAKE_OVER if post => done(self.give_up(request, peer).await),
            _ => failed(
                StatusCode::NOT_FOUND,
                format!(
                    "this gateway is of version {} and knows no such command: use the `portcullis` of that version",
                    env!("CARGO_PKG_VERSION")
                ),
            ),
        }
    }

    async fn listen_to_siblings(self: Arc<Self>, listener: tokio::net::UnixListener) {
        let accept = async || {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::of(&stream)?;
            Ok((stream, peer))
        };
        let respond = async move |request, peer| self.respond_to_sibling(request, peer).await;
        let what = "the socket for other processes of the gateway";
        local::serve(what, limits::ADMIN_HEADER_TIMEOUT, accept, respond).await;
    }

    async fn respond_to_sibling(&self, request: Request<Incoming>, peer: Peer) -> Answer {
        let is_heed = request.method() == Method::POST && request.uri().path() == protocol::HEED;
        match (peer.is_owner(), is_heed) {
            (true, true) => done(self.heed(request, peer).await),
            (true, false) => failed(
                StatusCode::NOT_FOUND,
                "this socket takes changes of the block list from other processes of the gateway, and nothing else"
                    .to_owned(),
            ),
            (false, _) => failed(
                StatusCode::FORBIDDEN,
                format!("{peer} may not do this: only root and the gateway's own user may"),
            ),
        }
    }

    /// Acts by a change of another process.
    async fn heed(&self, request: Request<Incoming>, peer: Peer) -> Result<Acted, String> {
        // Where the file cannot be written, the news holds every change that is not in it.
        let news: News = read(request, limits::CONTROL_ANSWER_BYTES_MAX).await?;
        let block_list = Arc::clone(&self.parts.block_list);
        let heeded = blocking(move || block_list.heed(news)).await?;
        let Heeded { matching, closed } = heeded.map_err(|error| error.to_string())?;
        tracing::info!(by = %peer, closed, "another process of this gateway has changed the block list");
        let clients = matching.to_text(limits::SIBLING_CLIENTS_MAX);
        Ok(Acted { clients, closed })
    }

    fn status(&self) -> Status {
        let gateway = &self.parts.gateway;
        let reloads = gateway.reloads();
        let time = |at: Option<SystemTime>| at.map(rfc3339);
        Status {
            name: self.paths.name.to_string(),
            state: if gateway.is_ready() {
                "serving"
            } else {
                "draining"
            }
            .to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            started_at: rfc3339(self.started),
            // Absolute: the peer has another working directory.
            configuration: std::path::absolute(&self.parts.configuration)
                .unwrap_or_else(|_| self.parts.configuration.clone()),
            state_folder: self.paths.state.clone(),
            workers: gateway
                .drivers()
                .into_iter()
                .enumerate()
                .map(|(number, driver)| WorkerStatus { number, driver })
                .collect(),
            listeners: gateway
                .listeners()
                .into_iter()
                .map(|(name, address, connections)| ListenerStatus {
                    name,
                    address: address.to_string(),
                    connections,
                })
                .collect(),
            guard: gateway.guard_state(),
            blocks: gateway.blocks(),
            reloads: ReloadStatus {
                taken_at: time(reloads.taken_at),
                refused_at: time(reloads.refused_at),
                refused_because: reloads.refused_because,
            },
            dependents: gateway
                .dependents()
                .iter()
                .map(|(usage, authority, connections)| DependentConnections {
                    usage: usage.to_owned(),
                    authority,
                    connections,
                })
                .collect(),
        }
    }

    async fn change(
        &self,
        request: Request<Incoming>,
        peer: Peer,
        is_block: bool,
    ) -> Result<BlockChanged, String> {
        let BlockChange { mut entry } = read(request, limits::CONTROL_REQUEST_BYTES_MAX).await?;
        entry.at = SystemTime::now();
        entry.by = peer.account(&entry.by);
        let reason = entry.reason.as_deref().map(for_the_record).transpose();
        entry.reason = reason.map_err(|why| format!("reason: {why}"))?;
        entry.by = for_the_record(&entry.by).map_err(|why| format!("by: {why}"))?;
        let block_list = Arc::clone(&self.parts.block_list);
        let change = move || match is_block {
            true => block_list.block(entry),
            false => block_list.unblock(entry),
        };
        let siblings = Arc::clone(&self.siblings);
        let changed = blocking(move || siblings.change_and_tell(change)).await?;
        let (changed, answers) = changed.map_err(|error| error.to_string())?;
        let Changed {
            before,
            mut in_force,
            aside,
            mut matching,
            ..
        } = changed;
        let SiblingAnswers {
            matching: of_others,
            closed,
            unreached,
        } = answers;
        matching.extend(of_others);
        in_force.closed += closed;
        Ok(BlockChanged {
            before,
            in_force,
            aside,
            connected: matching.connected(),
            seen: matching.seen(),
            unreached,
        })
    }

    async fn note_accepted(&self, request: Request<Incoming>, peer: Peer) -> Result<(), String> {
        let lists: Vec<AcceptedList> = read(request, limits::CONTROL_REQUEST_BYTES_MAX).await?;
        for accepted in lists {
            let AcceptedList {
                issuer,
                list,
                before,
                by,
            } = accepted;
            let by = peer.account(&by);
            let audit = self.parts.gateway.audit();
            audit.accepted(&issuer, (&list, &before), &by);
            tracing::warn!(
                issuer,
                list,
                before,
                by,
                "an older revocation list was accepted"
            );
        }
        Ok(())
    }

    async fn reload(&self, peer: Peer) -> Result<ReloadOutcome, String> {
        // Whether the rest is taken or not: the file may just have been renamed.
        self.parts.gateway.audit().reopen();
        let reloader = self.parts.reloader.clone();
        let requester = format!("portcullis reload of {peer}");
        let reload = blocking(move || reloader.ask_and_wait(requester)).await?;
        let Reload { refused, closed } = reload.ok_or("the gateway is going down")?;
        Ok(ReloadOutcome { refused, closed })
    }

    /// What a reload would refuse.
    async fn check(&self) -> Result<ReloadOutcome, String> {
        let (gateway, file) = (
            Arc::clone(&self.parts.gateway),
            self.parts.configuration.clone(),
        );
        let check = move || match crate::config::load(&file) {
            Ok(loaded) => gateway.would_refuse(&loaded.config),
            Err(errors) => errors.as_slice().iter().map(ToString::to_string).collect(),
        };
        let refused = blocking(check).await?;
        Ok(ReloadOutcome { refused, closed: 0 })
    }

    /// Lets the next process of this gateway have the name.
    async fn give_up(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Result<(), String> {
        if !peer.is_owner() {
            return Err(format!(
                "{peer} may not take over: only root and the gateway's own user may"
            ));
        }
        // A process of an earlier version says nothing.
        let successor: Option<Successor> = read(request, limits::CONTROL_REQUEST_BYTES_MAX).await?;
        let superseded = Superseded {
            by: peer.to_string(),
            configuration: successor.map(|successor| successor.configuration),
        };
        // A task of its own: it goes on although the peer may not wait for the answer any more.
        let giving = tokio::task::spawn_local(self.give(superseded));
        giving.await.map_err(|error| error.to_string())?
    }

    async fn give(self: Arc<Self>, superseded: Superseded) -> Result<(), String> {
        let (block_list, held) = (Arc::clone(&self.parts.block_list), Arc::clone(&self.held));
        // The lock goes with the claim. The socket stays: the next process puts its own in the place. A change of the block list
        // comes before it, or finds that the name is gone.
        let give = move || block_list.leave(|| lock(&held).claim.take());
        if blocking(give).await??.is_some() {
            tokio::task::spawn_local(self.hand_over(superseded));
        }
        Ok(())
    }

    /// Waits until the next process has put its socket in place, then lets this one drain. Until then this process serves, and it
    /// takes the name back if the next one never comes.
    async fn hand_over(self: Arc<Self>, superseded: Superseded) {
        let mut take_back_at = Instant::now() + limits::TAKEOVER_OFFER;
        loop {
            tokio::time::sleep(limits::TAKEOVER_LOOK_INTERVAL).await;
            if !lock(&self.held).socket.is_in_place() {
                self.closed.notify_one();
                // At the very end no thread receives it.
                let _ = self.superseded.send(superseded);
                return;
            }
            if Instant::now() < take_back_at {
                continue;
            }
            match Claim::take(&self.paths, false) {
                Ok(Ok(claim)) => {
                    let by = superseded.by;
                    tracing::warn!(
                        by,
                        "the process that was to take over has not done so: this one goes on"
                    );
                    lock(&self.held).claim = Some(claim);
                    let block_list = Arc::clone(&self.parts.block_list);
                    // It changes nothing, and cannot fail.
                    let _ = blocking(move || block_list.stay()).await;
                    return;
                }
                // It has the lock, and is about to put its socket in place.
                Ok(Err(_)) | Err(ClaimError::Taken { .. }) => {}
                Err(error) => tracing::error!(%error, "cannot take the name back"),
            }
            take_back_at = Instant::now() + limits::TAKEOVER_OFFER;
        }
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Runs slow work on another thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| "the gateway could not do it: its log says why".to_owned())
}

async fn read<T: DeserializeOwned>(
    request: Request<Incoming>,
    bytes_max: usize,
) -> Result<T, String> {
    let body = Limited::new(request.into_body(), bytes_max);
    // What follows may take its time, but not this.
    let body = tokio::time::timeout(limits::ADMIN_TIMEOUT, body.collect());
    let body = body.await.map_err(|_| "the request was cut off")?;
    let bytes = body.map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|error| error.to_string())
}

fn done<T: Serialize>(outcome: Result<T, String>) -> Answer {
    match outcome {
        Ok(value) => json(&value),
        Err(error) => failed(StatusCode::CONFLICT, error),
    }
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => answer(StatusCode::OK, JSON, text + "\n"),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn failed(status: StatusCode, error: String) -> Answer {
    let text = serde_json::to_string(&Failed { error });
    answer(status, JSON, text.unwrap_or_default() + "\n")
}
