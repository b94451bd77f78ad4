//! Which way bytes move, as the table of connections, the relay and the metrics name it.
//! In: nothing. Out: a name. On any thread.

/// Which way bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    Received,
    /// From the backend to the client.
    Sent,
}
