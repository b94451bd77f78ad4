//! `grpc.health.v1` for clients of listeners that offer it: requests go to a server in memory, over a connection of the forwarder as
//! to any backend. In: bytes of the forwarder, what the pools know of servers. Out: bytes for the forwarder. On its worker.

use std::cell::RefCell;
use std::time::Instant;

use gateway_core::http::answer::Protocol;
use gateway_core::http::forward::{BackendTimes, Call, ConnectionKey, HttpVersion};
use gateway_core::http::health::{HealthServer, ServingStatus, is_health_path};
use gateway_core::http::limits::{HEADER_LIST_BYTES_MAX, PING_INTERVAL_DEFAULT};
use gateway_core::http::message::{Field, HeaderList, read_request};
use gateway_core::http::policy::RequestContext;
use gateway_core::http::pool::ServerCondition;

use super::routing::Routing;
use super::worker::HttpWorker;
use crate::config::{BackendId, HttpMode, ListenerId, Mode};

/// The server of one listener.
pub(super) struct HealthService {
    /// The forwarder's end of the connection.
    key: ConnectionKey,
    server: RefCell<HealthServer>,
    /// What the server has said, and is not welcome yet.
    unread: RefCell<Vec<u8>>,
}

/// Requests for health wait for nothing: their connection takes them, or has too many.
const TIMES: BackendTimes = BackendTimes {
    queue: usize::MAX,
    response_timeout: None,
    idle_timeout: None,
    ping_interval: PING_INTERVAL_DEFAULT,
};

impl HttpWorker {
    /// Has a server for each listener that offers health, and none for others.
    pub(super) fn offer_health(&self, now: Instant) {
        let offers: Vec<bool> = {
            let current = self.current.borrow();
            let offers = |mode: &Mode| matches!(mode, Mode::Http(mode) if mode.grpc_health);
            let listeners = current.config.listeners.iter();
            listeners.map(|listener| offers(&listener.mode)).collect()
        };
        let mut gone = Vec::new();
        let mut services = self.health_services.borrow_mut();
        services.resize_with(offers.len(), || None);
        for (service, is_offered) in services.iter_mut().zip(offers) {
            let stays = |service: &mut HealthService| is_offered && !self.is_service_over(service);
            gone.extend(service.take_if(|service| !stays(service)));
            if is_offered && service.is_none() {
                let mut forwarder = self.forwarder.borrow_mut();
                *service = Some(HealthService {
                    key: forwarder.connect(TIMES, HttpVersion::Http2, now),
                    server: RefCell::new(HealthServer::new(now)),
                    unread: RefCell::default(),
                });
            }
        }
        drop(services);
        for service in gone {
            let mut routing = Routing::new(self, now);
            let mut forwarder = self.forwarder.borrow_mut();
            forwarder.remove(service.key, &mut routing, now);
        }
    }

    /// Whether either end of a server's connection has ended it: clients can make them, by resets without end.
    fn is_service_over(&self, service: &HealthService) -> bool {
        let mut forwarder = self.forwarder.borrow_mut();
        let connection = forwarder.connection(service.key);
        connection.is_none_or(|connection| connection.is_retired())
            || service.server.borrow().is_closed()
    }

    /// The connection that takes a request, if it asks for health at a listener that offers that.
    pub(super) fn health_service(
        &self,
        listener: ListenerId,
        call: &Call<'_>,
    ) -> Option<ConnectionKey> {
        if call.protocol != Protocol::Grpc || !is_health_path(call.request.path) {
            return None;
        }
        let services = self.health_services.borrow();
        services
            .get(listener.0)?
            .as_ref()
            .map(|service| service.key)
    }

    /// Has a server read what the forwarder says to it, and the forwarder what that answers.
    pub(super) fn serve_health(&self, key: ConnectionKey, now: Instant) {
        let services = self.health_services.borrow();
        let is_it = |service: &Option<HealthService>| {
            service.as_ref().is_some_and(|service| service.key == key)
        };
        let Some(position) = services.iter().position(is_it) else {
            return;
        };
        let Some(service) = &services[position] else {
            return;
        };
        let mut status =
            |list: &HeaderList, name: &[u8]| self.status(ListenerId(position), list, name);
        let mut routing = Routing::new(self, now);
        let mut output = Vec::new();
        loop {
            let mut forwarder = self.forwarder.borrow_mut();
            forwarder.take_output(key, &mut output, &mut routing, now);
            drop(forwarder);
            if output.is_empty() {
                break;
            }
            let mut server = service.server.borrow_mut();
            server.receive(&output, &mut status, now);
        }
        self.pass_health(service, now);
    }

    /// Tells clients that watch what has changed.
    pub(super) fn tell_health(&self, now: Instant) {
        let services = self.health_services.borrow();
        for (position, service) in services.iter().enumerate() {
            let Some(service) = service else {
                continue;
            };
            let mut status =
                |list: &HeaderList, name: &[u8]| self.status(ListenerId(position), list, name);
            service.server.borrow_mut().tell(&mut status);
            self.pass_health(service, now);
        }
    }

    /// Passes on what a server has said, as far as it is welcome.
    fn pass_health(&self, service: &HealthService, now: Instant) {
        let mut unread = service.unread.borrow_mut();
        unread.extend_from_slice(&service.server.borrow_mut().take_output());
        if !unread.is_empty() {
            let mut routing = Routing::new(self, now);
            let mut forwarder = self.forwarder.borrow_mut();
            let taken = forwarder.receive(service.key, &unread, &mut routing, now);
            unread.drain(..taken);
        }
    }

    /// What a service is good for to a client of a listener, whose request for health has this header section: whether the backend
    /// that takes calls of the service can serve. The empty name stands for the listener's own backend, or for any of its routes'.
    fn status(&self, listener: ListenerId, list: &HeaderList, service: &[u8]) -> ServingStatus {
        let current = self.current.borrow();
        let listener = current.config.listeners.get(listener.0);
        let Some(Mode::Http(mode)) = listener.map(|listener| &listener.mode) else {
            return ServingStatus::ServiceUnknown;
        };
        let serves = match service {
            b"" => match mode.routes.backend() {
                Some(own) => self.can_serve(BackendId(own)),
                None => {
                    let mut backends = mode.routes.backends().into_iter();
                    backends.any(|backend| self.can_serve(BackendId(backend)))
                }
            },
            service => match backend_of(mode, list, service) {
                Some(backend) => self.can_serve(backend),
                None => return ServingStatus::ServiceUnknown,
            },
        };
        match serves {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        }
    }

    /// Whether a server of a backend takes requests, as far as is known.
    fn can_serve(&self, backend: BackendId) -> bool {
        let now = Instant::now();
        self.with_pool(backend, |pool| {
            let mut servers = pool.servers.servers(now);
            servers.any(|(_, condition, _)| match condition {
                ServerCondition::Usable
                | ServerCondition::PassedOver
                | ServerCondition::Ejected => true,
                ServerCondition::Resting
                | ServerCondition::Probed
                | ServerCondition::Unhealthy
                | ServerCondition::Removed => false,
            })
        })
    }
}

/// The backend of calls of a service, by a client whose request for health has this header section.
fn backend_of(mode: &HttpMode, list: &HeaderList, service: &[u8]) -> Option<BackendId> {
    let path = [b"/", service, b"/Check"].concat();
    let mut call = HeaderList::new(HEADER_LIST_BYTES_MAX);
    call.push(Field::new(b":path", &path));
    for field in list.iter().filter(|field| field.name != b":path") {
        call.push(field);
    }
    let request = read_request(&call).ok()?;
    let tenant_name = mode.told.tenant_name();
    let tenant = call.iter().find(|field| field.name == tenant_name);
    let context = RequestContext {
        request: &request,
        list: &call,
        // It came with what the backend would be told.
        told: &call,
        tenant: tenant.map(|tenant| tenant.value),
        address: std::net::Ipv4Addr::UNSPECIFIED.into(),
        draw: u32::MAX,
    };
    let choice = mode.routes.find(&context)?;
    Some(BackendId(choice.backend))
}
