//! The gateway's side of the control socket. In: requests, and who asks. Out: what was asked for, done, and its outcome. On
//! a thread of its own; what takes time is done on further ones, so that the next request is heard meanwhile.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use super::claim::Claim;
use super::peer::Peer;
use super::protocol::{
    self, BlockChange, BlockChanged, DependentConnections, Failed, ListenerStatus, ReloadOutcome,
    Reloads, Status, WorkerStatus,
};
use crate::blocks::{Changed, Keeper, check_reason};
use crate::limits;
use crate::local::{self, Answer, answer};
use crate::server::{Gateway, Reload, Reloader};

const JSON: &str = "application/json";

/// What answers are made of.
#[derive(Debug)]
pub struct Parts {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Its block list.
    pub keeper: Arc<Keeper>,
    /// Its reloads.
    pub reloader: Reloader,
    /// Its configuration file.
    pub configuration: PathBuf,
}

/// The control socket of a gateway that runs.
#[derive(Debug)]
pub struct Server {
    claim: Arc<Mutex<Option<Claim>>>,
    superseded: mpsc::UnboundedReceiver<String>,
}

struct Service {
    parts: Parts,
    claim: Arc<Mutex<Option<Claim>>>,
    started: SystemTime,
    superseded: mpsc::UnboundedSender<String>,
    closed: Notify,
}

impl Server {
    /// Serves on `listener`, which is bound below the name that `claim` holds.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start(parts: Parts, claim: Claim, listener: UnixListener) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits::CONTROL_THREADS_MAX)
            .build()?;
        let claim = Arc::new(Mutex::new(Some(claim)));
        let (tell, superseded) = mpsc::unbounded_channel();
        let service = Service {
            parts,
            claim: Arc::clone(&claim),
            started: SystemTime::now(),
            superseded: tell,
            closed: Notify::new(),
        };
        let serve = move || LocalSet::new().block_on(&runtime, service.run(listener));
        std::thread::Builder::new()
            .name("commands".to_owned())
            .spawn(serve)?;
        Ok(Server { claim, superseded })
    }

    /// Waits until another process of this gateway has taken over: which.
    pub async fn superseded(&mut self) -> String {
        match self.superseded.recv().await {
            Some(by) => by,
            // The thread lives as long as the process.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claim) = claim.take() {
            // Still ours, because the name is. Gone in the meantime is as good.
            let _ = std::fs::remove_file(claim.paths().control_socket());
        }
    }
}

impl Service {
    async fn run(self, listener: UnixListener) {
        let listener = match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the control socket cannot be served"),
        };
        let service = Arc::new(self);
        let accept = async || {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::of(&stream)?;
            Ok((stream, peer))
        };
        let responding = Arc::clone(&service);
        let respond =
            async move |request, peer| Arc::clone(&responding).respond(request, peer).await;
        tokio::select! {
            never = local::serve("the control socket", accept, respond) => match never {},
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
                let keeper = Arc::clone(&self.parts.keeper);
                done(blocking(move || keeper.entries()).await)
            }
            path @ (protocol::BLOCK | protocol::UNBLOCK) if post => {
                let is_block = path == protocol::BLOCK;
                done(self.change(request, peer, is_block).await)
            }
            protocol::RELOAD if post => done(self.reload(peer).await),
            protocol::CHECK if post => done(self.check().await),
            protocol::TAKE_OVER if post => done(self.give_up(peer)),
            _ => failed(
                StatusCode::NOT_FOUND,
                format!(
                    "this gateway is of version {} and knows no such command: use the `portcullis` of that version",
                    env!("CARGO_PKG_VERSION")
                ),
            ),
        }
    }

    fn status(&self) -> Status {
        let gateway = &self.parts.gateway;
        let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = claim.as_ref().map(Claim::paths);
        let reloads = gateway.reloads();
        let time = |at: Option<SystemTime>| at.map(rfc3339);
        Status {
            name: paths.map_or(String::new(), |paths| paths.name.to_string()),
            state: if gateway.is_ready() {
                "serving"
            } else {
                "draining"
            }
            .to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            started_at: rfc3339(self.started),
            // Whole: whoever asks stands in another folder.
            configuration: std::path::absolute(&self.parts.configuration)
                .unwrap_or_else(|_| self.parts.configuration.clone()),
            state_folder: paths.map_or(PathBuf::new(), |paths| paths.state.clone()),
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
            reloads: Reloads {
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
        let BlockChange { mut entry } = read(request).await?;
        entry.at = SystemTime::now();
        entry.by = peer.account(&entry.by);
        check_reason(entry.reason.as_deref())?;
        check_reason(Some(&entry.by))?;
        let keeper = Arc::clone(&self.parts.keeper);
        let change = move || match is_block {
            true => keeper.block(entry),
            false => keeper.unblock(entry),
        };
        let changed = blocking(change).await?;
        let Changed {
            before,
            in_force,
            aside,
            matching,
        } = changed.map_err(|error| error.to_string())?;
        Ok(BlockChanged {
            before,
            in_force,
            aside,
            connected: matching.connected(),
            seen: matching.seen(),
        })
    }

    async fn reload(&self, peer: Peer) -> Result<ReloadOutcome, String> {
        // Whether the rest is taken or not: the file may just have been renamed.
        self.parts.gateway.audit().reopen();
        let reloader = self.parts.reloader.clone();
        let who = format!("portcullis reload of {peer}");
        let reload = blocking(move || reloader.ask_and_wait(who)).await?;
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

    /// Lets the next process of this gateway have the name, and ends this one in its own time.
    fn give_up(&self, peer: Peer) -> Result<(), String> {
        if !peer.is_owner() {
            return Err(format!(
                "{peer} may not take over: root and the gateway's own user may"
            ));
        }
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if claim.take().is_some() {
            // The socket's file stays: the next process puts its own in the place.
            self.closed.notify_one();
            // Nobody listens at the very end.
            let _ = self.superseded.send(peer.to_string());
        }
        Ok(())
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Does what may take its time where nobody waits for it but the one who asked.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| "the gateway could not do it: its log says why".to_owned())
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, String> {
    let body = Limited::new(request.into_body(), limits::CONTROL_REQUEST_BYTES_MAX);
    let bytes = body.collect().await.map_err(|error| error.to_string())?;
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
