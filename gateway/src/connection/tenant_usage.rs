//! What each tenant with limits uses: one entry for all workers, looked up once per request of a rule that has such limits.
//! In: the tenant of a request, its rule's limits. Out: whether it may come now. One lock, held for a map's lookup; bounded, and idle
//! entries are removed. Outlives every reload.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateway_core::http::limits;
use gateway_core::identity::TenantLimits;
use gateway_core::limit::TenantUsage;

use super::sweep::Sweep;

/// The usage of all tenants with limits.
#[derive(Debug)]
pub struct TenantTable {
    started: Instant,
    inner: Mutex<TenantTableState>,
}

#[derive(Debug)]
struct TenantTableState {
    usages: HashMap<Box<[u8]>, TenantUsage>,
    sweep: Sweep,
}

impl Default for TenantTableState {
    fn default() -> Self {
        let bounds = limits::TENANT_RECORDS_MIN..=limits::TENANT_RECORDS_MAX;
        TenantTableState {
            usages: HashMap::new(),
            sweep: Sweep::new(bounds),
        }
    }
}

impl Default for TenantTable {
    fn default() -> Self {
        TenantTable {
            started: Instant::now(),
            inner: Mutex::default(),
        }
    }
}

impl TenantTable {
    /// Admits a request of a tenant, or of several with `|` in between, of each of which it is one.
    ///
    /// # Errors
    ///
    /// One of them is at a limit. The same request may come again after this time.
    pub fn begin_request(
        &self,
        tenants: &[u8],
        limits: &TenantLimits,
        now: Instant,
    ) -> Result<(), Duration> {
        self.each(tenants, now, |usage, now| usage.begin_request(limits, now))
    }

    /// Charges the content of a request that is over.
    pub fn charge(&self, tenants: &[u8], bytes: u64, limits: &TenantLimits, now: Instant) {
        let charge = |usage: &TenantUsage, now| {
            usage.charge(bytes, limits, now);
            Ok(())
        };
        // Of a tenant that finds no room there is no account.
        let _ = self.each(tenants, now, charge);
    }

    fn each(
        &self,
        tenants: &[u8],
        now: Instant,
        work: impl Fn(&TenantUsage, Duration) -> Result<(), Duration>,
    ) -> Result<(), Duration> {
        let now = now.saturating_duration_since(self.started);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for tenant in tenants.split(|byte| *byte == b'|') {
            let usage = inner.usage(tenant, now).ok_or(limits::RETRY_WAIT)?;
            work(usage, now)?;
        }
        Ok(())
    }
}

impl TenantTableState {
    /// The usage of a tenant, new if need be; `None` when the table is full.
    fn usage(&mut self, tenant: &[u8], now: Duration) -> Option<&TenantUsage> {
        let tenant = &tenant[..tenant.len().min(limits::TENANT_BYTES_COUNTED)];
        if !self.usages.contains_key(tenant) {
            let has_room = self
                .sweep
                .has_room(&mut self.usages, now, |usage| usage.is_idle(now));
            if !has_room {
                return None;
            }
            self.usages.insert(tenant.into(), TenantUsage::default());
        }
        self.usages.get(tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_A_SECOND: TenantLimits = TenantLimits {
        requests_per_second: Some(1),
        bytes_per_second: None,
        bytes_burst: None,
    };

    #[test]
    fn a_request_of_several_tenants_is_one_of_each() {
        let table = TenantTable::default();
        let now = table.started;
        let begin = |tenants: &str| table.begin_request(tenants.as_bytes(), &ONE_A_SECOND, now);
        assert!(begin("red|blue").is_ok());
        assert!(begin("red").is_err() && begin("blue").is_err() && begin("green|blue").is_err());
        assert!(begin("yellow").is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_idle_tenants_make_room() {
        let mut state = TenantTableState::default();
        let name = |number: usize| number.to_string().into_bytes();
        for number in 0..limits::TENANT_RECORDS_MAX {
            let usage = state.usage(&name(number), Duration::ZERO).unwrap();
            usage.begin_request(&ONE_A_SECOND, Duration::ZERO).unwrap();
        }
        let one_more = name(limits::TENANT_RECORDS_MAX);
        assert!(state.usage(&one_more, Duration::ZERO).is_none());
        assert!(state.usage(&name(0), Duration::ZERO).is_some());
        assert!(state.usage(&one_more, Duration::from_secs(2)).is_some());
        assert_eq!(state.usages.len(), 1);
    }

    #[test]
    fn no_name_takes_more_room_than_a_tenant_has() {
        let mut state = TenantTableState::default();
        for length in 200..1000 {
            state.usage(&b"a".repeat(length), Duration::ZERO).unwrap();
        }
        assert_eq!(state.usages.len(), 1);
    }
}
