//! A worker-local note between rustls' callbacks and the handshake that runs them.
//! The verifier, the ticketer and the certificate resolver see no connection, only bytes. They run inside a call into
//! rustls on the worker's own thread, so the driver lays out the connection's note before each call and takes it back
//! afterwards.

use std::cell::RefCell;

use gateway_core::certificate::Chain;
use gateway_core::failure::Failure;
use gateway_core::handshake_record::Protection;
use gateway_core::lineage::TicketRefusal;
use gateway_x509::client_certificate::ParsedCertificate;

use super::alert::AlertSecret;
use super::peer::ClaimedPeer;
use super::proven::Fresh;

/// What the callbacks of one connection had to say. `claimed` also tells them: tickets are sealed with its lineage.
#[derive(Debug, Default)]
pub(super) struct Note {
    /// The certificate chain is good, or a ticket is, and a rule admits it. Possession of the key is not proven yet.
    pub(super) claimed: Option<ClaimedPeer>,
    /// The server name that the client asked for.
    pub(super) server_name: Option<String>,
    /// What a client speaks that offered no protocol.
    pub(super) assumed_protocol: Option<&'static [u8]>,
    /// Protocols that were offered to a listener that names none, as text.
    pub(super) ignored_protocols: Option<Box<str>>,
    /// The certificate that was presented, where it could be read. Nothing about it is proven.
    pub(super) presented: Option<Box<ParsedCertificate>>,
    /// Our own reason for refusing, more exact than the error rustls makes of it.
    pub(super) refusal: Option<(Failure, String)>,
    /// A chain that was verified from the beginning, to be remembered once its owner has proven to be that.
    pub(super) fresh_chain: Option<Box<Fresh>>,
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
    pub(super) asked_who_we_are: bool,
    /// What an alert of ours is sealed under, since there are keys.
    pub(super) alert_secret: Option<AlertSecret>,
}

thread_local! {
    static NOTE: RefCell<Note> = RefCell::default();
}

/// Runs one call into rustls on behalf of the connection that `note` belongs to.
pub(super) fn observe<R>(note: &mut Note, call: impl FnOnce() -> R) -> R {
    NOTE.set(std::mem::take(note));
    let result = call();
    *note = NOTE.take();
    result
}

/// Notes that the chain or the ticket of `peer` is good.
pub(super) fn claim(peer: ClaimedPeer) {
    NOTE.with_borrow_mut(|note| note.claimed = Some(peer));
}

/// Asks about the claim, if there is one.
pub(super) fn with_claimed<R>(ask: impl FnOnce(&mut ClaimedPeer) -> R) -> Option<R> {
    NOTE.with_borrow_mut(|note| note.claimed.as_mut().map(ask))
}

/// Notes the server name that the client asks for.
pub(super) fn ask_for(server_name: &str) {
    NOTE.with_borrow_mut(|note| note.server_name = Some(server_name.to_owned()));
}

/// Notes what a client speaks that offers no protocol.
pub(super) fn assume_protocol(protocol: &'static [u8]) {
    NOTE.with_borrow_mut(|note| note.assumed_protocol = Some(protocol));
}

/// Notes what a client offers to a listener that names no protocol.
pub(super) fn ignore_protocols(offered: String) {
    NOTE.with_borrow_mut(|note| note.ignored_protocols = Some(offered.into()));
}

/// Notes what the client presented.
pub(super) fn present(certificate: ParsedCertificate) {
    NOTE.with_borrow_mut(|note| note.presented = Some(Box::new(certificate)));
}

/// Notes a chain to remember.
pub(super) fn remember(fresh: Fresh) {
    NOTE.with_borrow_mut(|note| note.fresh_chain = Some(Box::new(fresh)));
}

/// Notes why the client is refused.
pub(super) fn refuse(failure: Failure, detail: String) {
    NOTE.with_borrow_mut(|note| note.refusal = Some((failure, detail)));
}

/// Notes that another ticket is tried, and returns how many were.
pub(super) fn try_ticket() -> usize {
    NOTE.with_borrow_mut(|note| {
        note.tickets_tried += 1;
        note.tickets_tried
    })
}

/// Notes why a ticket is refused. The first one's reason counts: clients offer their newest first.
pub(super) fn refuse_ticket(refusal: TicketRefusal) {
    NOTE.with_borrow_mut(|note| {
        note.ticket_refusal.get_or_insert(refusal);
    });
}

/// Notes that a ticket is given out.
pub(super) fn issue_ticket() {
    NOTE.with_borrow_mut(|note| note.tickets_issued += 1);
}

/// Notes the verified chain of the backend.
pub(super) fn believe_server(chain: Chain) {
    NOTE.with_borrow_mut(|note| note.server_chain = Some(chain));
}

/// Notes why the backend's certificate is refused.
pub(super) fn refuse_server(detail: String) {
    NOTE.with_borrow_mut(|note| note.server_refusal = Some(detail));
}

/// Notes that the backend asked for our certificate.
pub(super) fn asked_who_we_are() {
    NOTE.with_borrow_mut(|note| note.asked_who_we_are = true);
}

/// Notes what an alert of ours is sealed under from now on.
pub(super) fn keep_alert_secret(secret: AlertSecret) {
    NOTE.with_borrow_mut(|note| note.alert_secret = Some(secret));
}

/// Whether the peer's records are encrypted by now.
pub(super) fn protection() -> Protection {
    NOTE.with_borrow(|note| match note.alert_secret {
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

    use super::super::peer::Proof;

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

    fn assert_blank(note: &mut Note) {
        observe(note, || {
            assert!(with_claimed(|_| ()).is_none());
            assert_eq!(try_ticket(), 1);
        });
        assert!(note.claimed.is_none() && note.refusal.is_none());
        assert!(note.server_name.is_none() && note.presented.is_none());
        assert_eq!((note.tickets_tried, note.tickets_issued), (1, 0));
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
        };
        let mut first = Note::default();
        observe(&mut first, note_everything);
        assert_blank(&mut Note::default());
        // The next call on behalf of the first finds everything again.
        observe(&mut first, || {
            assert!(with_claimed(|_| ()).is_some());
            assert_eq!(try_ticket(), 2);
        });
        let panics = catch_unwind(AssertUnwindSafe(|| {
            observe(&mut first, || {
                note_everything();
                panic!("inside a call");
            })
        }));
        assert!(panics.is_err());
        assert_blank(&mut Note::default());
    }
}
