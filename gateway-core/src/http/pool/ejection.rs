//! Ejection: a server that takes connections and fails requests gets none for a time, unless no other can be reached.
//! In: how requests ended, now. Out: whether the server should be ejected. One record for each server. Never asks for
//! time.

use std::time::{Duration, Instant};

use gateway_common::closed_list;

use crate::rest::Rest;

/// When servers are ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// So many failures in a row eject a server.
    pub consecutive_failures: u32,
    /// So many failures of a hundred requests eject it ...
    pub failure_percent: u32,
    /// ... if it had as many requests as this ...
    pub requests_min: u32,
    /// ... within this time.
    pub window: Duration,
    /// The time without requests after the first ejection; it doubles with each further one.
    pub first: Duration,
    /// Maximum of that time.
    pub longest: Duration,
    /// So many of a hundred servers may be ejected at once. A backend's only server never is.
    pub share_percent_max: u32,
}

closed_list! {
    /// Why a server was ejected. Labels are those of the metric.
    pub enum EjectionCause {
        /// It failed requests in a row.
        ConsecutiveFailures = "consecutive_failures";
        /// It failed too large a share of its requests.
        FailureShare = "failure_share";
    }
}

/// How a request to a server ended, as far as that tells of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestEnd {
    /// The server answered.
    Served,
    /// The server could not serve it, or not in time.
    Failed,
    /// Nothing can be concluded: the client left, the connection broke (which is told by itself), or the gateway took
    /// the request back.
    Unjudged,
}

impl RequestEnd {
    /// What a status of HTTP tells. 501 and 505 speak of the request, as all 4xx do (RFC 9110 section 15.6).
    pub fn of_http_status(status: u16) -> Self {
        match status {
            501 | 505 => RequestEnd::Served,
            500..=599 => RequestEnd::Failed,
            _ => RequestEnd::Served,
        }
    }

    /// What a status of gRPC tells. Only UNAVAILABLE (14) speaks of the server for certain: any other is what methods
    /// return.
    pub fn of_grpc_status(status: u32) -> Self {
        match status {
            14 => RequestEnd::Failed,
            _ => RequestEnd::Served,
        }
    }
}

/// What is known of one server's requests.
#[derive(Debug)]
pub(super) struct Record {
    consecutive_failures: u32,
    /// Requests that ended, and those that failed, since then.
    ended: u32,
    failed: u32,
    since: Instant,
    /// The time without requests, in which it is ejected.
    pub(super) rest: Rest,
    /// Whether it is.
    pub(super) is_ejected: bool,
}

impl Record {
    pub(super) fn new(now: Instant) -> Self {
        Record {
            consecutive_failures: 0,
            ended: 0,
            failed: 0,
            since: now,
            rest: Rest::default(),
            is_ejected: false,
        }
    }

    /// Counts the end of a request. Returns why the server should be ejected.
    pub(super) fn count(
        &mut self,
        has_failed: bool,
        policy: &EjectionPolicy,
        now: Instant,
    ) -> Option<EjectionCause> {
        if now >= self.since + policy.window {
            (self.ended, self.failed, self.since) = (0, 0, now);
        }
        self.ended = self.ended.saturating_add(1);
        if !has_failed {
            self.consecutive_failures = 0;
            return None;
        }
        self.failed = self.failed.saturating_add(1);
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        if self.consecutive_failures >= policy.consecutive_failures {
            return Some(EjectionCause::ConsecutiveFailures);
        }
        let failed_share = u64::from(self.failed) * 100;
        let share_max = u64::from(self.ended) * u64::from(policy.failure_percent);
        let has_enough = self.ended >= policy.requests_min;
        (has_enough && failed_share >= share_max).then_some(EjectionCause::FailureShare)
    }

    /// Ejects the server, for longer than the last time unless it had recovered.
    pub(super) fn eject(&mut self, policy: &EjectionPolicy, now: Instant) {
        if self.rest.recovered_at().is_some_and(|at| at <= now) {
            self.rest = Rest::default();
        }
        self.rest.begin(policy.first, policy.longest, now);
        self.is_ejected = true;
    }

    /// Takes the server back. What it did before counts no longer; how often it was ejected does.
    pub(super) fn take_back(&mut self, now: Instant) {
        *self = Record {
            rest: self.rest,
            ..Record::new(now)
        };
    }
}
