//! The small authority, as a user meets it: through the binary, and verified by OpenSSL, which nobody here wrote.
//! In: temporary directories. Out: nothing is left behind.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use gateway_pki::{Authority, PkiError, Profile, Request};
use gateway_x509::certificate::Purposes;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn portcullis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs `portcullis pki` in `directory`, which must succeed.
fn pki(directory: &Path, arguments: &[&str]) -> String {
    let directory = directory.to_str().unwrap();
    let output = portcullis(&[&["pki"], arguments, &["--directory", directory]].concat());
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `portcullis pki` in `directory`, which must fail.
fn pki_refused(directory: &Path, arguments: &[&str]) -> String {
    let directory = directory.to_str().unwrap();
    let output = portcullis(&[&["pki"], arguments, &["--directory", directory]].concat());
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let mut parts: Vec<_> = said.trim().split(": ").collect();
    parts.sort_unstable();
    let all = parts.len();
    parts.dedup();
    assert_eq!(parts.len(), all, "nothing is said twice: {said}");
    said
}

/// What `openssl verify` says of NAME.pem for a purpose, with the chain that stands in the file.
fn openssl_verifies(directory: &Path, name: &str, purpose: &str) -> bool {
    let certificate = directory.join(format!("{name}.pem"));
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
        .arg(directory.join("ca.pem"))
        .arg("-untrusted")
        .arg(&certificate)
        .arg(&certificate)
        .output()
        .expect("the openssl command runs");
    output.status.success()
}

fn request(name: &str, profile: Profile) -> Request {
    Request {
        name: name.to_owned(),
        profile,
        uris: Vec::new(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: DAY,
        not_before: None,
    }
}

fn file_names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn openssl_accepts_each_certificate_for_its_purpose_only() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    pki(directory, &["init"]);
    pki(
        directory,
        &[
            "issue",
            "gateway",
            "gateway",
            "--dns",
            "gateway.example.org",
            "--ip",
            "::1",
        ],
    );
    pki(
        directory,
        &["issue", "agent", "agent", "--uri", "urn:agent:1"],
    );
    pki(directory, &["issue", "ca", "edge"]);
    pki(
        directory,
        &["issue", "agent", "far-agent", "--issuer", "edge"],
    );
    pki(
        directory,
        &[
            "issue",
            "gateway",
            "far-gateway",
            "--issuer",
            "edge",
            "--ip",
            "127.0.0.1",
        ],
    );
    pki(
        directory,
        &["issue", "component", "ingester", "--dns", "a.example"],
    );
    let cases = [
        ("gateway", true, false),
        ("agent", false, true),
        ("ingester", true, true),
        ("far-agent", false, true),
        ("far-gateway", true, false),
    ];
    for (name, server, client) in cases {
        assert_eq!(
            openssl_verifies(directory, name, "sslserver"),
            server,
            "{name} as server"
        );
        assert_eq!(
            openssl_verifies(directory, name, "sslclient"),
            client,
            "{name} as client"
        );
    }
}

#[test]
fn keys_are_readable_by_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    pki(directory.path(), &["init"]);
    pki(directory.path(), &["issue", "agent", "agent"]);
    pki(directory.path(), &["issue", "ca", "edge"]);
    for name in ["ca.key", "agent.key", "edge.key"] {
        let mode = fs::metadata(directory.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let expected = [
        "agent.key",
        "agent.pem",
        "ca.key",
        "ca.pem",
        "edge.key",
        "edge.pem",
    ];
    assert_eq!(
        file_names(directory.path()),
        expected.map(str::to_owned).into()
    );
}

#[test]
fn nothing_is_ever_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "agent", "agent"]);
    fs::remove_file(directory.join("agent.pem")).unwrap();
    fs::write(directory.join("other.pem"), "in the way").unwrap();
    let before: Vec<_> = file_names(directory)
        .into_iter()
        .map(|name| fs::read(directory.join(name)).unwrap())
        .collect();
    let cases: [(&[&str], &str); 4] = [
        (&["init"], "ca.pem"),
        (&["issue", "agent", "agent"], "agent.key"),
        (&["issue", "agent", "other"], "other.pem"),
        (&["issue", "agent", "ca"], "ca.pem"),
    ];
    for (arguments, file) in cases {
        let error = pki_refused(directory, arguments);
        assert!(
            error.contains(&format!("{file}: exists already")),
            "{arguments:?}: {error}"
        );
    }
    let after: Vec<_> = file_names(directory)
        .into_iter()
        .map(|name| fs::read(directory.join(name)).unwrap())
        .collect();
    assert_eq!(before, after);
}

#[test]
fn list_shows_every_certificate_and_its_names() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    pki(directory, &["init", "--name", "Example CA"]);
    pki(
        directory,
        &[
            "issue",
            "gateway",
            "gateway",
            "--dns",
            "gateway.example.org",
            "--ip",
            "10.0.0.1",
        ],
    );
    pki(
        directory,
        &[
            "issue",
            "agent",
            "agent",
            "--uri",
            "urn:agent:1",
            "--days",
            "1",
        ],
    );
    pki(
        directory,
        &["issue", "component", "ingester", "--ip", "10.0.0.2"],
    );
    let list = pki(directory, &["list"]);
    for expected in [
        "Example CA",
        " 90 days",
        " 1 days",
        " 180 days",
        "gateway.pem",
        "gateway.example.org",
        "10.0.0.1",
        "urn:agent:1",
        "CN=agent",
    ] {
        assert!(list.contains(expected), "{expected} in\n{list}");
    }
    let row = |name: &str| {
        list.lines()
            .find(|line| line.contains(name))
            .unwrap()
            .to_owned()
    };
    assert!(row("ca.pem").contains(" ca "));
    assert!(row("gateway.pem").contains(" gateway "));
    assert!(row("agent.pem").contains(" agent "));
    assert!(row("ingester.pem").contains(" component "));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    assert!(pki_refused(directory, &["list"]).contains("portcullis pki init"));
    pki(directory, &["init", "--name", "root"]);
    pki(directory, &["issue", "ca", "edge"]);
    let cases: [(&[&str], &str); 9] = [
        (
            &["issue", "gateway", "gateway"],
            "needs a DNS name or an IP address",
        ),
        (
            &["issue", "gateway", "gateway", "--dns", "a b"],
            "must look like gateway.example.org",
        ),
        (
            &["issue", "agent", "agent", "--uri", "no-scheme"],
            "must look like spiffe://",
        ),
        (&["issue", "agent", "../agent"], "must be 1 to 64 letters"),
        (&["issue", "agent", ".hidden"], "must be 1 to 64 letters"),
        (
            &["issue", "ca", "branch", "--dns", "a.example"],
            "takes no URI, DNS name or IP address",
        ),
        (
            &["issue", "ca", "branch", "--issuer", "edge"],
            "no further authority",
        ),
        (&["issue", "agent", "root"], "would look self-signed"),
        (
            &["issue", "agent", "agent", "--issuer", "nobody"],
            "cannot be read",
        ),
    ];
    for (arguments, expected) in cases {
        let error = pki_refused(directory, arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let expected = ["ca.key", "ca.pem", "edge.key", "edge.pem"];
    assert_eq!(file_names(directory), expected.map(str::to_owned).into());
}

#[test]
fn authority_with_an_exposed_or_foreign_key_does_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    Authority::init(directory.path(), "one", DAY).unwrap();
    Authority::init(other.path(), "other", DAY).unwrap();
    let key = directory.path().join("ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Authority::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    fs::copy(other.path().join("ca.key"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let error = Authority::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("does not belong to the key"), "{error}");
}

#[test]
fn certificates_carry_what_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::init(directory.path(), "Example CA", 365 * DAY).unwrap();
    let before = SystemTime::now();
    let issued = authority
        .issue(&Request {
            uris: vec!["spiffe://example.org/agent/1".to_owned()],
            dns_names: vec!["*.Agents.example.org".to_owned()],
            ip_addresses: vec!["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()],
            ..request("agent", Profile::Client)
        })
        .unwrap();
    let entries = authority.list().unwrap().entries;
    let info = &entries
        .iter()
        .find(|entry| entry.file == issued.certificate)
        .unwrap()
        .info;
    assert_eq!(
        (info.subject.as_str(), info.issuer.as_str()),
        ("CN=agent", "CN=Example CA")
    );
    assert_eq!(info.uris, ["spiffe://example.org/agent/1"]);
    assert_eq!(info.dns_names, ["*.agents.example.org"]);
    assert_eq!(info.ip_addresses.len(), 2);
    assert_eq!(
        info.purposes,
        Some(Purposes {
            server: false,
            client: true
        })
    );
    assert!(!info.is_authority);
    assert!(info.not_before < before, "a lagging clock has room");
    assert!(info.not_after > before + DAY - Duration::from_secs(2));
    assert_eq!(info.serial.len(), 32);
}

#[test]
fn serials_differ_between_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::init(directory.path(), "Example CA", DAY).unwrap();
    for name in ["a", "b", "c"] {
        authority.issue(&request(name, Profile::Client)).unwrap();
    }
    let serials: BTreeSet<_> = authority
        .list()
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.info.serial)
        .collect();
    assert_eq!(serials.len(), 4);
}

#[test]
fn past_and_future_certificates_can_be_made() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::init(directory.path(), "Example CA", 10 * DAY).unwrap();
    let now = SystemTime::now();
    let expired = Request {
        not_before: Some(now - 2 * DAY),
        ..request("expired", Profile::Client)
    };
    let future = Request {
        not_before: Some(now + 2 * DAY),
        ..request("future", Profile::Client)
    };
    authority.issue(&expired).unwrap();
    authority.issue(&future).unwrap();
    let entries = authority.list().unwrap().entries;
    let info = |name: &str| {
        let file = directory.path().join(name);
        entries
            .iter()
            .find(|entry| entry.file == file)
            .unwrap()
            .info
            .clone()
    };
    assert!(info("expired.pem").not_after < now);
    assert!(info("future.pem").not_before > now);
    assert!(!openssl_verifies(directory.path(), "expired", "sslclient"));
    assert!(!openssl_verifies(directory.path(), "future", "sslclient"));
}

#[test]
fn certificate_never_outlives_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::init(directory.path(), "Example CA", 2 * DAY).unwrap();
    let long = Request {
        lifetime: 100 * DAY,
        ..request("agent", Profile::Client)
    };
    authority.issue(&long).unwrap();
    let entries = authority.list().unwrap().entries;
    assert_eq!(entries[0].info.not_after, entries[1].info.not_after);
    let after = Request {
        not_before: Some(SystemTime::now() + 3 * DAY),
        ..request("late", Profile::Client)
    };
    assert!(matches!(
        authority.issue(&after),
        Err(PkiError::NotAnAuthority { .. })
    ));
}

/// Runs `openssl` in `directory`: whether it succeeded, and everything it said.
fn openssl(directory: &Path, arguments: &str) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("the openssl command runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// The number in a list, which OpenSSL prints as `crlNumber=0x...`.
fn list_number(directory: &Path, list: &str) -> u64 {
    let (_, said) = openssl(directory, &format!("crl -noout -crlnumber -in {list}"));
    let digits = said.trim().rsplit_once("0x").unwrap().1;
    u64::from_str_radix(digits, 16).unwrap()
}

#[test]
fn openssl_refuses_what_was_revoked_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    pki(directory, &["init"]);
    for name in ["stolen", "good"] {
        pki(directory, &["issue", "agent", name]);
    }
    pki(directory, &["issue", "ca", "edge"]);
    for name in ["far-stolen", "far-good"] {
        pki(directory, &["issue", "agent", name, "--issuer", "edge"]);
    }
    pki(directory, &["crl"]);
    let (good, said) = openssl(
        directory,
        "crl -verify -noout -CAfile ca.pem -in ca.crl.pem",
    );
    assert!(good && said.contains("verify OK"), "an empty list: {said}");

    pki(directory, &["revoke", "stolen"]);
    pki(directory, &["revoke", "far-stolen", "--issuer", "edge"]);
    assert!(pki(directory, &["crl", "--days", "30"]).contains("ca.crl.pem: written"));
    pki(directory, &["crl", "--issuer", "edge"]);
    for (list, authority) in [("ca.crl.pem", "ca.pem"), ("edge.crl.pem", "edge.pem")] {
        let arguments = format!("crl -verify -noout -CAfile {authority} -in {list}");
        let (good, said) = openssl(directory, &arguments);
        assert!(good && said.contains("verify OK"), "{list}: {said}");
    }
    let cases = [
        ("stolen", false),
        ("good", true),
        ("edge", true),
        ("far-stolen", false),
        ("far-good", true),
    ];
    for (name, expected) in cases {
        let arguments = format!(
            "verify -x509_strict -crl_check_all -CAfile ca.pem -CRLfile ca.crl.pem -CRLfile edge.crl.pem \
             -untrusted edge.pem {name}.pem"
        );
        let (good, said) = openssl(directory, &arguments);
        assert_eq!(good, expected, "{name}: {said}");
        assert_eq!(said.contains("certificate revoked"), !expected, "{said}");
    }

    // The intermediate itself: with it goes what it issued.
    pki(directory, &["revoke", "edge"]);
    pki(directory, &["crl"]);
    let (good, said) = openssl(
        directory,
        "verify -crl_check_all -CAfile ca.pem -CRLfile ca.crl.pem -CRLfile edge.crl.pem -untrusted edge.pem far-good.pem",
    );
    assert!(!good && said.contains("certificate revoked"), "{said}");
}

#[test]
fn lists_follow_each_other_by_number_and_time() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::init(directory.path(), "Example CA", 100 * DAY).unwrap();
    let list = authority.write_crl(2 * DAY).unwrap();
    assert_eq!(list, directory.path().join("ca.crl.pem"));
    let first = list_number(directory.path(), "ca.crl.pem");
    authority.write_crl(2 * DAY).unwrap();
    let second = list_number(directory.path(), "ca.crl.pem");
    assert!(second > first, "{first}, then {second}");
    // Whoever removes the list does not make the numbers begin anew.
    fs::remove_file(&list).unwrap();
    authority.write_crl(2 * DAY).unwrap();
    assert!(list_number(directory.path(), "ca.crl.pem") >= first);

    let before = SystemTime::now();
    let (_, said) = openssl(
        directory.path(),
        "crl -noout -lastupdate -nextupdate -dateopt iso_8601 -in ca.crl.pem",
    );
    let time = |label: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(label));
        humantime::parse_rfc3339_weak(line.unwrap().trim_end_matches('Z')).unwrap()
    };
    assert!(
        time("lastUpdate=") < before - Duration::from_secs(60),
        "a lagging clock has room"
    );
    let lasts = time("nextUpdate=").duration_since(before).unwrap();
    assert!(
        lasts > 2 * DAY - Duration::from_secs(60) && lasts <= 2 * DAY,
        "{lasts:?}"
    );
}

#[test]
fn revoking_again_changes_nothing_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "agent", "agent"]);
    pki(directory, &["issue", "agent", "other"]);
    assert!(pki(directory, &["revoke", "agent"]).contains("agent.pem: revoked;"));
    let database = fs::read_to_string(directory.join("ca.revoked")).unwrap();
    assert!(pki(directory, &["revoke", "agent"]).contains("agent.pem: was revoked already, at 20"));
    assert_eq!(
        fs::read_to_string(directory.join("ca.revoked")).unwrap(),
        database
    );
    let time = database.lines().last().unwrap().split(' ').nth(1).unwrap();
    let list = pki(directory, &["list"]);
    let row = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(row(" agent.pem").contains(time), "{list}");
    assert!(!row(" other.pem").contains(time), "{list}");
    let expected = [
        "agent.key",
        "agent.pem",
        "ca.key",
        "ca.pem",
        "ca.revoked",
        "other.key",
        "other.pem",
    ];
    assert_eq!(file_names(directory), expected.map(str::to_owned).into());
}

#[test]
fn only_the_issuer_takes_back_and_nothing_but_a_list_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let elsewhere = tempfile::tempdir().unwrap();
    pki(directory, &["init"]);
    pki(directory, &["issue", "ca", "edge"]);
    pki(directory, &["issue", "agent", "agent"]);
    pki(directory, &["issue", "agent", "far", "--issuer", "edge"]);
    // Another authority of the same name.
    pki(elsewhere.path(), &["init"]);
    pki(elsewhere.path(), &["issue", "agent", "stranger"]);
    fs::copy(
        elsewhere.path().join("stranger.pem"),
        directory.join("stranger.pem"),
    )
    .unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["revoke", "far"], "issued by CN=edge, not by"),
        (&["revoke", "agent", "--issuer", "edge"], "not by"),
        (
            &["revoke", "stranger"],
            "issued by CN=Portcullis CA, not by",
        ),
        (&["revoke", "ca"], "a root cannot revoke itself"),
        (&["revoke", "nobody"], "cannot be read"),
        (&["revoke", "../agent"], "must be 1 to 64 letters"),
    ];
    for (arguments, expected) in cases {
        let error = pki_refused(directory, arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert!(
        !file_names(directory)
            .iter()
            .any(|name| name.ends_with(".revoked"))
    );

    // Files that are no list of this authority stay as they are.
    pki(directory, &["crl", "--issuer", "edge"]);
    for in_the_way in ["agent.pem", "edge.crl.pem"] {
        fs::copy(directory.join(in_the_way), directory.join("ca.crl.pem")).unwrap();
        let before = fs::read(directory.join("ca.crl.pem")).unwrap();
        let error = pki_refused(directory, &["crl"]);
        assert!(error.contains("ca.crl.pem: is in the way"), "{error}");
        assert_eq!(fs::read(directory.join("ca.crl.pem")).unwrap(), before);
    }
    fs::remove_file(directory.join("ca.crl.pem")).unwrap();

    // Half a database would admit revoked certificates again.
    fs::write(directory.join("ca.revoked"), "# header\n5f2026-01-01\n").unwrap();
    for arguments in [&["crl"][..], &["revoke", "agent"], &["list"]] {
        let error = pki_refused(directory, arguments);
        assert!(error.contains("ca.revoked:2: must be"), "{error}");
    }
}

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

/// A request made by OpenSSL: `key` are the arguments that choose its key, `extensions` what it asks for.
fn request_by_openssl(directory: &Path, name: &str, key: &str, extensions: &[&str]) {
    let arguments =
        format!("req -new -nodes {key} -keyout {name}.key -out {name}.csr -subj /CN={name}");
    let asked = extensions
        .iter()
        .flat_map(|extension| ["-addext", extension]);
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .args(asked)
        .current_dir(directory)
        .output()
        .expect("the openssl command runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
}

const P256: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

/// What OpenSSL says of one field of a certificate.
fn field(directory: &Path, certificate: &str, option: &str) -> String {
    let (read, said) = openssl(
        directory,
        &format!("x509 -noout {option} -in {certificate}"),
    );
    assert!(read, "{said}");
    said
}

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

/// The serial number of a certificate, in OpenSSL's capitals.
fn serial(directory: &Path, certificate: &str) -> String {
    let said = field(directory, certificate, "-serial");
    said.trim().rsplit_once('=').unwrap().1.to_owned()
}

/// The line of `pki list` on a file.
fn listed(directory: &Path, file: &str) -> String {
    let list = pki(directory, &["list"]);
    let mut lines = list.lines();
    lines
        .find(|line| line.starts_with(&format!(" {file}")))
        .unwrap()
        .to_owned()
}

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
    let cases: [(&[&str], &str); 6] = [
        (&["renew", "ca"], "is a root"),
        (&["renew", "nobody"], "cannot be read"),
        (&["renew", "../agent"], "must be 1 to 64 letters"),
        (&["renew", "rich"], "was not made by `portcullis pki`"),
        (
            &["renew", "stolen", "--keep-key"],
            "its key would be admitted again",
        ),
        (
            &["renew", "agent", "--request", request],
            "has its key beside it",
        ),
    ];
    for (arguments, expected) in cases {
        let error = pki_refused(directory, arguments);
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

#[test]
fn a_certificate_without_a_file_is_revoked_by_its_serial_number() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "agent", "gone"]);
    pki(directory, &["issue", "agent", "here"]);
    let (gone, here) = (serial(directory, "gone.pem"), serial(directory, "here.pem"));
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("gone.pem");
    fs::rename(directory.join("gone.pem"), &moved).unwrap();
    let said = pki(directory, &["revoke", "--serial", &gone]);
    assert!(
        said.contains(&format!("serial number {}: revoked;", gone.to_lowercase())),
        "{said}"
    );
    assert!(pki(directory, &["revoke", "--serial", &here]).contains("here.pem: revoked;"));
    assert!(pki(directory, &["revoke", "here"]).contains("was revoked already"));
    pki(directory, &["crl"]);
    for file in [moved.to_str().unwrap(), "here.pem"] {
        let (good, said) = openssl(
            directory,
            &format!("verify -crl_check -CAfile ca.pem -CRLfile ca.crl.pem {file}"),
        );
        assert!(!good && said.contains("certificate revoked"), "{said}");
    }
    let many = "5".repeat(25);
    for (option, bad, expected) in [
        ("--serial", "", "must be 1 to 40 hexadecimal digits"),
        ("--serial", "xyz", "must be 1 to 40 hexadecimal digits"),
        ("--serial", &"a".repeat(41), "longer than 20 bytes"),
        ("--serial", &many, &format!("`--serial 0x0{many}`")),
        ("--serial-decimal", "0x12", "must be decimal digits"),
    ] {
        let directory = directory.to_str().unwrap();
        let option = format!("{option}={bad}");
        let output = portcullis(&["pki", "revoke", &option, "--directory", directory]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(expected),
            "{option}: {error}"
        );
    }
}

#[test]
fn a_serial_number_is_the_same_however_it_is_written() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "agent", "agent"]);
    let hexadecimal = serial(directory, "agent.pem");
    let colons: Vec<_> = hexadecimal
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap())
        .collect();
    let number = u128::from_str_radix(&hexadecimal, 16).unwrap();
    let first = pki(
        directory,
        &["revoke", "--serial", &format!("0x{hexadecimal}")],
    );
    assert!(first.contains("agent.pem: revoked;"), "{first}");
    for same in [
        ["--serial", &colons.join(":")],
        ["--serial", &format!("0x00{hexadecimal}")],
        ["--serial-decimal", &number.to_string()],
    ] {
        let said = pki(directory, &[&["revoke"], &same[..]].concat());
        assert!(
            said.contains("agent.pem: was revoked already"),
            "{same:?}: {said}"
        );
    }
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

#[test]
fn a_damaged_file_keeps_nobody_from_listing_and_revoking_others() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path();
    pki(directory, &["init"]);
    pki(directory, &["issue", "agent", "agent"]);
    let text = fs::read_to_string(directory.join("agent.pem")).unwrap();
    fs::write(directory.join("half.pem"), &text[..text.len() / 2]).unwrap();
    fs::write(directory.join("other.pem"), text.replace("MII", "AII")).unwrap();
    let output = portcullis(&["pki", "list", "--directory", directory.to_str().unwrap()]);
    assert!(output.status.success());
    let (list, warnings) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        list.contains("agent.pem") && !list.contains("half.pem"),
        "{list}"
    );
    for left_out in [
        "half.pem: line 1: begins a section that does not end",
        "other.pem: is not a readable certificate",
    ] {
        assert!(warnings.contains(left_out), "{warnings}");
    }
    let number = serial(directory, "agent.pem");
    assert!(pki(directory, &["revoke", "--serial", &number]).contains("agent.pem: revoked;"));
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

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = portcullis(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        for command in ["check", "pki", "completions"] {
            assert!(script.contains(command), "{command} in the {shell} script");
        }
    }
}
