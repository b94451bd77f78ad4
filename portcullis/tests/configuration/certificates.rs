//! Certificates and keys: those that would fail a handshake, or keep clients out, are told before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use gateway::config;

use super::{DAY, Pki, openssl, pki, with};

const BROKEN_CERTIFICATES: &str = r#"
"server.pem" | "absent.pem" | 6 | certificate = "absent.pem" | absent.pem: cannot be read: No such file
"server.pem" | "junk.pem" | 6 | certificate = "junk.pem" | is not a readable certificate
"server.pem" | "empty.pem" | 6 | certificate = "empty.pem" | holds no certificate
"server.pem" | "." | 6 | certificate = "." | is not a regular file
"server.pem" | "reversed.pem" | 6 | certificate = "reversed.pem" | CN=edge is the certificate of a CA
"server.key" | "absent.key" | 7 | key = "absent.key" | cannot be read: No such file
"server.key" | "ca.pem" | 7 | key = "ca.pem" | has mode 0644
"server.key" | "gateway.key" | 7 | key = "gateway.key" | does not belong to the certificate in server.pem
"server.key" | "exposed.key" | 7 | key = "exposed.key" | has mode 0644
"server.key" | "encrypted.key" | 7 | key = "encrypted.key" | is encrypted
client_ca = ["ca.pem"] | client_ca = [{ file = "ca.pem" }] | 8 | client_ca: trust_domain | missing: say what the CAs may speak for
client_ca = ["ca.pem"] | client_ca = [{ trust_domain = "a" }] | 8 | client_ca: file | missing: name the file
client_ca = ["ca.pem"] | client_ca = [{ file = "ca.pem", trust_domain = "spiffe://a" }] | 8 | client_ca: trust_domain = "spiffe://a" | no scheme
client_ca = ["ca.pem"] | client_ca = [{ file = "ca.pem", trust_domain = "a", dns = ["a*.b"] }] | 8 | client_ca: dns = "a*.b" | in place of a whole label
client_ca = ["ca.pem"] | client_ca = [{ file = "ca.pem", trust_domain = "a" }, "ca.pem"] | 8 | client_ca | bound to something else
client_ca = ["ca.pem"] | client_ca = [1] | 8 | client_ca = [1] | must be an array of paths, or of tables
client_ca = ["ca.pem"] | client_ca = ["server.pem"] | 8 | client_ca = "server.pem" | CN=server is not a CA
client_ca = ["ca.pem"] | client_ca = ["expired-ca.pem"] | 8 | client_ca = ["expired-ca.pem"] | no CA that is valid now
"#;

#[test]
fn broken_certificates_say_where_and_why() {
    let pki = pki();
    pki.assert_refused("listener \"otlp-grpc\"", BROKEN_CERTIFICATES);
    let exposed = pki.only_error(&with("\"server.key\"", "\"exposed.key\""));
    let command = format!("chmod 600 {}", pki.path("exposed.key").display());
    assert!(exposed.contains(&command), "{exposed}");
}

#[test]
fn certificates_that_would_fail_a_handshake_fail_here() {
    let pki = pki();
    let cases = [
        ("expired", "expired", "CN=expired expired on "),
        ("future", "future", "CN=future is not valid before "),
        (
            "gateway",
            "gateway",
            "CN=gateway lacks the extended key usage serverAuth",
        ),
        (
            "strangers",
            "server",
            "certificate 2 (CN=edge) did not issue certificate 1 (CN=server)",
        ),
        ("forged", "chained", "the chain does not verify"),
    ];
    for (certificate, key, expectation) in cases {
        let text = with("\"server.pem\"", &format!("\"{certificate}.pem\""))
            .replace("\"server.key\"", &format!("\"{key}.key\""));
        let error = pki.only_error(&text);
        let start = format!(
            "portcullis.toml:6: listener \"otlp-grpc\": certificate = \"{certificate}.pem\": "
        );
        assert!(error.contains(&start), "{error}");
        assert!(error.contains(expectation), "{error}");
    }
    let chained =
        with("\"server.pem\"", "\"chained.pem\"").replace("\"server.key\"", "\"chained.key\"");
    assert_eq!(
        pki.check(&chained).unwrap().config.listeners[0].certificates[0]
            .key
            .cert
            .len(),
        2
    );
}

/// Makes NAME.pem and NAME.key by OpenSSL: a certificate of its own with these arguments.
fn self_signed_by_openssl(pki: &Pki, name: &str, arguments: &str) {
    let output = Command::new("openssl")
        .args(
            "req -x509 -nodes -days 30 -addext basicConstraints=critical,CA:FALSE -subj".split(' '),
        )
        .arg(format!("/CN={name}"))
        .args(arguments.split(' '))
        .arg("-keyout")
        .arg(pki.path(&format!("{name}.key")))
        .arg("-out")
        .arg(pki.path(&format!("{name}.pem")))
        .output()
        .expect("the openssl command runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
}

fn with_own(name: &str) -> String {
    with("\"server.pem\"", &format!("\"{name}.pem\""))
        .replace("\"server.key\"", &format!("\"{name}.key\""))
}

const P256: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

const SERVER: &str = "-addext subjectAltName=DNS:a.example";

#[test]
fn own_certificates_that_clients_refuse_are_refused_before_they_do() {
    let pki = pki();
    let usage = "-addext keyUsage=critical,keyEncipherment";
    self_signed_by_openssl(&pki, "usage", &format!("{P256} {SERVER} {usage}"));
    let error = pki.only_error(&with_own("usage"));
    assert!(
        error.contains("CN=usage has a key usage without digitalSignature"),
        "{error}"
    );
    // By another issuer, since nobody looks at the signature of a root.
    self_signed_by_openssl(&pki, "issuer", P256);
    let by = |name: &str| pki.path(name).display().to_string();
    let by = format!("-CA {} -CAkey {}", by("issuer.pem"), by("issuer.key"));
    self_signed_by_openssl(&pki, "sha1", &format!("{P256} {SERVER} {by} -sha1"));
    let error = pki.only_error(&with_own("sha1"));
    assert!(
        error.contains("CN=sha1 is signed with MD5 or SHA-1"),
        "{error}"
    );
}

#[test]
fn keys_that_cannot_be_used_say_why_and_those_that_keep_clients_out_are_warned_of() {
    let pki = pki();
    for (name, key, expected) in [
        (
            "p521",
            "-newkey ec -pkeyopt ec_paramgen_curve:P-521",
            "P-521 needs `provider = \"aws-lc-rs\"`",
        ),
        (
            "ed448",
            "-newkey ed448",
            "the key of the certificate is Ed448",
        ),
        (
            "rsa1024",
            "-newkey rsa:1024",
            "the key of the certificate is RSA of 1024 bits",
        ),
    ] {
        self_signed_by_openssl(&pki, name, &format!("{key} {SERVER}"));
        let error = pki.only_error(&with_own(name));
        assert!(error.contains(expected), "{name}: {error}");
    }
    let on_aws = format!("tls = {{ provider = \"aws-lc-rs\" }}\n{}", with_own("p521"));
    self_signed_by_openssl(&pki, "ed25519", &format!("-newkey ed25519 {SERVER}"));
    self_signed_by_openssl(
        &pki,
        "address",
        &format!("{P256} -addext subjectAltName=IP:192.0.2.1"),
    );
    self_signed_by_openssl(&pki, "nameless", P256);
    for (text, expected) in [
        (
            with_own("ed25519"),
            "CN=ed25519 has a key that is Ed25519: clients on BoringSSL",
        ),
        (
            on_aws,
            "CN=p521 has a key that is P-521: clients on BoringSSL",
        ),
        (
            with_own("address"),
            "a client that asks for a server by name is refused (`sni`); only clients",
        ),
        (
            with_own("nameless"),
            "a client that asks for a server by name is refused (`sni`), and most",
        ),
    ] {
        let warnings = pki.check(&text).unwrap().warnings;
        let expects = |warning: &String| warning.contains(expected);
        assert!(warnings.iter().any(expects), "{expected}: {warnings:?}");
    }
}

#[test]
fn one_that_ended_before_1970_has_ended() {
    let pki = pki();
    let mut parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.not_before = rcgen::date_time_ymd(1950, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(1960, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(
        pki.path("old.pem"),
        parameters.self_signed(&key).unwrap().pem(),
    )
    .unwrap();
    fs::write(pki.path("old.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(pki.path("old.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(pki.file(), with_own("old")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["check", "--expiry", "--config"])
        .arg(pki.file())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    // It has no subject: its first name stands for it.
    assert!(said.starts_with("PORTCULLIS CRITICAL"), "{said}");
    assert!(
        said.contains("old.pem a.example has ended on 1960-01-01T00:00:00Z"),
        "{said}"
    );
}

#[test]
fn a_near_end_is_told_in_its_own_unit() {
    let now = SystemTime::UNIX_EPOCH + 1000 * DAY;
    let seconds = Duration::from_secs;
    for (distance, expected) in [
        (seconds(0), "0 seconds"),
        (seconds(1), "1 second"),
        (seconds(119), "119 seconds"),
        (seconds(5 * 60), "5 minutes"),
        (seconds(23 * 60 * 60 + 59 * 60), "23 hours"),
        (2 * DAY - seconds(1), "47 hours"),
        (2 * DAY, "2 days"),
        (99 * DAY, "99 days"),
    ] {
        let shown = config::shown_time(now + distance, now);
        assert!(shown.ends_with(&format!("(in {expected})")), "{shown}");
        if !distance.is_zero() {
            let shown = config::shown_time(now - distance, now);
            assert!(shown.ends_with(&format!("({expected} ago)")), "{shown}");
        }
    }
}

#[test]
fn keys_of_openssl_are_taken_in_every_form() {
    let pki = pki();
    let directory = pki.0.path();
    for kind in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-384", "ed25519"] {
        openssl(
            directory,
            &format!(
                "req -x509 -nodes -newkey {kind} -keyout new.key -out new.pem -days 30 -subj /CN=new \
                 -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:new.example.org"
            ),
        );
        // PKCS #1 for RSA and SEC 1 for curves; Ed25519 has only the one form.
        let form = if kind == "ed25519" {
            ""
        } else {
            "-traditional "
        };
        openssl(directory, &format!("pkey -in new.key {form}-out old.key"));
        for provider in ["ring", "aws-lc-rs"] {
            for key in ["new.key", "old.key"] {
                let text = with("\"server.pem\"", "\"new.pem\"")
                    .replace("\"server.key\"", &format!("\"{key}\""));
                let text = format!("tls.provider = \"{provider}\"\n{text}");
                let loaded = pki.check(&text);
                assert!(loaded.is_ok(), "{kind} in {key} for {provider}: {loaded:?}");
            }
        }
    }
}
