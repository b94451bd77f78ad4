//! The block list: who is shut out by hand, at once, without the certificate authority.
//!
//! In: a file that the gateway writes for the commands `block` and `unblock`, and they themselves where it does not run. Out: entries, and a gateway that
//! acts by them. The commands run in processes of their own; the running gateway watches the file on a thread of its own,
//! apart from its configuration, so that neither can keep the other from working.

mod beside;
mod entry;
mod file;
mod keeper;
mod news;

pub use beside::{not_blocked, warn_of_others, with_remedy};
pub use entry::{Entry, check_reason, only};
pub use file::{BlockFile, BlockFileError, Blocks, Change, ChangedFile};
pub use keeper::{ChangeError, Changed, Heeded, Keeper};
pub use news::News;
