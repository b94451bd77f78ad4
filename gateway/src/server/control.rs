//! The control thread: resolves the names of backends, answers the administration endpoint, and looks at what will end.
//! In: the backends, the admin socket. Out: addresses to the workers, text to operators. One thread with a small
//! tokio runtime; nothing it does can hold up a worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::guarding::Guarding;
use super::worker::Message;
use crate::backend::Resolver;
use crate::limits;
use crate::observe::{AdminSocket, Audit, Health, Metrics, serve, watch_expiry};
use crate::rt::Mailbox;

/// What the control thread works with.
pub(super) struct Control {
    pub(super) resolver: Resolver,
    pub(super) admin: Option<AdminSocket>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Metrics,
    pub(super) mailboxes: Vec<Arc<Mailbox<Message>>>,
    pub(super) guarding: Arc<Guarding>,
    pub(super) audit: Audit,
}

/// Speaks to the control thread.
#[derive(Debug)]
pub(super) struct ControlStop(mpsc::UnboundedSender<Order>);

#[derive(Debug)]
enum Order {
    Resolve(Box<Resolver>),
    Stop,
}

impl ControlStop {
    /// Resolves other names from now on.
    pub(super) fn resolve(&self, resolver: Resolver) {
        // A thread that has ended already resolves nothing.
        let _ = self.0.send(Order::Resolve(Box::new(resolver)));
    }

    /// Ends it.
    pub(super) fn stop(&self) {
        let _ = self.0.send(Order::Stop);
    }
}

/// Resolves the names of backends for the first time, on a thread of its own for as long as that takes.
pub(super) fn first_addresses(resolver: &mut Resolver) -> io::Result<Vec<Vec<SocketAddr>>> {
    let resolve = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Ok(runtime
            .enable_all()
            .build()?
            .block_on(resolver.first_round()))
    };
    std::thread::scope(|scope| {
        let resolving = scope.spawn(resolve);
        resolving
            .join()
            .map_err(|_| io::Error::other("the resolver panicked"))?
    })
}

/// Starts the control thread.
pub(super) fn start(control: Control) -> io::Result<(JoinHandle<()>, ControlStop)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, orders) = mpsc::unbounded_channel();
    let run = move || LocalSet::new().block_on(&runtime, control.run(orders));
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(run)?;
    Ok((thread, ControlStop(stop)))
}

impl Control {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mailboxes = self.mailboxes;
        let publish = |backend, addresses: &[_]| {
            for mailbox in &mailboxes {
                let addresses = addresses.to_vec();
                mailbox.send(Message::Addresses { backend, addresses });
            }
        };
        let resolving = async {
            let mut resolver = self.resolver;
            loop {
                tokio::select! {
                    () = resolver.run(&publish) => {}
                    order = orders.recv() => match order {
                        Some(Order::Resolve(other)) => {
                            resolver = *other;
                            resolver.republish(&publish);
                        }
                        Some(Order::Stop) | None => return,
                    }
                }
            }
        };
        let watching = watch_expiry(self.metrics.clone());
        let guarding = async {
            self.guarding.attend(&self.audit).await;
            std::future::pending().await
        };
        let counting = async {
            loop {
                tokio::time::sleep(limits::CLIENT_COUNT_INTERVAL).await;
                for mailbox in &mailboxes {
                    mailbox.send(Message::CountClients);
                }
            }
        };
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
            () = watching => {}
            () = guarding => {}
            () = counting => {}
        }
    }
}
