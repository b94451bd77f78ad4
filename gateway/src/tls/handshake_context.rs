//! A worker-local context between rustls' callbacks and the handshake that runs them.
//! In: what the callbacks of one connection find. Out: the same, for its handshake. On the worker, inside a call into rustls.
//!
//! The verifier, the ticketer and the certificate resolver see no connection, only bytes. They run inside a call into
//! rustls on the worker's own thread, so the driver sets the connection's context before each call and removes it after.

use std::cell::RefCell;

use gateway_core::certificate::Chain;
use gateway_core::failure::Failure;
use gateway_core::handshake_record::Protection;
use gateway_core::lineage::TicketRefusal;
use gateway_x509::client_certificate::ParsedCertificate;

use super::chain_cache::NewChain;
use super::peer::ClaimedPeer;
use super::secrets::LoggedSecrets;

/// What the callbacks of one connection found. They read `claimed` too: the ticketer seals its lineage into tickets.
#[derive(Debug, Default)]
pub(super) struct HandshakeContext {
    /// The certificate chain is good, or a ticket is, and a rule admits it. Possession of the key is not proven yet.
    pub(super) claimed: Option<ClaimedPeer>,
    /// The server name that the client asked for.
    pub(super) server_name: Option<String>,
    /// The protocol that a client counts as speaking which offered none.
    pub(super) assumed_protocol: Option<&'static [u8]>,
    /// Protocols that were offered to a listener that names none, as text.
    pub(super) ignored_protocols: Option<Box<str>>,
    /// The certificate that was presented, where it could be read. Nothing about it is proven.
    pub(super) presented: Option<Box<ParsedCertificate>>,
    /// Our own reason for refusing, more exact than the error rustls makes of it.
    pub(super) refusal: Option<(Failure, String)>,
    /// A chain that was verified from the beginning; the cache gets it once the client has proven possession of the key.
    pub(super) new_chain: Option<Box<NewChain>>,
    /// Tickets of the ClientHello that were tried.
    pub(super) tickets_tried: usize,
    /// Why the first ticket was refused.
    pub(super) ticket_refusal: Option<TicketRefusal>,
    /// Tickets given out.
    pub(super) tickets_issued: u32,
    /// The backend's verified chain.
    pub(super) server_chain: Option<Chain>,
    /// Why the backend's certificate is refused.
    pub(super) server_refusal: Option<String>,
    /// The backend asked for our certificate.
    pub(super) certificate_requested: bool,
    /// What keys come from.
    pub(super) secrets: LoggedSecrets,
}

thread_local! {
    static CONTEXT: RefCell<HandshakeContext> = RefCell::default();
}

/// Runs one call into rustls on behalf of the connection that `context` belongs to.
pub(super) fn with_context<R>(context: &mut HandshakeContext, call: impl FnOnce() -> R) -> R {
    CONTEXT.set(std::mem::take(context));
    let result = call();
    *context = CONTEXT.take();
    result
}

/// Notes that the chain or the ticket of `peer` is good.
pub(super) fn claim(peer: ClaimedPeer) {
    CONTEXT.with_borrow_mut(|context| context.claimed = Some(peer));
}

/// Asks about the claim, if there is one.
pub(super) fn with_claimed<R>(ask: impl FnOnce(&mut ClaimedPeer) -> R) -> Option<R> {
    CONTEXT.with_borrow_mut(|context| context.claimed.as_mut().map(ask))
}

/// Notes the server name that the client asks for.
pub(super) fn ask_for(server_name: &str) {
    CONTEXT.with_borrow_mut(|context| context.server_name = Some(server_name.to_owned()));
}

/// Notes the protocol that a client counts as speaking which offers none.
pub(super) fn assume_protocol(protocol: &'static [u8]) {
    CONTEXT.with_borrow_mut(|context| context.assumed_protocol = Some(protocol));
}

/// Notes what a client offers to a listener that names no protocol.
pub(super) fn ignore_protocols(offered: String) {
    CONTEXT.with_borrow_mut(|context| context.ignored_protocols = Some(offered.into()));
}

/// Notes what the client presented.
pub(super) fn present(certificate: ParsedCertificate) {
    CONTEXT.with_borrow_mut(|context| context.presented = Some(Box::new(certificate)));
}

/// Notes a chain to remember.
pub(super) fn remember(new_chain: NewChain) {
    CONTEXT.with_borrow_mut(|context| context.new_chain = Some(Box::new(new_chain)));
}

/// Notes why the client is refused.
pub(super) fn refuse(failure: Failure, detail: String) {
    CONTEXT.with_borrow_mut(|context| context.refusal = Some((failure, detail)));
}

/// Notes that another ticket is tried, and returns how many were.
pub(super) fn try_ticket() -> usize {
    CONTEXT.with_borrow_mut(|context| {
        context.tickets_tried += 1;
        context.tickets_tried
    })
}

/// Notes why a ticket is refused. The first one's reason counts: clients offer their newest first.
pub(super) fn refuse_ticket(refusal: TicketRefusal) {
    CONTEXT.with_borrow_mut(|context| {
        context.ticket_refusal.get_or_insert(refusal);
    });
}

/// Notes that a ticket is given out.
pub(super) fn issue_ticket() {
    CONTEXT.with_borrow_mut(|context| context.tickets_issued += 1);
}

/// Notes the verified chain of the backend.
pub(super) fn believe_server(chain: Chain) {
    CONTEXT.with_borrow_mut(|context| context.server_chain = Some(chain));
}

/// Notes why the backend's certificate is refused.
pub(super) fn refuse_server(detail: String) {
    CONTEXT.with_borrow_mut(|context| context.server_refusal = Some(detail));
}

/// Notes that the backend asked for our certificate (RFC 8446 section 4.3.2).
pub(super) fn certificate_requested() {
    CONTEXT.with_borrow_mut(|context| context.certificate_requested = true);
}

/// Notes secrets.
pub(super) fn note_secrets(note: impl FnOnce(&mut LoggedSecrets)) {
    CONTEXT.with_borrow_mut(|context| note(&mut context.secrets));
}

/// Whether the peer's records are encrypted by now.
pub(super) fn protection() -> Protection {
    CONTEXT.with_borrow(|context| match context.secrets.of_alert() {
        Some(_) => Protection::Encrypted,
        None => Protection::Clear,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::SystemTime;

    use gateway_core::certificate::Certificate;
    use gateway_core::identity::Admission;
    use gateway_core::lineage::Lineage;
    use gateway_core::revocation::AuthorityId;

    use rustls::KeyLog;

    use super::super::peer::Proof;
    use super::super::secrets::SecretLog;

    fn peer() -> ClaimedPeer {
        let now = SystemTime::now();
        ClaimedPeer {
            lineage: Lineage {
                authenticated_at: now,
                epoch: 0,
                certificate: Certificate::default(),
                chain: Chain {
                    links: Vec::new(),
                    points: Vec::new(),
                    anchor: AuthorityId([1; 32]),
                    constraints: None,
                    not_before: now,
                    not_after: now,
                    ends_with_anchor: false,
                },
            },
            admission: Admission::default(),
            proof: Proof::Chain,
        }
    }

    fn presented() -> ParsedCertificate {
        ParsedCertificate {
            certificate: Certificate::default(),
            serial: None,
            not_after: SystemTime::now(),
            client_usage: true,
            may_sign: true,
        }
    }

    fn assert_blank(context: &mut HandshakeContext) {
        with_context(context, || {
            assert!(with_claimed(|_| ()).is_none());
            assert_eq!(try_ticket(), 1);
        });
        assert!(context.claimed.is_none() && context.refusal.is_none());
        assert!(context.server_name.is_none() && context.presented.is_none());
        assert_eq!((context.tickets_tried, context.tickets_issued), (1, 0));
        assert!(context.secrets.of_alert().is_none());
    }

    #[test]
    fn what_is_noted_for_one_connection_is_for_no_other_even_after_a_panic() {
        let note_everything = || {
            claim(peer());
            ask_for("agents.example.org");
            present(presented());
            refuse(Failure::Malformed, String::new());
            issue_ticket();
            try_ticket();
            SecretLog::Server.log("SERVER_TRAFFIC_SECRET_0", &[], &[7; 32]);
        };
        let mut first = HandshakeContext::default();
        with_context(&mut first, note_everything);
        assert_blank(&mut HandshakeContext::default());
        // The next call on behalf of the first finds everything again.
        with_context(&mut first, || {
            assert!(with_claimed(|_| ()).is_some());
            assert_eq!(try_ticket(), 2);
            assert_eq!(protection(), Protection::Encrypted);
        });
        let panics = catch_unwind(AssertUnwindSafe(|| {
            with_context(&mut first, || {
                note_everything();
                panic!("inside a call");
            })
        }));
        assert!(panics.is_err());
        assert_blank(&mut HandshakeContext::default());
    }
}
