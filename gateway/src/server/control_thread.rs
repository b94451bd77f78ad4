//! The control thread: answers the administration endpoint, keeps the guard alive, and looks at what will end.
//! In: the admin socket, the guard. Out: text to operators. One thread with a small tokio runtime; nothing it does can hold
//! up a worker.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use gateway_core::clock::ClockWatch;
use gateway_core::limits;
use gateway_guard::GuardHandle;
use gateway_rt::Mailbox;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use super::ban_reports;
use super::descriptors::Budget;
use super::message::Message;
use crate::admin::{AdminSocket, Scrape, serve, serve_scrapes};
use crate::telemetry::{Audit, Health, Metrics, watch_expiry};

/// What the control thread works with.
pub(super) struct Control {
    pub(super) admin: Option<AdminSocket>,
    /// Connections of clients that may read the metrics.
    pub(super) scraped: mpsc::Receiver<Scrape>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Metrics,
    pub(super) mailboxes: Vec<Arc<Mailbox<Message>>>,
    pub(super) guard: Arc<GuardHandle>,
    pub(super) audit: Audit,
    pub(super) budget: Budget,
}

/// Speaks to the control thread.
#[derive(Debug)]
pub(super) struct ControlStop(mpsc::UnboundedSender<Order>);

#[derive(Debug)]
enum Order {
    LeaveAdmin,
    Stop,
}

impl ControlStop {
    /// Serves the administration endpoint no more.
    pub(super) fn leave_admin(&self) {
        // A thread that has ended serves nothing.
        let _ = self.0.send(Order::LeaveAdmin);
    }

    /// Ends it.
    pub(super) fn stop(&self) {
        // A thread that has ended already need not be told.
        let _ = self.0.send(Order::Stop);
    }
}

/// Starts the control thread.
pub(super) fn start(control: Control) -> io::Result<(JoinHandle<()>, ControlStop)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = mpsc::unbounded_channel();
    let run = move || LocalSet::new().block_on(&runtime, control.run(stopped));
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(run)?;
    Ok((thread, ControlStop(stop)))
}

impl Control {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mailboxes = self.mailboxes;
        let left = Notify::new();
        let listening = async {
            loop {
                match orders.recv().await {
                    Some(Order::LeaveAdmin) => left.notify_one(),
                    Some(Order::Stop) | None => return,
                }
            }
        };
        let watching = watch_expiry(self.metrics.clone());
        let guarded = async {
            ban_reports::attend(&self.guard, &self.audit).await;
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
        let looking_at_the_clock = async {
            let mut clock = ClockWatch::new(Instant::now(), SystemTime::now());
            loop {
                tokio::time::sleep(limits::CLOCK_SET_LOOK_INTERVAL).await;
                if clock.has_been_set(Instant::now(), SystemTime::now()) {
                    tracing::warn!(
                        "the wall clock was set: the gateway checks certificates by it again"
                    );
                    for mailbox in &mailboxes {
                        mailbox.send(Message::ClockSet);
                    }
                }
            }
        };
        let mut budget = self.budget;
        let looking_at_descriptors = async {
            loop {
                tokio::time::sleep(limits::DESCRIPTORS_LOOK_INTERVAL).await;
                budget.look();
            }
        };
        let scraping = serve_scrapes(self.scraped, Arc::clone(&self.health), self.metrics.clone());
        let serving = async {
            let Some(socket) = self.admin else {
                return std::future::pending().await;
            };
            tokio::select! {
                outcome = serve(&socket, self.health, self.metrics) => if let Err(error) = outcome {
                    tracing::error!(%error, "the administration endpoint has ended");
                },
                () = left.notified() => {}
            }
            drop(socket);
            std::future::pending().await
        };
        tokio::select! {
            () = listening => {}
            () = serving => {}
            never = scraping => match never {},
            () = watching => {}
            () = guarded => {}
            () = counting => {}
            () = looking_at_the_clock => {}
            () = looking_at_descriptors => {}
        }
    }
}
