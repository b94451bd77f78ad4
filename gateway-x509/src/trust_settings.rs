//! Certificates as files hold them, with what OpenSSL's `TRUSTED CERTIFICATE` says about their use.
//! In: a decoded section. Out: the certificate alone, and what it may be trusted for. Pure.

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};

/// Content bytes of the object identifiers that matter here: anyExtendedKeyUsage, serverAuth and clientAuth (RFC 5280
/// section 4.2.1.12).
const ANY: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// What a certificate may be trusted for, as an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    /// To authenticate servers.
    pub servers: bool,
    /// To authenticate clients.
    pub clients: bool,
}

/// A certificate of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate alone.
    pub der: CertificateDer<'static>,
    /// Line of its BEGIN, counted from one; 1 for a file in DER.
    pub line: usize,
    /// What the file says that it is trusted for.
    pub usable: Usable,
}

impl Certificate {
    /// A certificate whose file says nothing about trust.
    pub(crate) fn plain(der: &[u8], line: usize) -> Self {
        Certificate {
            der: CertificateDer::from(der.to_vec()),
            line,
            usable: Usable {
                servers: true,
                clients: true,
            },
        }
    }

    /// A certificate with trust settings after it, which may be missing; `None` where they cannot be read.
    pub(crate) fn trusted(section: &[u8], line: usize) -> Option<Self> {
        let (settings, _) = Any::from_der(section).ok()?;
        let der = &section[..section.len() - settings.len()];
        let usable = match settings {
            [] => Self::plain(der, line).usable,
            settings => usable(settings)?,
        };
        Some(Certificate {
            usable,
            ..Self::plain(der, line)
        })
    }
}

/// Reads OpenSSL's X509_CERT_AUX: what it is trusted for, what it is rejected for in `[0]`, and what says nothing of trust.
fn usable(settings: &[u8]) -> Option<Usable> {
    let (after, settings) = Any::from_der(settings).ok()?;
    if !after.is_empty() || settings.tag() != Tag::Sequence {
        return None;
    }
    let (mut trusted, mut rejected) = (None, Vec::new());
    for field in fields(settings.data)? {
        match (field.class(), field.tag()) {
            (Class::Universal, Tag::Sequence) => trusted = Some(fields(field.data)?),
            (Class::ContextSpecific, Tag(0)) => rejected = fields(field.data)?,
            _ => {}
        }
    }
    let names = |list: &[Any<'_>], purpose: &[u8]| {
        list.iter().any(|id| id.data == ANY || id.data == purpose)
    };
    let may = |purpose: &[u8]| {
        let wanted = trusted.as_deref();
        !names(&rejected, purpose)
            && wanted.is_none_or(|list| list.is_empty() || names(list, purpose))
    };
    Some(Usable {
        servers: may(SERVER_AUTH),
        clients: may(CLIENT_AUTH),
    })
}

/// The elements of a sequence's content.
fn fields(mut content: &[u8]) -> Option<Vec<Any<'_>>> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let (rest, field) = Any::from_der(content).ok()?;
        found.push(field);
        content = rest;
    }
    Some(found)
}
