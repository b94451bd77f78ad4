//! A service on a thread and runtime of its own, that ends when its handle is dropped.
//! Used by the bundled backends, the receiver and the fleet; the caller's thread is never part of it.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::oneshot;

/// Between two looks at whether a service has ended.
const LOOK: Duration = Duration::from_millis(2);

/// A running service.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Runs the future that `service` makes until it ends or the handle is dropped. Tasks it spawned end with it.
    pub(crate) fn spawn<S, F>(name: &str, service: S) -> io::Result<Self>
    where
        S: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = service() => {}
                        // An error means that the handle is gone, which says the same.
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Background {
    /// Waits until the service has ended by itself, but not longer than this.
    pub(crate) fn wait(&self, most: Duration) {
        let deadline = Instant::now() + most;
        let is_running = || {
            self.thread
                .as_ref()
                .is_some_and(|thread| !thread.is_finished())
        };
        while is_running() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the service was printed by its thread; there is nothing to add while dropping.
            let _ = thread.join();
        }
    }
}
