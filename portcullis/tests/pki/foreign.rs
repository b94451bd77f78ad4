//! Authorities that OpenSSL made: whatever their name and key, they issue and revoke as ours do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{P256, openssl, openssl_verifies, pki, pki_refused};

#[test]
fn an_authority_made_by_openssl_revokes_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // OpenSSL derives key identifiers in another way than we do, and its serial numbers may begin with a zero byte.
    let (made, said) = openssl(
        directory,
        "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout ca.key -out ca.pem -days 30 -subj /CN=Elsewhere \
         -addext keyUsage=critical,keyCertSign,cRLSign",
    );
    assert!(made, "{said}");
    let (made, said) = openssl(
        directory,
        "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout agent.key -out agent.pem -days 3 -subj /CN=agent \
         -CA ca.pem -CAkey ca.key -set_serial 0xf00000000000000001 -addext basicConstraints=critical,CA:FALSE",
    );
    assert!(made, "{said}");
    pki(directory, &["revoke", "agent"]);
    pki(directory, &["crl"]);
    let verify = "verify -crl_check -CAfile ca.pem -CRLfile ca.crl.pem agent.pem";
    let (good, said) = openssl(directory, verify);
    assert!(!good && said.contains("certificate revoked"), "{said}");
    let (_, said) = openssl(directory, "crl -noout -text -in ca.crl.pem");
    assert!(said.contains("Serial Number: F00000000000000001"), "{said}");
}

/// Arguments by which OpenSSL makes a CA of its own, and its key in a format.
const FOREIGN_AUTHORITIES: [(&str, &str, &str); 5] = [
    // Attributes that stand twice, and two in one: what a map of names loses.
    ("/DC=org/DC=example/CN=CA", P256, "ec"),
    (
        "/O=Example/OU=One/OU=Two/CN=CA+serialNumber=7",
        "-newkey rsa:2048",
        "rsa",
    ),
    (
        "/O=Example/CN=CA",
        "-newkey ec -pkeyopt ec_paramgen_curve:P-384",
        "ec",
    ),
    ("/OU=One/OU=Two", "-newkey ed25519", "pkey"),
    // Not UTF-8, and of a type that the generator does not write.
    ("/O=S\u{f6}hne/CN=CA", P256, "pkey"),
];

#[test]
fn whatever_its_name_and_key_what_an_authority_makes_is_accepted() {
    for (subject, key, format) in FOREIGN_AUTHORITIES {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path();
        let made = Command::new("openssl")
            .args(
                format!(
                    "req -x509 -nodes {key} -multivalue-rdn -keyout made.key -out ca.pem -days 30"
                )
                .split(' '),
            )
            .args([
                "-subj",
                subject,
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign",
            ])
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{subject}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        // SEC 1 and PKCS #1 are what `openssl ec` and `openssl rsa -traditional` write.
        let traditional = if format == "rsa" { " -traditional" } else { "" };
        let (converted, said) = openssl(
            directory,
            &format!("{format} -in made.key -out ca.key{traditional}"),
        );
        assert!(converted, "{said}");
        fs::set_permissions(directory.join("ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
        pki(directory, &["issue", "agent", "one", "--uri", "urn:one"]);
        pki(directory, &["issue", "agent", "two", "--uri", "urn:two"]);
        assert!(openssl_verifies(directory, "one", "sslclient"), "{subject}");
        pki(directory, &["revoke", "one"]);
        // Twice: the second list follows the first.
        pki(directory, &["crl"]);
        pki(directory, &["crl"]);
        let verify = |name| {
            openssl(
                directory,
                &format!("verify -crl_check -CAfile ca.pem -CRLfile ca.crl.pem {name}.pem"),
            )
        };
        let (good, said) = verify("two");
        assert!(good, "{subject}: {said}");
        let (good, said) = verify("one");
        assert!(
            !good && said.contains("certificate revoked"),
            "{subject}: {said}"
        );
    }
}

#[test]
fn an_authority_that_may_not_sign_lists_signs_none() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    let (made, said) = openssl(
        directory,
        &format!(
            "req -x509 -nodes {P256} -keyout ca.key -out ca.pem -days 30 -subj /CN=CA -addext keyUsage=critical,keyCertSign"
        ),
    );
    assert!(made, "{said}");
    fs::write(directory.join("ca.crl.pem"), "the list before").unwrap();
    let error = pki_refused(directory, &["crl"]);
    assert!(error.contains("without cRLSign"), "{error}");
    let kept = fs::read_to_string(directory.join("ca.crl.pem")).unwrap();
    assert_eq!(kept, "the list before");
}
