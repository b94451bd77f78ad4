//! The only crate that touches the edges of the runtime.
//!
//! In: sockets and futures. Out: reads, writes, accepts and messages that cannot lose bytes, leak sockets or take a
//! worker down. On every worker; nothing here is shared between threads except the sending side of a mailbox.
//!
//! The rules, each with a test in the file that keeps it:
//! - an `accept` future is never dropped, it is cancelled and its answer taken (`listener`);
//! - no operation in the ring holds a buffer: bytes are moved by calls that do not wait (`socket`);
//! - every connection runs inside `catch_panic`: a panic ends one connection and not the worker;
//! - nothing wakes itself in a loop (`turns`), and no name is resolved on a worker;
//! - accepted sockets are closed on exec (`socket`).
#![allow(unsafe_code)]

mod across;
mod buffer;
mod catch_panic;
mod listener;
mod mailbox;
mod memory;
mod peer;
mod priority;
mod runtime;
mod socket;
mod turns;

pub use across::Across;
pub use buffer::{Buffer, BufferPool};
pub use catch_panic::catch_panic;
pub use listener::{AcceptStop, Listener};
pub use mailbox::{Mailbox, MailboxReceiver, mailbox};
pub use memory::Memory;
pub use peer::peer_of;
pub use priority::lower_priority;
pub use runtime::{Driver, block_on};
pub use socket::{Presence, Socket};
pub use turns::Turns;

/// Runs a test on the best driver and on epoll.
#[doc(hidden)]
pub fn on_each_driver(test: impl AsyncFn()) {
    block_on(|_| test()).expect("a ring can be made");
    runtime::block_on_epoll(|_| test()).expect("epoll is always there");
}
