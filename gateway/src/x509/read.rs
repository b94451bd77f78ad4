//! What the search for a path looks at in a certificate, read at a bounded price.
//! In: DER. Out: names, key identifiers, dates. A certificate of more values than `limits` allow is not parsed at all: every
//! parser behind this one costs time per value, and a peer chooses how many there are.

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509CertificateParser;
use x509_parser::extensions::{AuthorityKeyIdentifier, KeyIdentifier};
use x509_parser::nom::Parser;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_NAME_CONSTRAINTS,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::prelude::FromDer;

use crate::limits;

const CONSTRUCTED: u8 = 0x20;
const OCTET_STRING: u8 = 0x04;

/// A certificate, as far as the search for a path looks at it.
#[derive(Debug)]
pub(super) struct Candidate<'c> {
    /// The certificate.
    pub(super) der: &'c CertificateDer<'c>,
    /// The name of its owner, in DER without tag and length.
    pub(super) subject: &'c [u8],
    /// The name of its issuer, likewise.
    pub(super) issuer: &'c [u8],
    /// Subject key identifier (RFC 5280 section 4.2.1.2).
    pub(super) key_id: Option<&'c [u8]>,
    /// Authority key identifier (RFC 5280 section 4.2.1.1): the key identifier of its issuer.
    pub(super) issuer_key_id: Option<&'c [u8]>,
    /// Validity in seconds since 1970, both ends belong to it.
    pub(super) validity: (i64, i64),
    /// Values of which it is made.
    pub(super) values: usize,
    /// Values of which its name constraints are made.
    pub(super) constraint_values: usize,
}

/// Why a certificate is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// It is made of more values than any certificate needs.
    #[error("it is made of too many DER values")]
    TooManyValues,
    /// It is no certificate.
    #[error("{0}")]
    Broken(String),
}

impl<'c> Candidate<'c> {
    pub(super) fn read(der: &'c CertificateDer<'c>) -> Result<Self, Unreadable> {
        let values = count_values(der, limits::CERTIFICATE_VALUES_MAX)?;
        let broken = |error: &dyn std::fmt::Display| Unreadable::Broken(error.to_string());
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (_, parsed) = parser.parse(der).map_err(|error| broken(&error))?;
        let content = |name: &'c [u8]| {
            let value = Value::first(name).ok_or_else(|| broken(&"a name that is none"))?;
            Ok(value.content)
        };
        let mut candidate = Candidate {
            der,
            subject: content(parsed.tbs_certificate.subject.as_raw())?,
            issuer: content(parsed.tbs_certificate.issuer.as_raw())?,
            key_id: None,
            issuer_key_id: None,
            validity: (
                parsed.validity().not_before.timestamp(),
                parsed.validity().not_after.timestamp(),
            ),
            values,
            constraint_values: 0,
        };
        for extension in parsed.extensions() {
            if extension.oid == OID_X509_EXT_SUBJECT_KEY_IDENTIFIER {
                let read = KeyIdentifier::from_der(extension.value).ok();
                candidate.key_id = read.map(|(_, id)| id.0);
            } else if extension.oid == OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER {
                let read = AuthorityKeyIdentifier::from_der(extension.value).ok();
                candidate.issuer_key_id = read.and_then(|(_, id)| Some(id.key_identifier?.0));
            } else if extension.oid == OID_X509_EXT_NAME_CONSTRAINTS {
                candidate.constraint_values =
                    count_values(extension.value, limits::CERTIFICATE_VALUES_MAX)?;
            }
        }
        Ok(candidate)
    }
}

/// One DER value.
struct Value<'d> {
    tag: u8,
    content: &'d [u8],
    /// What follows it.
    rest: &'d [u8],
}

impl<'d> Value<'d> {
    /// The value at the front. Lengths of more than three bytes do not fit into a handshake message.
    fn first(bytes: &'d [u8]) -> Option<Self> {
        let [tag, length, rest @ ..] = bytes else {
            return None;
        };
        let (length, rest) = match *length {
            short @ 0..0x80 => (usize::from(short), rest),
            long => {
                let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                if length.len() > 3 {
                    return None;
                }
                let number = |sum, byte: &u8| (sum << 8) | usize::from(*byte);
                (length.iter().fold(0, number), rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        Some(Value {
            tag: *tag,
            content,
            rest,
        })
    }

    /// Whether other values are inside: extensions are octet strings with values in them.
    fn holds_values(&self) -> bool {
        let is_wrapped = || {
            Value::first(self.content)
                .is_some_and(|inner| inner.rest.is_empty() && inner.tag & CONSTRUCTED != 0)
        };
        self.tag & CONSTRUCTED != 0 || (self.tag == OCTET_STRING && is_wrapped())
    }
}

/// How many DER values there are, at every depth. What is broken is not looked into: a parser will say so.
pub(super) fn count_values(der: &[u8], values_max: usize) -> Result<usize, Unreadable> {
    let mut pending = vec![der];
    let mut count = 0;
    while let Some(mut bytes) = pending.pop() {
        while let Some(value) = Value::first(bytes) {
            count += 1;
            if count > values_max {
                return Err(Unreadable::TooManyValues);
            }
            if value.holds_values() {
                pending.push(value.content);
            }
            bytes = value.rest;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_counted_at_every_depth_and_inside_octet_strings() {
        // SEQUENCE { INTEGER, OCTET STRING { SEQUENCE { NULL, NULL } }, OCTET STRING of plain bytes }
        let der = [0x30, 15, 2, 1, 5, 4, 6, 0x30, 4, 5, 0, 5, 0, 4, 2, 0x30, 1];
        assert_eq!(count_values(&der, 7), Ok(7));
        assert_eq!(count_values(&der, 6), Err(Unreadable::TooManyValues));
        // SEQUENCE { NULL ... } with its length in two bytes.
        let long = [&[0x30, 0x82, 1, 0][..], &[5, 0].repeat(128)].concat();
        assert_eq!(count_values(&long, 1000), Ok(129));
    }

    #[test]
    fn a_certificate_of_ever_more_extensions_is_not_parsed() {
        let many = [0x30, 0x0a, 6, 3, 0x55, 0x1d, 0x63, 4, 3, 1, 2, 3].repeat(5000);
        let length = (many.len() as u32).to_be_bytes();
        let der = [&[0x30, 0x83][..], &length[1..], &many].concat();
        let read = Candidate::read(&CertificateDer::from(der)).map(|_| ());
        assert_eq!(read, Err(Unreadable::TooManyValues));
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted_or_are_too_many(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok(count) = count_values(&bytes, 100) {
                prop_assert!(count <= 100);
            }
            let der = CertificateDer::from(bytes);
            let _ = Candidate::read(&der);
        }
    }
}
