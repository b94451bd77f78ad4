//! What every mode of serving needs of one connection: its place in the worker's table, its timers, the rate of its identity,
//! and the streams that it joins.
//! In: what the handshake has proven, the configuration's limits. Out: the reason to end, the pause to make. On the
//! connection's worker; nothing is shared but the usage of an identity.

mod direction;
mod lifetime;
mod rate_limit;
mod stream;
mod table;
mod usage;

pub use direction::Direction;
pub use lifetime::{Lifetime, Patience, Watch};
pub use rate_limit::Pace;
pub use stream::{PlainStream, Stream};
pub use table::{Judged, Order, Orders, Place, Reached};
pub use usage::{OverLimit, Records, Share};
