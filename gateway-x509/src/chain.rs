//! What is kept of a verified chain: which CA issued which serial number, and when the first of its certificates ends.
//! In: the path that webpki has verified. Out: plain data for revocation and for the end of the connection.

use std::time::{Duration, SystemTime};

use gateway_core::anchors::{Anchors, Terms};
use gateway_core::certificate::Chain;
use gateway_core::limits;
use gateway_core::revocation::{AuthorityId, AuthorityKey, Link, LinkPoint, Serial};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Root, Roots, Verified};

/// A certificate that webpki takes and that nevertheless cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a certificate of the chain cannot be read: {0}")]
pub struct ChainError(String);

/// Reads a verified path. It ends with the first of its certificates that ends, the CA's included.
pub fn read(verified: &Verified<'_>) -> Result<Chain, ChainError> {
    let path = verified.path;
    let intermediates: Vec<_> = path.intermediate_certificates().collect();
    let mut issuers = Vec::new();
    for intermediate in &intermediates {
        let der = intermediate.der();
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(chain_error)?;
        issuers.push((authority_id(&anchor), authority_key(&anchor)));
    }
    // As the configuration knows it: the path may call it by its name in another encoding.
    let root = &verified.root.anchor;
    let anchor = authority_id(root);
    issuers.push((anchor, authority_key(root)));
    let leaf = path.end_entity();
    let (not_before, end) = validity(&leaf.der())?;
    let mut below_ends = end;
    let mut points = Vec::new();
    add_points(&mut points, 0, &leaf.der())?;
    let above = intermediates.iter();
    // Kept for as long as the connection.
    let mut links = Vec::with_capacity(1 + intermediates.len());
    for (serial, (issuer, key)) in std::iter::once(leaf.serial())
        .chain(above.map(|certificate| certificate.serial()))
        .zip(issuers)
    {
        links.push(Link {
            issuer,
            key,
            serial: Serial::new(serial).map_err(chain_error)?,
        });
    }
    for (intermediate, position) in intermediates.iter().zip(1..) {
        below_ends = below_ends.min(validity(&intermediate.der())?.1);
        add_points(&mut points, position, &intermediate.der())?;
    }
    points.shrink_to_fit();
    Ok(Chain {
        links,
        points,
        anchor,
        constraints: verified.root.constraints_id,
        not_before,
        not_after: below_ends.min(verified.root.not_after),
        ends_with_anchor: verified.root.not_after < below_ends,
    })
}

/// Adds the distribution points that the certificate at a position names: lists may be about those only.
fn add_points(
    points: &mut Vec<LinkPoint>,
    link: u8,
    der: &CertificateDer<'_>,
) -> Result<(), ChainError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(chain_error)?;
    let named = super::named_by_certificate(&parsed).into_iter();
    let named = named.take(limits::DISTRIBUTION_POINTS_MAX);
    points.extend(named.map(|point| LinkPoint { link, point }));
    Ok(())
}

fn chain_error(error: impl ToString) -> ChainError {
    ChainError(error.to_string())
}

/// The first moment at which a certificate is valid, and the first at which it is no more.
fn validity(der: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), ChainError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(chain_error)?;
    let at = |seconds: i64| {
        let seconds = u64::try_from(seconds).map_err(chain_error)?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    let validity = parsed.validity();
    // Valid through the whole of the last second (RFC 5280 section 4.1.2.5). A certificate may begin before 1970.
    let begins = at(validity.not_before.timestamp().max(0))?;
    Ok((begins, at(validity.not_after.timestamp() + 1)?))
}

/// What chains may lead to, with what each of the certificates says.
pub fn anchors(roots: &Roots) -> Anchors {
    let anchor = |root: &Root| {
        let terms = Terms {
            constraints: root.constraints_id,
            ends: root.not_after,
        };
        (authority_id(&root.anchor), terms)
    };
    roots.iter().map(anchor).collect()
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

/// Names an authority's public key alone, whatever it is called in which certificate.
pub fn authority_key(authority: &TrustAnchor<'_>) -> AuthorityKey {
    let hash = digest(&SHA256, authority.subject_public_key_info.as_ref());
    let mut key = AuthorityKey::default();
    let length = key.0.len();
    key.0.copy_from_slice(&hash.as_ref()[..length]);
    key
}
