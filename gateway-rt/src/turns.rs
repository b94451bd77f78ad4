//! Turns: a task that has more to do lets the others of its thread go first.
//! In: nothing. Out: a wait that is over when the ring has told of everything that happened meanwhile. On every worker, one for all
//! of its tasks.
//!
//! A task that only woke itself would be run again before the runtime looks at the ring: sockets that became readable and timers that
//! are due would wait until it has nothing left to do.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use monoio::net::TcpStream;
use rustix::event::{EventfdFlags, eventfd};

use super::runtime::{self, Driver};

/// How long a task waits on epoll that lets others go first: as short as timers are.
const EPOLL_TURN: Duration = Duration::from_millis(1);

/// What tasks of a worker wait for between two turns.
#[derive(Debug)]
pub struct Turns {
    /// An event counter that nobody counts: it can always be written (eventfd(2)).
    always_writable: TcpStream,
}

impl Turns {
    /// One for a worker, on which it is made.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let counter: OwnedFd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        runtime::adopt(&counter)?;
        // The runtime only waits for it.
        let always_writable = TcpStream::from_std(counter.into())?;
        Ok(Turns { always_writable })
    }

    /// Waits until all others have had a turn that could.
    pub async fn others_first(&self) {
        match runtime::driver() {
            // The answer is there at once, and nothing else makes the runtime look at sockets and timers.
            Driver::Epoll => monoio::time::sleep(EPOLL_TURN).await,
            // The answer comes through the ring, with those that others wait for. It fails no more than a socket's.
            Driver::IoUringDeferred | Driver::IoUringCooperative => {
                let _ = self.always_writable.writable(false).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::on_each_driver;
    use crate::{Buffer, Socket};

    #[test]
    fn sockets_and_timers_of_others_have_their_turn_beside_one_that_never_ends() {
        on_each_driver(async || {
            let turns = Rc::new(Turns::new().unwrap());
            let is_over = Rc::new(Cell::new(false));
            let taken = Rc::new(Cell::new(0_u64));
            let busy = [(), ()].map(|()| {
                let (turns, is_over) = (Rc::clone(&turns), Rc::clone(&is_over));
                let taken = Rc::clone(&taken);
                monoio::spawn(async move {
                    while !is_over.get() {
                        turns.others_first().await;
                        taken.set(taken.get() + 1);
                    }
                })
            });
            let (socket, other) = Socket::to_other_thread().unwrap();
            for _ in 0..20 {
                io::Write::write_all(&mut &other, b"x").unwrap();
                let before = taken.get();
                let mut buffer = Buffer::with_capacity(10);
                socket.readable().await.unwrap();
                assert_eq!(socket.read_now(&mut buffer).unwrap(), Some(1));
                assert!(taken.get() - before < 20, "it had to wait for many turns");
            }
            let before = taken.get();
            monoio::time::sleep(Duration::from_millis(5)).await;
            assert!(taken.get() > before);
            is_over.set(true);
            for task in busy {
                task.await;
            }
        });
    }
}
