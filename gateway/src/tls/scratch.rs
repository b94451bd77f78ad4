//! A worker-local note between rustls' callbacks and the handshake that runs them.
//! The verifier and the certificate resolver see no connection, only bytes. They run inside a call into rustls on
//! the worker's own thread, so the driver lays out an empty note before each call and takes it afterwards.

use std::cell::RefCell;

use gateway_core::certificate::Certificate;
use gateway_core::failure::Failure;

use super::peer::ClaimedPeer;

/// What the callbacks of one call into rustls had to say.
#[derive(Debug, Default)]
pub(super) struct Note {
    /// The certificate chain was good and a rule admits it. Possession of the key is not proven yet.
    pub(super) claimed: Option<ClaimedPeer>,
    /// The server name that the client asked for.
    pub(super) server_name: Option<String>,
    /// The certificate that was presented, where it could be read. Nothing about it is proven.
    pub(super) presented: Option<Certificate>,
    /// Our own reason for refusing, more exact than the error rustls makes of it.
    pub(super) refusal: Option<(Failure, String)>,
    /// The backend asked for our certificate.
    pub(super) asked_who_we_are: bool,
}

thread_local! {
    static NOTE: RefCell<Note> = RefCell::default();
}

/// Runs one call into rustls and returns what its callbacks noted.
pub(super) fn observe<R>(call: impl FnOnce() -> R) -> (R, Note) {
    NOTE.take();
    let result = call();
    (result, NOTE.take())
}

/// Notes that the chain of `peer` is good.
pub(super) fn claim(peer: ClaimedPeer) {
    NOTE.with_borrow_mut(|note| note.claimed = Some(peer));
}

/// Notes the server name that the client asks for.
pub(super) fn ask_for(server_name: &str) {
    NOTE.with_borrow_mut(|note| note.server_name = Some(server_name.to_owned()));
}

/// Notes what the client presented.
pub(super) fn present(certificate: Certificate) {
    NOTE.with_borrow_mut(|note| note.presented = Some(certificate));
}

/// Notes why the client is refused.
pub(super) fn refuse(failure: Failure, detail: String) {
    NOTE.with_borrow_mut(|note| note.refusal = Some((failure, detail)));
}

/// Notes that the backend asked for our certificate.
pub(super) fn asked_who_we_are() {
    NOTE.with_borrow_mut(|note| note.asked_who_we_are = true);
}
