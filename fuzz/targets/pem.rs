//! Any bytes as a file of certificates, keys, lists or requests.
//!
//! What must hold: no panic; an error names a line that there is, and is printable; what DER is, is all of the file; and whatever
//! another reader of PEM finds among sections that are good is found here as well, or the file is refused as a whole: nothing is
//! lost in silence.
#![no_main]

use gateway_x509::pem::{self, Contents, Kind, PemError};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

fuzz_target!(|bytes: &[u8]| {
    let sections = match pem::contents(bytes) {
        Ok(Contents::Pem(sections)) => sections,
        Ok(Contents::Der(der)) => return assert_eq!(der, bytes),
        Err(error) => return assert_named(bytes, error),
    };
    let mut found = Vec::new();
    for section in &sections {
        match section.decode() {
            Ok(content) => found.push((section.kind, content.to_vec())),
            // Refused as a whole wherever the section is wanted.
            Err(error) => return assert_named(bytes, error),
        }
    }
    let has = |kind: Kind, der: &[u8]| {
        found
            .iter()
            .any(|(known, content)| *known == kind && content == der)
    };
    for other in CertificateDer::pem_slice_iter(bytes).flatten() {
        assert!(
            other.is_empty() || has(Kind::Certificate, &other),
            "{found:?}"
        );
    }
    for other in CertificateRevocationListDer::pem_slice_iter(bytes).flatten() {
        assert!(
            other.is_empty() || has(Kind::RevocationList, &other),
            "{found:?}"
        );
    }
});

fn assert_named(bytes: &[u8], error: PemError) {
    if let PemError::Line(line, _) = error {
        let breaks = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r'));
        assert!((1..=breaks.count() + 1).contains(&line), "{error}");
    }
    assert!(!error.to_string().contains(char::is_control));
}
