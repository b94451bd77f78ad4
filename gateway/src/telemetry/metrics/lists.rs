//! Revocation lists' part of the metrics page: for each list that is in force, its entries and its dates.
//! In: the configuration. Out: samples. On the control thread.

use std::time::SystemTime;

use gateway_core::revocation::{IssuerList, Revocation, StalePolicy};
use gateway_x509::crl;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Encoded, Metrics, counter, gauge};
use crate::config::{BackendTransport, Config};

/// Labels that say where a list is in force: `listener` or `backend`, and its name.
type ListUser<'a> = (&'static str, &'a str);

impl Metrics {
    pub(super) fn encode_lists(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let config = self.config();
        for gauge in GAUGES {
            gauge.encode(encoder, &config)?;
        }
        let help = "Refused files of revocation lists, at a start, a reload or a check";
        let mut metric =
            encoder.encode_descriptor("crl_load_errors", help, None, MetricType::Counter)?;
        counter(&mut metric, &[], crl::refused_files())
    }
}

/// A metric that has one sample for each list that is in force anywhere.
struct ListGauge {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: fn(&IssuerList) -> i64,
    /// The worse of two values, which is shown where two authorities have one name and differ by their keys: what is about to
    /// end must not hide behind what is not, nor what is used for ever behind what is not.
    worse: fn(i64, i64) -> i64,
}

const GAUGES: [ListGauge; 4] = [
    ListGauge {
        name: "crl_entries",
        help: "Entries of an issuer's revocation list",
        unit: None,
        value: |list| i64::try_from(list.len()).unwrap_or(i64::MAX),
        worse: i64::min,
    },
    ListGauge {
        name: "crl_this_update_timestamp",
        help: "Time at which an issuer's revocation list was made (thisUpdate), in Unix time",
        unit: Some(Unit::Seconds),
        value: |list| unix_time(list.this_update()),
        worse: i64::min,
    },
    ListGauge {
        name: "crl_next_update_timestamp",
        help: "Time at which an issuer's revocation list ends (nextUpdate), in Unix time",
        unit: Some(Unit::Seconds),
        value: |list| unix_time(list.next_update()),
        worse: i64::min,
    },
    ListGauge {
        name: "dangerous_accept_stale_crl",
        help: "1 if the gateway uses a revocation list however old it is (dangerous_accept_stale_crl)",
        unit: None,
        value: |list| i64::from(list.stale_policy() == StalePolicy::Allow),
        worse: i64::max,
    },
];

impl ListGauge {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, config: &Config) -> Encoded {
        let unit = self.unit.as_ref();
        let mut metric =
            encoder.encode_descriptor(self.name, self.help, unit, MetricType::Gauge)?;
        for ((kind, user), revocation) in list_users(config) {
            let mut lists: Vec<_> = revocation.lists().collect();
            lists.sort_by_key(|(issuer, _)| **issuer);
            let mut named: Vec<(&str, i64)> = Vec::new();
            for (_, list) in lists {
                let (name, value) = (list.issuer_name(), (self.value)(list));
                match named.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, shown)) => *shown = (self.worse)(value, *shown),
                    None => named.push((name, value)),
                }
            }
            for (issuer, value) in named {
                gauge(&mut metric, &[(kind, user), ("issuer", issuer)], value)?;
            }
        }
        Ok(())
    }
}

fn list_users(config: &Config) -> impl Iterator<Item = (ListUser<'_>, &Revocation)> {
    let listeners = config
        .listeners
        .iter()
        .map(|listener| (("listener", listener.name.as_str()), &*listener.revocation));
    let backends = config.backends.iter().filter_map(|backend| {
        let BackendTransport::Tls(tls) = &backend.transport else {
            return None;
        };
        Some((("backend", backend.name.as_str()), &*tls.revocation))
    });
    listeners.chain(backends)
}

fn unix_time(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
