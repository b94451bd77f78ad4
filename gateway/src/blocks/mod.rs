//! The block list: who is shut out by hand, at once, without the certificate authority.
//!
//! In: the file of the list, and changes by operators. Out: entries, and the file changed as a whole. On the thread of the caller:
//! a command where no gateway runs, the thread of the gateway that keeps the list in force where one does.

mod beside;
mod entry;
mod file;
mod news;

pub use beside::{not_blocked, warn_of_others, with_remedy};
pub use entry::{Entry, check_reason, only};
pub use file::{BlockFile, BlockFileError, Blocks, Change, ChangedFile};
pub use news::News;
