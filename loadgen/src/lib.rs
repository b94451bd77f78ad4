//! The load generator of Portcullis: measures any mTLS server from the client's side, over real sockets.
//!
//! A command (`cli`) becomes a `Target` (servers and identities, see `client`) and a `Plan` (how much, how long); `run`
//! spreads the plan over threads, a `scenario` does the work on each connection, a `Tally` counts, `report` shows.
//! Beside it stand what the load needs at the other end (`backend`, `http_backend`, `receiver`) and what the demo drives directly
//! (`fleet`, `impostor`). Nothing here trusts a server: every unit of work is proven before it counts.

pub mod backend;
pub mod cli;
pub mod client;
pub mod credentials;
pub mod failure;
pub mod fleet;
pub mod http_backend;
pub mod impostor;
pub mod issuer;
pub mod limits;
pub mod otlp;
pub mod receiver;
pub mod report;
pub mod request;
pub mod run;
pub mod scenario;
pub mod sources;

mod background;
mod generator;
mod pace;
mod pattern;
mod process;
mod progress;
mod tally;
mod timer;
