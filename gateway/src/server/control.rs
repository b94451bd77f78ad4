//! The control thread: resolves the names of backends and answers the administration endpoint.
//! In: the backends, the admin socket. Out: addresses to the workers, text to operators. One thread with a small
//! tokio runtime; nothing it does can hold up a worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::worker::Message;
use crate::backend::Resolver;
use crate::observe::{AdminSocket, Health, Metrics, serve};
use crate::rt::Mailbox;

/// What the control thread works with.
pub(super) struct Control {
    pub(super) resolver: Resolver,
    pub(super) admin: Option<AdminSocket>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Metrics,
    pub(super) mailboxes: Vec<Arc<Mailbox<Message>>>,
}

/// Ends the control thread.
#[derive(Debug)]
pub(super) struct ControlStop(oneshot::Sender<()>);

impl ControlStop {
    /// Ends it.
    pub(super) fn stop(self) {
        // A thread that has ended already is as good.
        let _ = self.0.send(());
    }
}

/// Resolves the names of backends for the first time, on a thread of its own for as long as that takes.
pub(super) fn first_addresses(resolver: &mut Resolver) -> io::Result<Vec<Vec<SocketAddr>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::scope(|scope| {
        let resolving = scope.spawn(|| runtime.block_on(resolver.first_round()));
        resolving
            .join()
            .map_err(|_| io::Error::other("the resolver panicked"))
    })
}

/// Starts the control thread.
pub(super) fn start(control: Control) -> io::Result<(JoinHandle<()>, ControlStop)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let run = move || LocalSet::new().block_on(&runtime, control.run(stopped));
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(run)?;
    Ok((thread, ControlStop(stop)))
}

impl Control {
    async fn run(self, stopped: oneshot::Receiver<()>) {
        let mailboxes = self.mailboxes;
        let publish = |backend, addresses: &[_]| {
            for mailbox in &mailboxes {
                mailbox.send(Message::Addresses {
                    backend,
                    addresses: addresses.to_vec(),
                });
            }
        };
        let resolving = self.resolver.run(publish);
        let serving = async {
            let Some(socket) = &self.admin else {
                return std::future::pending().await;
            };
            if let Err(error) = serve(socket, self.health, self.metrics).await {
                tracing::error!(%error, "the administration endpoint has ended");
            }
            std::future::pending().await
        };
        tokio::select! {
            () = resolving => {}
            () = serving => {}
            _ = stopped => {}
        }
    }
}
