//! What went wrong with each server of a backend, counted on one worker.
//! In: events, with the server as the configuration writes it. Out: numbers by server. A lock that only failures and scrapes take;
//! bounded, for servers come and go with reloads.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use gateway_core::limits;

/// The name that servers beyond the bound share.
pub(super) const OTHER: &str = "other";

/// What is counted of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ServerCount {
    /// Attempts to reach it that failed.
    pub(super) failures: u64,
    /// Attempts at an address of its name that failed while another one serves.
    pub(super) spared: u64,
    /// Connections that it ended cleanly before it had sent a byte.
    pub(super) unanswered: u64,
    /// How often it broke a rule of HTTP.
    pub(super) faults: u64,
    /// How often it was ejected.
    pub(super) ejections: u64,
}

/// The servers of one backend.
#[derive(Debug, Default)]
pub(super) struct ServerCounts(Mutex<BTreeMap<String, ServerCount>>);

impl ServerCounts {
    /// Counts something of a server.
    pub(super) fn add(&self, server: &str, count: impl FnOnce(&mut ServerCount)) {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_one_too_many =
            servers.len() >= limits::SERVERS_COUNTED_MAX && !servers.contains_key(server);
        let server = if is_one_too_many { OTHER } else { server };
        count(servers.entry(server.to_owned()).or_default());
    }

    /// Adds what was counted to `sums`.
    pub(super) fn add_to(&self, sums: &mut BTreeMap<String, ServerCount>) {
        let servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (server, count) in servers.iter() {
            let sum = sums.entry(server.clone()).or_default();
            sum.failures += count.failures;
            sum.spared += count.spared;
            sum.unanswered += count.unanswered;
            sum.faults += count.faults;
            sum.ejections += count.ejections;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_beyond_the_bound_are_counted_together_and_none_is_lost() {
        let counts = ServerCounts::default();
        for number in 0..limits::SERVERS_COUNTED_MAX + 10 {
            counts.add(&format!("server-{number}"), |count| count.failures += 1);
        }
        counts.add("server-0", |count| count.unanswered += 1);
        let mut sums = BTreeMap::new();
        counts.add_to(&mut sums);
        assert_eq!(sums.len(), limits::SERVERS_COUNTED_MAX + 1);
        assert_eq!(sums[OTHER].failures, 10);
        assert_eq!(
            (sums["server-0"].failures, sums["server-0"].unanswered),
            (1, 1)
        );
    }
}
