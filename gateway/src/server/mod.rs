//! Start-up, workers, listeners, drain: everything that lives as long as the process.
//!
//! In: a checked configuration. Out: a running `Gateway`. The caller's thread starts and drains it; one worker thread
//! per CPU serves connections; one control thread answers the administration endpoint; one
//! reloads the configuration when its files change.

mod connection;
mod control;
mod descriptors;
mod fixed;
mod gateway;
mod guarding;
mod listen;
mod matching;
mod opposite;
mod pinning;
mod privilege;
mod reloader;
mod silent;
mod state;
mod status;
mod trial;
mod worker;

pub use descriptors::note_inherited;
pub use gateway::{Gateway, Ports, ReloadError, StartError};
pub use guarding::Guarding;
pub use matching::{Asked, Matching};
pub use privilege::{Account, Privileges};
pub use reloader::{Reload, Reloader};
pub use status::Reloads;
pub use trial::{Trial, try_start};
