//! Files that change while the program runs: watched, waited for until they are whole, compared.
//!
//! In: snapshots of the files that a state was made of. Out: which of them are different now, and since when. On a thread
//! of its own for each watcher; never reads a configuration and never decides what a change means. Also how commands
//! write a file that other processes read: whole or not at all, one at a time; and how they connect to a socket's file.
#![forbid(unsafe_code)]

mod again;
mod atomic_write;
mod folder;
mod inotify;
mod json;
mod reason;
mod snapshot;
mod socket;
mod watch_points;
mod watcher;

pub use again::{Again, Due, Patience, Unmatched, note_error, system_errors};
pub use atomic_write::{LockError, lock, open_lock, replace, replace_and_keep};
pub use folder::{look_private, look_writable, make_private};
pub use json::JsonFault;
pub use reason::reason;
pub use snapshot::FileSnapshot;
pub use socket::connect_at_once;
pub use watcher::{Changed, Watcher};
