//! Certificates, keys and authorities that the configuration names: read, and tried against each other.
//! In: paths as written. Out: what TLS works with, or an error at the path's line. A certificate that would fail at
//! the first handshake fails here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::expiry::{Band, Lifetime};
use gateway_x509::authority_key;
use gateway_x509::certificate::{CertificateInfo, KeyAlgorithm};
use gateway_x509::crl::ListIssuer;
use gateway_x509::{AnyPath, Certificate, Roots, Search, Usage};
use gateway_x509::{date, file};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::checked::{CertificateFile, FiledAuthority};
use super::client_ca::AuthorityOrigin;
use super::diagnostics::{Diagnostics, Location};
use super::raw::Text;
pub use super::shown::{shown_path, shown_time};
use super::value::{Field, Spanned};

/// What we use a certificate of ours for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Towards agents.
    Server,
    /// Towards backends.
    Client,
}

/// A certificate of ours, ready for use.
#[derive(Debug)]
pub struct OwnCertificate {
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// What the first certificate of the chain says.
    pub info: CertificateInfo,
    /// Line of the certificate's path.
    pub line: usize,
}

/// Reads the files under `certificate` and `key`, and tries them.
pub fn own(
    location: &Location,
    fields: (Field<Text>, Field<Text>),
    role: Role,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<OwnCertificate> {
    let certificate = present(
        location,
        "certificate",
        fields.0,
        "name the file of the certificate and its chain",
        diagnostics,
    );
    let key = present(
        location,
        "key",
        fields.1,
        "name the file of the certificate's private key",
        diagnostics,
    );
    let chain = certificate
        .as_ref()
        .and_then(|item| chain(location, item, role, provider, diagnostics));
    let leaf = chain.as_ref().map(|(_, info)| info.key);
    let key = key.and_then(|item| signing_key(location, item, (provider, leaf), diagnostics));
    let (certificate, (chain, info), (key_item, signing_key)) = (certificate?, chain?, key?);
    let key = CertifiedKey::new(chain, signing_key);
    if let Err(error) = key.keys_match() {
        let path = diagnostics.resolve(&key_item.value);
        let path = path.display();
        match error {
            // Its certificate may be on its way: programs that renew both write one after the other.
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let certificate = &certificate.value;
                let reason =
                    format_args!("{path}: does not belong to the certificate in {certificate}");
                diagnostics.wrong_for_now(location, "key", &key_item, reason);
            }
            other => {
                let reason =
                    format_args!("{path}: cannot be tried against its certificate: {other}");
                diagnostics.wrong(location, "key", &key_item, reason);
            }
        }
        return None;
    }
    Some(OwnCertificate {
        key: Arc::new(key),
        info,
        line: certificate.line,
    })
}

fn present(
    location: &Location,
    key: &str,
    field: Field<Text>,
    expectation: &str,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Spanned<Text>> {
    if matches!(field, Field::Absent) {
        diagnostics.missing(location, key, expectation);
    }
    field.given()
}

/// A certificate file under examination: everything found wrong is told at the line of its path.
pub(super) struct Examination<'e, 'a> {
    pub(super) location: &'e Location,
    pub(super) key: &'e str,
    pub(super) item: &'e Spanned<Text>,
    pub(super) path: PathBuf,
    pub(super) diagnostics: &'e mut Diagnostics<'a>,
    pub(super) sound: bool,
}

impl<'e, 'a> Examination<'e, 'a> {
    pub(super) fn new(
        location: &'e Location,
        key: &'e str,
        item: &'e Spanned<Text>,
        diagnostics: &'e mut Diagnostics<'a>,
    ) -> Self {
        let path = diagnostics.resolve(&item.value);
        Examination {
            location,
            key,
            item,
            path,
            diagnostics,
            sound: true,
        }
    }

    pub(super) fn refuse(&mut self, reason: impl std::fmt::Display) {
        self.sound = false;
        let text = format_args!("{}: {reason}", self.path.display());
        self.diagnostics
            .wrong(self.location, self.key, self.item, text);
    }

    pub(super) fn warn(&mut self, reason: impl std::fmt::Display) {
        let text = format!("{}: {reason}", self.path.display());
        self.diagnostics
            .warn(self.item.line, &self.location.key(self.key), text);
    }

    /// Certificates of the file with what they say.
    pub(super) fn certificates(&mut self) -> Option<Vec<(Certificate, CertificateInfo)>> {
        let certificates = match file::certificate_sections(&self.path) {
            Ok(certificates) => certificates,
            Err(error) => {
                self.refuse(error);
                return None;
            }
        };
        let mut parsed = Vec::new();
        for certificate in certificates {
            match CertificateInfo::parse(&certificate.der) {
                Ok(info) => parsed.push((certificate, info)),
                Err(error) => self.refuse(format_args!("line {}: {error}", certificate.line)),
            }
        }
        self.sound.then_some(parsed)
    }

    /// Notes a certificate for `check` and the expiry metric.
    pub(super) fn note(
        &mut self,
        info: &CertificateInfo,
        first_to_end: &CertificateInfo,
        authority: Option<FiledAuthority>,
    ) {
        let location = self.location.label.replace(['"', ':'], "");
        self.diagnostics.certificate(CertificateFile {
            file: self.path.clone(),
            usage: format!("{location} {}", self.key),
            subject: info.subject.clone(),
            not_before: first_to_end.not_before,
            not_after: first_to_end.not_after,
            authority,
        });
    }

    pub(super) fn warn_of_expiry(&mut self, info: &CertificateInfo) {
        let lifetime = Lifetime {
            begins: info.not_before,
            ends: info.not_after,
        };
        if lifetime.band(self.diagnostics.now) >= Band::Sixth {
            self.warn(format_args!(
                "{} expires {}",
                info.subject,
                shown_time(info.not_after, self.diagnostics.now)
            ));
        }
    }
}

fn chain(
    location: &Location,
    item: &Spanned<Text>,
    role: Role,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Vec<CertificateDer<'static>>, CertificateInfo)> {
    let mut examination = Examination::new(location, "certificate", item, diagnostics);
    let (chain, infos): (Vec<_>, Vec<_>) = examination.certificates()?.into_iter().unzip();
    let chain: Vec<_> = chain.into_iter().map(|found| found.der).collect();
    let first_to_end = infos.iter().min_by_key(|info| info.not_after)?;
    let now = match examination.diagnostics.takes_expired {
        true => examination.diagnostics.now.min(first_to_end.not_after),
        false => examination.diagnostics.now,
    };
    for info in &infos {
        if let Some(reason) = outside_validity(info, examination.diagnostics) {
            examination.refuse(format_args!("{} {reason}", info.subject));
        }
        examination.warn_of_expiry(info);
    }
    examine_purpose(&infos[0], role, &mut examination);
    examine_signatures(&infos, &mut examination);
    if examination.sound {
        examine_order(&infos, &mut examination);
    }
    if examination.sound
        && let Err(error) = verify(&chain, role, provider, now)
    {
        examination.refuse(format_args!("the chain does not verify: {error}"));
    }
    examination.note(&infos[0], first_to_end, None);
    examination.sound.then(|| (chain, infos[0].clone()))
}

fn examine_purpose(leaf: &CertificateInfo, role: Role, examination: &mut Examination<'_, '_>) {
    if leaf.is_authority {
        examination.refuse(format_args!(
            "{} is the certificate of a CA: must begin with a server's or client's own",
            leaf.subject
        ));
        return;
    }
    let (allowed, name) = match role {
        Role::Server => (
            leaf.purposes.is_none_or(|purposes| purposes.server),
            "serverAuth",
        ),
        Role::Client => (
            leaf.purposes.is_none_or(|purposes| purposes.client),
            "clientAuth",
        ),
    };
    if !allowed {
        examination.refuse(format_args!(
            "{} lacks the extended key usage {name}",
            leaf.subject
        ));
    }
    if leaf.cannot_sign_handshakes {
        examination.refuse(format_args!(
            "{} has a key usage without digitalSignature: must have it, for TLS 1.3 proves possession by signing (RFC 8446 \
             section 4.4.2.2), and Java, gRPC and GnuTLS refuse it",
            leaf.subject
        ));
    }
    if role == Role::Server {
        warn_of_clients(leaf, examination);
    }
}

/// What some clients do not take, or ask for in vain.
fn warn_of_clients(leaf: &CertificateInfo, examination: &mut Examination<'_, '_>) {
    let subject = &leaf.subject;
    match (leaf.dns_names.is_empty(), leaf.ip_addresses.is_empty()) {
        (true, true) => examination.warn(format_args!(
            "{subject} has no DNS name and no IP address: a client that asks for a server by name is refused (`sni`), and most \
             others refuse the certificate"
        )),
        (true, false) => examination.warn(format_args!(
            "{subject} has no DNS name: a client that asks for a server by name is refused (`sni`); only clients that \
             connect to an address get in"
        )),
        (false, _) => {}
    }
    if matches!(leaf.key, KeyAlgorithm::Ed25519 | KeyAlgorithm::P521) {
        examination.warn(format_args!(
            "{subject} has a key that is {}: clients on BoringSSL (gRPC's C, C++, Python and Ruby, Envoy, Chrome) refuse it \
             unless they are told otherwise, and are counted as `client_rejected_server`; P-256 suits every client",
            leaf.key
        ));
    }
}

/// The signatures of the chain, but that of a root, which no client checks (RFC 8446 section 4.4.2).
fn examine_signatures(infos: &[CertificateInfo], examination: &mut Examination<'_, '_>) {
    for info in infos {
        if info.has_broken_signature && info.subject_der != info.issuer_der {
            examination.refuse(format_args!(
                "{} is signed with MD5 or SHA-1, which clients refuse: have it issued again with SHA-256",
                info.subject
            ));
        }
    }
}

/// RFC 8446 section 4.4.2: each certificate should certify the one before it. Many clients insist.
fn examine_order(infos: &[CertificateInfo], examination: &mut Examination<'_, '_>) {
    for (index, pair) in infos.windows(2).enumerate() {
        if pair[0].issuer_der != pair[1].subject_der || !pair[1].is_authority {
            examination.refuse(format_args!(
                "certificate {} ({}) did not issue certificate {} ({}): must hold the chain from the certificate upwards",
                index + 2,
                pair[1].subject,
                index + 1,
                pair[0].subject
            ));
        }
    }
}

/// Tries the chain as a peer will, with its last certificate as the root.
fn verify(
    chain: &[CertificateDer<'static>],
    role: Role,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(), Error> {
    let [leaf, intermediates @ .., last] = chain else {
        return Ok(()); // alone: its issuer is the peer's to know
    };
    // Only `check --expiry` asks about a moment before 1970, which the verifier has no type for.
    let Ok(since_epoch) = now.duration_since(SystemTime::UNIX_EPOCH) else {
        return Ok(());
    };
    let mut roots = RootCertStore::empty();
    roots.add(last.clone())?;
    let search = Search {
        roots: &Roots::new(roots, std::slice::from_ref(last)),
        algorithms: provider.signature_verification_algorithms.all,
        usage: match role {
            Role::Server => Usage::Server,
            Role::Client => Usage::Client,
        },
        now: UnixTime::since_unix_epoch(since_epoch),
    };
    let below: Vec<_> = std::iter::once(leaf)
        .chain(intermediates)
        .cloned()
        .collect();
    search
        .find(&below, &AnyPath)
        .map_err(|refused| Error::General(refused.detail))
}

fn signing_key(
    location: &Location,
    item: Spanned<Text>,
    (provider, leaf): (&CryptoProvider, Option<KeyAlgorithm>),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Spanned<Text>, Arc<dyn rustls::sign::SigningKey>)> {
    let path = diagnostics.resolve(&item.value);
    let loaded = file::private_key(&path)
        .map_err(|error| error.to_string())
        .and_then(|der| {
            // The provider zeroes the bytes it is handed.
            provider
                .key_provider
                .load_private_key(der)
                .map_err(|_| unusable(leaf))
        });
    match loaded {
        Ok(key) => Some((item, key)),
        Err(reason) => {
            diagnostics.wrong(
                location,
                "key",
                &item,
                format_args!("{}: {reason}", path.display()),
            );
            None
        }
    }
}

/// Why a provider does not take a key: by its certificate, for a key that is not read says nothing of itself.
fn unusable(leaf: Option<KeyAlgorithm>) -> String {
    let takes = "must be P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits";
    match leaf {
        Some(KeyAlgorithm::P521) => format!(
            "cannot be used: P-521 needs `provider = \"aws-lc-rs\"` in [tls], for ring cannot sign with it; or {takes}"
        ),
        Some(KeyAlgorithm::P256 | KeyAlgorithm::P384 | KeyAlgorithm::Ed25519) | None => {
            format!("cannot be used: its content is damaged, or of another algorithm; {takes}")
        }
        Some(other @ (KeyAlgorithm::Ed448 | KeyAlgorithm::Rsa(_) | KeyAlgorithm::Other)) => {
            format!("cannot be used: the key of the certificate is {other}; {takes}")
        }
    }
}

/// Authorities that the other side's certificates may chain to.
#[derive(Debug, Clone)]
pub struct Authorities {
    /// For verifying.
    pub roots: RootCertStore,
    /// The certificates of `roots`, in the same order.
    pub certificates: Vec<CertificateDer<'static>>,
    /// What they say, in the same order.
    pub infos: Vec<CertificateInfo>,
    /// Those that are not used for their dates: their lists can be told from forged ones, and are passed over.
    pub(super) left_out: Vec<ListIssuer>,
    /// Each that was read.
    pub origins: Vec<AuthorityOrigin>,
}

impl Default for Authorities {
    fn default() -> Self {
        Authorities {
            roots: RootCertStore::empty(),
            certificates: Vec::new(),
            infos: Vec::new(),
            left_out: Vec::new(),
            origins: Vec::new(),
        }
    }
}

impl Authorities {
    /// Remembers where those were read that are more than these numbers of used and unused ones.
    pub(super) fn note_origins(&mut self, file: usize, (used, unused): (usize, usize)) {
        let origin = |in_use| {
            move |anchor| AuthorityOrigin {
                key: authority_key(anchor),
                file,
                in_use,
            }
        };
        let used = self.roots.roots[used..].iter().map(origin(true));
        let unused = self.left_out[unused..].iter();
        let unused = unused.map(|issuer| &issuer.anchor).map(origin(false));
        self.origins.extend(used.chain(unused));
    }

    /// All that a list may be of.
    pub fn list_issuers(&self) -> Vec<ListIssuer> {
        let in_use = self.roots.roots.iter().zip(&self.infos);
        let in_use = in_use.map(|(anchor, info)| ListIssuer {
            anchor: anchor.clone(),
            subject: info.subject.as_str().into(),
            may_sign_lists: !info.cannot_sign_lists,
            left_out: None,
        });
        in_use.chain(self.left_out.iter().cloned()).collect()
    }

    /// The same without those that are marked.
    pub fn without(mut self, marked: &[bool]) -> Self {
        fn keep<T>(values: &mut Vec<T>, marked: &[bool]) {
            let mut marked = marked.iter();
            values.retain(|_| !marked.next().unwrap_or(&false));
        }
        keep(&mut self.roots.roots, marked);
        keep(&mut self.certificates, marked);
        keep(&mut self.infos, marked);
        self
    }

    pub(super) fn leave_out(
        &mut self,
        certificate: &CertificateDer<'_>,
        info: &CertificateInfo,
        reason: &str,
    ) {
        // What webpki cannot read has signed no list that it could verify.
        if let Ok(anchor) = webpki::anchor_from_trusted_cert(certificate) {
            self.left_out.push(ListIssuer {
                anchor: anchor.to_owned(),
                subject: info.subject.as_str().into(),
                may_sign_lists: !info.cannot_sign_lists,
                left_out: Some(reason.into()),
            });
        }
    }
}

impl Authorities {
    /// As chains are verified with them.
    pub fn into_roots(self) -> Roots {
        Roots::new(self.roots, &self.certificates)
    }
}

/// Why a certificate is of no use now, if it is not. When it begins or ends, its file reads differently.
pub(super) fn outside_validity(
    info: &CertificateInfo,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<String> {
    let now = diagnostics.now;
    diagnostics.turns_at(info.not_before);
    // Valid through the whole of the last second (RFC 5280 section 4.1.2.5).
    diagnostics.turns_at(info.not_after + Duration::from_secs(1));
    if info.not_after < now && !diagnostics.takes_expired {
        return Some(format!("expired {}", shown_time(info.not_after, now)));
    }
    (info.not_before > now).then(|| format!("is not valid before {}", date(info.not_before)))
}
