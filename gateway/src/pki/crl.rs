//! Reads certificate revocation lists (RFC 5280 section 5) and verifies them, once, against the authorities they are of.
//! In: a file of PEM or DER, the authorities that are trusted. Out: plain sets of serial numbers. At start, never on a
//! worker. What is not understood is refused: half a list would let the other half in.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use gateway_core::revocation::{AuthorityId, IssuerList, Serial, StalePolicy};
use rustls::RootCertStore;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateRevocationListDer, TrustAnchor};
use webpki::BorrowedCertRevocationList;
use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::facts::name_text;
use super::kept_lists::{self, Key};
use super::read::{self, ReadError};
use super::signed::Signed;
use crate::limits;
use crate::tls::authority_id;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Not a list, cut off, or of a kind that is not supported.
    #[error("is no revocation list that can be used: {0}")]
    Malformed(String),
    /// The list covers a part of its issuer's certificates only.
    #[error(
        "covers a part of its issuer's certificates only (issuing distribution point): must be a complete list"
    )]
    Partial,
    /// Without an end nobody can say whether it is still good.
    #[error("has no nextUpdate (RFC 5280 section 5.1.2.5 requires it)")]
    NoNextUpdate,
    /// Dated ahead of our clock.
    #[error("was issued in the future: check the clock")]
    FromTheFuture,
    /// Of an authority that is not trusted where the list stands.
    #[error(
        "is not of a CA that is trusted here: must be signed by the CA whose certificates it takes back"
    )]
    ForeignIssuer,
    /// The issuer's name is right and its signature is not.
    #[error("bears the name of a CA that is trusted here and is not signed by it")]
    BadSignature,
}

/// A verified list.
#[derive(Debug, Clone)]
pub struct VerifiedList {
    /// Whose it is.
    pub issuer: AuthorityId,
    /// What it says.
    pub list: IssuerList,
}

/// What a list's signed part says besides its entries.
struct Header<'a> {
    issuer: &'a [u8],
    issuer_name: String,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
}

static REFUSED_FILES: AtomicU64 = AtomicU64::new(0);

/// How many times this process has refused a file of lists.
pub fn refused_files() -> u64 {
    REFUSED_FILES.load(Ordering::Relaxed)
}

/// Reads and verifies all lists of a file.
pub fn load(
    path: &Path,
    roots: &RootCertStore,
    algorithms: &WebPkiSupportedAlgorithms,
    stale_policy: StalePolicy,
    now: SystemTime,
) -> Result<Vec<VerifiedList>, CrlError> {
    let loaded = load_uncounted(path, roots, algorithms, stale_policy, now);
    REFUSED_FILES.fetch_add(u64::from(loaded.is_err()), Ordering::Relaxed);
    loaded
}

fn load_uncounted(
    path: &Path,
    roots: &RootCertStore,
    algorithms: &WebPkiSupportedAlgorithms,
    stale_policy: StalePolicy,
    now: SystemTime,
) -> Result<Vec<VerifiedList>, CrlError> {
    let bytes = read::file(path, limits::CRL_FILE_BYTES_MAX)?;
    let key = Key::of(&bytes, roots, algorithms);
    let lists = match kept_lists::find(&key) {
        Some(kept) => kept,
        None => {
            // First, so that a list that was replaced a moment ago is not held beside the one that replaces the next.
            kept_lists::forget_unused();
            let verified = verify_all(bytes, roots, algorithms, now)?;
            kept_lists::keep(key, &verified);
            verified
        }
    };
    // By the clock of this moment, whenever it was verified.
    if lists.iter().any(|found| found.list.this_update() > now) {
        return Err(CrlError::FromTheFuture);
    }
    let under_policy = |found: VerifiedList| VerifiedList {
        list: found.list.with_stale_policy(stale_policy),
        ..found
    };
    Ok(lists.into_iter().map(under_policy).collect())
}

/// Parses and verifies all lists of a file's text.
fn verify_all(
    bytes: Vec<u8>,
    roots: &RootCertStore,
    algorithms: &WebPkiSupportedAlgorithms,
    now: SystemTime,
) -> Result<Vec<VerifiedList>, CrlError> {
    // The text is longer than everything that comes after it: not held beside it.
    let lists = read::revocation_lists(bytes)?;
    lists
        .iter()
        .map(|der: &CertificateRevocationListDer<'_>| verify(der, roots, algorithms, now))
        .collect()
}

fn verify(
    der: &[u8],
    roots: &RootCertStore,
    algorithms: &WebPkiSupportedAlgorithms,
    now: SystemTime,
) -> Result<VerifiedList, CrlError> {
    let broken = || CrlError::Malformed("broken or cut off".to_owned());
    let signed = Signed::parse(der).ok_or_else(broken)?;
    let header = header(signed.content).ok_or_else(broken)?;
    let named: Vec<_> = roots
        .roots
        .iter()
        .filter(|root| root.subject.as_ref() == header.issuer)
        .collect();
    if named.is_empty() {
        return Err(CrlError::ForeignIssuer);
    }
    // Authorities may share a name; the list is of the one that signed it.
    let signs = |root: &&&TrustAnchor<'_>| {
        signed.is_signed_by(root.subject_public_key_info.as_ref(), algorithms)
    };
    let issuer = named.iter().find(signs).ok_or(CrlError::BadSignature)?;
    if header.this_update > now {
        return Err(CrlError::FromTheFuture);
    }
    let next_update = header.next_update.ok_or(CrlError::NoNextUpdate)?;
    let malformed = |error: webpki::Error| CrlError::Malformed(error.to_string());
    let entries = BorrowedCertRevocationList::from_der(der).map_err(malformed)?;
    if webpki::CertRevocationList::from(entries)
        .issuing_distribution_point()
        .is_some()
    {
        return Err(CrlError::Partial);
    }
    let entries = BorrowedCertRevocationList::from_der(der).map_err(malformed)?;
    // The strictest policy; whoever uses the list says which one counts.
    let policy = StalePolicy::Refuse;
    let mut list =
        IssuerList::new(header.this_update, next_update, policy).named(&header.issuer_name);
    list.reserve((&entries).into_iter().count());
    for entry in &entries {
        let serial = Serial::new(entry.map_err(malformed)?.serial_number);
        list.insert(serial.map_err(|error| CrlError::Malformed(error.to_string()))?);
    }
    Ok(VerifiedList {
        issuer: authority_id(issuer),
        list,
    })
}

/// Reads the parts before the entries; `None` where the structure is broken.
fn header(list: &[u8]) -> Option<Header<'_>> {
    let (mut rest, mut field) = Any::from_der(list).ok()?;
    if field.tag() == Tag::Integer {
        (rest, field) = Any::from_der(rest).ok()?;
    }
    let issuer_name = X509Name::from_der(rest)
        .map(|(_, name)| name_text(&name))
        .ok()?;
    // `field` is the inner algorithm, which webpki compares with the outer one.
    let (rest, issuer) = Any::from_der(rest)
        .ok()
        .filter(|_| field.tag() == Tag::Sequence)?;
    let (rest, this_update) = ASN1Time::from_der(rest).ok()?;
    let next_update = ASN1Time::from_der(rest).ok().map(|(_, time)| time);
    Some(Header {
        issuer: issuer.data,
        issuer_name,
        this_update: system_time(&this_update)?,
        next_update: match next_update {
            Some(time) => Some(system_time(&time)?),
            None => None,
        },
    })
}

fn system_time(time: &ASN1Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::revocation::{Link, Revocation, Status};
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
        CrlIssuingDistributionPoint, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
        RevokedCertParams, SerialNumber,
    };
    use time::{Duration as Days, OffsetDateTime};

    const NOW: i64 = 1_800_000_000;

    fn authority(name: &str) -> (Issuer<'static, KeyPair>, RootCertStore) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        (Issuer::new(params, key), roots)
    }

    fn params(serials: &[u64]) -> CertificateRevocationListParams {
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - Days::days(2),
            reason_code: None,
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: now - Days::days(1),
            next_update: now + Days::days(1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64)
    }

    fn verified(der: &[u8], roots: &RootCertStore) -> Result<VerifiedList, CrlError> {
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        verify(der, roots, algorithms, now())
    }

    #[test]
    fn a_list_of_a_trusted_authority_takes_back_what_it_names() {
        let (issuer, roots) = authority("Agents");
        let der = params(&[7, 300]).signed_by(&issuer).unwrap();
        let VerifiedList { issuer, list } = verified(der.der(), &roots).unwrap();
        assert_eq!(issuer, authority_id(&roots.roots[0]));
        assert_eq!((list.len(), list.is_stale(now())), (2, false));
        let revocation = Revocation::new([(issuer, list)]);
        let status = |serial: &[u8]| {
            let serial = Serial::new(serial).unwrap();
            revocation.status(&[Link { issuer, serial }], now())
        };
        assert_eq!(status(&[7]), Status::Revoked);
        assert_eq!(status(&[1, 44]), Status::Revoked);
        assert_eq!(status(&[8]), Status::Good);
    }

    #[test]
    fn a_list_of_somebody_else_is_refused() {
        let (_, roots) = authority("Agents");
        let (foreign, _) = authority("Others");
        let (namesake, _) = authority("Agents");
        let of = |issuer| verified(params(&[7]).signed_by(issuer).unwrap().der(), &roots);
        assert!(matches!(of(&foreign), Err(CrlError::ForeignIssuer)));
        assert!(matches!(of(&namesake), Err(CrlError::BadSignature)));
    }

    #[test]
    fn of_two_authorities_of_one_name_the_one_that_signed_is_meant() {
        let (issuer, roots) = authority("Agents");
        let (_, namesakes) = authority("Agents");
        let mut both = RootCertStore {
            roots: namesakes.roots,
        };
        both.roots.extend(roots.roots.clone());
        let der = params(&[7]).signed_by(&issuer).unwrap();
        assert_eq!(
            verified(der.der(), &both).unwrap().issuer,
            authority_id(&roots.roots[0])
        );
    }

    #[test]
    fn a_list_cut_off_or_changed_anywhere_is_refused() {
        let (issuer, roots) = authority("Agents");
        let der = params(&[7, 8, 9]).signed_by(&issuer).unwrap();
        let der: &[u8] = der.der();
        for length in 0..der.len() {
            assert!(verified(&der[..length], &roots).is_err(), "cut at {length}");
        }
        for position in 0..der.len() {
            let mut changed = der.to_vec();
            changed[position] ^= 1;
            assert!(verified(&changed, &roots).is_err(), "changed at {position}");
        }
    }

    #[test]
    fn a_file_that_is_in_use_is_not_verified_again_unless_something_has_changed() {
        let (issuer, roots) = authority("Agents");
        let (_, other_roots) = authority("Agents");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agents.crl");
        let provider = rustls::crypto::ring::default_provider();
        let load_at = |roots: &RootCertStore, now| {
            let algorithms = &provider.signature_verification_algorithms;
            load(&file, roots, algorithms, StalePolicy::Allow, now)
        };
        let write = |serials: &[u64]| {
            std::fs::write(&file, params(serials).signed_by(&issuer).unwrap().der()).unwrap();
        };
        write(&[7]);
        let first = load_at(&roots, now()).unwrap();
        kept_lists::forget_unused();
        let second = load_at(&roots, now()).unwrap();
        assert_eq!(first[0].list.stale_policy(), StalePolicy::Allow);
        drop(first);
        assert!(second[0].list.is_shared(), "it is kept");
        // What the verdict hung on is asked again: the authorities, the clock and the text.
        assert!(matches!(
            load_at(&other_roots, now()),
            Err(CrlError::BadSignature)
        ));
        let earlier = now() - Duration::from_secs(2 * 24 * 60 * 60);
        assert!(matches!(
            load_at(&roots, earlier),
            Err(CrlError::FromTheFuture)
        ));
        write(&[7, 8]);
        let third = load_at(&roots, now()).unwrap();
        assert_eq!((second[0].list.len(), third[0].list.len()), (1, 2));
        // Nobody but the keeper has the entries in the end, and then not even that.
        let entries = third[0].list.clone();
        drop((second, third));
        kept_lists::forget_unused();
        assert!(entries.is_shared(), "in use, so kept");
        let before = refused_files();
        std::fs::write(&file, b"broken").unwrap();
        assert!(load_at(&roots, now()).is_err());
        assert!(refused_files() > before);
    }

    #[test]
    fn a_partial_list_and_one_from_the_future_are_refused() {
        let (issuer, roots) = authority("Agents");
        let mut partial = params(&[7]);
        partial.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec!["http://example.org".to_owned()],
            },
            scope: None,
        });
        let partial = partial.signed_by(&issuer).unwrap();
        assert!(matches!(
            verified(partial.der(), &roots),
            Err(CrlError::Partial)
        ));
        let mut early = params(&[7]);
        early.this_update += Days::days(2);
        early.next_update += Days::days(2);
        let early = early.signed_by(&issuer).unwrap();
        assert!(matches!(
            verified(early.der(), &roots),
            Err(CrlError::FromTheFuture)
        ));
    }
}
