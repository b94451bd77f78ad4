//! Compares the names of certificates as RFC 5280 section 7.1 wants it: a CA whose own certificate has a PrintableString is the
//! issuer that another program has written down as a UTF8String, in other capitals or with other blanks.
//! In: names in DER, without tag and length. Out: what two names have in common that are the same. A peer sends names, so what is
//! longer than any CA's is compared byte by byte alone. What is the same name is decided here; whose key it is, by signatures.

use gateway_core::limits;
use x509_parser::asn1_rs::{Any, FromDer, Tag};

use super::points::fields;

/// Stands for the types of strings.
const TEXT: Tag = Tag(u32::MAX);

/// Whether two names are the same.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    one == other || canonical(one).is_some_and(|one| Some(one) == canonical(other))
}

/// A form that names have in common exactly if they are the same. `None` for what is longer than is looked at, or no name.
pub(super) fn canonical(name: &[u8]) -> Option<Vec<u8>> {
    if name.len() > limits::NAME_COMPARED_BYTES_MAX {
        return None;
    }
    let mut canonical = Vec::with_capacity(name.len());
    for set in fields(name)? {
        let mut attributes = Vec::new();
        for attribute in fields(set.data)? {
            let (value, kind) = Any::from_der(attribute.data).ok()?;
            let (after, value) = Any::from_der(value).ok()?;
            if !after.is_empty() {
                return None;
            }
            let (marker, content) = match text(&value) {
                Some(text) => (TEXT, prepared(&text).into_bytes()),
                None => (value.tag(), value.data.to_vec()),
            };
            let mut whole = Vec::new();
            append(&mut whole, kind.data);
            append(&mut whole, &marker.0.to_be_bytes());
            append(&mut whole, &content);
            attributes.push(whole);
        }
        // A set has no order.
        attributes.sort_unstable();
        append(&mut canonical, &attributes.concat());
    }
    Some(canonical)
}

/// Appends bytes behind their length, so that no two sequences of them read alike.
fn append(all: &mut Vec<u8>, bytes: &[u8]) {
    all.extend_from_slice(&bytes.len().to_be_bytes());
    all.extend_from_slice(bytes);
}

/// A value that is text. Of TeletexStrings only those that are ASCII are: what other bytes in them mean, programs disagree on.
fn text(value: &Any<'_>) -> Option<String> {
    let utf16 = |pair: &[u8]| Some(u16::from_be_bytes(pair.try_into().ok()?));
    let utf32 = |four: &[u8]| char::from_u32(u32::from_be_bytes(four.try_into().ok()?));
    match value.tag() {
        Tag::Utf8String => String::from_utf8(value.data.to_vec()).ok(),
        Tag::PrintableString | Tag::Ia5String | Tag::T61String => {
            let is_ascii = value.data.is_ascii();
            is_ascii.then(|| String::from_utf8_lossy(value.data).into_owned())
        }
        Tag::BmpString => {
            let units: Option<Vec<u16>> = value.data.chunks(2).map(utf16).collect();
            String::from_utf16(&units?).ok()
        }
        Tag::UniversalString => value.data.chunks(4).map(utf32).collect(),
        _ => None,
    }
}

/// RFC 4518 section 2 as far as it goes without tables: capitals are small letters, blanks around are none and inside are one.
/// Letters that are written as several characters stay what they are (section 2.3 would compose them).
fn prepared(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    const ORGANIZATION: &[u8] = &[0x55, 4, 10];

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        match content.len() {
            short @ 0..0x80 => [&[tag, short as u8][..], content].concat(),
            long @ 0x80..0x100 => [&[tag, 0x81, long as u8][..], content].concat(),
            _ => [&[tag, 0x82, length[0], length[1]][..], content].concat(),
        }
    }

    fn attribute(kind: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
        value(0x30, &[value(6, kind), value(tag, text)].concat())
    }

    /// A name of one attribute a set.
    fn name(attributes: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
        let sets = attributes
            .iter()
            .map(|(kind, tag, text)| value(0x31, &attribute(kind, *tag, text)));
        sets.collect::<Vec<_>>().concat()
    }

    fn common(tag: u8, text: &[u8]) -> Vec<u8> {
        name(&[(COMMON_NAME, tag, text)])
    }

    #[test]
    fn a_name_is_the_same_in_every_string_type_in_any_capitals_and_with_any_blanks() {
        let utf8 = common(12, b"Agents of the Test");
        for same in [
            common(19, b"Agents of the Test"),
            common(19, b"AGENTS  of the test "),
            common(22, b"agents of the test"),
            common(20, b"Agents of the Test"),
            common(
                30,
                &"Agents of the Test"
                    .encode_utf16()
                    .flat_map(u16::to_be_bytes)
                    .collect::<Vec<_>>(),
            ),
            common(
                28,
                &"Agents of the Test"
                    .chars()
                    .flat_map(|letter| (letter as u32).to_be_bytes())
                    .collect::<Vec<_>>(),
            ),
        ] {
            assert!(is_same(&utf8, &same), "{same:x?}");
        }
        for other in [
            common(12, b"Agents of the Tests"),
            common(12, b"Agentsof the Test"),
            name(&[(ORGANIZATION, 12, b"Agents of the Test")]),
            name(&[
                (COMMON_NAME, 12, b"Agents of the Test"),
                (COMMON_NAME, 12, b""),
            ]),
            common(4, b"Agents of the Test"),
            Vec::new(),
        ] {
            assert!(!is_same(&utf8, &other), "{other:x?}");
        }
        assert!(is_same(
            &common(12, "ÄGYPTEN".as_bytes()),
            &common(12, "ägypten".as_bytes())
        ));
        // What it means in a TeletexString is not known.
        assert!(!is_same(&common(12, "Ä".as_bytes()), &common(20, &[0xc4])));
    }

    #[test]
    fn order_counts_between_sets_and_not_within_one() {
        let (cn, o) = (
            attribute(COMMON_NAME, 12, b"a"),
            attribute(ORGANIZATION, 12, b"b"),
        );
        let set = |attributes: &[&[u8]]| value(0x31, &attributes.concat());
        assert!(is_same(&set(&[&cn, &o]), &set(&[&o, &cn])));
        assert!(!is_same(
            &set(&[&cn, &o]),
            &[set(&[&cn]), set(&[&o])].concat()
        ));
        let ordered = [set(&[&cn]), set(&[&o])].concat();
        assert!(!is_same(&ordered, &[set(&[&o]), set(&[&cn])].concat()));
    }

    #[test]
    fn what_is_longer_than_any_cas_name_is_compared_by_its_bytes() {
        let long = |letter: u8| common(12, &[letter; limits::NAME_COMPARED_BYTES_MAX]);
        assert!(is_same(&long(b'a'), &long(b'a')));
        assert!(!is_same(&long(b'a'), &long(b'A')));
    }

    proptest! {
        #[test]
        fn any_bytes_are_the_same_as_themselves(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(is_same(&bytes, &bytes));
            let _ = canonical(&bytes);
        }
    }
}
