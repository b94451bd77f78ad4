//! What a client may call, and where that goes: rights of rules, routes of listeners.
//!
//! In: a well-formed request, what is known of its client. Out: a backend and what changes on the way, or a refusal.
//! Prepared when the configuration is read; a request costs no allocation. Pure.

mod context;
mod decision;
mod hash_key;
mod path_index;
mod ready_set;
mod rights;
mod routes;
mod target;

pub use context::{FieldSource, HostPattern, HostPatternError, RequestContext};
pub use decision::{Decision, decide};
pub use hash_key::HashKey;
pub use ready_set::ReadySet;
pub use rights::{Grant, Rights};
pub use routes::{Canary, CanaryShare, FieldMatch, Mirror, Route, RouteChoice, RouteTable};
pub use target::{ServiceNameError, Target};
