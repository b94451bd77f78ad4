//! What every mode needs of a connection: its entry in the worker's table, its timer, its identity's usage and its streams.
//! In: a verified peer, the configuration's limits. Out: the reason to close, the pause to make. On the connection's worker; only
//! the usage of an identity is shared.

mod direction;
mod rate_limit;
mod stream;
mod sweep;
mod table;
mod tenant_usage;
mod timer;
mod usage;

pub use direction::Direction;
pub use rate_limit::RateLimiter;
pub use stream::{PlainStream, Stream};
pub use table::{
    CloseRequest, ConnectedServer, ConnectionHandle, ConnectionId, ConnectionTable, OpenConnection,
};
pub use tenant_usage::TenantTable;
pub use timer::{CloseNotice, ConnectionTimer, Deadlines, IdleTimeouts};
pub use usage::{OverLimit, UsagePermit, UsageTable};
