//! The soak: a gateway lives through a day in fast motion, and rules check its promises.
//! In: a seed and a time. Out: a journal of deeds and observations (`journal`), and the promises that held or broke
//! (`rules`). A director makes trouble (`deeds`) for a real gateway (`stage`) between agents and servers (`agents`,
//! `servers`). Shares no code with the gateway.

pub mod agents;
pub mod deeds;
pub mod director;
pub mod evidence;
pub mod journal;
pub mod line;
#[path = "../../tests/tests/kernel/namespace.rs"]
#[allow(
    missing_docs,
    dead_code,
    reason = "the tests of the kernel program share it"
)]
mod namespace;
pub mod random;
pub mod report;
pub mod rights;
pub mod rules;
pub mod servers;
pub mod stage;
pub mod watch;
