//! One server of a pool: what is known of it, and how good a choice it is. In: events, now. Out: its rank, and when that
//! changes by itself. On its worker. Never asks for time.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use gateway_common::closed_list;

use super::PoolServer;
use super::affinity::{hash_key, mix};
use super::ejection::Record;
use crate::endpoint::Endpoint;
use crate::rest::Rest;

closed_list! {
    /// What a server is good for now. Labels are those of the metric.
    pub enum ServerCondition {
        /// It takes requests.
        Usable = "usable";
        /// It takes requests if no other can: its connection is being closed by it, or a new one is slow to come.
        PassedOver = "passed_over";
        /// It could not be connected, and is tried again later.
        Resting = "resting";
        /// A request tries whether it can be connected again.
        Probed = "probed";
        /// It failed requests, and gets none for a time unless no other can be reached.
        Ejected = "ejected";
        /// Its health checks fail.
        Unhealthy = "unhealthy";
        /// It is no server of the backend any more; what is in flight finishes.
        Removed = "removed";
    }
}

impl ServerCondition {
    /// Why servers get no requests while others can take them, as operators hear of it.
    pub const LEFT_OUT: [ServerCondition; 3] = [Self::Resting, Self::Ejected, Self::Unhealthy];

    /// Which of these it is, if any.
    pub const fn left_out(self) -> Option<ServerCondition> {
        match self {
            Self::Resting | Self::Probed => Some(Self::Resting),
            Self::Ejected | Self::Unhealthy => Some(self),
            Self::Usable | Self::PassedOver | Self::Removed => None,
        }
    }
}

/// A share of the whole, in parts of this. A server that has just come back takes requests by its share.
pub(super) const WHOLE: u64 = 1 << 16;
/// The least share: without requests nothing would warm up.
const SHARE_MIN: u64 = WHOLE / 10;

/// The state of one server.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) serial: u32,
    pub(super) server: PoolServer,
    /// What tells it apart when a key chooses, for every worker and every gateway alike.
    pub(super) hash: u64,
    pub(super) in_flight: u32,
    /// Connections that are open or being opened.
    pub(super) connections: u32,
    pub(super) is_removed: bool,
    pub(super) is_healthy: bool,
    /// A request tries whether it is there again.
    pub(super) is_probed: bool,
    passed_over_until: Option<Instant>,
    /// Its rest for connections that failed.
    pub(super) rest: Rest,
    pub(super) record: Record,
    /// When it came, or came back.
    returned_at: Option<Instant>,
}

impl ServerState {
    pub(super) fn new(server: PoolServer, serial: u32, now: Instant) -> Self {
        ServerState {
            serial,
            hash: hash_of(server.server.address),
            server,
            in_flight: 0,
            connections: 0,
            is_removed: false,
            is_healthy: true,
            is_probed: false,
            passed_over_until: None,
            rest: Rest::default(),
            record: Record::new(now),
            returned_at: None,
        }
    }

    /// Whether nothing refers to it any more.
    pub(super) fn is_free(&self) -> bool {
        self.is_removed && self.in_flight == 0 && self.connections == 0
    }

    pub(super) fn condition(&self, now: Instant) -> ServerCondition {
        if self.is_removed {
            ServerCondition::Removed
        } else if !self.is_healthy {
            ServerCondition::Unhealthy
        } else if self.is_probed {
            ServerCondition::Probed
        } else if !self.rest.is_over(now) {
            ServerCondition::Resting
        } else if self.record.is_ejected {
            ServerCondition::Ejected
        } else if self.is_passed_over(now) {
            ServerCondition::PassedOver
        } else {
            ServerCondition::Usable
        }
    }

    /// How good a choice it is, best first; `None` if it is not one now. Servers that are no backup come before those
    /// that are, then what has been ejected: it could be reached, which none of the rest could.
    pub(super) fn rank(&self, retry: Duration, now: Instant) -> Option<u8> {
        let backup = if self.server.is_backup { 2 } else { 0 };
        match self.condition(now) {
            ServerCondition::Usable => Some(backup),
            ServerCondition::PassedOver => Some(backup + 1),
            ServerCondition::Ejected => Some(4),
            ServerCondition::Resting => (self.rest.retry_at(retry) <= Some(now)).then_some(5),
            ServerCondition::Probed | ServerCondition::Unhealthy | ServerCondition::Removed => None,
        }
    }

    /// When its rank changes by itself.
    pub(super) fn changes_at(&self, retry: Duration, now: Instant) -> Option<Instant> {
        if self.is_removed || !self.is_healthy {
            return None;
        }
        let ejected_until = self.record.rest.until();
        let times = [
            self.rest.until(),
            self.rest.retry_at(retry),
            self.passed_over_until,
            ejected_until.filter(|_| self.record.is_ejected),
        ];
        times.into_iter().flatten().filter(|at| now < *at).min()
    }

    /// Ends an ejection whose time has come.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.record.is_ejected && self.record.rest.is_over(now) {
            self.take_back(now);
        }
    }

    /// Ends its ejection.
    pub(super) fn take_back(&mut self, now: Instant) {
        self.record.take_back(now);
        self.returned_at = Some(now);
    }

    /// It is new beside others, or there again.
    pub(super) fn returned(&mut self, now: Instant) {
        self.returned_at = Some(now);
    }

    pub(super) fn pass_over(&mut self, until: Instant) {
        self.passed_over_until = Some(until);
    }

    pub(super) fn is_passed_over(&self, now: Instant) -> bool {
        self.passed_over_until.is_some_and(|until| now < until)
    }

    /// A connection stands. Whether it has come back by that.
    pub(super) fn connected(&mut self, now: Instant) -> bool {
        let is_back = self.rest.failures() > 0;
        if is_back {
            self.returned_at = Some(now);
        }
        self.rest = Rest::default();
        self.is_probed = false;
        self.passed_over_until = None;
        is_back
    }

    /// Its share of what it takes when it is warm.
    pub(super) fn share(&self, slow_start: Duration, now: Instant) -> u64 {
        let Some(returned_at) = self.returned_at else {
            return WHOLE;
        };
        let since = now.saturating_duration_since(returned_at);
        if since >= slow_start {
            return WHOLE;
        }
        let share = since.as_nanos() * u128::from(WHOLE) / slow_start.as_nanos();
        u64::try_from(share).unwrap_or(WHOLE).max(SHARE_MIN)
    }
}

/// A number that every gateway gives this address.
fn hash_of(endpoint: Endpoint) -> u64 {
    let address = match endpoint {
        Endpoint::Ip(address) => address,
        Endpoint::Unix(path) => return hash_key(path.as_str().as_bytes()),
    };
    let (high, low) = match address.ip().to_canonical() {
        IpAddr::V4(ip) => (0, u64::from(ip.to_bits())),
        IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
    };
    mix(mix(mix(high) ^ low) ^ u64::from(address.port()))
}
