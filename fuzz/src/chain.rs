//! Whole chains from bytes: as they are, or from a plan of three bytes a certificate, signed by an algorithm without
//! secrets.
//! In: what the fuzzer makes up. Out: certificates in DER. The algorithm lets the fuzzer find signatures that hold, which no
//! real one does: a signature is good if it repeats the public key.

use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm,
};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BOOLEAN: u8 = 1;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const OCTET_STRING: u8 = 4;
const OBJECT_IDENTIFIER: u8 = 6;
const UTF8_STRING: u8 = 12;
const UTC_TIME: u8 = 23;
const IMPLICIT_0: u8 = 0x80;
const EXPLICIT_0: u8 = 0xa0;
const EXPLICIT_3: u8 = 0xa3;

/// An object identifier for examples (RFC 5612), with its tag and length.
const EXAMPLE: &[u8] = &[6, 9, 0x2b, 6, 1, 4, 1, 0x82, 0xf7, 0x10, 1];

/// Bytes of a certificate in a plan.
const PLANNED_BYTES: usize = 3;

/// An algorithm without secrets.
#[derive(Debug)]
pub struct Repeating;

impl SignatureVerificationAlgorithm for Repeating {
    fn verify_signature(
        &self,
        public_key: &[u8],
        _message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        match public_key == signature {
            true => Ok(()),
            false => Err(InvalidSignature),
        }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(EXAMPLE)
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(EXAMPLE)
    }
}

/// A certificate to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Its owner's name.
    pub subject: u8,
    /// Its key.
    pub key: u8,
    /// Its issuer's name.
    pub issuer: u8,
    /// The key that has signed it.
    pub signer: u8,
    /// It says whose key signed it, by key identifiers.
    pub names_signer: bool,
}

impl Plan {
    /// Plans of four names and four keys, as many as there are.
    pub fn read_all(bytes: &[u8]) -> Vec<Plan> {
        let read = |bytes: &[u8]| Plan {
            subject: bytes[0] & 3,
            issuer: (bytes[0] >> 2) & 3,
            key: bytes[1] & 3,
            signer: (bytes[1] >> 2) & 3,
            names_signer: bytes[2] & 1 == 1,
        };
        bytes.chunks_exact(PLANNED_BYTES).map(read).collect()
    }

    /// The bytes that `read_all` reads it from.
    pub fn write(&self) -> [u8; PLANNED_BYTES] {
        [
            self.subject | (self.issuer << 2),
            self.key | (self.signer << 2),
            u8::from(self.names_signer),
        ]
    }

    /// A CA that has issued itself.
    pub fn root() -> Plan {
        Plan {
            subject: 0,
            key: 0,
            issuer: 0,
            signer: 0,
            names_signer: true,
        }
    }

    /// The certificate, of a CA or not.
    pub fn make(&self, is_authority: bool) -> CertificateDer<'static> {
        let algorithm = value(SEQUENCE, &[EXAMPLE]);
        let time = |text: &str| value(UTC_TIME, &[text.as_bytes()]);
        let validity = value(SEQUENCE, &[&time("200101000000Z"), &time("491231235959Z")]);
        let bits = |key: u8| value(BIT_STRING, &[&[0, key, key]]);
        let public_key = value(SEQUENCE, &[&algorithm, &bits(self.key)]);
        let content = value(
            SEQUENCE,
            &[
                &value(EXPLICIT_0, &[&value(INTEGER, &[&[2]])]),
                &value(INTEGER, &[&[1]]),
                &algorithm,
                &name(self.issuer),
                &validity,
                &name(self.subject),
                &public_key,
                &value(EXPLICIT_3, &[&self.extensions(is_authority)]),
            ],
        );
        let certificate = value(SEQUENCE, &[&content, &algorithm, &bits(self.signer)]);
        CertificateDer::from(certificate)
    }

    fn extensions(&self, is_authority: bool) -> Vec<u8> {
        let extension = |number: u8, content: &[u8]| {
            let identifier = value(OBJECT_IDENTIFIER, &[&[0x55, 0x1d, number]]);
            value(SEQUENCE, &[&identifier, &value(OCTET_STRING, &[content])])
        };
        let mut all = Vec::new();
        if is_authority {
            let authority = value(BOOLEAN, &[&[0xff]]);
            all.extend(extension(19, &value(SEQUENCE, &[&authority])));
        }
        all.extend(extension(14, &value(OCTET_STRING, &[&[self.key]])));
        if self.names_signer {
            let signer = value(IMPLICIT_0, &[&[self.signer]]);
            all.extend(extension(35, &value(SEQUENCE, &[&signer])));
        }
        value(SEQUENCE, &[&all])
    }
}

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

fn name(number: u8) -> Vec<u8> {
    let kind = value(OBJECT_IDENTIFIER, &[&[0x55, 4, 3]]);
    let text = value(UTF8_STRING, &[&[b'a' + number]]);
    let attribute = value(SEQUENCE, &[&kind, &text]);
    value(SEQUENCE, &[&value(SET, &[&attribute])])
}

/// Certificates as they are, each behind its length in two bytes.
pub fn read_raw(mut bytes: &[u8]) -> Vec<CertificateDer<'_>> {
    let mut certificates = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (certificate, rest) = rest.split_at(length.min(rest.len()));
        certificates.push(CertificateDer::from(certificate));
        bytes = rest;
    }
    certificates
}

/// The bytes that `read_raw` reads certificates from.
pub fn write_raw(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for certificate in certificates {
        let length = u16::try_from(certificate.len()).expect("seeds are short");
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(certificate);
    }
    bytes
}
