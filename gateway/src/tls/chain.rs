//! What is kept of a verified chain: who issued which number, and when the first of its certificates ends.
//! In: the path that webpki has verified. Out: plain data for revocation and for the end of the connection.

use std::time::{Duration, SystemTime};

use gateway_core::revocation::{AuthorityId, Link, Serial};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::VerifiedPath;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A verified chain, leaf first, without the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// One link per certificate.
    pub(super) links: Vec<Link>,
    /// The root it leads to.
    pub(super) anchor: AuthorityId,
    /// When the first of them ends.
    pub(super) not_after: SystemTime,
}

/// A certificate that webpki takes and that nevertheless cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a certificate of the chain cannot be read: {0}")]
pub(super) struct Unreadable(String);

impl Chain {
    /// Reads a verified path.
    pub(super) fn of(path: &VerifiedPath<'_>) -> Result<Self, Unreadable> {
        let intermediates: Vec<_> = path.intermediate_certificates().collect();
        let mut issuers = Vec::new();
        for intermediate in &intermediates {
            let der = intermediate.der();
            let anchor = webpki::anchor_from_trusted_cert(&der).map_err(unreadable)?;
            issuers.push(authority_id(&anchor));
        }
        let anchor = authority_id(path.anchor());
        issuers.push(anchor);
        let leaf = path.end_entity();
        let certificates = std::iter::once((leaf.serial(), leaf.der())).chain(
            intermediates
                .iter()
                .map(|certificate| (certificate.serial(), certificate.der())),
        );
        let mut links = Vec::new();
        let mut not_after = None;
        for ((serial, der), issuer) in certificates.zip(issuers) {
            links.push(Link {
                issuer,
                serial: Serial::new(serial).map_err(unreadable)?,
            });
            let ends = end_of(&der)?;
            not_after = Some(not_after.map_or(ends, |earlier: SystemTime| earlier.min(ends)));
        }
        let not_after = not_after.ok_or_else(|| Unreadable("it is empty".to_owned()))?;
        Ok(Chain {
            links,
            anchor,
            not_after,
        })
    }
}

fn unreadable(error: impl ToString) -> Unreadable {
    Unreadable(error.to_string())
}

fn end_of(der: &CertificateDer<'_>) -> Result<SystemTime, Unreadable> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(unreadable)?;
    // Valid through the whole of that second (RFC 5280 section 4.1.2.5).
    let seconds = 1 + u64::try_from(parsed.validity().not_after.timestamp()).map_err(unreadable)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Names an authority by its subject and its public key.
pub fn authority_id(authority: &TrustAnchor<'_>) -> AuthorityId {
    let subject = authority.subject.as_ref();
    let key = authority.subject_public_key_info.as_ref();
    // The length keeps one subject's end from being read as the other key's beginning.
    let text = [&subject.len().to_be_bytes()[..], subject, key].concat();
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, &text).as_ref());
    AuthorityId(id)
}
