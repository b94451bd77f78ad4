//! The configuration as an operator meets it: the smallest file passes, broken files say where and why, the reference
//! names every key. Certificates come from `pki`. In: temporary directories. Out: nothing is left behind.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

mod arbitrary;
mod backends;
mod certificates;
mod http;
mod listeners;
mod process;
mod reference;
mod rules;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use gateway::config::{self, ConfigErrors, Loaded};
use gateway_pki::{Authority, Profile, Request};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The smallest useful file of the reference, and of the design.
const SMALLEST: &str = r#"[[listener]]
name = "otlp-grpc"
address = "0.0.0.0:4317"
mode = "stream"                       # or "http"
alpn = ["h2"]
certificate = "server.pem"
key = "server.key"
client_ca = ["ca.pem"]
backend = "collector"

[[backend]]
name = "collector"
servers = ["10.0.0.11:4317", "10.0.0.12:4317"]
tls = { ca = ["ca.pem"], certificate = "gateway.pem", key = "gateway.key", server_name = "collector.example.org" }

[[identity]]
match = { uri = "spiffe://example.org/agent/*" }
tenant = "team-a"
"#;

/// A directory with certificates of every kind, good and bad.
struct Pki(TempDir);

/// Makes the directory.
fn pki() -> Pki {
    let directory = tempfile::tempdir().unwrap();
    let root = Authority::init(directory.path(), "Example CA", 1000 * DAY).unwrap();
    let request = |name: &str, profile| Request {
        name: name.to_owned(),
        profile,
        uris: Vec::new(),
        dns_names: match profile {
            Profile::Server => vec![format!("{name}.example.org")],
            Profile::Client | Profile::Component | Profile::Authority => Vec::new(),
        },
        ip_addresses: Vec::new(),
        lifetime: 100 * DAY,
        not_before: None,
    };
    let now = SystemTime::now();
    root.issue(&request("server", Profile::Server)).unwrap();
    root.issue(&request("gateway", Profile::Client)).unwrap();
    root.issue(&request("edge", Profile::Authority)).unwrap();
    root.issue(&Request {
        not_before: Some(now - 90 * DAY),
        ..request("ending", Profile::Server)
    })
    .unwrap();
    let past = Some(now - 200 * DAY);
    root.issue(&Request {
        not_before: past,
        ..request("expired", Profile::Server)
    })
    .unwrap();
    root.issue(&Request {
        not_before: past,
        ..request("expired-ca", Profile::Authority)
    })
    .unwrap();
    let future = Some(now + 5 * DAY);
    root.issue(&Request {
        not_before: future,
        ..request("future", Profile::Server)
    })
    .unwrap();
    let edge = root.open_intermediate("edge").unwrap();
    edge.issue(&request("chained", Profile::Server)).unwrap();
    let path = |name: &str| directory.path().join(name);
    let text = |name: &str| fs::read_to_string(path(name)).unwrap();
    fs::write(path("reversed.pem"), text("edge.pem") + &text("server.pem")).unwrap();
    fs::write(
        path("strangers.pem"),
        text("server.pem") + &text("edge.pem"),
    )
    .unwrap();
    fs::write(path("forged.pem"), forged_chain(&directory)).unwrap();
    fs::write(
        path("junk.pem"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    fs::write(path("empty.pem"), "").unwrap();
    fs::copy(path("server.key"), path("exposed.key")).unwrap();
    fs::set_permissions(path("exposed.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let encrypted = text("server.key").replace("PRIVATE", "ENCRYPTED PRIVATE");
    fs::copy(path("server.key"), path("encrypted.key")).unwrap();
    fs::write(path("encrypted.key"), encrypted).unwrap();
    Pki(directory)
}

/// A certificate with an authority behind it that has its issuer's name, but not its key.
fn forged_chain(directory: &TempDir) -> String {
    let elsewhere = tempfile::tempdir().unwrap();
    let root = Authority::init(elsewhere.path(), "Other CA", 100 * DAY).unwrap();
    let request = Request {
        name: "edge".to_owned(),
        profile: Profile::Authority,
        uris: Vec::new(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: DAY,
        not_before: None,
    };
    let impostor = fs::read_to_string(root.issue(&request).unwrap().certificate).unwrap();
    let chained = fs::read_to_string(directory.path().join("chained.pem")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let leaf = &chained[..chained.find(end).unwrap() + end.len()];
    leaf.to_owned() + &impostor
}

impl Pki {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path that texts under test are said to come from.
    fn file(&self) -> PathBuf {
        self.path("portcullis.toml")
    }

    fn check(&self, text: &str) -> Result<Loaded, ConfigErrors> {
        config::check(&self.file(), text, SystemTime::now())
    }

    /// The one error in a text.
    fn only_error(&self, text: &str) -> String {
        let errors = self.check(text).expect_err(text);
        assert_eq!(errors.as_slice().len(), 1, "{errors}\nin\n{text}");
        errors.to_string()
    }

    /// Asserts that each change of a table leads to one error: at this line, on this key and value, expecting this.
    fn assert_refused(&self, section: &str, table: &str) {
        for [from, to, line, key, expectation] in rows(table) {
            let error = self.only_error(&with(&from, &to));
            let start = format!("{}:{line}: {section}: {key}: ", self.file().display());
            assert!(
                error.starts_with(&start),
                "{error}\nshould start with\n{start}"
            );
            assert!(
                error.contains(&expectation),
                "{error}\nshould contain\n{expectation}"
            );
        }
    }

    /// Runs `portcullis check` on a text.
    fn run_check(&self, text: &str) -> Output {
        fs::write(self.file(), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .args(["check", "--files-only", "--config"])
            .arg(self.file())
            .output()
            .unwrap()
    }
}

/// Rows of a table whose columns stand between bars; `\n` in it is a line break.
fn rows<const N: usize>(table: &str) -> Vec<[String; N]> {
    let cells = |row: &str| {
        let cells: Vec<_> = row
            .split('|')
            .map(|cell| cell.trim().replace("\\n", "\n"))
            .collect();
        <[String; N]>::try_from(cells).unwrap_or_else(|cells| panic!("{N} columns: {cells:?}"))
    };
    let rows: Vec<_> = table
        .lines()
        .filter(|row| !row.trim().is_empty())
        .map(cells)
        .collect();
    assert!(!rows.is_empty());
    rows
}

/// The smallest file with one piece replaced, which must be there.
fn with(from: &str, to: &str) -> String {
    assert_eq!(
        SMALLEST.matches(from).count(),
        1,
        "{from:?} stands once in the smallest file"
    );
    SMALLEST.replace(from, to)
}

#[test]
fn smallest_file_passes_check_and_says_what_is_enforced() {
    let output = pki().run_check(SMALLEST);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for expected in [
        "0.0.0.0:4317",
        "CN=Example CA",
        "h2",
        "TLS_AES_128_GCM_SHA256",
        "X25519, secp256r1, secp384r1",
        "spiffe://example.org/agent/*",
        "team-a",
        "mTLS; servers must be collector.example.org",
        "10.0.0.11:4317, 10.0.0.12:4317",
        "(in 99 days)",
        "portcullis.toml: good",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(!text.contains("Warnings"), "{text}");
}

#[test]
fn check_tells_every_error_and_exits_with_one() {
    let output = pki().run_check(
        &SMALLEST
            .replace("4317", "x")
            .replace("mode = \"stream\"", "mod = 1"),
    );
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    for expected in [
        "portcullis.toml:3: listener \"otlp-grpc\": address = \"0.0.0.0:x\": must be",
        "portcullis.toml:4: listener \"otlp-grpc\": mod: unknown key, did you mean `mode`?",
        "portcullis.toml:13: backend \"collector\": servers = \"10.0.0.11:x\": must be",
        "portcullis.toml:13: backend \"collector\": servers = \"10.0.0.12:x\": must be",
        "portcullis.toml: 4 errors",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn names_and_addresses_must_be_unique() {
    let pki = pki();
    let (listener, rest) = SMALLEST.split_once("\n[[backend]]").unwrap();
    let (backend, rules) = rest.split_once("\n[[identity]]").unwrap();
    let doubled = format!(
        "{listener}\n{listener}\n[[backend]]{backend}\n[[backend]]{backend}\n[[identity]]{rules}"
    );
    let errors = pki.check(&doubled).unwrap_err().to_string();
    let expected = [
        (
            12,
            "listener \"otlp-grpc\": name = \"otlp-grpc\": must be unique: the listener at line 2 has it",
        ),
        (
            13,
            "listener \"otlp-grpc\": address = \"0.0.0.0:4317\": must be unique: the listener at line 1 has it",
        ),
        (
            27,
            "backend \"collector\": name = \"collector\": must be unique: the backend at line 22 has it",
        ),
    ];
    let lines = expected.map(|(line, text)| format!("{}:{line}: {text}", pki.file().display()));
    assert_eq!(errors.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn missing_sections_and_files_are_told() {
    let pki = pki();
    let errors = pki.check("").unwrap_err().to_string();
    assert!(errors.contains(":1: listener: missing"), "{errors}");
    assert!(errors.contains(":1: backend: missing"), "{errors}");
    let error = config::load(&pki.path("absent.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("absent.toml: cannot be read: No such file"),
        "{error}"
    );
    let error = config::load(pki.0.path()).unwrap_err().to_string();
    assert!(error.contains("is not a regular file"), "{error}");
    let file = pki.path("latin1.toml");
    fs::write(&file, b"# \xe9\n").unwrap();
    assert!(
        config::load(&file)
            .unwrap_err()
            .to_string()
            .contains("is not UTF-8")
    );
}

/// What is replaced by what, and the warning's line and text.
const QUESTIONABLE: &str = r#"
tls = | dangerous_plaintext = true # | 14 | telemetry leaves this host in plain text
"10.0.0.11:4317", "10.0.0.12:4317"]\ntls = | "127.0.0.1:4317"]\ndangerous_plaintext = true # | 14 | has no effect
[[identity]]\nmatch = { uri = "spiffe://example.org/agent/*" }\ntenant = "team-a"\n | | 1 | no client gets in
tenant = "team-a" | [[backend]]\nname = "spare"\nservers = ["[::1]:1"] | 18 | no listener uses it
tenant = "team-a" | [[identity]]\nmatch = { uri = "spiffe://example.org/agent/1" } | 18 | never reached: the rule at line 16
tenant = "team-a" | [[identity]]\nmatch = { uri = "spiffe://example.org/agent/*/collector" } | 18 | never reached: the rule at line 16
tenant = "team-a" | [[identity]]\nmatch = { uri = "spiffe://example.org/agent/1", ou = "edge" }\nlisteners = ["otlp-grpc"] | 18 | never reached: the rule at line 16
spiffe://example.org/agent/* | * | 16 | admits every certificate
spiffe://example.org/agent/* | spiffe://example.org* | 16 | stands within the host of the URI
spiffe://example.org/agent/* | spiffe://example.org:1* | 16 | stands within the host of the URI
"server.pem"\nkey = "server.key" | "ending.pem"\nkey = "ending.key" | 6 | CN=ending expires on
client_ca = ["ca.pem"] | client_ca = ["ca.pem", "expired-ca.pem"] | 8 | CN=expired-ca expired on
client_ca = ["ca.pem"] | client_ca = ["ca.pem", "edge.pem"] | 8 | the CAs in ca.pem and in edge.pem may issue the same names
[[listener]] | workers.count = 1000\n[[listener]] | 1 | CPUs this process may use
[[listener]] | guard = { mode = "monitor", interfaces = ["lo"] }\n[[listener]] | 1 | bulk throughput
alpn = | sni = [{ certificate = "server.pem", key = "server.key" }, { certificate = "server.pem", key = "server.key" }]\nalpn = | 5 | answers to server.example.org already
"#;

#[test]
fn questionable_settings_are_warned_of() {
    let pki = pki();
    for [from, to, line, expectation] in rows(QUESTIONABLE) {
        let text = with(&from, &to);
        let warnings = pki
            .check(&text)
            .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
            .warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let start = format!("{}:{line}: ", pki.file().display());
        assert!(warnings[0].starts_with(&start), "{warnings:?} at {line}");
        assert!(
            warnings[0].contains(&expectation),
            "{warnings:?}: {expectation}"
        );
    }
}

/// Runs `openssl` in a directory, which must succeed.
fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
