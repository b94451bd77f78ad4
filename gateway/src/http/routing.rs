//! Answers what the forwarder asks: which connection takes a request. Hears what became of it.
//! In: requests. Out: connections of servers, tasks that make them. On its worker, inside each call of the forwarder.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use gateway_core::http::answer::{Protocol, RequestRefusal};
use gateway_core::http::forward::{
    Call, ConnectionKey, Ended, HttpVersion, LegEnd, MirroredRequest, PeerFault, Placement,
    Rewrite, Router,
};
use gateway_core::http::limits::ATTEMPTS_MAX;
use gateway_core::http::policy::{RequestContext, decide};
use gateway_core::http::pool::{NoServer, RequestEnd, ServerKey, Wish, hash_key};
use gateway_core::identity::TenantLimits;

use super::dry_run::RequestDryRun;
use super::link::{ClientLink, KnownClient, Link, ServerLink};
use super::pool::Pool;
use super::server::connect;
use super::worker::HttpWorker;
use crate::config::{BackendId, ListenerId, Mode};
use crate::telemetry::Event;
use crate::tls::VerifiedPeer;

/// One call of the forwarder.
pub(super) struct Routing<'a> {
    worker: &'a HttpWorker,
    now: Instant,
}

impl<'a> Routing<'a> {
    pub(super) fn new(worker: &'a HttpWorker, now: Instant) -> Self {
        Routing { worker, now }
    }

    /// The backend of a request, if its client may make it, and the hash by which that chooses a server.
    fn decide(
        &self,
        client: &ClientLink,
        call: &Call<'_>,
        rewrite: &mut Rewrite,
    ) -> Result<(BackendId, Option<u64>), RequestRefusal> {
        let current = self.worker.current.borrow();
        let known = client.known.borrow();
        let mode = known.mode.as_ref().ok_or(RequestRefusal::NotAllowed)?;
        let context = RequestContext {
            request: call.request,
            list: call.list,
            told: &known.client.told,
            tenant: call.tenant,
            address: client.address.ip().to_canonical(),
            draw: (self.worker.next_random() >> 32) as u32,
        };
        let decision = decide(&mode.routes, &known.rights, &context, &mut rewrite.path)?;
        let authority = decision.choice.authority.unwrap_or_default();
        rewrite.authority.extend_from_slice(authority);
        rewrite.mirror = decision.choice.mirror;
        let backend = BackendId(decision.choice.backend);
        let http = &current.config.backends[backend.0].http;
        let identity = client.peer.identity().name.as_str();
        let key = http.hash.as_ref();
        let key = key.and_then(|key| key.of_request(&context, identity));
        Ok((backend, key.map(hash_key)))
    }

    /// Reports a request that may be made, and that an observed configuration would refuse.
    fn foresee(&self, client: &ClientLink, call: &Call<'_>) {
        let known = client.known.borrow();
        let Some(dry_run) = &known.dry_run else {
            return;
        };
        if let Some(refusal) = dry_run.would_refuse(call) {
            let path = call.request.path;
            let refused = Event::DryRunRefusedRequest {
                refusal,
                method: call.request.method,
                path: path.split(|byte| *byte == b'?').next().unwrap_or_default(),
                peer: &client.peer,
            };
            self.worker.observer.emit(client.listener, &refused);
        }
    }

    /// A connection to a server of a backend.
    fn connection(
        &self,
        (backend, key_hash): (BackendId, Option<u64>),
        client: &ClientLink,
        call: &Call<'_>,
    ) -> Result<Placement, RequestRefusal> {
        let refused_by = call.refused_by.and_then(|key| self.worker.link(key));
        let refused_by = refused_by.as_ref().and_then(|link| link.server());
        let refused_by = refused_by.filter(|server| server.backend == backend);
        let tried: Vec<ServerKey> = refused_by.map(|server| server.server).into_iter().collect();
        let wish = Wish {
            random: self.worker.next_random(),
            key_hash,
            tried: &tried,
        };
        let chosen = self.worker.with_pool(backend, |pool| {
            let server = match pool.servers.choose(&wish, self.now) {
                // The only one: it may take on another connection what it has refused on this one.
                Err(NoServer::Exhausted) => {
                    let wish = Wish { tried: &[], ..wish };
                    pool.servers.choose(&wish, self.now)?
                }
                chosen => chosen?,
            };
            Ok((server, pool.link(server, self.now).map(Rc::clone)))
        });
        match chosen {
            Ok((server, link)) => self.connection_to((backend, server), link, client, call),
            Err(NoServer::Full) => self.wait(backend, call, RequestRefusal::BackendBusy),
            Err(NoServer::Down { .. } | NoServer::NoneKnown) => {
                self.wait(backend, call, RequestRefusal::BackendUnreachable)
            }
            // It has been so for several checks, and a check has to pass first: to wait would hold memory for nothing.
            Err(NoServer::Unhealthy) => Err(RequestRefusal::BackendUnhealthy),
            Err(NoServer::Exhausted) => Err(RequestRefusal::BackendUnreachable),
        }
    }

    /// The best connection to the server that was chosen, unless there is none, or it is stalled and another one is being made.
    fn connection_to(
        &self,
        (backend, server): (BackendId, ServerKey),
        link: Option<Rc<Link>>,
        client: &ClientLink,
        call: &Call<'_>,
    ) -> Result<Placement, RequestRefusal> {
        let known = link.as_ref().and_then(|link| link.server());
        let is_stalled = known.is_none_or(|known| known.is_stalled(self.now));
        let is_connecting = is_stalled && self.connect(backend, server, client);
        let waits = is_connecting && !self.has_waited(backend, call, true);
        let placed = match &link {
            // HTTP/1 cannot carry it.
            Some(link) if call.protocol == Protocol::Grpc && link.version == HttpVersion::Http1 => {
                Err(RequestRefusal::BackendVersion)
            }
            _ if waits => Ok(Placement::Wait(backend.0)),
            Some(link) => {
                if let Some(known) = known {
                    known.in_flight.set(known.in_flight.get() + 1);
                }
                return Ok(Placement::Connection(link.key));
            }
            None => {
                let is_connected = |pool: &mut Pool| pool.has_link_to(server);
                let refusal = match self.worker.with_pool(backend, is_connected) {
                    true => RequestRefusal::BackendBusy,
                    false => RequestRefusal::BackendUnreachable,
                };
                match is_connecting {
                    true => Err(refusal),
                    false => self.wait(backend, call, refusal),
                }
            }
        };
        self.worker.with_pool(backend, |pool| {
            let end = RequestEnd::Unjudged;
            pool.servers.ended(server, end, self.now);
        });
        placed
    }

    /// Has a request wait for a server of its backend, if it has not for as long as it may.
    fn wait(
        &self,
        backend: BackendId,
        call: &Call<'_>,
        refusal: RequestRefusal,
    ) -> Result<Placement, RequestRefusal> {
        match self.has_waited(backend, call, false) {
            true => Err(refusal),
            false => Ok(Placement::Wait(backend.0)),
        }
    }

    /// Whether a request has waited for a server of its backend for as long as it may. For a connection that is being made it may
    /// wait as long as that may take, whatever its patience.
    fn has_waited(&self, backend: BackendId, call: &Call<'_>, is_connecting: bool) -> bool {
        let current = self.worker.current.borrow();
        let backend = &current.config.backends[backend.0];
        let longest = match is_connecting {
            true => backend.http.patience.max(backend.connect_timeout),
            false => backend.http.patience,
        };
        self.now.saturating_duration_since(call.began) >= longest
    }

    /// Makes a connection to a server for a request of `client`, unless enough are being made. Whether one is.
    fn connect(&self, backend: BackendId, server: ServerKey, client: &ClientLink) -> bool {
        let Some(worker) = self.worker.own() else {
            return false;
        };
        let address = self.worker.with_pool(backend, |pool| {
            let address = pool.servers.server(server)?.server.address;
            pool.begin_connecting(server, self.now).then_some(address)
        });
        if let Some(address) = address {
            let listener = client.listener;
            monoio::spawn(connect(worker, (backend, server, address), listener));
        }
        self.worker
            .with_pool(backend, |pool| pool.is_connecting(server))
    }

    /// Counts a request, or the retry of one: of those there may be so many.
    fn may_try(&self, backend: BackendId, call: &Call<'_>) -> bool {
        self.worker.with_pool(backend, |pool| match call.attempts {
            0 => {
                pool.retries.count_request(self.now);
                true
            }
            _ => pool.retries.try_retry(self.now),
        })
    }

    /// Charges what servers got of a request to its tenant, if that has limits.
    fn charge_tenant(&self, client: &ClientLink, ended: &Ended<'_>) {
        let known = client.known.borrow();
        let limits = known.tenant_limits.as_deref();
        let Some(limits) = limits.filter(|_| ended.attempts > 0) else {
            return;
        };
        let (tenants, name) = (&known.client.tenants, &known.client.tenant_name);
        if let Ok(Some(tenant)) = tenants.of_request(ended.list, name) {
            let usage = self.worker.usage.tenants();
            usage.charge(tenant, ended.received_bytes, limits, self.now);
        }
    }

    fn with_server(&self, key: ConnectionKey, work: impl FnOnce(&ServerLink)) {
        if let Some(link) = self.worker.link(key)
            && let Some(server) = link.server()
        {
            work(server);
        }
    }
}

impl Router for Routing<'_> {
    fn choose(
        &mut self,
        call: &Call<'_>,
        rewrite: &mut Rewrite,
    ) -> Result<Placement, RequestRefusal> {
        let link = self.worker.link(call.client);
        let client = link.as_ref().and_then(|link| link.client());
        let client = client.ok_or(RequestRefusal::Internal)?;
        if call.attempts >= ATTEMPTS_MAX {
            return Err(RequestRefusal::BackendUnreachable);
        }
        let is_new = call.attempts == 0 && !call.is_waiting;
        if let Some(limiter) = client.limiter.as_ref().filter(|_| is_new) {
            let begun = limiter.permit().begin_request(self.now);
            begun.map_err(|_| RequestRefusal::OverLimit)?;
        }
        if is_new
            && let Some(limits) = client.known.borrow().tenant_limits.as_deref()
            && let Some(tenant) = call.tenant
        {
            let tenants = self.worker.usage.tenants();
            let begun = tenants.begin_request(tenant, limits, self.now);
            begun.map_err(|_| RequestRefusal::TenantOverLimit)?;
        }
        if let Some(health) = self.worker.health_service(client.listener, call) {
            return Ok(Placement::Connection(health));
        }
        let decided = self.decide(client, call, rewrite)?;
        if is_new {
            self.foresee(client, call);
        }
        if !call.is_waiting && !self.may_try(decided.0, call) {
            return Err(RequestRefusal::BackendUnreachable);
        }
        self.connection(decided, client, call)
    }

    fn full(&mut self, backend: ConnectionKey, call: &Call<'_>) -> Result<(), RequestRefusal> {
        self.left(backend, LegEnd::Abandoned);
        let link = self.worker.link(call.client);
        let client = link.as_ref().and_then(|link| link.client());
        let link = self.worker.link(backend);
        let server = link.as_ref().and_then(|link| link.server());
        let (Some(client), Some(server)) = (client, server) else {
            return Err(RequestRefusal::BackendBusy);
        };
        let is_connecting = self.connect(server.backend, server.server, client);
        match self.has_waited(server.backend, call, is_connecting) {
            true => Err(RequestRefusal::BackendBusy),
            false => Ok(()),
        }
    }

    fn left(&mut self, backend: ConnectionKey, end: LegEnd) {
        let end = match end {
            LegEnd::Answered {
                grpc_status: Some(status),
                ..
            } => RequestEnd::of_grpc_status(status.into()),
            LegEnd::Answered { status, .. } => RequestEnd::of_http_status(status),
            LegEnd::Failed => RequestEnd::Failed,
            LegEnd::Abandoned => RequestEnd::Unjudged,
        };
        self.with_server(backend, |server| {
            server
                .in_flight
                .set(server.in_flight.get().saturating_sub(1));
            let now = self.now;
            server.left_at.set(now);
            let cause = self.worker.with_pool(server.backend, |pool| {
                pool.servers.ended(server.server, end, now)
            });
            self.worker.report_ejection(server, cause);
        });
    }

    fn mirror(&mut self, request: MirroredRequest) {
        self.worker.mirror(request);
    }

    fn ended(&mut self, ended: &Ended<'_>) {
        self.worker.report_request(ended, self.now);
        if let Some(link) = self.worker.link(ended.client) {
            let was_begun = ended.was_asked && ended.refusal != Some(RequestRefusal::OverLimit);
            let limiter = link.client().and_then(|client| client.limiter.as_ref());
            if let Some(limiter) = limiter.filter(|_| was_begun) {
                limiter.permit().end_request();
            }
            if let Some(client) = link.client() {
                self.charge_tenant(client, ended);
            }
            link.note_progress();
        }
    }

    fn failed(&mut self, connection: ConnectionKey, fault: PeerFault) {
        if let Some(link) = self.worker.link(connection) {
            self.worker.report_fault(&link, fault);
            link.wake();
        }
    }
}

impl HttpWorker {
    /// What is known of a client, by the configuration in force. `None` if its listener has another mode now.
    pub(super) fn known_client(
        &self,
        (listener, address): (ListenerId, SocketAddr),
        peer: &VerifiedPeer,
    ) -> Option<KnownClient> {
        let current = self.current.borrow();
        let dry_run = current.dry_run[listener.0].as_deref();
        let dry_run = dry_run.and_then(|dry_run| RequestDryRun::new(dry_run, peer, address.ip()));
        let listener = &current.config.listeners[listener.0];
        let Mode::Http(mode) = &listener.mode else {
            return None;
        };
        let Some(rule) = current.config.rules.as_slice().get(peer.rule()) else {
            return Some(KnownClient::without_rights());
        };
        let admitted = (peer.identity(), peer.tenant());
        let (client, rights) = mode.client(rule, admitted, peer.certificate(), address.ip());
        Some(KnownClient {
            client: Rc::new(client),
            rights,
            tenant_limits: (rule.tenant_limits != TenantLimits::default())
                .then(|| Box::new(rule.tenant_limits)),
            mode: Some(Arc::clone(mode)),
            dry_run: dry_run.map(Rc::new),
        })
    }
}
