//! Reads certificate revocation lists (RFC 5280 section 5) and verifies them, once, against the authorities they are of.
//! In: a file of PEM or DER, the authorities that are trusted. Out: plain sets of serial numbers. At start, never on a
//! worker. What is not understood is refused: half a list would let the other half in.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use gateway_core::limits;
use gateway_core::revocation::{AuthorityId, IssuerList, StalePolicy};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::TrustAnchor;

use super::algorithm_names;
use super::authority_id;
use super::crl_cache::{self, Key};
use super::date::date;
use super::file::{self, ListRead, ReadError};
use super::signed::Signed;
use super::{ListError, ListParts, is_same_name};

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Not a list, cut off, or of a kind that is not supported.
    #[error("is not a usable revocation list: {0}")]
    Malformed(String),
    /// Without an end it cannot be told whether it is still good.
    #[error("has no nextUpdate (RFC 5280 section 5.1.2.5 requires it)")]
    NoNextUpdate,
    /// Dated further ahead of our clock than clocks differ; usable from this time on.
    #[error(
        "was issued in the future (thisUpdate): check the clocks here and at the CA; it is tried again at {}", date(*.0)
    )]
    FromTheFuture(SystemTime),
    /// Of an authority that is not trusted where the list stands.
    #[error(
        "is not of a CA that is trusted here: must be signed by the CA whose certificates it revokes"
    )]
    ForeignIssuer,
    /// The issuer's name is right and its signature is not.
    #[error("bears the name of a CA that is trusted here and is not signed by it")]
    BadSignature,
    /// It cannot be told whether its issuer has signed it.
    #[error(
        "bears the name of {subject} and a signature by {signature}, which [tls] provider does not verify with a key of {key}: sign \
         lists with a hash of the key's length, or take another provider"
    )]
    Unverifiable {
        /// The CA.
        subject: Arc<str>,
        /// What its key is.
        key: String,
        /// What the list is signed with.
        signature: String,
    },
    /// Its issuer may not sign lists.
    #[error(
        "is signed by {0}, whose key usage lacks cRLSign: not taken (RFC 5280 section 6.3.3 f); issue the CA's certificate anew with it, or leave the list out"
    )]
    MaySignNone(Arc<str>),
    /// One of several lists of a file.
    #[error("list {position} of {count}: {error}")]
    OneOf {
        /// Which, counted from one.
        position: usize,
        /// How many there are.
        count: usize,
        /// What is wrong with it.
        error: Box<CrlError>,
    },
}

impl CrlError {
    /// When the list may be used, if it is only dated ahead.
    pub fn usable_from(&self) -> Option<SystemTime> {
        match self {
            CrlError::FromTheFuture(from) => Some(*from),
            CrlError::OneOf { error, .. } => error.usable_from(),
            CrlError::Read(_)
            | CrlError::Malformed(_)
            | CrlError::NoNextUpdate
            | CrlError::ForeignIssuer
            | CrlError::BadSignature
            | CrlError::Unverifiable { .. }
            | CrlError::MaySignNone(_) => None,
        }
    }

    /// As the error of one of so many lists; of one that is alone, the file's.
    fn of_list(self, index: usize, count: usize) -> Self {
        match count {
            1 => self,
            _ => CrlError::OneOf {
                position: index + 1,
                count,
                error: Box::new(self),
            },
        }
    }
}

impl From<ListError> for CrlError {
    fn from(error: ListError) -> Self {
        CrlError::Malformed(error.to_string())
    }
}

/// An authority that lists may be of.
#[derive(Debug, Clone)]
pub struct ListIssuer {
    /// Its name and key.
    pub anchor: TrustAnchor<'static>,
    /// Its name, for people.
    pub subject: Arc<str>,
    /// Whether its key usage, if it states one, has cRLSign.
    pub may_sign_lists: bool,
    /// Why it is not trusted at this moment, although it is configured: its dates.
    pub left_out: Option<Arc<str>>,
}

/// A verified list.
#[derive(Debug, Clone)]
pub struct VerifiedList {
    /// Whose it is.
    pub issuer: AuthorityId,
    /// What it says.
    pub list: IssuerList,
    /// Why nothing is to be made of it: its authority is not trusted at this moment.
    pub passed_over: Option<Arc<str>>,
}

static REFUSED_FILES: AtomicU64 = AtomicU64::new(0);

/// How many times this process has refused a file of lists.
pub fn refused_files() -> u64 {
    REFUSED_FILES.load(Ordering::Relaxed)
}

/// Counts a file of lists that was verified and is refused all the same.
pub fn count_refused() {
    REFUSED_FILES.fetch_add(1, Ordering::Relaxed);
}

/// Reads and verifies all lists of a file; or says what is wrong with the first that cannot be used.
pub fn load(
    path: &Path,
    issuers: &[ListIssuer],
    algorithms: &WebPkiSupportedAlgorithms,
    stale_policy: StalePolicy,
    now: SystemTime,
) -> Result<Vec<VerifiedList>, CrlError> {
    let lists = each(path, issuers, algorithms, stale_policy, now);
    let loaded = lists.and_then(|lists| lists.into_iter().collect());
    REFUSED_FILES.fetch_add(u64::from(loaded.is_err()), Ordering::Relaxed);
    loaded
}

/// Reads and verifies each list of a file by itself, for a file that has been counted already if it is refused.
pub fn each(
    path: &Path,
    issuers: &[ListIssuer],
    algorithms: &WebPkiSupportedAlgorithms,
    stale_policy: StalePolicy,
    now: SystemTime,
) -> Result<Vec<Result<VerifiedList, CrlError>>, CrlError> {
    let bytes = file::file(path, limits::CRL_FILE_BYTES_MAX)?;
    let key = Key::of(&bytes, issuers, algorithms);
    let lists = match crl_cache::find(&key) {
        Some(kept) => kept.into_iter().map(Ok).collect(),
        None => {
            // First, so that a list that was replaced a moment ago is not held beside the one that replaces the next.
            crl_cache::forget_unused();
            let verified = verify_all(bytes, issuers, algorithms)?;
            let good = verified.iter().map(|list| list.as_ref().ok().cloned());
            // A file with a list that cannot be used is seldom, and not for long.
            if let Some(good) = good.collect::<Option<Vec<_>>>() {
                crl_cache::keep(key, &good);
            }
            verified
        }
    };
    let count = lists.len();
    let use_now = |found: VerifiedList| {
        // By the clock of this moment, whenever it was verified.
        let from = usable_from(&found.list);
        match from > now {
            true => Err(CrlError::FromTheFuture(from)),
            false => Ok(VerifiedList {
                list: found.list.with_stale_policy(stale_policy),
                ..found
            }),
        }
    };
    let lists = lists.into_iter().enumerate();
    let usable = lists.map(|(index, found)| {
        let found = found.and_then(use_now);
        found.map_err(|error: CrlError| error.of_list(index, count))
    });
    Ok(usable.collect())
}

/// What the lists of a file say of themselves, without their entries. Not verified.
pub fn read_unverified(path: &Path) -> Result<Vec<IssuerList>, CrlError> {
    let bytes = file::file(path, limits::CRL_FILE_BYTES_MAX)?;
    let lists = file::revocation_lists(bytes)?;
    let read = |der: ListRead| {
        let der = der?;
        let signed = Signed::parse(&der).ok_or(ListError::Broken)?;
        let parts = ListParts::parse(signed.content)?;
        let next_update = parts.next_update.ok_or(CrlError::NoNextUpdate)?;
        let list = IssuerList::new(parts.this_update, next_update, StalePolicy::Refuse);
        let list = list.named(&parts.issuer_name).numbered(parts.number);
        Ok(list.about(parts.scope))
    };
    lists.into_iter().map(read).collect()
}

/// When a list may be used: a CA's clock may be ahead of ours.
fn usable_from(list: &IssuerList) -> SystemTime {
    let this_update = list.this_update();
    this_update
        .checked_sub(limits::CLOCK_AHEAD_MAX)
        .unwrap_or(this_update)
}

/// Parses and verifies each list of a file's text.
fn verify_all(
    bytes: Vec<u8>,
    issuers: &[ListIssuer],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<Vec<Result<VerifiedList, CrlError>>, CrlError> {
    // The text is longer than everything that comes after it: not held beside it.
    let lists = file::revocation_lists(bytes)?;
    let verified = lists
        .into_iter()
        .map(|der| verify(&der?, issuers, algorithms));
    Ok(verified.collect())
}

fn verify(
    der: &[u8],
    issuers: &[ListIssuer],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<VerifiedList, CrlError> {
    let signed = Signed::parse(der).ok_or(ListError::Broken)?;
    let parts = ListParts::parse(signed.content)?;
    if parts.algorithm != signed.algorithm() {
        // RFC 5280 section 5.1.1.2: both have to be the same.
        return Err(ListError::Broken.into());
    }
    let issuer = issuer_of(&parts, &signed, issuers, algorithms)?;
    if issuer.left_out.is_none() && !issuer.may_sign_lists {
        return Err(CrlError::MaySignNone(Arc::clone(&issuer.subject)));
    }
    let next_update = parts.next_update.ok_or(CrlError::NoNextUpdate)?;
    // The strictest policy; the user of the list says which one counts.
    let policy = StalePolicy::Refuse;
    let mut list = IssuerList::new(parts.this_update, next_update, policy)
        .named(&parts.issuer_name)
        .numbered(parts.number)
        .about(parts.scope.clone());
    list.reserve(parts.serials().count());
    for serial in parts.serials() {
        list.insert(serial?);
    }
    Ok(VerifiedList {
        issuer: authority_id(&issuer.anchor),
        list,
        passed_over: issuer.left_out.clone(),
    })
}

/// The authority that has signed a list. Several may share a name, and one may be there with several certificates: of those
/// that one key belongs to, one that is in use and may sign lists comes first.
fn issuer_of<'i>(
    parts: &ListParts<'_>,
    signed: &Signed<'_>,
    issuers: &'i [ListIssuer],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<&'i ListIssuer, CrlError> {
    let mut named: Vec<_> = issuers
        .iter()
        .filter(|issuer| is_same_name(&issuer.anchor.subject, parts.issuer))
        .collect();
    if named.is_empty() {
        return Err(CrlError::ForeignIssuer);
    }
    named.sort_by_key(|issuer| (issuer.left_out.is_some(), !issuer.may_sign_lists));
    let signs = |issuer: &&ListIssuer| {
        let key = issuer.anchor.subject_public_key_info.as_ref();
        signed.is_signed_by(key, algorithms)
    };
    if let Some(signer) = named.iter().copied().find(signs) {
        return Ok(signer);
    }
    let can_be_told = |issuer: &&ListIssuer| {
        let key = issuer.anchor.subject_public_key_info.as_ref();
        signed.can_be_told(key, algorithms)
    };
    Err(
        match named.iter().copied().find(|issuer| !can_be_told(issuer)) {
            Some(issuer) => CrlError::Unverifiable {
                subject: Arc::clone(&issuer.subject),
                key: algorithm_names::key(&issuer.anchor.subject_public_key_info),
                signature: algorithm_names::signature(signed.algorithm()),
            },
            None => CrlError::BadSignature,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::certificate::Chain;
    use gateway_core::revocation::{
        AuthorityKey, Gap, Kinds, Link, LinkPoint, Revocation, Serial, Status,
    };
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
        CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
        KeyUsagePurpose, RevokedCertParams, SerialNumber,
    };
    use std::time::Duration;
    use time::{Duration as Days, OffsetDateTime};

    const NOW: i64 = 1_800_000_000;

    fn authority(name: &str) -> (Issuer<'static, KeyPair>, Vec<ListIssuer>) {
        authority_for(
            name,
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
        )
    }

    fn authority_for(
        name: &str,
        usages: Vec<KeyUsagePurpose>,
    ) -> (Issuer<'static, KeyPair>, Vec<ListIssuer>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let may_sign_lists = usages.is_empty() || usages.contains(&KeyUsagePurpose::CrlSign);
        params.key_usages = usages;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let anchor = webpki::anchor_from_trusted_cert(certificate.der()).unwrap();
        let issuer = ListIssuer {
            anchor: anchor.to_owned(),
            subject: name.into(),
            may_sign_lists,
            left_out: None,
        };
        (Issuer::new(params, key), vec![issuer])
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

    fn chain(links: &[Link], points: &[LinkPoint]) -> Chain {
        Chain {
            links: links.to_vec(),
            points: points.to_vec(),
            anchor: links[0].issuer,
            constraints: None,
            not_before: now(),
            not_after: now(),
            ends_with_anchor: false,
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64)
    }

    fn verified(der: &[u8], roots: &[ListIssuer]) -> Result<VerifiedList, CrlError> {
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        verify(der, roots, algorithms)
    }

    #[test]
    fn a_list_whose_signature_cannot_be_verified_says_so_and_with_what() {
        // ECDSA with SHA-512 by a P-256 key, as `openssl ca -md sha512` makes it: ring has no code for that.
        let (issuer, roots) = authority("Agents");
        let mut der = params(&[7]).signed_by(&issuer).unwrap().der().to_vec();
        let sha256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let places: Vec<_> = (0..der.len() - 8)
            .filter(|at| der[*at..].starts_with(&sha256))
            .collect();
        assert_eq!(places.len(), 2);
        places.iter().for_each(|at| der[at + 7] = 4);
        let words = verified(&der, &roots).unwrap_err().to_string();
        for part in ["ECDSA with SHA-512", "a key of P-256", "provider"] {
            assert!(words.contains(part), "{words}");
        }
    }

    #[test]
    fn a_list_is_of_the_authority_that_its_issuers_name_reads_the_same_as() {
        // RFC 5280 section 7.1: a PrintableString in capitals against a UTF8String.
        let (issuer, mut roots) = authority("Agents");
        let der = params(&[7]).signed_by(&issuer).unwrap();
        let subject = roots[0].anchor.subject.to_vec();
        let at = subject.windows(6).position(|six| six == b"Agents").unwrap();
        let mut respelled = subject.clone();
        respelled[at..at + 6].copy_from_slice(b"AGENTS");
        respelled[at - 2] = 0x13;
        roots[0].anchor.subject = respelled.into();
        let found = verified(der.der(), &roots).unwrap();
        assert_eq!(found.issuer, authority_id(&roots[0].anchor));
        let mut other = subject;
        other[at] = b'B';
        roots[0].anchor.subject = other.into();
        let refused = verified(der.der(), &roots);
        assert!(matches!(refused, Err(CrlError::ForeignIssuer)));
    }

    #[test]
    fn a_list_of_a_trusted_authority_takes_back_what_it_names() {
        let (issuer, roots) = authority("Agents");
        let der = params(&[7, 300]).signed_by(&issuer).unwrap();
        let VerifiedList { issuer, list, .. } = verified(der.der(), &roots).unwrap();
        assert_eq!(issuer, authority_id(&roots[0].anchor));
        assert_eq!((list.len(), list.is_stale(now())), (2, false));
        let revocation = Revocation::new([(issuer, list)]);
        let status = |serial: &[u8]| {
            let serial = Serial::new(serial).unwrap();
            revocation.status(
                &chain(
                    &[Link {
                        issuer,
                        key: AuthorityKey::default(),
                        serial,
                    }],
                    &[],
                ),
                now(),
            )
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
        let both = [namesakes, roots.clone()].concat();
        let der = params(&[7]).signed_by(&issuer).unwrap();
        assert_eq!(
            verified(der.der(), &both).unwrap().issuer,
            authority_id(&roots[0].anchor)
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
        let load_at = |roots: &[ListIssuer], now| {
            let algorithms = &provider.signature_verification_algorithms;
            load(&file, roots, algorithms, StalePolicy::Allow, now)
        };
        let write = |serials: &[u64]| {
            std::fs::write(&file, params(serials).signed_by(&issuer).unwrap().der()).unwrap();
        };
        write(&[7]);
        let first = load_at(&roots, now()).unwrap();
        crl_cache::forget_unused();
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
            Err(CrlError::FromTheFuture(_))
        ));
        write(&[7, 8]);
        let third = load_at(&roots, now()).unwrap();
        assert_eq!((second[0].list.len(), third[0].list.len()), (1, 2));
        // In the end only the cache has the entries, and then not even that.
        let entries = third[0].list.clone();
        drop((second, third));
        crl_cache::forget_unused();
        assert!(entries.is_shared(), "in use, so kept");
        let before = refused_files();
        std::fs::write(&file, b"broken").unwrap();
        assert!(load_at(&roots, now()).is_err());
        assert!(refused_files() > before);
    }

    /// The points that a certificate with these URIs names.
    fn points_of(uris: &[&str]) -> Vec<LinkPoint> {
        let mut params = CertificateParams::default();
        let point = |uri: &&str| CrlDistributionPoint {
            uris: vec![(*uri).to_owned()],
        };
        params.crl_distribution_points = uris.iter().map(point).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
        let points = crate::named_by_certificate(&parsed).into_iter();
        points.map(|point| LinkPoint { link: 0, point }).collect()
    }

    /// As step-ca and EJBCA make them: a URI, and perhaps which kind of certificate.
    fn partial(scope: Option<CrlScope>, uri: &str) -> CertificateRevocationListParams {
        CertificateRevocationListParams {
            issuing_distribution_point: Some(CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec![uri.to_owned()],
                },
                scope,
            }),
            ..params(&[7])
        }
    }

    #[test]
    fn a_list_with_an_issuing_distribution_point_covers_what_it_says_and_nothing_else() {
        let (issuer, roots) = authority("Agents");
        let id = authority_id(&roots[0].anchor);
        let link = |serial: u8| Link {
            issuer: id,
            key: AuthorityKey::default(),
            serial: Serial::new(&[serial]).unwrap(),
        };
        let uri = "http://ca.example.org/1.0/crl";
        let status =
            |list: CertificateRevocationListParams, links: &[Link], points: &[LinkPoint]| {
                let der = list.signed_by(&issuer).unwrap();
                let VerifiedList { list, .. } = verified(der.der(), &roots).unwrap();
                Revocation::new([(id, list)]).status(&chain(links, points), now())
            };
        let not_covered = Status::Unknown(Gap::NotCovered(id));
        let (mine, other) = (
            points_of(&["http://x.example", uri]),
            points_of(&["http://other.example"]),
        );
        let leaf = [link(8)];
        for (scope, points, expected) in [
            (None, &[][..], Status::Good),
            (None, &mine[..], Status::Good),
            (None, &other[..], not_covered),
            (Some(CrlScope::UserCertsOnly), &[][..], Status::Good),
            (Some(CrlScope::CaCertsOnly), &[][..], not_covered),
        ] {
            assert_eq!(
                status(partial(scope, uri), &leaf, points),
                expected,
                "{scope:?} {points:?}"
            );
        }
        // What it names is revoked, whatever it covers.
        assert_eq!(
            status(partial(None, uri), &[link(7)], &other),
            Status::Revoked
        );
        // Of an intermediate only the list that is about CAs speaks.
        let both = [link(8), link(9)];
        assert_eq!(
            status(partial(Some(CrlScope::UserCertsOnly), uri), &both, &[]),
            not_covered
        );
        assert_eq!(
            status(partial(Some(CrlScope::CaCertsOnly), uri), &both, &[]),
            not_covered
        );
        let lists = [CrlScope::UserCertsOnly, CrlScope::CaCertsOnly].map(|scope| {
            let der = partial(Some(scope), uri).signed_by(&issuer).unwrap();
            (id, verified(der.der(), &roots).unwrap().list)
        });
        let together = Revocation::new(lists);
        assert_eq!(together.status(&chain(&both, &[]), now()), Status::Good);
        assert!(
            together.has_list(id, Kinds::EndEntities) && together.has_list(id, Kinds::Authorities)
        );
    }

    #[test]
    fn a_list_by_a_ca_that_may_sign_none_is_refused() {
        let (issuer, mut roots) = authority_for(
            "Agents",
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
        );
        let der = params(&[7]).signed_by(&issuer).unwrap();
        roots[0].may_sign_lists = false;
        let refused = verified(der.der(), &roots).unwrap_err();
        assert!(matches!(refused, CrlError::MaySignNone(_)), "{refused}");
        // Its certificate was issued anew, with the usage: the key is the same.
        let anew = ListIssuer {
            may_sign_lists: true,
            ..roots[0].clone()
        };
        roots.push(anew);
        assert!(verified(der.der(), &roots).is_ok());
    }

    #[test]
    fn a_list_of_a_ca_that_was_left_out_is_verified_and_passed_over() {
        let (issuer, mut roots) = authority("Agents");
        roots[0].left_out = Some("expired".into());
        let der = params(&[7]).signed_by(&issuer).unwrap();
        assert!(verified(der.der(), &roots).unwrap().passed_over.is_some());
        let (namesake, _) = authority("Agents");
        let forged = params(&[7]).signed_by(&namesake).unwrap();
        assert!(matches!(
            verified(forged.der(), &roots),
            Err(CrlError::BadSignature)
        ));
    }

    #[test]
    fn a_list_says_its_number() {
        let (issuer, roots) = authority("Agents");
        let der = params(&[7]).signed_by(&issuer).unwrap();
        let rank = verified(der.der(), &roots).unwrap().list.rank();
        assert_eq!(
            rank.number.map(|number| number.0),
            Some(Serial::new(&[1]).unwrap())
        );
    }

    #[test]
    fn a_list_may_be_five_minutes_ahead_and_one_further_ahead_says_when_it_begins() {
        let (issuer, roots) = authority("Agents");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agents.crl");
        let provider = rustls::crypto::ring::default_provider();
        let ahead = |minutes: i64| {
            let mut list = params(&[7]);
            list.this_update =
                OffsetDateTime::from_unix_timestamp(NOW).unwrap() + Days::minutes(minutes);
            std::fs::write(&file, list.signed_by(&issuer).unwrap().der()).unwrap();
            let algorithms = &provider.signature_verification_algorithms;
            load(&file, &roots, algorithms, StalePolicy::Refuse, now())
        };
        assert!(ahead(5).is_ok());
        let Err(CrlError::FromTheFuture(from)) = ahead(7) else {
            panic!("seven minutes are more than clocks differ");
        };
        assert_eq!(from, now() + Duration::from_secs(2 * 60));
    }
}
