//! Any bytes as a certificate, through the two readers of the gateway.
//!
//! What must hold: no panic, neither in reading nor in showing what was read; what is shown is fit for a terminal;
//! both readers find the same names and purposes; and no name that the verifier of chains sees in a certificate is
//! missed by the reader of names that rules are applied to.
#![no_main]

use std::time::SystemTime;

use gateway::config;
use gateway_core::certificate::Certificate;
use gateway_x509::certificate::{CertificateInfo, dns_name};
use gateway_x509::client_certificate::{self, ParseError, ParsedCertificate};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

fuzz_target!(|der: &[u8]| {
    let certificate = CertificateDer::from(der);
    let parsed = client_certificate::parse(&certificate);
    let info = CertificateInfo::parse(der);
    if let Ok(parsed) = &parsed {
        let Certificate {
            uris,
            dns_names,
            common_name,
            organizational_units,
            issuer,
            ..
        } = &parsed.certificate;
        let names = uris.iter().chain(dns_names).chain(common_name);
        let names = names.chain(organizational_units).chain([issuer]);
        names.for_each(|name| assert_shown(name));
        assert_shown(&client_certificate::describe(&parsed.certificate));
        compare(parsed, &certificate);
    }
    let Ok(info) = info else {
        return;
    };
    show(&info);
    let may_issue = !info.is_authority || !info.cannot_sign_certificates;
    assert_eq!(client_certificate::may_issue(&certificate), Ok(may_issue));
    match parsed {
        Ok(parsed) => {
            assert_eq!(parsed.certificate.uris, info.uris);
            assert_eq!(parsed.certificate.dns_names, info.dns_names);
            assert_eq!(parsed.certificate.ip_addresses, info.ip_addresses);
            assert_eq!(parsed.certificate.issuer, info.issuer);
            let client_usage = info.purposes.is_some_and(|purposes| purposes.client);
            assert_eq!(parsed.client_usage, client_usage);
        }
        // Only what may stand in a log may be looked at by rules.
        Err(ParseError::Name) => {}
        Err(error) => panic!("what `check` accepts, the handshake cannot read: {error}"),
    }
});

/// Everything that `check`, `pki list` and the log show of a certificate.
fn show(info: &CertificateInfo) {
    assert_shown(&info.subject);
    assert_shown(&info.issuer);
    assert_shown(&info.serial);
    assert_shown(info.profile());
    info.names().iter().for_each(|name| assert_shown(name));
    let now = SystemTime::now();
    // A start of validity is shown only where it is still to come.
    if info.not_before > now {
        assert_shown(&config::shown_time(info.not_before, now));
    }
    assert_shown(&config::shown_time(info.not_after, now));
}

fn assert_shown(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// Asks the library that verifies chains, if it takes the certificate at all.
fn compare(parsed: &ParsedCertificate, certificate: &CertificateDer<'_>) {
    let Ok(verified) = EndEntityCert::try_from(certificate) else {
        return;
    };
    for name in verified.valid_dns_names() {
        let name = dns_name(name);
        assert!(
            parsed.certificate.dns_names.contains(&name),
            "{name}: {parsed:?}"
        );
    }
    for uri in verified.valid_uri_names() {
        assert!(
            parsed.certificate.uris.iter().any(|found| found == uri),
            "{uri}: {parsed:?}"
        );
    }
}
