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
