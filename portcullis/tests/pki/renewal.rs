//! Renewal: a renewed certificate says the same of another key, and the one before it stays.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::{
    P256, field, file_names, listed, openssl, openssl_verifies, pki, pki_ends, pki_refused,
    request_by_openssl, serial,
};

#[test]
fn a_renewed_certificate_says_the_same_of_another_key() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "ca", "edge"]);
    let names = ["--uri", "urn:agent:1", "--dns", "a.b", "--ip", "10.0.0.1"];
    for (name, by) in [("near", &[][..]), ("far", &["--issuer", "edge"])] {
        let issue = ["issue", "agent", name, "--days", "7"];
        pki(directory, &[&issue[..], &names, by].concat());
        let file = format!("{name}.pem");
        let says = "-subject -issuer -ext subjectAltName,extendedKeyUsage,authorityKeyIdentifier";
        let key_of = |file: &str| field(directory, file, "-pubkey");
        let (said, key) = (field(directory, &file, says), key_of(&file));
        let number = serial(directory, &file);
        pki(directory, &["renew", name]);
        assert_eq!(field(directory, &file, says), said);
        assert_ne!(serial(directory, &file), number);
        let new_key = key_of(&file);
        assert_ne!(new_key, key);
        let (_, held) = openssl(directory, &format!("pkey -in {name}.key -pubout"));
        assert_eq!(new_key, held, "the key beside it is its own");
        let key_file = fs::metadata(directory.join(format!("{name}.key"))).unwrap();
        assert_eq!(key_file.permissions().mode() & 0o777, 0o600);
        assert!(listed(directory, &file).contains(" 7 days"));

        pki(directory, &["renew", name, "--keep-key", "--days", "30"]);
        assert_eq!(key_of(&file), new_key);
        assert!(listed(directory, &file).contains(" 30 days"));
        assert!(openssl_verifies(directory, name, "sslclient"));
    }
}

#[test]
fn the_certificate_before_a_renewal_stays_good_until_it_is_revoked() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "ca", "edge"]);
    for (name, by) in [("near", &[][..]), ("far", &["--issuer", "edge"])] {
        pki(directory, &[&["issue", "agent", name], by].concat());
        let file = format!("{name}.pem");
        let before = fs::read(directory.join(&file)).unwrap();
        let kept = format!("{name}.{}", serial(directory, &file).to_lowercase());
        let said = pki(directory, &["renew", name]);
        assert!(said.contains(&format!("pki revoke {kept}`")), "{said}");
        assert_eq!(
            fs::read(directory.join(format!("{kept}.pem"))).unwrap(),
            before
        );
        assert!(openssl_verifies(directory, &kept, "sslclient"));
        pki(directory, &[&["revoke", kept.as_str()], by].concat());
        pki(directory, &["crl"]);
        pki(directory, &["crl", "--issuer", "edge"]);
        let lists = "-crl_check_all -CAfile ca.pem -CRLfile ca.crl.pem -CRLfile edge.crl.pem -untrusted edge.pem";
        let (good, said) = openssl(directory, &format!("verify {lists} {kept}.pem"));
        assert!(!good && said.contains("certificate revoked"), "{said}");
        let (good, said) = openssl(directory, &format!("verify {lists} {file}"));
        assert!(good, "{said}");
    }
}

#[test]
fn what_root_replaces_keeps_its_owner() {
    const NOBODY: u32 = 65_534;
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "gateway", "edge", "--dns", "a.b"]);
    pki(directory, &["crl"]);
    let files = ["edge.pem", "edge.key", "ca.crl.pem"].map(|name| directory.join(name));
    for file in &files {
        chown(file, Some(NOBODY), Some(NOBODY)).expect("the tests are run by root");
    }
    pki(directory, &["renew", "edge"]);
    pki(directory, &["crl"]);
    for file in &files {
        let found = fs::metadata(file).unwrap();
        assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{file:?}");
    }
}

#[test]
fn a_renewal_that_was_cut_off_is_made_good_by_the_next_one() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "agent", "edge"]);
    pki(directory, &["issue", "agent", "other"]);
    // What is left when the key has been moved into place, and the certificate has not.
    fs::copy(directory.join("other.key"), directory.join("edge.key")).unwrap();
    let error = pki_refused(directory, &["renew", "edge", "--keep-key"]);
    assert!(error.contains("renew it without --keep-key"), "{error}");
    pki(directory, &["renew", "edge"]);
    let (_, held) = openssl(directory, "pkey -in edge.key -pubout");
    assert_eq!(field(directory, "edge.pem", "-pubkey"), held);
}

#[test]
fn an_intermediate_is_renewed_with_its_key_and_what_it_issued_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "ca", "edge", "--days", "30"]);
    pki(directory, &["issue", "agent", "far", "--issuer", "edge"]);
    let error = pki_refused(directory, &["renew", "edge"]);
    assert!(error.contains("renew it with --keep-key"), "{error}");
    pki(directory, &["renew", "edge", "--keep-key", "--days", "90"]);
    let (good, said) = openssl(
        directory,
        "verify -x509_strict -CAfile ca.pem -untrusted edge.pem far.pem",
    );
    assert!(good, "{said}");
    // Cut to thirty days when it was issued; the authority above it lasts longer now.
    pki(directory, &["renew", "far", "--days", "60"]);
    assert!(openssl_verifies(directory, "far", "sslclient"));
    let list = pki(directory, &["list"]);
    let row = list.lines().find(|line| line.contains(" far.pem")).unwrap();
    assert!(row.contains(" 60 days"), "{list}");
}

#[test]
fn a_certificate_whose_key_is_elsewhere_is_renewed_by_a_new_request() {
    let home = tempfile::tempdir().unwrap();
    let (here, directory) = (home.path(), home.path().join("pki"));
    pki(&directory, &["init"]);
    request_by_openssl(here, "agent", P256, &["subjectAltName=URI:urn:agent:1"]);
    let request = here.join("agent.csr");
    let request = request.to_str().unwrap();
    pki(&directory, &["sign", request, "--profile", "agent"]);
    let error = pki_refused(&directory, &["renew", "agent"]);
    assert!(error.contains("has its key elsewhere"), "{error}");
    // Another key, and other names, which are not taken.
    request_by_openssl(here, "agent", P256, &["subjectAltName=URI:urn:admin"]);
    pki(&directory, &["renew", "agent", "--request", request]);
    let certificate = directory.join("agent.pem");
    let certificate = certificate.to_str().unwrap();
    let (_, held) = openssl(here, "pkey -in agent.key -pubout");
    assert_eq!(field(here, certificate, "-pubkey"), held);
    let names = field(here, certificate, "-ext subjectAltName");
    assert!(
        names.contains("urn:agent:1") && !names.contains("admin"),
        "{names}"
    );
}

#[test]
fn what_cannot_be_renewed_as_it_is_stays_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "agent", "stolen"]);
    pki(directory, &["issue", "agent", "agent"]);
    pki(directory, &["revoke", "stolen"]);
    let (made, said) = openssl(
        directory,
        "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout rich.key -out rich.pem -days 3 -subj /O=Example/CN=rich \
         -CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=clientAuth",
    );
    assert!(made, "{said}");
    request_by_openssl(directory, "other", P256, &[]);
    let request = directory.join("other.csr");
    let request = request.to_str().unwrap();
    let before: Vec<_> = file_names(directory)
        .into_iter()
        .map(|name| fs::read(directory.join(name)).unwrap())
        .collect();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["renew", "ca"], 1, "is a root"),
        (&["renew", "nobody"], 1, "cannot be read"),
        (&["renew", "../agent"], 2, "must be 1 to 64 letters"),
        (&["renew", "rich"], 1, "was not made by `portcullis pki`"),
        (
            &["renew", "stolen", "--keep-key"],
            1,
            "its key would be admitted again",
        ),
        (
            &["renew", "agent", "--request", request],
            1,
            "has its key beside it",
        ),
    ];
    for (arguments, code, expected) in cases {
        let error = pki_ends(code, directory, arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let after: Vec<_> = file_names(directory)
        .into_iter()
        .map(|name| fs::read(directory.join(name)).unwrap())
        .collect();
    assert_eq!(before, after);
    // The name of a revoked certificate may come back with another key.
    pki(directory, &["renew", "stolen"]);
    let list = pki(directory, &["list"]);
    let row = list
        .lines()
        .find(|line| line.contains(" stolen.pem"))
        .unwrap();
    assert_eq!(
        row.matches('Z').count(),
        1,
        "an end, and not revoked: {row}"
    );
}
