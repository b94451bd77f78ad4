//! The inside of a certificate revocation list (RFC 5280 section 5.1), field by field.
//! In: the signed part of a list, in DER. Out: what it says, its entries unread; or what is wrong with it, in words and with
//! the rule. Verifies no signature and checks no date. What is not understood is refused: half a list would let the other
//! half in.

use std::time::{Duration, SystemTime};

use gateway_core::revocation::{Kinds, ListNumber, ListScope, Serial};
use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag};
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::certificate::name_text;
use super::points::{self, fields};

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Its structure is broken, or a part is missing.
    #[error("broken or cut off")]
    Broken,
    /// Without a version, and so without extensions.
    #[error(
        "it is a list of version 1 (RFC 5280 section 5.1.2.1 requires version 2): make it with a CRL number, `crlnumber` in OpenSSL's configuration"
    )]
    Version1,
    /// A version that does not exist.
    #[error("it is of a version that is not known")]
    Version,
    /// The same extension twice.
    #[error("it has an extension twice (RFC 5280 section 4.2)")]
    Twice,
    /// Changes only.
    #[error(
        "it is a delta list, which holds changes only (RFC 5280 section 5.2.4): name the complete list"
    )]
    Delta,
    /// Entries of other issuers.
    #[error(
        "it is an indirect list, which speaks for other CAs too (RFC 5280 section 5.2.5): each CA has to sign a list of its own"
    )]
    Indirect,
    /// Some reasons only.
    #[error(
        "it covers some reasons for a revocation only (onlySomeReasons, RFC 5280 section 5.2.5): must cover all"
    )]
    SomeReasons,
    /// Attribute certificates only.
    #[error(
        "it covers attribute certificates only (RFC 5280 section 5.2.5): must cover certificates of clients, servers or CAs"
    )]
    Attributes,
    /// No certificate at all.
    #[error("it covers end entities only and CAs only at once, so none (RFC 5280 section 5.2.5)")]
    Nothing,
    /// A distribution point without a full name.
    #[error(
        "its distribution point is named relative to the issuer (RFC 5280 section 5.2.5): must be a full name, such as a URI"
    )]
    RelativeName,
    /// A critical extension, of the list or an entry, that is not known.
    #[error("it has a critical extension that is not understood, {0} (RFC 5280 section 5.2)")]
    Critical(String),
    /// A number of more than 20 bytes.
    #[error(
        "an entry, or its own number, is longer than 20 bytes (RFC 5280 sections 4.1.2.2 and 5.2.3)"
    )]
    TooLong,
}

/// A list taken apart.
#[derive(Debug)]
pub struct ListParts<'a> {
    /// Algorithm of the signature as it stands inside, without tag and length.
    pub algorithm: &'a [u8],
    /// Its issuer's name, in DER without tag and length.
    pub issuer: &'a [u8],
    /// The same as text.
    pub issuer_name: String,
    /// When it was made.
    pub this_update: SystemTime,
    /// When the next one is due.
    pub next_update: Option<SystemTime>,
    /// Its number.
    pub number: Option<ListNumber>,
    /// What it covers.
    pub scope: ListScope,
    /// The entries, one after another.
    entries: &'a [u8],
}

impl<'a> ListParts<'a> {
    /// Takes the signed part apart; `content` is without the sequence's tag and length.
    pub fn parse(content: &'a [u8]) -> Result<Self, ListError> {
        let (rest, version) = next(content)?;
        let (rest, algorithm) = match version.tag() {
            Tag::Integer if version.data == [1] => next(rest)?,
            Tag::Integer => return Err(ListError::Version),
            _ => return Err(ListError::Version1),
        };
        let (_, name) = X509Name::from_der(rest).map_err(|_| ListError::Broken)?;
        let (rest, issuer) = next(rest)?;
        let (mut rest, this_update) = time(rest)?.ok_or(ListError::Broken)?;
        let mut parts = ListParts {
            algorithm: algorithm.data,
            issuer: issuer.data,
            issuer_name: name_text(&name),
            this_update,
            next_update: None,
            number: None,
            scope: ListScope::default(),
            entries: &[],
        };
        if let Some((after, next_update)) = time(rest)? {
            parts.next_update = Some(next_update);
            rest = after;
        }
        if !rest.is_empty() && rest[0] == 0x30 {
            let (after, entries) = next(rest)?;
            parts.entries = entries.data;
            rest = after;
        }
        if !rest.is_empty() {
            let (after, extensions) = next(rest)?;
            let is_last = after.is_empty() && extensions.class() == Class::ContextSpecific;
            if !is_last || extensions.tag() != Tag(0) {
                return Err(ListError::Broken);
            }
            let (after, extensions) = next(extensions.data)?;
            if !after.is_empty() {
                return Err(ListError::Broken);
            }
            parts.read_extensions(extensions.data)?;
        }
        Ok(parts)
    }

    /// The serial numbers, one by one.
    pub fn serials(&self) -> impl Iterator<Item = Result<Serial, ListError>> + use<'a> {
        let mut rest = self.entries;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let entry = next(rest).and_then(|(after, entry)| {
                rest = after;
                serial(&entry)
            });
            if entry.is_err() {
                rest = &[];
            }
            Some(entry)
        })
    }

    fn read_extensions(&mut self, extensions: &[u8]) -> Result<(), ListError> {
        let mut known = Vec::new();
        for extension in fields(extensions).ok_or(ListError::Broken)? {
            let (oid, is_critical, value) = extension_of(&extension)?;
            if known.contains(&oid) {
                return Err(ListError::Twice);
            }
            match oid.as_str() {
                "2.5.29.20" => {
                    let (_, number) = next(value)?;
                    let number = Serial::new(number.data).map_err(|_| ListError::TooLong)?;
                    self.number = Some(ListNumber(number));
                }
                "2.5.29.27" => return Err(ListError::Delta),
                "2.5.29.28" => self.scope = scope(value)?,
                _ if is_critical => return Err(ListError::Critical(oid)),
                _ => {}
            }
            known.push(oid);
        }
        Ok(())
    }
}

fn next(bytes: &[u8]) -> Result<(&[u8], Any<'_>), ListError> {
    Any::from_der(bytes).map_err(|_| ListError::Broken)
}

/// The time that stands first, if one does.
fn time(bytes: &[u8]) -> Result<Option<(&[u8], SystemTime)>, ListError> {
    // UTCTime and GeneralizedTime.
    if !bytes.first().is_some_and(|tag| [0x17, 0x18].contains(tag)) {
        return Ok(None);
    }
    let (rest, time) = ASN1Time::from_der(bytes).map_err(|_| ListError::Broken)?;
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    let at = match time.timestamp() >= 0 {
        true => SystemTime::UNIX_EPOCH.checked_add(seconds),
        false => SystemTime::UNIX_EPOCH.checked_sub(seconds),
    };
    Ok(Some((rest, at.ok_or(ListError::Broken)?)))
}

/// `SEQUENCE { OID, BOOLEAN DEFAULT FALSE, OCTET STRING }`.
fn extension_of<'a>(extension: &Any<'a>) -> Result<(String, bool, &'a [u8]), ListError> {
    let (rest, oid) = Oid::from_der(extension.data).map_err(|_| ListError::Broken)?;
    let (mut rest, mut value) = next(rest)?;
    let is_critical = value.tag() == Tag::Boolean && value.data != [0];
    if value.tag() == Tag::Boolean {
        (rest, value) = next(rest)?;
    }
    if value.tag() != Tag::OctetString || !rest.is_empty() {
        return Err(ListError::Broken);
    }
    Ok((oid.to_id_string(), is_critical, value.data))
}

/// The serial number of `SEQUENCE { INTEGER, Time, extensions OPTIONAL }`.
fn serial(entry: &Any<'_>) -> Result<Serial, ListError> {
    let (rest, number) = next(entry.data)?;
    let (rest, date) = next(rest)?;
    let is_time = [Tag::UtcTime, Tag::GeneralizedTime].contains(&date.tag());
    if entry.tag() != Tag::Sequence || number.tag() != Tag::Integer || !is_time {
        return Err(ListError::Broken);
    }
    if !rest.is_empty() {
        let (after, extensions) = next(rest)?;
        if !after.is_empty() {
            return Err(ListError::Broken);
        }
        for extension in fields(extensions.data).ok_or(ListError::Broken)? {
            let (oid, is_critical, _) = extension_of(&extension)?;
            match oid.as_str() {
                // The entry is another CA's.
                "2.5.29.29" => return Err(ListError::Indirect),
                // A reason, whichever it is, does not make the entry less of one.
                "2.5.29.21" => {}
                _ if is_critical => return Err(ListError::Critical(oid)),
                _ => {}
            }
        }
    }
    Serial::new(number.data).map_err(|_| ListError::TooLong)
}

/// The issuing distribution point (RFC 5280 section 5.2.5).
fn scope(value: &[u8]) -> Result<ListScope, ListError> {
    let (after, sequence) = next(value)?;
    if !after.is_empty() || sequence.tag() != Tag::Sequence {
        return Err(ListError::Broken);
    }
    let mut scope = ListScope::default();
    let mut last = None;
    for field in fields(sequence.data).ok_or(ListError::Broken)? {
        let tag = field.tag().0;
        if field.class() != Class::ContextSpecific || last.is_some_and(|last| tag <= last) {
            return Err(ListError::Broken);
        }
        last = Some(tag);
        let is_set = field.data != [0];
        match tag {
            0 => {
                let points = points::named_by_list(field.data);
                scope.points = points.ok_or(ListError::RelativeName)?;
                scope.points.sort();
                scope.points.dedup();
            }
            1 if is_set => scope.kinds = Kinds::EndEntities,
            2 if is_set && scope.kinds == Kinds::EndEntities => return Err(ListError::Nothing),
            2 if is_set => scope.kinds = Kinds::Authorities,
            3 => return Err(ListError::SomeReasons),
            4 if is_set => return Err(ListError::Indirect),
            5 if is_set => return Err(ListError::Attributes),
            1 | 2 | 4 | 5 => {}
            _ => return Err(ListError::Broken),
        }
    }
    Ok(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_extensions_is_read_and_one_of_version_1_is_named() {
        // Version, algorithm, issuer, thisUpdate; nothing else has to be there.
        let rest = [&[0x30, 0, 0x30, 0, 0x17, 13][..], b"270101000000Z"].concat();
        let second = [&[2, 1, 1][..], &rest].concat();
        let parts = ListParts::parse(&second).unwrap();
        assert!(parts.number.is_none() && parts.next_update.is_none());
        assert_eq!(parts.serials().count(), 0);
        let refused = |content: &[u8]| ListParts::parse(content).unwrap_err();
        assert_eq!(refused(&rest), ListError::Version1);
        assert!(ListError::Version1.to_string().contains("crlnumber"));
        assert_eq!(
            refused(&[&[2, 1, 2][..], &rest].concat()),
            ListError::Version
        );
    }
}
