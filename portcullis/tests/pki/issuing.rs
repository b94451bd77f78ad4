//! Certificates of the authority: each is good for its purpose only, and none is ever overwritten.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use gateway_pki::{Authority, PkiError, Profile, Request};
use gateway_x509::certificate::Purposes;

use super::{DAY, file_names, openssl_verifies, pki, pki_ends, pki_refused, request};

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
    let cases: [(&[&str], i32, &str); 9] = [
        (
            &["issue", "gateway", "gateway"],
            2,
            "needs a DNS name or an IP address",
        ),
        (
            &["issue", "gateway", "gateway", "--dns", "a b"],
            2,
            "must look like gateway.example.org",
        ),
        (
            &["issue", "agent", "agent", "--uri", "no-scheme"],
            2,
            "must look like spiffe://",
        ),
        (
            &["issue", "agent", "../agent"],
            2,
            "must be 1 to 64 letters",
        ),
        (&["issue", "agent", ".hidden"], 2, "must be 1 to 64 letters"),
        (
            &["issue", "ca", "branch", "--dns", "a.example"],
            2,
            "takes no URI, DNS name or IP address",
        ),
        (
            &["issue", "ca", "branch", "--issuer", "edge"],
            1,
            "no further authority",
        ),
        (&["issue", "agent", "root"], 2, "would look self-signed"),
        (
            &["issue", "agent", "agent", "--issuer", "nobody"],
            1,
            "cannot be read",
        ),
    ];
    for (arguments, code, expected) in cases {
        let error = pki_ends(code, directory, arguments);
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
