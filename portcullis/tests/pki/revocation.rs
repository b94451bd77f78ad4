//! Revocation: lists name what was revoked and nothing else, and follow each other by number and time.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use gateway_pki::Authority;

use super::{DAY, file_names, openssl, pki, pki_ends, pki_refused, portcullis, serial};

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
    let cases: [(&[&str], i32, &str); 6] = [
        (&["revoke", "far"], 1, "issued by CN=edge, not by"),
        (&["revoke", "agent", "--issuer", "edge"], 1, "not by"),
        (
            &["revoke", "stranger"],
            1,
            "issued by CN=Portcullis CA, not by",
        ),
        (&["revoke", "ca"], 1, "a root cannot revoke itself"),
        (&["revoke", "nobody"], 1, "cannot be read"),
        (&["revoke", "../agent"], 2, "must be 1 to 64 letters"),
    ];
    for (arguments, code, expected) in cases {
        let error = pki_ends(code, directory, arguments);
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
