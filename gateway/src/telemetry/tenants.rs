//! What the requests of each tenant came to, counted on one worker.
//! In: requests that are over. Out: numbers by tenant that another thread may read at any time. Bounded: a client that may speak for
//! any tenant could name new ones for ever. The lock is taken for a tenant's first request and at scrapes.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use gateway_core::http::forward::Ended;
use gateway_core::http::limits;

use super::counters::Counter;
use super::requests::{STATUS_CLASSES, class_of};

/// The name that tenants beyond the bound share.
const OTHER: &[u8] = b"other";

/// What is counted of a tenant.
#[derive(Debug, Default)]
pub(super) struct TenantCounters {
    /// Its requests, by class of the response's status.
    statuses: [Counter; STATUS_CLASSES.len()],
    /// Content from its clients.
    received_bytes: Counter,
    /// Content to its clients.
    sent_bytes: Counter,
}

/// What all workers have counted of a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TenantSum {
    pub(super) statuses: [u64; STATUS_CLASSES.len()],
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

/// The tenants of one worker, for its metrics.
#[derive(Debug, Default)]
pub(super) struct CountedTenants(Mutex<BTreeMap<String, Arc<TenantCounters>>>);

/// The same tenants, for the worker itself: it finds them without a lock.
#[derive(Debug, Default)]
pub(super) struct TenantIndex(RefCell<HashMap<Box<[u8]>, Arc<TenantCounters>>>);

impl CountedTenants {
    /// Adds what was counted to `sums`.
    pub(super) fn add_to(&self, sums: &mut BTreeMap<String, TenantSum>) {
        let tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (tenant, counters) in tenants.iter() {
            let sum = sums.entry(tenant.clone()).or_default();
            for (total, counter) in sum.statuses.iter_mut().zip(&counters.statuses) {
                *total += counter.value();
            }
            sum.received_bytes += counters.received_bytes.value();
            sum.sent_bytes += counters.sent_bytes.value();
        }
    }

    fn enter(&self, tenant: &[u8]) -> Arc<TenantCounters> {
        let tenant = String::from_utf8_lossy(tenant).into_owned();
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tenants.entry(tenant).or_default())
    }
}

impl TenantIndex {
    /// Counts a request of a tenant.
    pub(super) fn count(&self, counted: &CountedTenants, tenant: &[u8], ended: &Ended<'_>) {
        let mut known = self.0.borrow_mut();
        let tenant = match known.contains_key(tenant) || known.len() < limits::TENANTS_COUNTED_MAX {
            true => tenant,
            false => OTHER,
        };
        let counters = match known.get(tenant) {
            Some(counters) => counters,
            None => known
                .entry(tenant.into())
                .or_insert_with(|| counted.enter(tenant)),
        };
        counters.statuses[class_of(ended.status)].add(1);
        counters.received_bytes.add(ended.received_bytes);
        counters.sent_bytes.add(ended.sent_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::requests::tests::{answered, section};

    #[test]
    fn tenants_beyond_the_bound_are_counted_together_and_none_is_lost() {
        let (counted, index) = (CountedTenants::default(), TenantIndex::default());
        let list = section();
        let (ended, _) = answered(&list);
        let beyond = 10;
        for number in 0..limits::TENANTS_COUNTED_MAX + beyond {
            let tenant = format!("tenant-{number}");
            for _ in 0..2 {
                index.count(&counted, tenant.as_bytes(), &ended);
            }
        }
        let mut sums = BTreeMap::new();
        counted.add_to(&mut sums);
        assert_eq!(sums.len(), limits::TENANTS_COUNTED_MAX + 1);
        let requests = |sum: &TenantSum| sum.statuses.iter().sum::<u64>();
        assert_eq!(requests(&sums["tenant-0"]), 2);
        assert_eq!(sums["tenant-0"].received_bytes, 2 * 526);
        assert_eq!(requests(&sums["other"]), 2 * beyond as u64);
        // Another worker's are added.
        counted.add_to(&mut sums);
        assert_eq!(requests(&sums["tenant-0"]), 4);
    }
}
