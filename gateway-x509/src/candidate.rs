//! What the search for a path looks at in a certificate, read at a bounded price.
//! In: DER. Out: names, key identifiers, dates. A certificate of more values than `limits` allow is not parsed at all: every
//! parser behind this one costs time per value, and a peer chooses how many there are.

use gateway_core::limits;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509CertificateParser;
use x509_parser::extensions::{AuthorityKeyIdentifier, KeyIdentifier};
use x509_parser::nom::Parser;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_NAME_CONSTRAINTS,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::prelude::FromDer;

const CONSTRUCTED: u8 = 0x20;
const CLASS: u8 = 0xc0;
const TAG_NUMBER: u8 = 0x1f;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x10;
const SET: u8 = 0x11;
/// An address among alternative names (RFC 5280 section 4.2.1.6): bytes in which no parser looks for anything.
const ADDRESS_NAME: u8 = 0x87;

/// A certificate, as far as the search for a path looks at it.
#[derive(Debug)]
pub(super) struct Candidate<'c> {
    /// The certificate.
    pub(super) der: &'c CertificateDer<'c>,
    /// The name of its owner, in DER without tag and length.
    pub(super) subject: &'c [u8],
    /// The name of its issuer, likewise.
    pub(super) issuer: &'c [u8],
    /// Its owner's public key with its algorithm, likewise.
    pub(super) key: &'c [u8],
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
pub(super) enum CandidateError {
    /// It is made of more values than any certificate needs.
    #[error("it is made of too many DER values")]
    TooManyValues,
    /// It is no certificate.
    #[error("{0}")]
    Broken(String),
}

impl<'c> Candidate<'c> {
    pub(super) fn read(der: &'c CertificateDer<'c>) -> Result<Self, CandidateError> {
        let values = count_values(der, limits::CERTIFICATE_VALUES_MAX)?;
        let broken = |error: &dyn std::fmt::Display| CandidateError::Broken(error.to_string());
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (_, parsed) = parser.parse(der).map_err(|error| broken(&error))?;
        let content = |value: &'c [u8]| {
            let value =
                DerValue::first(value).ok_or_else(|| broken(&"a name or key that is none"))?;
            Ok(value.content)
        };
        let mut candidate = Candidate {
            der,
            subject: content(parsed.tbs_certificate.subject.as_raw())?,
            issuer: content(parsed.tbs_certificate.issuer.as_raw())?,
            key: content(parsed.tbs_certificate.subject_pki.raw)?,
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

/// One value.
pub(super) struct DerValue<'d> {
    tag: u8,
    /// What it holds.
    pub(super) content: &'d [u8],
    /// What follows it.
    pub(super) rest: &'d [u8],
    /// Its length is written in as few bytes as it can be, as DER wants it (X.690 section 10.1).
    is_minimal: bool,
}

impl<'d> DerValue<'d> {
    /// The value at the front. Reads whatever a parser behind this one might: tags and lengths of any number of bytes.
    pub(super) fn first(bytes: &'d [u8]) -> Option<Self> {
        let (tag, mut rest) = bytes.split_first()?;
        if tag & TAG_NUMBER == TAG_NUMBER {
            let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
            rest = &rest[end + 1..];
        }
        let (length, rest) = rest.split_first()?;
        let (length, rest, is_minimal) = match *length {
            short @ 0..0x80 => (usize::from(short), rest, true),
            // Without a length: BER only, which no parser here reads.
            0x80 => return None,
            long => {
                let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let shortest = length.iter().position(|byte| *byte != 0);
                let shortest = &length[shortest.unwrap_or(length.len())..];
                if shortest.len() > size_of::<u32>() {
                    return None;
                }
                let number = |sum, byte: &u8| (sum << 8) | usize::from(*byte);
                let number = shortest.iter().fold(0, number);
                let is_minimal = shortest.len() == length.len() && number >= 0x80;
                (number, rest, is_minimal)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        Some(DerValue {
            tag: *tag,
            content,
            rest,
            is_minimal,
        })
    }

    fn is_constructed(&self) -> bool {
        self.tag & CONSTRUCTED != 0
    }

    /// Whether content that is not marked as values is read as such by some parser: that of octet strings, which wrap
    /// extensions, and of values with tags of their own, whose form not every parser looks at.
    fn may_wrap(&self) -> bool {
        let is_list = |value: &DerValue<'_>| [SEQUENCE, SET].contains(&value.tag);
        let is_tagged = |value: &DerValue<'_>| value.tag & CLASS != 0;
        let inner = || DerValue::first(self.content);
        match self.tag {
            SEQUENCE | SET => true,
            ADDRESS_NAME => false,
            OCTET_STRING => inner().is_some_and(|inner| inner.is_constructed() || is_list(&inner)),
            _ if is_tagged(self) => inner().is_some_and(|inner| {
                inner.is_constructed() || is_list(&inner) || is_tagged(&inner)
            }),
            _ => false,
        }
    }
}

/// How many DER values there are, at every depth. Refuses what is broken inside of constructed values, because it cannot be
/// known what a parser would make of it. Octet strings that begin like a value may be random bytes: what is broken there
/// ends the counting of that string, as it would end a parser's reading.
pub(super) fn count_values(der: &[u8], values_max: usize) -> Result<usize, CandidateError> {
    let broken = || Err(CandidateError::Broken("its DER is broken".to_owned()));
    let mut pending = vec![(der, true)];
    let mut count = 0;
    while let Some((mut bytes, is_strict)) = pending.pop() {
        while !bytes.is_empty() {
            let Some(value) = DerValue::first(bytes) else {
                if is_strict {
                    return broken();
                }
                break;
            };
            if is_strict && !value.is_minimal {
                return broken();
            }
            count += 1;
            if count > values_max {
                return Err(CandidateError::TooManyValues);
            }
            if value.is_constructed() {
                pending.push((value.content, is_strict));
            } else if value.may_wrap() {
                pending.push((value.content, false));
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
        assert_eq!(count_values(&der, 6), Err(CandidateError::TooManyValues));
        // SEQUENCE { NULL ... } with its length in two bytes.
        let long = [&[0x30, 0x82, 1, 0][..], &[5, 0].repeat(128)].concat();
        assert_eq!(count_values(&long, 1000), Ok(129));
    }

    /// A value, its length in so many bytes behind the first.
    fn value(tag: u8, content: &[u8], length_bytes: usize) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        let first = 0x80 | length_bytes as u8;
        [&[tag, first], &length[8 - length_bytes..], content].concat()
    }

    #[test]
    fn a_length_that_is_broken_or_longer_than_it_need_be_is_refused_and_hides_nothing() {
        let many = [5, 0].repeat(5000);
        let broken = Err(CandidateError::Broken("its DER is broken".to_owned()));
        for hidden in [
            value(0x30, &many, 4),
            value(0x30, &many, 8),
            value(0x30, &[5, 0], 1),
            [0x30, 0x80, 5, 0, 0, 0].to_vec(),
            [2, 5, 0].to_vec(),
            [2].to_vec(),
        ] {
            assert_eq!(count_values(&hidden, 2048), broken);
            let filled = [&[4, 0x82, 1, 0][..], &[0; 256], &hidden].concat();
            let within = value(0x30, &filled, 2);
            assert_eq!(count_values(&within, 2048), broken);
        }
    }

    #[test]
    fn values_in_octet_strings_are_counted_whatever_follows_them_and_however_long_their_lengths_are()
     {
        let names = [0x82, 0].repeat(29_000);
        let too_many = Err(CandidateError::TooManyValues);
        for wrapped in [
            [&value(0x30, &names, 2)[..], &[0, 0]].concat(),
            value(0x30, &names, 4),
            value(0x30, &names, 8),
            // A directory name and names of an issuer, both written as if nothing were in them.
            value(0x30, &value(0x84, &value(0x30, &names, 2), 2), 2),
            value(0x30, &value(0x81, &names, 2), 2),
            value(0x10, &names, 2),
        ] {
            let extension = value(4, &wrapped, 2);
            let der = value(0x30, &extension, 2);
            assert_eq!(count_values(&der, 2048), too_many, "{:x?}", &wrapped[..8]);
        }
        // A key identifier begins as it likes.
        let identifier = [0x30, 5, 0x30, 0x84, 1, 2, 3, 4];
        let der = [&[0x30, 10, 4, 8][..], &identifier].concat();
        assert!(count_values(&der, 2048).is_ok());
    }

    #[test]
    fn texts_and_addresses_among_names_are_one_value_each() {
        let names = [
            &[0x87, 4, 10, 0, 0, 1][..],
            &[
                0x87, 16, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            ],
            &[0x82, 7],
            b"a.local",
        ]
        .concat();
        let der = [&[0x30, names.len() as u8][..], &names].concat();
        assert_eq!(count_values(&der, 2048), Ok(4));
    }

    #[test]
    fn a_certificate_of_ever_more_extensions_is_not_parsed() {
        let many = [0x30, 0x0a, 6, 3, 0x55, 0x1d, 0x63, 4, 3, 1, 2, 3].repeat(5000);
        let length = (many.len() as u16).to_be_bytes();
        let der = [&[0x30, 0x82][..], &length, &many].concat();
        let read = Candidate::read(&CertificateDer::from(der)).map(|_| ());
        assert_eq!(read, Err(CandidateError::TooManyValues));
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
