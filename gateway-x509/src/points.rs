//! Distribution points: the names under which a certificate says where its revocation is told, and a list what it tells of.
//! In: extensions in DER. Out: names as digests, to be compared. On any thread; keeps nothing and fetches nothing.

use gateway_core::revocation::PointId;
use ring::digest::{SHA256, digest};
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::oid_registry::OID_X509_EXT_CRL_DISTRIBUTION_POINTS;
use x509_parser::prelude::X509Certificate;

/// Names no list: what a certificate says of its points cannot be matched, but it says something.
const UNMATCHED: PointId = PointId([0; 8]);

/// The points that a certificate names; none where it names none. What cannot be read, or is another issuer's, matches no list.
pub fn named_by_certificate(certificate: &X509Certificate<'_>) -> Vec<PointId> {
    let extensions = certificate.extensions().iter();
    // RFC 5280 section 4.2.1.13.
    let mut found =
        extensions.filter(|extension| extension.oid == OID_X509_EXT_CRL_DISTRIBUTION_POINTS);
    let Some(extension) = found.next() else {
        return Vec::new();
    };
    let mut points = of_certificate(extension.value).unwrap_or_default();
    if points.is_empty() {
        points.push(UNMATCHED);
    }
    points
}

/// `SEQUENCE OF { [0] name, [1] reasons, [2] cRLIssuer }`, all optional.
fn of_certificate(value: &[u8]) -> Option<Vec<PointId>> {
    let (_, sequence) = Any::from_der(value).ok()?;
    let mut points = Vec::new();
    for point in fields(sequence.data)? {
        let parts = fields(point.data)?;
        // A list by another issuer, or about some reasons only: none that is taken here.
        let is_plain = parts.iter().all(|part| part.tag() == Tag(0));
        if let Some(name) = parts.iter().find(|part| part.tag() == Tag(0) && is_plain) {
            points.extend(named_by_list(name.data).unwrap_or_default());
        }
    }
    Some(points)
}

/// The full names inside the `[0]` of a distribution point; `None` where it has none, or is named relative to its issuer.
pub fn named_by_list(name: &[u8]) -> Option<Vec<PointId>> {
    let (rest, choice) = Any::from_der(name).ok()?;
    let is_full_name = choice.class() == Class::ContextSpecific && choice.tag() == Tag(0);
    if !is_full_name || !rest.is_empty() {
        return None;
    }
    let names = fields(choice.data)?;
    (!names.is_empty()).then(|| names.iter().map(id).collect())
}

/// A general name, of any kind, by its kind and its bytes.
fn id(name: &Any<'_>) -> PointId {
    let text = [&name.tag().0.to_be_bytes()[..], name.data].concat();
    let mut id = [0; 8];
    id.copy_from_slice(&digest(&SHA256, &text).as_ref()[..8]);
    PointId(id)
}

/// The values that stand one after another; `None` where they are broken.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<Any<'_>>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (rest, field) = Any::from_der(bytes).ok()?;
        fields.push(field);
        bytes = rest;
    }
    Some(fields)
}
