//! What is told of requests, of clients that break HTTP, and of servers. In: what the forwarder and the pools have found. Out: events
//! for the worker's observer. On its worker; an event about a request costs no allocation.

use std::time::Instant;

use gateway_core::http::forward::{Ended, PeerFault};
use gateway_core::http::pool::{EjectionCause, ServerCondition, ServerKey};

use super::link::{Link, LinkPeer, ServerLink};
use super::worker::HttpWorker;
use crate::config::BackendId;
use crate::telemetry::{Event, FinishedRequest, PoolCount, ServerEvent};

impl HttpWorker {
    /// Reports a request that is over.
    pub(super) fn report_request(&self, ended: &Ended<'_>, now: Instant) {
        let link = self.link(ended.client);
        let Some(client) = link.as_ref().and_then(|link| link.client()) else {
            return;
        };
        let known = client.known.borrow();
        let (tenants, name) = (&known.client.tenants, &known.client.tenant_name);
        let server = ended.backend.and_then(|backend| self.link(backend));
        let server = server.as_ref().and_then(|link| link.server());
        let request = FinishedRequest {
            ended,
            tenant: tenants.of_request(ended.list, name).ok().flatten(),
            backend: server.map(|server| server.backend),
            server: server.map(|server| server.address),
            ended_at: now,
        };
        let ended = Event::RequestEnded {
            connection: client.id,
            address: client.address,
            peer: &client.peer,
            request: &request,
        };
        self.observer.emit(client.listener, &ended);
    }

    /// Reports a peer that has broken a rule of HTTP.
    pub(super) fn report_fault(&self, link: &Link, fault: PeerFault) {
        match &link.peer {
            LinkPeer::Client(client) => {
                let fault = Event::ClientFault {
                    address: client.address,
                    peer: &client.peer,
                    fault,
                };
                self.observer.emit(client.listener, &fault);
            }
            LinkPeer::Server(server) => {
                self.report_server(server, ServerEvent::Fault(fault));
            }
        }
    }

    /// Reports a server that gets no requests for a time, if it is one.
    pub(super) fn report_ejection(&self, server: &ServerLink, cause: Option<EjectionCause>) {
        if let Some(cause) = cause {
            self.report_server(server, ServerEvent::Ejected(cause));
        }
    }

    fn report_server(&self, server: &ServerLink, event: ServerEvent) {
        let BackendId(position) = server.backend;
        let name = self.current.borrow().servers[position].name_of(server.address);
        let place = (server.address, name.as_str());
        self.observer.emit_server(server.backend, place, event);
    }

    /// What the connections to each backend do now.
    pub fn count(&self) -> Vec<PoolCount> {
        let now = Instant::now();
        let forwarder = self.forwarder.borrow();
        let is_stalled = |link: &&Link| link.server().is_some_and(|one| one.is_stalled(now));
        let pools = self.pools.borrow();
        let current = self.current.borrow();
        let mut counts: Vec<_> = pools
            .iter()
            .zip(current.servers.iter())
            .map(|(pool, names)| {
                let links = || pool.links();
                let in_flight = |link: &Link| link.server().map_or(0, |one| one.in_flight.get());
                let left_out = |(key, condition, _): (ServerKey, ServerCondition, u32)| {
                    let address = pool.servers.server(key)?.server.address;
                    Some((names.name_of(address), condition.left_out()?))
                };
                PoolCount {
                    connections: links().count() as u64,
                    stalled: links().filter(is_stalled).count() as u64,
                    requests: links().map(|link| u64::from(in_flight(link))).sum(),
                    waiting: 0,
                    left_out: pool.servers.servers(now).filter_map(left_out).collect(),
                }
            })
            .collect();
        for (backend, count) in counts.iter_mut().enumerate() {
            count.waiting = forwarder.waiting(backend) as u64;
        }
        counts
    }
}
