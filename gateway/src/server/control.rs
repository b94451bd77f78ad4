//! The control thread: resolves the names of backends and answers the administration endpoint.
//! In: the backends, the admin socket. Out: addresses to the workers, text to operators. One thread with a small
//! tokio runtime; nothing it does can hold up a worker.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::worker::Message;
use crate::backend::Resolver;
use crate::config::Backend;
use crate::observe::{AdminSocket, Health, Metrics, serve};
use crate::rt::Mailbox;

/// What the control thread works with.
pub(super) struct Control {
    pub(super) backends: Vec<Arc<Backend>>,
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
        let resolving = Resolver::new(&self.backends).run(publish);
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
