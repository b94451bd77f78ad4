//! Requests that were made elsewhere: they are signed by profile, and those that ask for too much are refused.

use std::fs;

use gateway_pki::{Authority, Profile};

use super::{
    DAY, P256, field, file_names, openssl, openssl_verifies, pki, pki_refused, request_by_openssl,
};

/// Name, kind of key, profile, and what is asked for.
const GOOD_REQUESTS: [(&str, &str, &str, [&str; 2]); 5] = [
    (
        "agent-p256",
        P256,
        "agent",
        [
            "subjectAltName=URI:spiffe://example.org/agent/1",
            "extendedKeyUsage=clientAuth",
        ],
    ),
    (
        "agent-p384",
        "-newkey ec -pkeyopt ec_paramgen_curve:P-384",
        "agent",
        [
            "subjectAltName=DNS:a.example.org",
            "basicConstraints=CA:FALSE",
        ],
    ),
    (
        "agent-ed25519",
        "-newkey ed25519",
        "agent",
        [
            "subjectAltName=URI:urn:agent:2",
            "keyUsage=digitalSignature",
        ],
    ),
    (
        "gateway-rsa",
        "-newkey rsa:2048",
        "gateway",
        [
            "subjectAltName=DNS:*.example.org,IP:10.0.0.1",
            "extendedKeyUsage=serverAuth",
        ],
    ),
    (
        "ingester",
        P256,
        "component",
        [
            "subjectAltName=DNS:ingester",
            "extendedKeyUsage=serverAuth,clientAuth",
        ],
    ),
];

#[test]
fn requests_made_by_openssl_are_signed_by_profile() {
    let home = tempfile::tempdir().unwrap();
    let (here, directory) = (home.path(), home.path().join("pki"));
    pki(&directory, &["init"]);
    pki(&directory, &["issue", "ca", "edge"]);

    for (name, key, profile, extensions) in GOOD_REQUESTS {
        request_by_openssl(here, name, key, &extensions);
        let request = here.join(format!("{name}.csr"));
        let request = request.to_str().unwrap();
        let said = pki(
            &directory,
            &["sign", request, "--profile", profile, "--days", "7"],
        );
        let wanted = extensions[0].split([':', '=', ',']).nth(2).unwrap();
        assert!(said.contains(wanted), "{wanted} in {said}");
        assert!(!directory.join(format!("{name}.key")).exists(), "{name}");
        let server = openssl_verifies(&directory, name, "sslserver");
        let client = openssl_verifies(&directory, name, "sslclient");
        assert_eq!(
            (server, client),
            (profile != "agent", profile != "gateway"),
            "{name}"
        );
        let certificate = directory.join(format!("{name}.pem"));
        let certified = field(here, certificate.to_str().unwrap(), "-pubkey");
        let (_, held) = openssl(here, &format!("pkey -in {name}.key -pubout"));
        assert_eq!(certified, held, "{name}: the key of the request");
    }

    // In DER, under another name, by an intermediate, and with nothing taken but names.
    let (made, said) = openssl(here, "req -in ingester.csr -outform der -out ingester.der");
    assert!(made, "{said}");
    let request = here.join("ingester.der");
    let arguments = ["sign", request.to_str().unwrap(), "--profile", "component"];
    pki(
        &directory,
        &[&arguments[..], &["--name", "other", "--issuer", "edge"]].concat(),
    );
    let certificate = directory.join("other.pem");
    let text = field(
        here,
        certificate.to_str().unwrap(),
        "-subject -issuer -ext subjectAltName",
    );
    assert!(text.contains("subject=CN = other"), "{text}");
    assert!(text.contains("issuer=CN = edge"), "{text}");
    assert!(text.contains("DNS:ingester"), "{text}");
    assert!(openssl_verifies(&directory, "other", "sslclient"));
    // Nothing is overwritten here either.
    let error = pki_refused(&directory, &arguments);
    assert!(error.contains("ingester.pem: exists already"), "{error}");
}

/// Name, kind of key, profile, what is asked for, and why it is refused.
const BAD_REQUESTS: [(&str, &str, &str, &[&str], &str); 13] = [
    (
        "ca",
        P256,
        "agent",
        &["basicConstraints=critical,CA:TRUE"],
        "asks for a CA",
    ),
    (
        "signer",
        P256,
        "agent",
        &["keyUsage=keyCertSign"],
        "signs certificates or lists",
    ),
    (
        "short",
        "-newkey rsa:1024",
        "agent",
        &["subjectAltName=URI:urn:agent:1"],
        "an RSA key of 1024 bits",
    ),
    (
        "strange",
        "-newkey ec -pkeyopt ec_paramgen_curve:secp256k1",
        "agent",
        &["subjectAltName=URI:urn:agent:1"],
        "of a kind that is not accepted",
    ),
    (
        "old",
        "-newkey rsa:2048 -sha1",
        "agent",
        &["subjectAltName=URI:urn:agent:1"],
        "by an algorithm that is not accepted",
    ),
    (
        "mixed",
        P256,
        "agent",
        &["extendedKeyUsage=serverAuth"],
        "which an agent does not get",
    ),
    (
        "greedy",
        P256,
        "gateway",
        &["extendedKeyUsage=clientAuth", "subjectAltName=DNS:a.b"],
        "gateway's listener does not get",
    ),
    (
        "coder",
        P256,
        "agent",
        &["extendedKeyUsage=codeSigning"],
        "beyond serverAuth and clientAuth",
    ),
    (
        "mail",
        P256,
        "agent",
        &["subjectAltName=email:a@example.org"],
        "neither a URI, nor a DNS name",
    ),
    (
        "many",
        P256,
        "agent",
        &["subjectAltName=DNS:*.example.org"],
        "not a pattern of many",
    ),
    (
        "control",
        P256,
        "agent",
        &["subjectAltName=URI:urn:a\u{1}b"],
        "must look like spiffe://",
    ),
    (
        "empty",
        P256,
        "agent",
        &["subjectAltName=DER:30:02:82:00"],
        "must look like gateway.example.org",
    ),
    (
        "nameless",
        P256,
        "component",
        &[],
        "needs a DNS name or an IP address",
    ),
];

#[test]
fn requests_that_ask_for_too_much_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let (here, directory) = (home.path(), home.path().join("pki"));
    pki(&directory, &["init"]);

    for (name, key, profile, extensions, expected) in BAD_REQUESTS {
        request_by_openssl(here, name, key, extensions);
        let request = here.join(format!("{name}.csr"));
        let error = pki_refused(
            &directory,
            &["sign", request.to_str().unwrap(), "--profile", profile],
        );
        assert!(error.contains(expected), "{name}: {error}");
    }
    assert_eq!(
        file_names(&directory),
        ["ca.key", "ca.pem"].map(str::to_owned).into()
    );
}

#[test]
fn a_request_that_does_not_prove_possession_of_its_key_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (here, directory) = (home.path(), home.path().join("pki"));
    pki(&directory, &["init"]);
    request_by_openssl(here, "agent", P256, &["subjectAltName=URI:urn:agent:1"]);
    let (made, said) = openssl(here, "req -in agent.csr -outform der -out agent.der");
    assert!(made, "{said}");
    let der = fs::read(here.join("agent.der")).unwrap();
    let changed = here.join("changed.der");
    // Every byte: structure, names, key, algorithm and signature.
    for position in 0..der.len() {
        let mut bytes = der.clone();
        bytes[position] ^= 1;
        fs::write(&changed, bytes).unwrap();
        let authority = Authority::open(&directory).unwrap();
        let refused = authority.sign(&changed, Profile::Client, Some("thief"), DAY);
        assert!(refused.is_err(), "byte {position}");
    }
    for bad in [
        &der[..der.len() - 1],
        &[&der[..], b"0"].concat(),
        b"",
        b"no PEM",
    ] {
        fs::write(&changed, bad).unwrap();
        let authority = Authority::open(&directory).unwrap();
        assert!(
            authority
                .sign(&changed, Profile::Client, Some("thief"), DAY)
                .is_err()
        );
    }
    let good = here.join("agent.der");
    let authority = Authority::open(&directory).unwrap();
    assert!(
        authority
            .sign(&good, Profile::Client, Some("honest"), DAY)
            .is_ok()
    );
}

#[test]
fn a_request_of_keytool_and_certreq_is_signed() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    request_by_openssl(
        directory,
        "agent",
        P256,
        &["subjectAltName=URI:urn:agent:1"],
    );
    let text = fs::read_to_string(directory.join("agent.csr")).unwrap();
    let text = text.replace(" CERTIFICATE REQUEST", " NEW CERTIFICATE REQUEST");
    let request = directory.join("new.csr");
    fs::write(&request, text).unwrap();
    fs::remove_file(directory.join("agent.key")).unwrap();
    let request = request.to_str().unwrap();
    pki(directory, &["sign", request, "--profile", "agent"]);
    assert!(openssl_verifies(directory, "agent", "sslclient"));
}
