//! The revocation lists of a listener or backend: read, verified against its authorities, and asked how old they may become.
//! In: `crl`, `crl_grace`, `dangerous_accept_stale_crl`. Out: one `Revocation`, or errors at the path's line.

use std::sync::Arc;

use gateway_core::revocation::{Link, Revocation, Serial, StalePolicy, Status};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::prelude::X509Certificate;

use super::keys::{Authorities, shown_time};
use super::raw::{Text, Texts};
use super::report::{Place, Report};
use super::scalar;
use super::value::Field;
use crate::limits;
use crate::pki::crl;
use crate::pki::facts::Facts;
use crate::tls::authority_id;

/// The three keys as written.
pub struct Written {
    /// The key that the authorities stand under.
    pub authorities_key: &'static str,
    pub crl: Field<Texts>,
    pub grace: Field<Text>,
    pub dangerous_accept_stale: Field<bool>,
}

/// Loads all lists. A list that has ended is no error: it refuses by the policy, and the operator is told.
pub fn check(
    place: &Place,
    written: Written,
    authorities: &mut Authorities,
    provider: &CryptoProvider,
    report: &mut Report<'_>,
) -> Option<Arc<Revocation>> {
    let (grace, dangerous) = (
        written.grace.clone(),
        written.dangerous_accept_stale.clone(),
    );
    let policy = stale_policy(place, written.grace, written.dangerous_accept_stale, report)?;
    if matches!(written.crl, Field::Absent) {
        let useless = "has no effect without crl: name the lists, or take it out";
        if let Some(item) = grace.given() {
            report.wrong(place, "crl_grace", &item, useless);
        }
        if let Some(item) = dangerous.given() {
            report.wrong(place, "dangerous_accept_stale_crl", &item, useless);
        }
    }
    let list = match written.crl {
        Field::Absent => return Some(Arc::default()),
        given => given.given()?,
    };
    if list.value.is_empty() {
        report.wrong(
            place,
            "crl",
            &list,
            "must name at least one list, or be left out",
        );
    }
    let mut lists = Vec::new();
    let mut sound = true;
    for item in &list.value {
        let path = report.resolve(&item.value);
        let algorithms = &provider.signature_verification_algorithms;
        let now = report.now;
        match crl::load(&path, &authorities.roots, algorithms, policy, now) {
            Ok(loaded) => {
                for verified in loaded {
                    if verified.list.is_stale(now) {
                        let ended = shown_time(verified.list.next_update(), now);
                        let key = place.key("crl");
                        let line = item.line;
                        report.warn(
                            line,
                            &key,
                            format_args!("{:?} has ended {ended}", item.value),
                        );
                    }
                    lists.push((verified.issuer, verified.list));
                }
            }
            Err(error) => {
                report.wrong(place, "crl", item, error);
                sound = false;
            }
        }
    }
    let mut revocation = Revocation::new(lists);
    let authorities_key = place.key(written.authorities_key);
    remove_revoked(
        &authorities_key,
        place.line,
        authorities,
        &mut revocation,
        report,
    );
    sound.then(|| Arc::new(revocation))
}

/// Takes authorities that a list of another one names out of those that are trusted. A chain ends at the first authority
/// that is trusted, so nobody would ask whether that one has been taken back.
fn remove_revoked(
    authorities_key: &str,
    line: usize,
    authorities: &mut Authorities,
    revocation: &mut Revocation,
    report: &mut Report<'_>,
) {
    let now = report.now;
    let is_revoked = |certificate: &CertificateDer<'_>| {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let Ok(serial) = Serial::new(parsed.raw_serial()) else {
            return false;
        };
        let Ok((_, issuer)) = Any::from_der(parsed.issuer().as_raw()) else {
            return false;
        };
        // By name alone: where several authorities share one, each one's list counts.
        let issuers = authorities.roots.roots.iter();
        let mut links = issuers
            .filter(|root| root.subject.as_ref() == issuer.data)
            .map(|root| Link {
                issuer: authority_id(root),
                serial,
            });
        links.any(|link| revocation.status(&[link], now) == Status::Revoked)
    };
    let revoked: Vec<bool> = authorities.certificates.iter().map(is_revoked).collect();
    for (position, certificate) in authorities.certificates.iter().enumerate() {
        if revoked[position] {
            let subject =
                Facts::parse(certificate).map_or_else(|_| "a CA".to_owned(), |f| f.subject);
            let text = format!("{subject} is named by a revocation list: not used");
            report.warn(line, authorities_key, text);
            revocation.revoke_authority(authority_id(&authorities.roots.roots[position]));
        }
    }
    let mut keep = revoked.iter().map(|revoked| !revoked);
    authorities
        .roots
        .roots
        .retain(|_| keep.next().unwrap_or(true));
    let mut keep = revoked.iter().map(|revoked| !revoked);
    authorities
        .certificates
        .retain(|_| keep.next().unwrap_or(true));
}

fn stale_policy(
    place: &Place,
    grace: Field<Text>,
    dangerous: Field<bool>,
    report: &mut Report<'_>,
) -> Option<StalePolicy> {
    let why = " (leave it out to refuse from nextUpdate on)";
    let period = |text: &Text| scalar::duration(text, &limits::CRL_GRACE, why);
    let grace = report.optional(place, "crl_grace", grace, period)?;
    let exclusive = |dangerous: &bool| match (dangerous, grace) {
        (true, Some(_)) => Err("must not stand beside crl_grace: it has no end".to_owned()),
        _ => Ok(*dangerous),
    };
    let key = "dangerous_accept_stale_crl";
    let line = dangerous
        .clone()
        .given()
        .map_or(place.line, |item| item.line);
    let dangerous = report
        .optional(place, key, dangerous, exclusive)?
        .unwrap_or(false);
    if dangerous {
        let text = "revocation lists are used however old they are";
        report.warn(line, &place.key(key), text);
    }
    Some(match (dangerous, grace) {
        (true, _) => StalePolicy::Allow,
        (false, Some(grace)) => StalePolicy::Grace(grace),
        (false, None) => StalePolicy::Refuse,
    })
}
