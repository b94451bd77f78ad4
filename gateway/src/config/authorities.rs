//! The CAs that a listener or backend trusts: read from its files, and compared with each other.
//! In: paths as written. Out: what chains are verified with, or an error at the path's line. No warning of the end of a CA
//! that has a successor in the same files: it has to stay there until the last certificate by it has been replaced.

use std::path::PathBuf;

use gateway_core::authority::domain_of;
use gateway_core::revocation::{AuthorityId, AuthorityKey};
use gateway_core::succession::{Succession, TrustedAuthority, successions};
use gateway_x509::Certificate;
use gateway_x509::certificate::CertificateInfo;
use gateway_x509::{authority_id, authority_key};
use rustls::pki_types::TrustAnchor;
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::checked::FiledAuthority;
use super::credentials::{Authorities, Examination, outside_validity};
use super::diagnostics::{Diagnostics, Location};
use super::raw::Texts;
use super::value::Field;

/// A CA that was read. What its end means is known when all are.
struct Found {
    /// Position of its file.
    position: usize,
    path: PathBuf,
    info: CertificateInfo,
    trusted: TrustedAuthority,
    /// Why it is not used, if it is not: its dates.
    out_of_time: Option<String>,
}

/// Reads the authorities in the files under `key`.
pub fn read(
    location: &Location,
    key: &str,
    field: Field<Texts>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Authorities> {
    if matches!(field, Field::Absent) {
        diagnostics.missing(
            location,
            key,
            "name the files of the CAs that the other side's certificates chain to",
        );
    }
    let list = field.given()?;
    if list.value.is_empty() {
        diagnostics.wrong(
            location,
            key,
            &list,
            "must name at least one file: without a CA no peer can be authenticated",
        );
    }
    let mut authorities = Authorities::default();
    let mut all = Vec::new();
    let mut sound = true;
    for (position, item) in list.value.iter().enumerate() {
        let mut examination = Examination::new(location, key, item, diagnostics);
        let known = (authorities.roots.len(), authorities.left_out.len());
        all.extend(add(&mut authorities, &mut examination, position));
        sound &= examination.sound;
        authorities.note_origins(position, known);
    }
    let trusted = Vec::from_iter(all.iter().map(|found| found.trusted.clone()));
    let successions = successions(&trusted, diagnostics.now);
    for (found, succession) in all.into_iter().zip(successions) {
        let item = &list.value[found.position];
        let examination = Examination {
            location,
            key,
            item,
            path: found.path.clone(),
            diagnostics,
            sound: true,
        };
        tell(&found, succession, examination);
    }
    if sound && authorities.roots.is_empty() && !list.value.is_empty() {
        diagnostics.wrong(location, key, &list, "holds no CA that is valid now");
        return None;
    }
    sound.then_some(authorities)
}

/// Takes the CAs of one file.
fn add(
    authorities: &mut Authorities,
    examination: &mut Examination<'_, '_>,
    position: usize,
) -> Vec<Found> {
    let mut all = Vec::new();
    for (certificate, info) in examination.certificates().unwrap_or_default() {
        refuse_settings(&certificate, &info, examination);
        let certificate = certificate.der;
        if !info.is_authority || info.cannot_sign_certificates {
            examination.refuse(format_args!(
                "{} is not a CA: must hold CA certificates only (basic constraints CA, key usage keyCertSign)",
                info.subject
            ));
            continue;
        }
        let anchor = webpki::anchor_from_trusted_cert(&certificate).ok();
        let trusted = anchor.map(|anchor| trusted_authority(&anchor, &info));
        let out_of_time = outside_validity(&info, examination.diagnostics);
        // The verifier does not look at the dates of a root, so a root out of its time is not given to it.
        match &out_of_time {
            Some(reason) => authorities.leave_out(&certificate, &info, reason),
            None => {
                for clients in gateway_x509::kept_out(&certificate) {
                    examination.warn(format_args!("{} {clients}", info.subject));
                }
                for extension in gateway_x509::unheeded_extensions(&certificate) {
                    examination.warn(format_args!("{} {extension}", info.subject));
                }
                if let Err(error) = authorities.roots.add(certificate.clone()) {
                    examination.refuse(format_args!("{} cannot be used: {error}", info.subject));
                    continue;
                }
                authorities.certificates.push(certificate);
                authorities.infos.push(info.clone());
            }
        }
        // What webpki cannot read is none of those in use, and nothing comes after it.
        let Some(trusted) = trusted else { continue };
        all.push(Found {
            position,
            path: examination.path.clone(),
            info,
            trusted,
            out_of_time,
        });
    }
    all
}

/// Notes a CA that is in use, and warns of its end where that shuts clients out.
fn tell(found: &Found, succession: Succession, mut examination: Examination<'_, '_>) {
    let info = &found.info;
    let has_ended = info.not_after < examination.diagnostics.now;
    match &found.out_of_time {
        Some(_) if has_ended && succession != Succession::Last => {}
        Some(reason) => examination.warn(format_args!("{} {reason}: not used", info.subject)),
        None => {
            let authority = FiledAuthority {
                id: found.trusted.id,
                succession,
            };
            examination.note(info, info, Some(authority));
            if succession == Succession::Last {
                examination.warn_of_expiry(info);
            }
        }
    }
}

fn trusted_authority(anchor: &TrustAnchor<'_>, info: &CertificateInfo) -> TrustedAuthority {
    let (id, key): (AuthorityId, AuthorityKey) = (authority_id(anchor), authority_key(anchor));
    let mut domains = info.uris.iter().filter_map(|uri| domain_of(uri));
    TrustedAuthority {
        id,
        key,
        family: family(&info.subject_der),
        // Its name has no case (SPIFFE-ID section 2.1).
        trust_domain: domains.next().map(str::to_ascii_lowercase),
        begins: info.not_before,
        ends: info.not_after,
    }
}

/// A name without the attributes that RFC 5280 section 4.1.2.4 has for telling namesakes apart, and that a CA writes anew with each
/// generation of it, as SPIRE does: dnQualifier, generationQualifier and serialNumber. `None` where nothing is left.
fn family(name: &[u8]) -> Option<Vec<u8>> {
    const CHANGING: [Oid<'_>; 3] = [oid!(2.5.4.46), oid!(2.5.4.44), oid!(2.5.4.5)];
    let (_, name) = X509Name::from_der(name).ok()?;
    let mut family = Vec::new();
    let attributes = name.iter_attributes();
    for attribute in attributes.filter(|attribute| !CHANGING.contains(attribute.attr_type())) {
        for part in [
            attribute.attr_type().as_bytes(),
            attribute.attr_value().data,
        ] {
            // Its length keeps it from being read as a piece of the next.
            family.extend(part.len().to_be_bytes());
            family.extend(part);
        }
    }
    (!family.is_empty()).then_some(family)
}

/// OpenSSL's own trust settings may forbid what the CA is named for: its author meant them.
fn refuse_settings(
    certificate: &Certificate,
    info: &CertificateInfo,
    examination: &mut Examination<'_, '_>,
) {
    // `client_ca` of a listener, `ca` of a backend.
    let (usable, peers) = match examination.key {
        "client_ca" => (certificate.usable.clients, "clients"),
        _ => (certificate.usable.servers, "servers"),
    };
    if !usable {
        examination.refuse(format_args!(
            "line {}: the trust settings after {} do not let it certify {peers}: `openssl x509` writes it without them",
            certificate.line, info.subject
        ));
    }
}
