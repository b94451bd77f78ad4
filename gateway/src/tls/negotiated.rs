//! What a handshake agreed on, as records and backends want to know it.
//! In: a finished rustls connection. Out: plain data. On the worker, once per connection.

use gateway_core::lineage::TicketRefusal;
use rustls::{HandshakeKind, NamedGroup};

use super::engine::Engine;
use super::handshake_context::HandshakeContext;
use crate::crypto::{cipher_suite_name, group_name};

/// What a finished handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Cipher suite, by its IANA name.
    pub cipher_suite: &'static str,
    /// Key exchange group.
    pub group: &'static str,
    /// Application protocol, if one was chosen (RFC 7301), or that a client counts as speaking which offered none.
    pub protocol: Option<Vec<u8>>,
    /// Protocols that the client offered to a listener that names none, as text.
    pub ignored_protocols: Option<Box<str>>,
    /// The server name that the client asked for (RFC 6066 section 3).
    pub server_name: Option<String>,
    /// Whether the client came back with a ticket instead of proving its key.
    pub is_resumed: bool,
    /// Why its ticket was refused, if it came with one and had to prove its key nevertheless.
    pub ticket_refusal: Option<TicketRefusal>,
    /// Tickets it was given.
    pub tickets_issued: u32,
}

impl Negotiated {
    /// Reads it from a connection whose handshake is complete, and from its context.
    pub(super) fn of(engine: &Engine, context: HandshakeContext) -> Self {
        let common = engine.common();
        let suite = common.negotiated_cipher_suite().map(|suite| suite.suite());
        let group = common
            .negotiated_key_exchange_group()
            .map_or(NamedGroup::Unknown(0), |group| group.name());
        let is_resumed = common.handshake_kind() == Some(HandshakeKind::Resumed);
        // Of a ticket that was good and resumed nothing, the library does not say why.
        let unused = (context.tickets_tried > 0).then_some(TicketRefusal::Parameters);
        Negotiated {
            cipher_suite: suite.map_or("unknown", cipher_suite_name),
            group: group_name(group),
            protocol: common
                .alpn_protocol()
                .or(context.assumed_protocol)
                .map(<[u8]>::to_vec),
            ignored_protocols: context.ignored_protocols,
            server_name: context.server_name,
            is_resumed,
            ticket_refusal: context.ticket_refusal.or(unused).filter(|_| !is_resumed),
            tickets_issued: context.tickets_issued,
        }
    }
}
