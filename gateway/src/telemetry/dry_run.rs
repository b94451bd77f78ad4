//! The clients that a dry run would refuse, by name, and requests of others that it would refuse.
//! In: refusals by the observed configuration. Out: client, request, reason, how often and when last. One table per worker,
//! written by it and read by the control thread; touched only for what would be refused.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gateway_core::authority::TrustDomain;
use gateway_core::certificate::Identity;
use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::limits::DRY_RUN_REQUESTS_MAX;
use gateway_core::limits;
use gateway_core::visible;
use gateway_x509::date;
use serde::Serialize;

use crate::config::ListenerId;
use crate::tls::VerifiedPeer;

/// One worker's table.
#[derive(Debug, Default)]
pub struct DryRunRefusals {
    clients: Sightings,
    requests: Sightings,
    left_out: u64,
}

type Sightings = BTreeMap<RefusalKey, Sighting>;

/// What would be refused, and for what.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RefusalKey {
    listener: ListenerId,
    identity: Identity,
    /// Of the certificate.
    fingerprint: String,
    /// Method and path, of a request.
    request: Option<String>,
    reason: &'static str,
}

#[derive(Debug)]
struct Sighting {
    detail: String,
    count: u64,
    last: Option<SystemTime>,
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    clients: Vec<Refused<'a>>,
    requests: Vec<Refused<'a>>,
    /// More that would be refused and did not fit into the tables.
    left_out: u64,
}

#[derive(Debug, Serialize)]
struct Refused<'a> {
    listener: &'a str,
    identity: &'a str,
    identity_kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<&'a str>,
    fingerprint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    reason: &'a str,
    detail: &'a str,
    count: u64,
    last: String,
}

impl DryRunRefusals {
    /// Notes that a client of `listener` would be refused.
    pub fn note_client(
        &mut self,
        listener: ListenerId,
        peer: &VerifiedPeer,
        (reason, detail): (&'static str, &str),
        now: SystemTime,
    ) {
        let key = key(listener, peer, None, reason);
        let is_noted = note(
            &mut self.clients,
            limits::DRY_RUN_CLIENTS_MAX,
            key,
            (detail, now),
        );
        self.left_out += u64::from(is_noted.is_none());
    }

    /// Notes that a request, by method and path, would be refused. Whether that is the first like it.
    pub fn note_request(
        &mut self,
        listener: ListenerId,
        peer: &VerifiedPeer,
        (request, refusal): (String, RequestRefusal),
        now: SystemTime,
    ) -> bool {
        let key = key(listener, peer, Some(request), refusal.label());
        let is_noted = note(
            &mut self.requests,
            DRY_RUN_REQUESTS_MAX,
            key,
            (refusal.message(), now),
        );
        self.left_out += u64::from(is_noted.is_none());
        is_noted == Some(true)
    }

    /// Forgets everything: another configuration is observed, or none.
    pub fn clear(&mut self) {
        *self = DryRunRefusals::default();
    }

    /// All workers' tables as one page of JSON. `listeners` are the names by position.
    pub fn page<'t>(
        tables: impl Iterator<Item = &'t DryRunRefusals> + Clone,
        listeners: &[String],
    ) -> String {
        let page = Page {
            clients: sum(tables.clone().map(|table| &table.clients), listeners),
            requests: sum(tables.clone().map(|table| &table.requests), listeners),
            left_out: tables.map(|table| table.left_out).sum(),
        };
        let page = serde_json::to_string_pretty(&page).expect("texts and numbers are JSON");
        visible::escape(&page).into_owned() + "\n"
    }
}

fn key(
    listener: ListenerId,
    peer: &VerifiedPeer,
    request: Option<String>,
    reason: &'static str,
) -> RefusalKey {
    RefusalKey {
        listener,
        identity: peer.identity().clone(),
        fingerprint: peer.fingerprint().to_string(),
        request,
        reason,
    }
}

/// Whether it is new; `None`: there is no room for it.
fn note(
    sightings: &mut Sightings,
    count_max: usize,
    key: RefusalKey,
    (detail, now): (&str, SystemTime),
) -> Option<bool> {
    let is_new = !sightings.contains_key(&key);
    if is_new && sightings.len() >= count_max {
        return None;
    }
    let sighting = sightings.entry(key).or_insert_with(|| Sighting {
        detail: detail.to_owned(),
        count: 0,
        last: None,
    });
    sighting.count += 1;
    sighting.last = Some(now);
    Some(is_new)
}

/// What all workers have seen.
fn sum<'t>(
    tables: impl Iterator<Item = &'t Sightings>,
    listeners: &'t [String],
) -> Vec<Refused<'t>> {
    let mut all: BTreeMap<&RefusalKey, (&Sighting, u64, Option<SystemTime>)> = BTreeMap::new();
    for (key, sighting) in tables.flatten() {
        let sum = all.entry(key).or_insert((sighting, 0, None));
        sum.1 += sighting.count;
        sum.2 = sum.2.max(sighting.last);
    }
    let all = all.into_iter();
    let refused = all.map(|(key, (sighting, count, last))| Refused {
        listener: listeners.get(key.listener.0).map_or("", String::as_str),
        identity: &key.identity.name,
        identity_kind: key.identity.kind.label(),
        trust_domain: key.identity.trust_domain.as_ref().map(TrustDomain::as_str),
        fingerprint: &key.fingerprint,
        request: key.request.as_deref(),
        reason: key.reason,
        detail: &sighting.detail,
        count,
        last: last.map_or_else(String::new, date),
    });
    refused.collect()
}
