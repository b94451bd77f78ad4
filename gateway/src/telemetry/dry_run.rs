//! The clients that a dry run would refuse, by name.
//! In: refusals by the observed configuration. Out: client, reason, how often and when last. One table per worker, written by
//! it and read by the control thread; touched only for clients that would be refused.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gateway_core::authority::TrustDomain;
use gateway_core::certificate::Identity;
use gateway_core::failure::Failure;
use gateway_core::limits;
use gateway_core::visible;
use gateway_x509::date;
use serde::Serialize;

use crate::config::ListenerId;
use crate::tls::VerifiedPeer;

/// One worker's table.
#[derive(Debug, Default)]
pub struct DryRunRefusals {
    clients: BTreeMap<RefusalKey, Sighting>,
    left_out: u64,
}

/// Listener, identity, fingerprint of the certificate, reason.
type RefusalKey = (ListenerId, Identity, String, &'static str);

#[derive(Debug)]
struct Sighting {
    detail: String,
    count: u64,
    last: Option<SystemTime>,
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    clients: Vec<RefusedClient<'a>>,
    /// More that would be refused and did not fit into the tables.
    left_out: u64,
}

#[derive(Debug, Serialize)]
struct RefusedClient<'a> {
    listener: &'a str,
    identity: &'a str,
    identity_kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<&'a str>,
    fingerprint: &'a str,
    reason: &'a str,
    detail: &'a str,
    count: u64,
    last: String,
}

impl DryRunRefusals {
    /// Notes that a client of `listener` would be refused.
    pub fn note(
        &mut self,
        listener: ListenerId,
        peer: &VerifiedPeer,
        (failure, detail): (Failure, &str),
        now: SystemTime,
    ) {
        let fingerprint = peer.fingerprint().to_string();
        let key = (
            listener,
            peer.identity().clone(),
            fingerprint,
            failure.label(),
        );
        let is_full = self.clients.len() >= limits::DRY_RUN_CLIENTS_MAX;
        if is_full && !self.clients.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let sighting = self.clients.entry(key).or_insert_with(|| Sighting {
            detail: detail.to_owned(),
            count: 0,
            last: None,
        });
        sighting.count += 1;
        sighting.last = Some(now);
    }

    /// Forgets everything: another configuration is observed, or none.
    pub fn clear(&mut self) {
        *self = DryRunRefusals::default();
    }

    /// All workers' tables as one page of JSON. `listeners` are the names by position.
    pub fn page<'t>(
        tables: impl Iterator<Item = &'t DryRunRefusals>,
        listeners: &[String],
    ) -> String {
        let mut all: BTreeMap<&RefusalKey, (&Sighting, u64, Option<SystemTime>)> = BTreeMap::new();
        let mut left_out = 0;
        for table in tables {
            left_out += table.left_out;
            for (key, sighting) in &table.clients {
                let sum = all.entry(key).or_insert((sighting, 0, None));
                sum.1 += sighting.count;
                sum.2 = sum.2.max(sighting.last);
            }
        }
        let clients = all.into_iter();
        let clients = clients.map(
            |((listener, identity, fingerprint, reason), (sighting, count, last))| RefusedClient {
                listener: listeners.get(listener.0).map_or("", String::as_str),
                identity: &identity.name,
                identity_kind: identity.kind.label(),
                trust_domain: identity.trust_domain.as_ref().map(TrustDomain::as_str),
                fingerprint,
                reason,
                detail: &sighting.detail,
                count,
                last: last.map_or_else(String::new, date),
            },
        );
        let page = Page {
            clients: clients.collect(),
            left_out,
        };
        let page = serde_json::to_string_pretty(&page).expect("texts and numbers are JSON");
        visible::escape(&page).into_owned() + "\n"
    }
}
