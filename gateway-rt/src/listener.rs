//! Accepting connections without leaking one.
//! In: a bound listening socket. Out: connected sockets, then, after a stop, the rest of the accept queue.
//! An `accept` future is never dropped: a connection that arrived in that moment would stay open for ever, and no task
//! would serve it. It is cancelled instead, and its answer is taken whatever it is.

use std::io;
use std::net::SocketAddr;

use monoio::io::{CancelHandle, Canceller};
use monoio::net::TcpListener;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Socket, runtime};

/// Ends the waiting in `accept`.
#[derive(Default)]
pub struct AcceptStop {
    canceller: Canceller,
}

impl AcceptStop {
    /// A stop that has not been pulled.
    pub fn new() -> Self {
        AcceptStop::default()
    }

    /// Stops every `accept` that waits or will wait on a handle of this stop.
    pub fn stop(self) {
        let _ = self.canceller.cancel();
    }

    /// What `accept` waits with.
    pub fn handle(&self) -> CancelHandle {
        self.canceller.handle()
    }
}

/// A listening socket on its worker.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    // The same socket, for asking the kernel whether a client waits.
    queue: std::net::TcpListener,
}

impl Listener {
    /// Takes a bound and listening socket.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        runtime::adopt(&listener)?;
        // Once, and not for each that is accepted: they have it from this one.
        Socket::set_up(&listener)?;
        let queue = listener.try_clone()?;
        Ok(Listener {
            listener: TcpListener::from_std(listener)?,
            queue,
        })
    }

    /// The next connection, or `None` once stopped. The handle comes from `AcceptStop::handle`.
    pub async fn accept(&self, stop: CancelHandle) -> io::Result<Option<(Socket, SocketAddr)>> {
        match self.listener.cancelable_accept(stop).await {
            Ok((stream, peer)) => Ok(Some((Socket::new(stream)?, peer))),
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A connection that waits in the accept queue, or `None` when it is empty. Does not wait.
    ///
    /// Each worker has a socket of its own, so no other can take the connection between the question and the answer.
    pub async fn accept_waiting(&self) -> io::Result<Option<(Socket, SocketAddr)>> {
        let mut questions = [PollFd::new(&self.queue, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if rustix::event::poll(&mut questions, Some(&now))? == 0 {
            return Ok(None);
        }
        let (stream, peer) = self.listener.accept().await?;
        Ok(Some((Socket::new(stream)?, peer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, on_each_driver};
    use std::time::Duration;

    #[test]
    fn a_stop_ends_a_waiting_accept_and_leaks_no_connection() {
        on_each_driver(async || {
            for _ in 0..20 {
                let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let address = bound.local_addr().unwrap();
                let listener = Listener::new(bound).unwrap();
                let stop = AcceptStop::new();
                let handle = stop.handle();
                let accepting = monoio::spawn(async move {
                    let accepted = listener.accept(handle).await.unwrap();
                    let waiting = listener.accept_waiting().await.unwrap();
                    usize::from(accepted.is_some()) + usize::from(waiting.is_some())
                });
                monoio::time::sleep(Duration::from_millis(1)).await;
                // The connection and the stop race; whichever wins, the connection is served or refused, never lost.
                let client = std::net::TcpStream::connect(address).unwrap();
                stop.stop();
                assert_eq!(accepting.await, 1);
                let client =
                    Socket::new(monoio::net::TcpStream::from_std(client).unwrap()).unwrap();
                let mut buffer = Buffer::with_capacity(1);
                let ended =
                    monoio::time::timeout(Duration::from_secs(10), client.read(&mut buffer));
                assert_eq!(
                    ended
                        .await
                        .expect("the accepted socket was closed")
                        .unwrap(),
                    0
                );
            }
        });
    }

    #[test]
    fn after_a_stop_the_accept_queue_is_emptied() {
        on_each_driver(async || {
            let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = bound.local_addr().unwrap();
            let listener = Listener::new(bound).unwrap();
            let clients: Vec<_> = (0..5)
                .map(|_| std::net::TcpStream::connect(address).unwrap())
                .collect();
            let stop = AcceptStop::new();
            let handle = stop.handle();
            stop.stop();
            assert!(listener.accept(handle).await.unwrap().is_none());
            let mut accepted = 0;
            while listener.accept_waiting().await.unwrap().is_some() {
                accepted += 1;
            }
            assert_eq!(accepted, clients.len());
        });
    }
}
