//! Requests in a dry run: what the observed configuration makes of those that the one in force passes on. It refuses none.
//! In: an admitted client, then its requests. Out: why the observed configuration would refuse one. On the worker, by the same
//! functions that would refuse.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::{Call, Client};
use gateway_core::http::policy::{RequestContext, Rights, decide};

use crate::config::{HttpMode, Mode};
use crate::tls::{DryRun, VerifiedPeer};

/// What the observed configuration knows of a client.
pub(super) struct RequestDryRun {
    mode: Arc<HttpMode>,
    client: Client,
    rights: Arc<Rights>,
    address: IpAddr,
}

impl RequestDryRun {
    /// `None` where it would refuse the client as a whole, which is reported once, or serves no requests.
    pub(super) fn new(dry_run: &DryRun, peer: &VerifiedPeer, address: IpAddr) -> Option<Self> {
        let Mode::Http(mode) = &dry_run.listener().mode else {
            return None;
        };
        let (rule, admission) = dry_run.admission(peer, SystemTime::now())?;
        let admitted = (&admission.identity, admission.tenant.as_ref());
        let (client, rights) = mode.client(rule, admitted, peer.certificate(), address);
        Some(RequestDryRun {
            mode: Arc::clone(mode),
            client,
            rights,
            address: address.to_canonical(),
        })
    }

    /// Why it would refuse a request: for its tenant, for want of a route or of a right. Limits are left out.
    pub(super) fn would_refuse(&self, call: &Call<'_>) -> Option<RequestRefusal> {
        let Client {
            told,
            tenants,
            tenant_name,
            ..
        } = &self.client;
        let Ok(tenant) = tenants.of_request(call.list, tenant_name) else {
            return Some(RequestRefusal::TenantNotAllowed);
        };
        let context = RequestContext {
            request: call.request,
            list: call.list,
            told,
            tenant,
            address: self.address,
            // It decides between a backend and its canary, and neither refuses.
            draw: 0,
        };
        decide(&self.mode.routes, &self.rights, &context, &mut Vec::new()).err()
    }
}
