//! A worker's ear: takes events, counts them, logs those an operator wants to read, and makes audit lines of the rest.
//! In: events. Out: counters, log and audit lines. On its worker; never waits for either log.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gateway_core::clock::microseconds;
use gateway_core::close_reason::CloseReason;
use gateway_core::endpoint::Endpoint;
use gateway_core::failure::{Failure, Level};
use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::PeerFault;
use gateway_core::http::limits::DRY_RUN_REQUEST_BYTES_MAX;
use gateway_core::limits;
use gateway_core::suppress::Suppressor;
use gateway_core::visible;
use gateway_x509::client_certificate;

use super::audit::{Audit, Scene, Weight};
use super::clients::ClientCounts;
use super::counters::WorkerCounters;
use super::event::{Event, FinishedRequest, PoolCount, Presented, ServerEvent};
use super::sampler::Sampler;
use super::tenants::TenantIndex;
use super::text::BoundedText;
use crate::config::{BackendId, Config, ListenerId};
use crate::tls::{Negotiated, VerifiedPeer};

/// A worker's ear.
#[derive(Debug)]
pub struct Observer {
    worker: usize,
    config: RefCell<Arc<Config>>,
    counters: Arc<WorkerCounters>,
    audit: Audit,
    /// The audit line that is being made.
    line: RefCell<Vec<u8>>,
    refusals: RefCell<[Suppressor; Failure::ALL.len()]>,
    server_failures: RefCell<Vec<Suppressor>>,
    unreachable: RefCell<Vec<Suppressor>>,
    backend_faults: RefCell<Suppressor>,
    ignored_protocols: RefCell<Suppressor>,
    dry_run_refusals: RefCell<Suppressor>,
    slowed: RefCell<Suppressor>,
    client_faults: RefCell<Suppressor>,
    server_events: RefCell<Vec<Suppressor>>,
    tenants: TenantIndex,
    sampler: Cell<Sampler>,
}

impl Observer {
    /// Records into `counters` and `audit` what happens on worker number `worker`.
    pub fn new(
        worker: usize,
        config: Arc<Config>,
        counters: Arc<WorkerCounters>,
        audit: Audit,
    ) -> Self {
        let suppressor = Suppressor::new(limits::REFUSAL_LINES_PER_SECOND);
        let refusals = RefCell::new(std::array::from_fn(|_| suppressor.clone()));
        // Reloads may add some.
        let backends = config.backends.len().max(limits::BACKENDS_RELOADED_MAX);
        let server_failures = RefCell::new(vec![suppressor.clone(); backends]);
        let unreachable = RefCell::new(vec![suppressor.clone(); backends]);
        let backend_faults = RefCell::new(suppressor.clone());
        let ignored_protocols = RefCell::new(suppressor.clone());
        let dry_run_refusals = RefCell::new(suppressor.clone());
        let slowed = RefCell::new(suppressor.clone());
        let server_events = RefCell::new(vec![suppressor.clone(); backends]);
        let client_faults = RefCell::new(suppressor);
        Observer {
            worker,
            config: RefCell::new(config),
            counters,
            audit,
            line: RefCell::default(),
            refusals,
            server_failures,
            unreachable,
            backend_faults,
            ignored_protocols,
            dry_run_refusals,
            slowed,
            client_faults,
            server_events,
            tenants: TenantIndex::default(),
            sampler: Cell::default(),
        }
    }

    /// Takes names from this configuration from now on. Returns whether it observes another one than before.
    pub fn reload(&self, config: &Arc<Config>) -> bool {
        let before = self.config.replace(Arc::clone(config));
        let is_other = match (&before.dry_run, &config.dry_run) {
            (None, None) => false,
            (Some(before), Some(now)) => before.differs_from(now),
            _ => true,
        };
        if is_other {
            self.counters.dry_run_refusals().clear();
        }
        is_other
    }

    /// Shows the worker's clients as they are now.
    pub fn publish(&self, clients: ClientCounts) {
        self.counters.publish(clients);
    }

    /// Shows the worker's connections to backends, by position of the backend, as they are now.
    pub fn publish_pools(&self, pools: Vec<PoolCount>) {
        self.counters.publish_pools(pools);
    }

    /// Counts a copy of a request for a backend that mirrors, which was sent or dropped.
    pub fn count_mirrored(&self, backend: BackendId, is_sent: bool) {
        self.counters.count_mirrored(backend, is_sent);
    }

    /// Takes note of what a server has done. `name` is the server as the configuration writes it.
    pub fn emit_server(
        &self,
        backend: BackendId,
        (server, name): (Endpoint, &str),
        event: ServerEvent,
    ) {
        self.counters.record_server(backend, name, event);
        let BackendId(position) = backend;
        let admitted = self.server_events.borrow_mut()[position].admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let config = self.config.borrow();
        let backend = config.backends[position].name.as_str();
        match event {
            ServerEvent::Fault(fault) => {
                let fault = fault.label();
                tracing::warn!(backend, %server, fault, left_out, "the backend's server broke a rule of HTTP");
            }
            ServerEvent::Ejected(cause) => {
                let cause = cause.label();
                tracing::warn!(backend, %server, cause, left_out, "the backend's server gets no requests for a time");
            }
        }
    }

    /// Takes note of an event on a listener.
    pub fn emit(&self, listener: ListenerId, event: &Event<'_>) {
        self.counters.record(listener, event);
        if let Event::RequestEnded { request, .. } = event {
            return self.finish_request(listener, event, request);
        }
        if let Event::ClientFault {
            address,
            peer,
            fault,
        } = event
        {
            return self.log_fault(listener, (peer, *address), *fault);
        }
        if let Event::DryRunRefusedRequest {
            refusal,
            method,
            path,
            peer,
        } = event
            && !self.foresee_request(listener, *refusal, (method, path), peer)
        {
            return;
        }
        self.log(listener, event);
        if self.audit.is_on() {
            self.audit(listener, event);
        }
    }

    /// Most requests end here: they are counted, and nothing is written about them.
    fn finish_request(
        &self,
        listener: ListenerId,
        event: &Event<'_>,
        request: &FinishedRequest<'_>,
    ) {
        if let Some(tenant) = request.tenant {
            self.tenants
                .count(self.counters.tenants(), tenant, request.ended);
        }
        if self.audit.is_on() && (request.has_failed() || self.is_sampled()) {
            self.audit(listener, event);
        }
    }

    /// Notes a request that the dry run would refuse, and logs the first one like it. Whether this is it: more would fill both logs.
    fn foresee_request(
        &self,
        listener: ListenerId,
        refusal: RequestRefusal,
        (method, path): (&[u8], &[u8]),
        peer: &VerifiedPeer,
    ) -> bool {
        let method = String::from_utf8_lossy(method);
        let path = String::from_utf8_lossy(path);
        let method = visible::cut(&method, DRY_RUN_REQUEST_BYTES_MAX);
        let path = visible::cut(&path, DRY_RUN_REQUEST_BYTES_MAX);
        // As large as it is and no larger: it is kept.
        let request = ([&*method, " ", &*path].concat(), refusal);
        let mut refusals = self.counters.dry_run_refusals();
        let is_new = refusals.note_request(listener, peer, request, SystemTime::now());
        drop(refusals);
        if is_new {
            let config = self.config.borrow();
            let listener = config.listeners[listener.0].name.as_str();
            self.log_dry_run_request(listener, refusal, (&method, &path), peer);
        }
        is_new
    }

    fn is_sampled(&self) -> bool {
        let mut sampler = self.sampler.get();
        let is_taken = sampler.takes(self.config.borrow().request_sample);
        self.sampler.set(sampler);
        is_taken
    }

    fn audit(&self, ListenerId(listener): ListenerId, event: &Event<'_>) {
        let config = self.config.borrow();
        let listener = config.listeners[listener].name.as_str();
        let scene = Scene {
            worker: self.worker,
            listener,
            backends: &config.backends,
            now: SystemTime::now(),
        };
        let mut line = self.line.borrow_mut();
        if scene.write(event, &mut line) {
            self.audit.push(&line, Weight::Client);
        }
    }

    fn log(&self, ListenerId(listener): ListenerId, event: &Event<'_>) {
        let config = self.config.borrow();
        let listener = config.listeners[listener].name.as_str();
        match event {
            Event::Refused {
                failure,
                address,
                detail,
                presented,
                ..
            } => {
                let presented = presented.as_ref();
                self.log_refusal(listener, (*failure, detail), *address, presented);
            }
            Event::ServerFailed {
                backend,
                server,
                error,
                is_spared,
                ..
            } => {
                self.log_server_failed((listener, *backend), (*server, *is_spared), *error);
            }
            Event::Unreachable { backend, known } => {
                self.log_unreachable((listener, *backend), *known);
            }
            Event::Established {
                peer,
                address,
                negotiated,
                took,
                ..
            } => {
                self.log_established(listener, (peer, *address), negotiated, *took);
            }
            Event::Ended {
                end,
                address,
                peer,
                received_bytes,
                sent_bytes,
                ..
            } => {
                let bytes = (*received_bytes, *sent_bytes);
                log_ended(listener, (peer, *address), *end, bytes);
            }
            Event::EndedByServer {
                backend,
                server,
                end,
                meaning,
                ..
            } => {
                self.log_ended_by_server((listener, *backend), *server, (*end, meaning));
            }
            Event::DryRunRefused {
                failure,
                detail,
                peer,
            } => self.log_dry_run(listener, *failure, detail, peer),
            Event::Slowed { address, peer } => self.log_slowed(listener, *address, peer),
            Event::Panicked {
                address, message, ..
            } => log_panicked(listener, *address, message),
            Event::Accepted
            | Event::Moved { .. }
            | Event::DryRunRefusedRequest { .. }
            | Event::RequestEnded { .. }
            | Event::ClientFault { .. }
            | Event::Closed => {}
        }
    }

    fn log_established(
        &self,
        listener: &str,
        (peer, address): (&VerifiedPeer, SocketAddr),
        negotiated: &Negotiated,
        took: Duration,
    ) {
        if let Some(offered) = &negotiated.ignored_protocols {
            self.log_ignored_protocols(listener, address, offered);
        }
        let (suite, group) = (negotiated.cipher_suite, negotiated.group);
        let (identity, kind) = named(peer);
        tracing::debug!(
            listener, peer = %address, identity = &*identity, kind, rule = peer.rule() + 1,
            tenant = peer.tenant().map(|tenant| tenant.as_str()), suite, group, took_microseconds = microseconds(took), "accepted"
        );
    }

    fn log_server_failed(
        &self,
        (listener, BackendId(backend)): (&str, BackendId),
        (server, is_spared): (Endpoint, bool),
        error: &dyn std::error::Error,
    ) {
        let admitted = self.server_failures.borrow_mut()[backend].admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let config = self.config.borrow();
        let backend = config.backends[backend].name.as_str();
        // It may say what is in a certificate of which nothing is verified.
        let error = error.to_string();
        let error = BoundedText(&error).cut();
        match is_spared {
            true => {
                tracing::info!(listener, backend, %server, %error, left_out, "cannot reach an address of the backend's server; another one serves");
            }
            false => {
                tracing::warn!(listener, backend, %server, %error, left_out, "cannot reach the backend's server");
            }
        }
    }

    fn log_ended_by_server(
        &self,
        (listener, BackendId(backend)): (&str, BackendId),
        server: Endpoint,
        (end, meaning): (CloseReason, &str),
    ) {
        let admitted = self.backend_faults.borrow_mut().admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let config = self.config.borrow();
        let backend = config.backends[backend].name.as_str();
        let (reason, detail) = (end.label(), BoundedText(meaning).cut());
        tracing::warn!(listener, backend, %server, reason, detail = &*detail, left_out, "cut off by the backend");
    }

    fn log_ignored_protocols(&self, listener: &str, address: SocketAddr, offered: &str) {
        let admitted = self.ignored_protocols.borrow_mut().admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let offered = BoundedText(offered).cut();
        tracing::warn!(listener, peer = %address, offered = &*offered, left_out, "the client offers application \
            protocols and the listener has no alpn: gRPC clients end such a connection");
    }

    fn log_unreachable(
        &self,
        (listener, BackendId(backend)): (&str, BackendId),
        known_servers: usize,
    ) {
        let admitted = self.unreachable.borrow_mut()[backend].admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let config = self.config.borrow();
        let backend = config.backends[backend].name.as_str();
        tracing::warn!(
            listener,
            backend,
            known_servers,
            left_out,
            "no server of the backend can be reached"
        );
    }

    /// Nothing about a certificate that was presented is proven; its names are written so that no character of theirs is
    /// taken for another, and no further than a line has room for.
    fn log_refusal(
        &self,
        listener: &str,
        (failure, detail): (Failure, &str),
        address: SocketAddr,
        presented: Option<&Presented<'_>>,
    ) {
        let admitted = self.refusals.borrow_mut()[failure.index()].admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let reason = failure.label();
        let detail = BoundedText(detail).cut();
        let detail = &*detail;
        let names = presented.map(|presented| client_certificate::describe(presented.certificate));
        let names = names.as_deref().map(|names| BoundedText(names).cut());
        let names = names.as_deref();
        let issuer = presented.map(|presented| BoundedText(&presented.certificate.issuer).cut());
        let issuer = issuer.as_deref();
        let serial = presented.and_then(|presented| presented.serial);
        let serial = serial.map(|serial| serial.to_string());
        match failure.level() {
            Level::Info => {
                tracing::info!(listener, reason, peer = %address, detail, presented = names, issuer, serial, left_out, "refused")
            }
            Level::Warn => {
                tracing::warn!(listener, reason, peer = %address, detail, presented = names, issuer, serial, left_out, "refused")
            }
            Level::Error => {
                tracing::error!(listener, reason, peer = %address, detail, presented = names, issuer, serial, left_out, "refused")
            }
        }
    }

    fn log_fault(
        &self,
        ListenerId(listener): ListenerId,
        (peer, address): (&VerifiedPeer, SocketAddr),
        fault: PeerFault,
    ) {
        let admitted = self.client_faults.borrow_mut().admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let config = self.config.borrow();
        let listener = config.listeners[listener].name.as_str();
        let ((identity, kind), fault) = (named(peer), fault.label());
        tracing::warn!(listener, peer = %address, identity = &*identity, kind, fault, left_out, "the client broke HTTP");
    }

    fn log_slowed(&self, listener: &str, address: SocketAddr, peer: &VerifiedPeer) {
        let admitted = self.slowed.borrow_mut().admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let ((identity, kind), limits) = (named(peer), peer.limits());
        tracing::warn!(
            listener, peer = %address, identity = &*identity, kind, bytes_per_second = limits.bytes_per_second,
            bytes_burst = limits.bytes_burst, left_out,
            "slowed down to bytes_per_second: the client sends again what does not pass within its time-out, and that \
             may never arrive"
        );
    }

    fn log_dry_run(&self, listener: &str, failure: Failure, detail: &str, peer: &VerifiedPeer) {
        let admitted = self.dry_run_refusals.borrow_mut().admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let ((identity, kind), reason) = (named(peer), failure.label());
        let detail = BoundedText(detail).cut();
        tracing::warn!(
            listener,
            identity = &*identity,
            kind,
            reason,
            detail = &*detail,
            left_out,
            "the observed configuration would refuse the client"
        );
    }

    fn log_dry_run_request(
        &self,
        listener: &str,
        refusal: RequestRefusal,
        (method, path): (&str, &str),
        peer: &VerifiedPeer,
    ) {
        let admitted = self.dry_run_refusals.borrow_mut().admit(Instant::now());
        let Some(left_out) = admitted else { return };
        let ((identity, kind), reason) = (named(peer), refusal.label());
        tracing::warn!(
            listener,
            identity = &*identity,
            kind,
            method,
            path,
            reason,
            left_out,
            "the observed configuration would refuse the request"
        );
    }
}

fn log_ended(
    listener: &str,
    (peer, address): (&VerifiedPeer, SocketAddr),
    end: CloseReason,
    (received_bytes, sent_bytes): (u64, u64),
) {
    let ((identity, kind), reason) = (named(peer), end.label());
    tracing::debug!(listener, peer = %address, identity = &*identity, kind, reason, received_bytes, sent_bytes, "ended");
}

fn log_panicked(listener: &str, address: SocketAddr, message: &str) {
    let message = BoundedText(message).cut();
    tracing::error!(listener, peer = %address, panic = &*message, "a connection panicked; please report this");
}

/// What a log line calls a client: its name, and what kind of name that is.
fn named(peer: &VerifiedPeer) -> (Cow<'_, str>, &'static str) {
    let identity = peer.identity();
    (BoundedText(&identity.name).cut(), identity.kind.label())
}
