//! The pages: the reference names every key and no other, and every example lacks nothing but its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use gateway::config;
use gateway_core::limits;

/// The reference's tables: section and key of each row.
fn documented() -> BTreeSet<(String, String)> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in page("configuration.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.replace('`', "").to_ascii_lowercase();
        } else if let Some((key, _)) = line.strip_prefix("| `").and_then(|row| row.split_once('`'))
        {
            assert!(
                keys.insert((section.clone(), key.to_owned())),
                "{section} {key} stands twice"
            );
        }
    }
    keys
}

fn page(name: &str) -> String {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::read_to_string(pages.join(name)).unwrap()
}

#[test]
fn reference_has_every_key_and_no_other() {
    let mut expected = BTreeSet::new();
    for (section, keys) in config::raw::SECTIONS {
        expected.extend(
            keys.iter()
                .map(|key| ((*section).to_owned(), (*key).to_owned())),
        );
    }
    assert_eq!(documented(), expected);
}

/// The service manager must not kill what still drains, and the reference must not name another time than the unit.
#[test]
fn the_unit_gives_a_drain_the_time_that_the_reference_says() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let unit = fs::read_to_string(deploy.join("portcullis.service")).unwrap();
    let mut lines = unit.lines();
    let patience = lines.find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let patience = patience.unwrap();
    let stop = humantime::parse_duration(patience).unwrap();
    assert!(limits::DRAIN_TIMEOUT_DEFAULT + limits::AUDIT_FINISH_TIMEOUT < stop);
    let told = format!("`TimeoutStopSec={patience}` in `deploy/portcullis.service`");
    assert!(page("configuration.md").contains(&told), "{told}");
    // Wherever a page names the key, it is with this time.
    for name in [
        "configuration.md",
        "operations.md",
        "reference.md",
        "runbooks.md",
        "guard.md",
        "recipes.md",
    ] {
        let text = page(name);
        for rest in text.split("TimeoutStopSec").skip(1) {
            assert!(
                rest.starts_with(&format!("={patience}")),
                "{name}: {rest:.20}"
            );
        }
        assert!(!text.contains("systemd: "), "{name}");
    }
}

#[test]
fn defaults_in_the_reference_are_those_of_the_limits() {
    let time = |duration| format!("`\"{}\"`", humantime::format_duration(duration));
    let cases = [
        ("drain_timeout", time(limits::DRAIN_TIMEOUT_DEFAULT)),
        ("close_spread", time(limits::CLOSE_SPREAD_DEFAULT)),
        ("expiry_drain", time(limits::EXPIRY_DRAIN_DEFAULT)),
        ("handshake_timeout", time(limits::HANDSHAKE_TIMEOUT_DEFAULT)),
        (
            "first_byte_timeout",
            time(limits::FIRST_BYTE_TIMEOUT_DEFAULT),
        ),
        ("idle_timeout", time(limits::IDLE_TIMEOUT_DEFAULT)),
        ("quiet_timeout", time(limits::QUIET_TIMEOUT_DEFAULT)),
        (
            "max_connection_age_grace",
            time(limits::CONNECTION_AGE_GRACE_DEFAULT),
        ),
        ("connect_timeout", time(limits::CONNECT_TIMEOUT_DEFAULT)),
        (
            "max_authentication_age",
            time(limits::AUTHENTICATION_AGE_DEFAULT),
        ),
        (
            "max_connections",
            format!("`{}`", limits::CONNECTIONS_DEFAULT),
        ),
        (
            "max_handshakes",
            format!("`{}`", limits::HANDSHAKES_DEFAULT),
        ),
    ];
    let reference = page("configuration.md");
    for (key, default) in cases {
        let row = reference
            .lines()
            .find(|line| line.starts_with(&format!("| `{key}`")))
            .unwrap();
        assert_eq!(row.split('|').nth(3).unwrap().trim(), default, "{key}");
    }
}

/// Checks each example of a page, and `more` behind it, on a host that has none of the files.
fn assert_lacks_nothing_but_files(page: &str, count: usize, more: &str) {
    let examples: Vec<_> = page.split("```toml\n").skip(1).collect();
    assert_eq!(examples.len(), count);
    for example in examples {
        let (text, _) = example.split_once("```").unwrap();
        let errors = config::check(
            Path::new("/nonexistent/portcullis.toml"),
            &format!("{text}\n{more}"),
            SystemTime::now(),
        )
        .expect_err("the certificates do not exist");
        for error in errors.as_slice() {
            assert!(
                error.expectation.contains("cannot be read: No such file"),
                "{error}"
            );
        }
    }
}

#[test]
fn examples_in_the_reference_lack_nothing_but_their_files() {
    assert_lacks_nothing_but_files(&page("configuration.md"), 2, "");
}

#[test]
fn examples_of_http_mode_lack_nothing_but_their_files() {
    assert_lacks_nothing_but_files(&page("http.md"), 3, "");
}

#[test]
fn recipes_lack_nothing_but_their_files_and_a_backend() {
    let backends = "[[backend]]\nname = \"collector\"\nservers = [\"127.0.0.1:14317\"]\n\
                    [[backend]]\nname = \"cortex\"\nservers = [\"127.0.0.1:19009\"]\n";
    assert_lacks_nothing_but_files(&page("recipes.md"), 7, backends);
}
