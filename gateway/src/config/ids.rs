//! What the rest of the program calls a listener and a backend by.
//! In: positions in a checked configuration. Out: types that keep one kind of position from being taken for the other. A reload
//! changes neither set nor order, so both hold for as long as the process lives.

/// A listener, by its position in `Config::listeners`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub usize);

/// A backend, by its position in `Config::backends`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub usize);
