//! Certificates that nobody has signed, made byte by byte: as many and as alike as no authority would make them.
//! In: names. Out: DER that a parser takes for certificates.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const OCTET_STRING: u8 = 4;
const OBJECT_IDENTIFIER: u8 = 6;
const UTF8_STRING: u8 = 12;
const UTC_TIME: u8 = 23;
const EXPLICIT_0: u8 = 0xa0;
const EXPLICIT_3: u8 = 0xa3;

const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
/// `ecdsa-with-SHA256` (RFC 5758 section 3.2).
const ECDSA_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

fn value(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = u16::try_from(content.len()).expect("certificates are short");
    let [high, low] = length.to_be_bytes();
    match length {
        0..0x80 => [&[tag, low][..], &content].concat(),
        0x80..0x100 => [&[tag, 0x81, low][..], &content].concat(),
        _ => [&[tag, 0x82, high, low][..], &content].concat(),
    }
}

/// A name as rcgen writes one of a common name alone.
fn name(common_name: &str) -> Vec<u8> {
    let kind = value(OBJECT_IDENTIFIER, &[&COMMON_NAME]);
    let text = value(UTF8_STRING, &[common_name.as_bytes()]);
    value(
        SEQUENCE,
        &[&value(SET, &[&value(SEQUENCE, &[&kind, &text])])],
    )
}

/// A certificate that says it is an authority's. `number` tells its key from those of the others.
pub fn forged(subject: &str, issuer: &str, number: u16) -> CertificateDer<'static> {
    let algorithm = value(SEQUENCE, &[&value(OBJECT_IDENTIFIER, &[&ECDSA_SHA256])]);
    let time = |text: &str| value(UTC_TIME, &[text.as_bytes()]);
    let validity = value(SEQUENCE, &[&time("200101000000Z"), &time("491231235959Z")]);
    let bits = value(BIT_STRING, &[&[0], &number.to_be_bytes()]);
    let key = value(SEQUENCE, &[&algorithm, &bits]);
    let is_authority = value(SEQUENCE, &[&[1, 1, 0xff]]);
    let constraints = value(
        SEQUENCE,
        &[
            &value(OBJECT_IDENTIFIER, &[&BASIC_CONSTRAINTS]),
            &value(OCTET_STRING, &[&is_authority]),
        ],
    );
    let content = value(
        SEQUENCE,
        &[
            &value(EXPLICIT_0, &[&value(INTEGER, &[&[2]])]),
            &value(INTEGER, &[&[1]]),
            &algorithm,
            &name(issuer),
            &validity,
            &name(subject),
            &key,
            &value(EXPLICIT_3, &[&value(SEQUENCE, &[&constraints])]),
        ],
    );
    let signature = value(BIT_STRING, &[&[0, 0]]);
    CertificateDer::from(value(SEQUENCE, &[&content, &algorithm, &signature]))
}

/// So many certificates in layers: each could have issued each of the layer below, whose name is `0`, and the uppermost could
/// be issued by `top`.
pub fn interchangeable(count: u16, layers: u16, top: &str) -> Vec<CertificateDer<'static>> {
    let layer = |number: u16| {
        let layer = number % layers;
        let issuer = match layer + 1 {
            last if last == layers => top.to_owned(),
            next => next.to_string(),
        };
        forged(&layer.to_string(), &issuer, number)
    };
    (0..count).map(layer).collect()
}

/// The order of P-256 (FIPS 186-4 section D.1.2.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same certificate with (r, n - s) for its signature (r, s) on P-256, which verifies as well: made without the CA.
pub fn turned_round(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    let begin = (64..75).find_map(|length| {
        let begin = certificate.len().checked_sub(length + 3)?;
        let length = u8::try_from(length).ok()?;
        let header = [BIT_STRING, length + 1, 0, SEQUENCE, length - 2];
        certificate[begin..].starts_with(&header).then_some(begin)
    });
    let begin = begin.expect("the certificate is signed with ECDSA on P-256");
    let integers = &certificate[begin + 5..];
    let (r, s) = integers.split_at(2 + usize::from(integers[1]));
    let mut digits = s[2..].iter().rev();
    let mut other = ORDER;
    let mut borrowed = 0;
    for digit in other.iter_mut().rev() {
        let less = i16::from(*digit) - i16::from(*digits.next().unwrap_or(&0)) - borrowed;
        borrowed = i16::from(less < 0);
        *digit = less.rem_euclid(256) as u8;
    }
    let first = other.iter().position(|digit| *digit != 0);
    let other = &other[first.expect("s is less than the order")..];
    let sign: &[u8] = if other[0] >= 0x80 { &[0] } else { &[] };
    let pair = value(SEQUENCE, &[r, &value(INTEGER, &[sign, other])]);
    // The header has a length of two bytes.
    let signed = &certificate[4..begin];
    let whole = value(SEQUENCE, &[signed, &value(BIT_STRING, &[&[0], &pair])]);
    CertificateDer::from(whole)
}
