//! Why a chain is refused: one of our reasons, and words for the operator who mends it.
//! In: webpki's error, the certificates it is about. Out: a `Refused`. webpki's list of errors is open-ended; this is the
//! one place that translates it.

use std::time::{Duration, SystemTime};

use gateway_core::failure::Failure;
use gateway_core::limits;
use rustls::pki_types::CertificateDer;
use webpki::VerifiedPath;
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::candidate::Candidate;
use super::certificate::{name_text, oid_text};
use super::client_certificate;
use super::date;
use super::path::{Search, Usage};
use super::roots::Root;

/// Why a chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// The reason.
    pub failure: Failure,
    /// The reason in words.
    pub detail: String,
}

impl Refused {
    /// A reason and its words.
    pub fn new(failure: Failure, detail: impl Into<String>) -> Self {
        Refused {
            failure,
            detail: detail.into(),
        }
    }

    pub(super) fn bad_signature() -> Self {
        let detail =
            "a signature of its chain does not verify: a CA of the same name, or a forgery";
        Refused::new(Failure::BadSignature, detail)
    }

    /// Whether it is more than that no signature and no name leads on.
    pub(super) fn says_much(&self) -> bool {
        self.weight() == u8::MAX
    }

    /// How much a reason says: of several paths, the one that came furthest speaks.
    pub(super) fn weight(&self) -> u8 {
        const VAGUE: [Failure; 3] = [
            Failure::UnknownIssuer,
            Failure::BadSignature,
            Failure::Malformed,
        ];
        let vague = VAGUE.iter().position(|vague| *vague == self.failure);
        vague.map_or(u8::MAX, |position| position as u8)
    }
}

/// webpki's reasons as an operator reads them.
pub(super) fn explain(
    error: &webpki::Error,
    usage: Usage,
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
) -> Refused {
    use webpki::Error as Webpki;
    let named = explain_dates(error)
        .or_else(|| explain_authorities(error, above))
        .or_else(|| explain_names(error));
    if let Some(named) = named {
        return named;
    }
    let (failure, detail) = match error {
        Webpki::InvalidSignatureForPublicKey => return Refused::bad_signature(),
        Webpki::MaximumPathDepthExceeded => return too_deep(),
        Webpki::SignatureAlgorithmMismatch
        | Webpki::UnsupportedSignatureAlgorithmContext(_)
        | Webpki::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => (
            Failure::BadSignature,
            "a signature is of a kind that is not accepted (RSA below 2048 bits, SHA-1)".to_owned(),
        ),
        Webpki::RequiredEkuNotFoundContext(_) | Webpki::EmptyEkuExtension => {
            (Failure::WrongKeyUsage, lacks_usage(usage, above))
        }
        Webpki::UnsupportedCriticalExtension => {
            (Failure::CriticalExtension, critical_extension(leaf, above))
        }
        Webpki::UnsupportedCertVersion => (
            Failure::Malformed,
            "it, or one above it, is of X.509 version 1 or 2: issue it in version 3".to_owned(),
        ),
        Webpki::UnknownIssuer => (Failure::UnknownIssuer, leads_nowhere(usage)),
        other => (
            Failure::Malformed,
            format!("it, or one above it, cannot be read as a certificate ({other})"),
        ),
    };
    Refused::new(failure, detail)
}

fn explain_dates(error: &webpki::Error) -> Option<Refused> {
    use webpki::Error as Webpki;
    let at = |seconds: u64| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let (failure, detail) = match error {
        Webpki::CertExpired { not_after, .. } => {
            let end = at(not_after.as_secs());
            (
                Failure::Expired,
                format!("it, or one above it, ended on {end}"),
            )
        }
        Webpki::CertNotValidYet { not_before, .. } => {
            let start = at(not_before.as_secs());
            let detail = format!("it, or one above it, is not valid before {start}");
            (Failure::NotYetValid, detail)
        }
        Webpki::InvalidCertValidity => {
            let detail = "it, or one above it, ends before it begins: it is never valid".to_owned();
            (Failure::Expired, detail)
        }
        _ => return None,
    };
    Some(Refused::new(failure, detail))
}

fn explain_authorities(error: &webpki::Error, above: &[CertificateDer<'_>]) -> Option<Refused> {
    use webpki::Error as Webpki;
    let (failure, detail) = match error {
        Webpki::CaUsedAsEndEntity => (
            Failure::WrongKeyUsage,
            "it is the certificate of a CA (basic constraints, RFC 5280 section 4.2.1.9): issue one that is not".to_owned(),
        ),
        Webpki::EndEntityUsedAsCa => (Failure::PathConstraint, no_authority(above)),
        Webpki::PathLenConstraintViolated => (
            Failure::PathConstraint,
            "a CA of its chain allows fewer CAs below itself than there are (path length, RFC 5280 section 4.2.1.9): \
             issue that CA with a longer one"
                .to_owned(),
        ),
        _ => return None,
    };
    Some(Refused::new(failure, detail))
}

fn explain_names(error: &webpki::Error) -> Option<Refused> {
    use webpki::Error as Webpki;
    let detail = match error {
        Webpki::NameConstraintViolation => {
            "a CA of its chain may not issue for its names (name constraints, RFC 5280 section 4.2.1.10; those on URIs and \
             directory names are honoured of CAs that the configuration names, of others they permit none of theirs here, as those on \
             e-mail addresses do): issue it by another CA, or name that CA in the configuration"
        }
        Webpki::MalformedNameConstraint | Webpki::InvalidNetworkMaskConstraint => {
            "the name constraints of a CA of its chain cannot be read: issue that CA anew"
        }
        _ => return None,
    };
    Some(Refused::new(Failure::NameConstraint, detail))
}

fn leads_nowhere(usage: Usage) -> String {
    format!("it leads to no CA in {}", key(usage))
}

fn key(usage: Usage) -> &'static str {
    match usage {
        Usage::Client => "client_ca",
        Usage::Server => "ca",
    }
}

fn lacks_usage(usage: Usage, above: &[CertificateDer<'_>]) -> String {
    let (name, number) = match usage {
        Usage::Client => ("clientAuth", "2"),
        Usage::Server => ("serverAuth", "1"),
    };
    let or = match above {
        [] => "",
        _ => ", or a CA above it is limited to other uses",
    };
    format!("it lacks the {name} extended key usage (1.3.6.1.5.5.7.3.{number}){or}")
}

fn no_authority(above: &[CertificateDer<'_>]) -> String {
    let is_authority = |parsed: &X509Certificate<'_>| {
        let constraints = parsed.basic_constraints().ok().flatten();
        constraints.is_some_and(|constraints| constraints.value.ca)
    };
    let parsed = above
        .iter()
        .filter_map(|der| X509Certificate::from_der(der).ok());
    let mut others = parsed.filter(|(_, parsed)| !is_authority(parsed));
    let subject = others.next().map_or_else(
        || "a certificate above it".to_owned(),
        |(_, parsed)| name_text(parsed.subject()),
    );
    format!(
        "{subject} is not a CA (basic constraints, RFC 5280 section 4.2.1.9) and has issued a certificate of its chain"
    )
}

/// The extensions that webpki knows, RFC 5280 section 4.2.
pub(super) const KNOWN: [Oid<'static>; 7] = [
    oid!(2.5.29.14),
    oid!(2.5.29.15),
    oid!(2.5.29.17),
    oid!(2.5.29.19),
    oid!(2.5.29.30),
    oid!(2.5.29.31),
    oid!(2.5.29.37),
];

fn critical_extension(leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> String {
    for der in std::iter::once(leaf).chain(above) {
        let Ok((_, parsed)) = X509Certificate::from_der(der) else {
            continue;
        };
        let mut extensions = parsed.extensions().iter();
        let unknown = extensions.find(|one| one.critical && !KNOWN.contains(&one.oid));
        if let Some(unknown) = unknown {
            return format!(
                "the certificate of {} has the critical extension {}, which is not understood here and may not be passed over \
                 (RFC 5280 section 4.2): issue it without, or as not critical",
                name_text(parsed.subject()),
                oid_text(&unknown.oid)
            );
        }
    }
    "it, or one above it, has a critical extension that is not understood here (RFC 5280 section 4.2)".to_owned()
}

/// No certificate that was sent, and no CA, has the issuer's name.
/// `above` are those behind the first one, as far as they can be read.
pub(super) fn unknown_issuer(
    search: &Search<'_>,
    leaf: &Candidate<'_>,
    above: &[Option<Candidate<'_>>],
) -> Refused {
    let mut detail = leads_nowhere(search.usage);
    if let Some(last) = last_issuer(leaf, above) {
        let count = above.len();
        detail = format!(
            "{detail}: {last:?} is none of the {} there",
            search.roots.len()
        );
        if let Some(root) = search.roots.spelled(&last) {
            detail = format!(
                "{detail}. {:?} there reads the same and is another name by its bytes: the CA has to write its own name as \
                 issuer (RFC 5280 section 4.1.2.4)",
                root.subject
            );
        } else if count == 0 {
            detail = format!(
                "{detail}, and no intermediate certificate came with it: let the client send its whole chain, or add the CA"
            );
        } else {
            detail = format!(
                "{detail}, {count} certificates came with it: add the CA that issued the last of them"
            );
        }
    }
    Refused::new(Failure::UnknownIssuer, detail)
}

/// Follows names from the first certificate upwards, and names the issuer that is not there.
fn last_issuer(leaf: &Candidate<'_>, above: &[Option<Candidate<'_>>]) -> Option<String> {
    let mut above: Vec<_> = above.iter().flatten().collect();
    let mut head = leaf;
    while let Some(next) = above.iter().position(|one| one.subject == head.issuer) {
        head = above.swap_remove(next);
    }
    let (_, parsed) = X509Certificate::from_der(head.der).ok()?;
    Some(name_text(parsed.issuer()))
}

/// The CA itself is over.
pub(super) fn ended_root(root: &Root) -> Refused {
    let ended = date(root.not_after - Duration::from_secs(1));
    let detail = format!("the CA above it, {}, ended on {ended}", root.subject);
    Refused::new(Failure::Expired, detail)
}

/// More certificates in a row than any hierarchy has.
pub(super) fn too_deep() -> Refused {
    let detail = format!(
        "a chain of more than {} certificates",
        limits::CHAIN_DEPTH.end()
    );
    Refused::new(Failure::WeakKey, detail)
}

/// Refuses a path with a certificate in it that must not issue any: webpki looks at basic constraints alone.
pub(super) fn require_issuers(path: &VerifiedPath<'_>) -> Result<(), Refused> {
    for intermediate in path.intermediate_certificates() {
        if !client_certificate::may_issue(&intermediate.der()).unwrap_or(false) {
            let detail = "the key usage of an intermediate certificate lacks keyCertSign";
            return Err(Refused::new(Failure::WrongKeyUsage, detail));
        }
    }
    Ok(())
}
