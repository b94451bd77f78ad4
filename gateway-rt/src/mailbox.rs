//! Messages from other threads to a worker.
//! In: values sent from any thread. Out: the same values, in order, on the worker. The queue is a channel; a byte
//! on a socket pair wakes the worker, because the runtime's own wakers must not be used from another thread.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use monoio::io::AsyncReadRent;

use super::runtime;

/// The sending side; may be cloned to any thread.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Sender<T>,
    doorbell: UnixStream,
}

/// The receiving side, opened on the worker.
#[derive(Debug)]
pub struct MailboxReceiver<T> {
    queue: Receiver<T>,
    doorbell: UnixStream,
}

/// Makes a mailbox.
pub fn mailbox<T>() -> io::Result<(Mailbox<T>, MailboxReceiver<T>)> {
    let (queue_in, queue_out) = channel();
    let (bell_in, bell_out) = UnixStream::pair()?;
    bell_in.set_nonblocking(true)?;
    Ok((
        Mailbox {
            queue: queue_in,
            doorbell: bell_in,
        },
        MailboxReceiver {
            queue: queue_out,
            doorbell: bell_out,
        },
    ))
}

impl<T> Mailbox<T> {
    /// Sends `message`. A worker that has ended does not get it, which is no error.
    pub fn send(&self, message: T) {
        if self.queue.send(message).is_ok() {
            // A full socket pair means that the worker has been woken often enough already.
            let _ = (&self.doorbell).write(&[1]);
        }
    }
}

impl<T> MailboxReceiver<T> {
    /// Hands every message to `handle`, until it says `false` or no sender is left.
    pub async fn receive(self, mut handle: impl FnMut(T) -> bool) -> io::Result<()> {
        runtime::adopt(&self.doorbell)?;
        let mut doorbell = monoio::net::UnixStream::from_std(self.doorbell)?;
        let mut bytes = vec![0; 64];
        loop {
            loop {
                match self.queue.try_recv() {
                    Ok(message) => {
                        if !handle(message) {
                            return Ok(());
                        }
                    }
                    Err(TryRecvError::Disconnected) => return Ok(()),
                    Err(TryRecvError::Empty) => break,
                }
            }
            let (rung, returned) = doorbell.read(bytes).await;
            bytes = returned;
            if rung? == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::on_each_driver;

    #[test]
    fn messages_from_another_thread_arrive_in_order_and_none_is_lost() {
        on_each_driver(async || {
            let (mailbox, receiver) = mailbox().unwrap();
            let sender =
                std::thread::spawn(move || (0..10_000).for_each(|number| mailbox.send(number)));
            let mut received = Vec::new();
            let receiving = receiver.receive(|number: u32| {
                received.push(number);
                true
            });
            receiving.await.unwrap();
            sender.join().unwrap();
            assert_eq!(received, (0..10_000).collect::<Vec<_>>());
        });
    }
}
