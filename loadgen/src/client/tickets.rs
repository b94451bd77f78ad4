//! A store of session tickets that can be shut, so that one client does full and resumed handshakes by turns.
//! In: tickets from rustls, and whether the next handshake may use one. Out: a ticket, or none. On the load's threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

/// Most tickets kept for a server: as many as rustls keeps.
pub(crate) const TICKETS_KEPT: u32 = 8;

/// The tickets of one client. It keeps new ones even while it is shut.
#[derive(Debug)]
pub(super) struct TicketStore {
    tickets: ClientSessionMemoryCache,
    is_shut: AtomicBool,
}

impl TicketStore {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            tickets: ClientSessionMemoryCache::new(TICKETS_KEPT as usize),
            is_shut: AtomicBool::new(false),
        })
    }

    pub(super) fn shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::Relaxed);
    }
}

impl ClientSessionStore for TicketStore {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.tickets.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.tickets.kx_hint(server_name)
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {}

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.tickets.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        match self.is_shut.load(Ordering::Relaxed) {
            true => None,
            false => self.tickets.take_tls13_ticket(server_name),
        }
    }
}
