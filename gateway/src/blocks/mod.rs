//! The block list: clients that an operator shuts out at once, without the certificate authority.
//!
//! In: the file of the list, and changes by operators. Out: entries, and the file changed as a whole. On the caller's thread:
//! a command's where no gateway runs, else that of the gateway's thread that keeps the list in force.

mod beside;
mod entry;
mod file;
mod news;

pub use beside::{not_blocked, warn_of_others, with_remedy};
pub use entry::{Entry, for_the_record, name_kind};
pub use file::{BlockFile, BlockFileError, Blocks, Change, ChangedFile};
pub use news::News;
