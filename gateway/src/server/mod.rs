//! Start-up, workers, listeners, drain: everything that lives as long as the process.
//!
//! In: a checked configuration. Out: a running `Gateway`. The caller's thread starts and drains it. A worker a CPU serves
//! connections, `control` answers the administration endpoint, `commands` the control socket, `reload` reads the
//! configuration again when its files change, and `blocks` the block list's file.

mod answers;
mod authenticate;
mod ban_reports;
mod block_reload;
mod config_reload;
mod connection;
mod context;
mod control_socket;
mod control_thread;
mod deadlines;
mod descriptors;
mod error;
mod established;
mod evaluation;
mod fixed;
mod gateway;
mod guard_start;
mod http_mode;
mod listen;
mod matching;
mod message;
mod pinning;
mod privilege;
mod siblings;
mod silent;
mod state;
mod status;
mod stream_mode;
mod trial;
mod upstream;
mod worker;

pub use answers::Answers;
pub use block_reload::{BlockListReloader, ChangeError, Changed, Heeded};
pub use config_reload::{Reload, Reloader};
pub use control_socket::{Parts, Prepared, ServeError, Server, Superseded};
pub use descriptors::note_inherited;
pub use error::{ReloadError, StartError};
pub use gateway::{Gateway, Reloads};
pub use listen::Ports;
pub use matching::Matching;
pub use privilege::{HostUser, Privileges};
pub use siblings::{SiblingAnswers, Siblings};
pub use trial::{Trial, try_start};
