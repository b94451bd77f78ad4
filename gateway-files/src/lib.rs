//! Files that change while the program runs: seen, waited for until they are whole, compared.
//!
//! In: the files a state was made of, each as it was when it was read. Out: which of them are different now, and since when.
//! On a thread of its own for each watcher; never reads a configuration and never decides what a change means. Beside
//! that, how commands write a file that others read: whole or not at all, one at a time; and how they connect to a socket's file.
#![forbid(unsafe_code)]

mod again;
mod ears;
mod folder;
mod json;
mod path;
mod reason;
mod seen;
mod socket;
mod watcher;
mod written;

pub use again::{Again, Due, Patience, Unmatched, note_error, system_errors};
pub use folder::{look_private, look_writable, make_private};
pub use json::JsonFault;
pub use reason::reason;
pub use seen::Seen;
pub use socket::connect_at_once;
pub use watcher::{Changed, Watcher};
pub use written::{LockError, lock, open_lock, replace, replace_and_keep};
