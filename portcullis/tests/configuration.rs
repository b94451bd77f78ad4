//! The configuration as an operator meets it: the smallest file passes, broken files say where and why, the reference
//! names every key. Certificates come from `pki`. In: temporary directories. Out: nothing is left behind.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use gateway::config::{self, BackendTransport, ConfigErrors, Loaded};
use gateway_core::certificate::Certificate;
use gateway_core::limits;
use gateway_pki::{Authority, Profile, Request};
use proptest::prelude::*;
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
fn defaults_are_those_of_the_limits() {
    let pki = pki();
    let config = pki.check(SMALLEST).unwrap().config;
    let listener = &config.listeners[0];
    assert_eq!(
        listener.times.handshake_timeout,
        limits::HANDSHAKE_TIMEOUT_DEFAULT
    );
    assert_eq!(
        listener.times.first_byte_timeout,
        limits::FIRST_BYTE_TIMEOUT_DEFAULT
    );
    assert_eq!(listener.times.quiet_timeout, limits::QUIET_TIMEOUT_DEFAULT);
    assert_eq!(
        listener.times.max_connection_age_grace,
        limits::CONNECTION_AGE_GRACE_DEFAULT
    );
    assert_eq!(listener.max_connections, limits::CONNECTIONS_DEFAULT);
    assert_eq!(listener.max_handshakes, limits::HANDSHAKES_DEFAULT);
    assert_eq!(listener.times.max_connection_age, None);
    assert_eq!(listener.expiry_drain, None);
    assert_eq!(
        config.backends[0].connect_timeout,
        limits::CONNECT_TIMEOUT_DEFAULT
    );
    assert_eq!(config.drain_timeout, limits::DRAIN_TIMEOUT_DEFAULT);
    assert_eq!(config.close_spread, limits::CLOSE_SPREAD_DEFAULT);
    assert_eq!(config.certificates.len(), 4);
}

#[test]
fn silent_grpc_clients_are_kept_for_a_day_and_others_for_minutes() {
    let idle_timeout = |text: &str| {
        let config = pki().check(text).unwrap().config;
        config.listeners[0].times.idle_timeout
    };
    assert_eq!(
        idle_timeout(SMALLEST),
        limits::IDLE_TIMEOUT_DEFAULT_HTTP2,
        "with alpn = [\"h2\"]"
    );
    let http1 = SMALLEST.replace("[\"h2\"]", "[\"http/1.1\"]");
    assert_eq!(idle_timeout(&http1), limits::IDLE_TIMEOUT_DEFAULT);
}

#[test]
fn a_source_may_hold_a_sixteenth_of_the_handshakes_unless_told_otherwise() {
    for (max_handshakes, guard, pending_max) in [
        ("", "", 64),
        ("max_handshakes = 32", "", 8),
        ("max_connections = 65536\nmax_handshakes = 65536", "", 256),
        ("", "max_pending = 500", 500),
    ] {
        let text = SMALLEST.replace("alpn =", &format!("{max_handshakes}\nalpn ="));
        let guard = format!("[guard]\nmode = \"monitor\"\ninterfaces = []\n{guard}\n");
        let config = pki().check(&format!("{guard}{text}")).unwrap().config;
        assert_eq!(config.guard.policy.settings.pending_max, pending_max);
    }
}

/// What is replaced by what, and the error's line, key with value, and expectation.
const BROKEN_LISTENERS: &str = r#"
"0.0.0.0:4317" | "4317" | 3 | address = "4317" | must be an IP address and a port
"0.0.0.0:4317" | "0.0.0.0:0" | 3 | address = "0.0.0.0:0" | port from 1 to 65535
"stream"  | "http" | 4 | mode = "http" | not built yet
"stream"  | "datagram" | 4 | mode = "datagram" | must be "stream"
["h2"] | ["h2", "h2"] | 5 | alpn = "h2" | named twice
["h2"] | [""] | 5 | alpn = "" | names of 1 to 255 bytes
["h2"] | "h2" | 5 | alpn = "h2" | must be an array of strings
alpn = | alpm = | 5 | alpm | unknown key, did you mean `alpn`?
alpn = | client_auth = "none"\nalpn = | 5 | client_auth | unknown key (the keys here: name, address
alpn = | crl = ["agents.crl"]\nalpn = | 5 | crl = "agents.crl" | cannot be read: No such file
alpn = | crl = ["empty.pem"]\nalpn = | 5 | crl = "empty.pem" | holds no revocation list
alpn = | crl = ["server.pem"]\nalpn = | 5 | crl = "server.pem" | holds no revocation list
alpn = | crl = "agents.crl"\nalpn = | 5 | crl = "agents.crl" | must be an array of paths, or of tables
alpn = | crl = [1]\nalpn = | 5 | crl = [1] | must be an array of paths, or of tables
alpn = | crl = [{ file = "agents.crl" }]\nalpn = | 5 | crl: file = "agents.crl" | cannot be read: No such file
alpn = | crl = [{ grace = "1h" }]\nalpn = | 5 | crl: file | missing: name the file of the list
alpn = | crl = [\n{ file = "a.crl", grace = "1s" }]\nalpn = | 6 | crl: grace = "1s" | must be 1m to 30days
alpn = | crl = [{ file = "a.crl", grace = "1h", dangerous_accept_stale = true }]\nalpn = | 5 | crl: dangerous_accept_stale = true | must not stand beside grace
alpn = | crl = []\nalpn = | 5 | crl = [] | must name at least one list
alpn = | crl_grace = "1h"\nalpn = | 5 | crl_grace = "1h" | has no effect without crl
alpn = | dangerous_accept_stale_crl = true\nalpn = | 5 | dangerous_accept_stale_crl = true | has no effect without crl
alpn = | crl_grace = "1s"\nalpn = | 5 | crl_grace = "1s" | leave it out to refuse from nextUpdate on
alpn = | crl_grace = "1h"\ndangerous_accept_stale_crl = true\nalpn = | 6 | dangerous_accept_stale_crl = true | must not stand beside crl_grace
alpn = | handshake_timeout = "0s"\nalpn = | 5 | handshake_timeout = "0s" | must be 100ms to 1m (less would refuse every client
alpn = | handshake_timeout = 10\nalpn = | 5 | handshake_timeout = 10 | must be a string
alpn = | idle_timeout = "10"\nalpn = | 5 | idle_timeout = "10" | with its unit, such as "10s"
alpn = | max_connections = 0\nalpn = | 5 | max_connections = 0 | must be 1 to 1000000
alpn = | max_connections = -1\nalpn = | 5 | max_connections = -1 | must be 1 to 1000000
alpn = | max_connections = 1.5\nalpn = | 5 | max_connections = 1.5 | must be a whole number
alpn = | max_connections = 5\nmax_handshakes = 6\nalpn = | 6 | max_handshakes = 6 | at most max_connections, which is 5
alpn = | max_connection_age = "5ms"\nalpn = | 5 | max_connection_age = "5ms" | leave it out for no limit
alpn = | max_connection_age_grace = "1m"\nalpn = | 5 | max_connection_age_grace = "1m" | has no effect without max_connection_age
alpn = | quiet_timeout = "0s"\nalpn = | 5 | quiet_timeout = "0s" | must be 250ms to 10m
alpn = | first_byte_timeout = "0s"\nalpn = | 5 | first_byte_timeout = "0s" | must be 100ms to 1m
alpn = | at_expiry = "never"\nalpn = | 5 | at_expiry = "never" | must be "close" or "drain"
alpn = | expiry_drain = "1m"\nalpn = | 5 | expiry_drain = "1m" | has no effect without at_expiry
alpn = | at_expiry = "drain"\nexpiry_drain = "2days"\nalpn = | 6 | expiry_drain = "2days" | must be 1s to 1day
alpn = | sni = [{ key = "server.key" }]\nalpn = | 5 | sni 1: certificate | missing
client_ca = ["ca.pem"] | client_ca = [] | 8 | client_ca = [] | at least one file
client_ca = ["ca.pem"] | | 1 | client_ca | missing: name the files of the CAs
backend = "collector" | backend = "colector" | 9 | backend = "colector" | must be the name of a [[backend]]: collector
"#;

#[test]
fn broken_listeners_say_where_and_why() {
    pki().assert_refused("listener \"otlp-grpc\"", BROKEN_LISTENERS);
}

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
fn an_audit_log_that_run_cannot_open_is_refused() {
    let pki = pki();
    let made = Command::new("mkfifo")
        .arg(pki.path("fifo"))
        .status()
        .unwrap();
    assert!(made.success());
    let error = pki.only_error(&format!("audit = {{ file = \"fifo\" }}\n{SMALLEST}"));
    assert!(error.contains("must be a regular file"), "{error}");
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

const BROKEN_BACKENDS: &str = r#"
servers = ["10.0.0.11:4317", "10.0.0.12:4317"] | servers = [] | 13 | servers = [] | at least one server
servers = | # servers = | 11 | servers | missing
"10.0.0.12:4317" | "10.0.0.12" | 13 | servers = "10.0.0.12" | and a port
"10.0.0.12:4317" | "10.0.0.11:4317" | 13 | servers = "10.0.0.11:4317" | named twice
tls = | # tls = | 11 | tls | 10.0.0.11:4317 is not on this host's loopback: must have tls, or dangerous_plaintext
tls = | dangerous_plaintext = true\ntls = | 14 | dangerous_plaintext = true | must be false beside tls
tls = | connect_timeout = "1h"\ntls = | 14 | connect_timeout = "1h" | must be 10ms to 1m
tls = | proxy_protocol = 2\ntls = | 14 | proxy_protocol = 2 | must be true, false or a string
tls = | proxy_protocol = "on"\ntls = | 14 | proxy_protocol = "on" | "inside" or "outside"
tls = | proxy_protocol = true\ntls = | 14 | proxy_protocol = true | must be "inside"
tls = | proxy_protocol = "inside"\ndangerous_plaintext = true # | 14 | proxy_protocol = "inside" | needs tls
"collector.example.org" | "not a name" | 14 | tls: server_name = "not a name" | must be a DNS name or IP address
"gateway.pem", key = "gateway.key" | "server.pem", key = "server.key" | 14 | tls: certificate = "server.pem" | lacks the extended key usage clientAuth
ca = ["ca.pem"], certificate | certificate | 14 | tls: ca | missing
"#;

#[test]
fn broken_backends_say_where_and_why() {
    pki().assert_refused("backend \"collector\"", BROKEN_BACKENDS);
}

/// A line before the first section, and its key with value, and the expectation.
const BROKEN_PROCESS_SECTIONS: &str = r#"
drain_timeout = "2h" | drain_timeout = "2h" | must be 0s to 1h
close_spread = "2h" | close_spread = "2h" | must be 0s to 1h
drain = "2s" | drain | unknown key
audit = { file = "" } | audit: file = "" | must be a file, or "stdout"
audit = { file = "nowhere/audit.jsonl" } | audit: file = "nowhere/audit.jsonl" | there is no folder
audit = { file = "." } | audit: file = "." | must be a file
audit = { file = "portcullis.toml" } | audit: file | must be a file of its own
audit = { file = "server.key" } | audit: file | must be a file of its own
audit = { file = "link" } | audit: file | must be a file of its own
name = "v1" | name = "v1" | must not be `v` and a number
name = "a.b" | name = "a.b" | must be 1 to 48 letters
paths = { run = "" } | paths: run = "" | must name a folder
paths = { folder = "/srv" } | paths: folder | unknown key
blocks = { file = "x.json" } | blocks = { file = "x.json" } | move the file to /var/lib/portcullis/portcullis/blocked.json
audit = {} | audit: file | missing
outbound = [] | outbound = [] | not built yet
workers.count = 0 | workers: count = 0 | must be 1 to 1024
workers = 2 | workers = 2 | must be a table
admin.address = "0.0.0.0:9464" | admin: address = "0.0.0.0:9464" | must be a loopback address
admin.address = "unix:here" | admin: address = "unix:here" | must be an absolute path
admin.address = "127.0.0.1:4317" | admin: address = "127.0.0.1:4317" | is taken by listener "otlp-grpc"
admin = {} | admin: address | missing: give it one, or [admin.tls]
tls.provider = "openssl" | tls: provider = "openssl" | must be "ring" or "aws-lc-rs"
tls.groups = ["X25519MLKEM768"] | tls: groups = "X25519MLKEM768" | needs provider = "aws-lc-rs"
tls.groups = ["ffdhe2048"] | tls: groups = "ffdhe2048" | must be one of X25519, secp256r1
tls.groups = ["X25519", "X25519"] | tls: groups = "X25519" | named twice
tls.cipher_suites = [] | tls: cipher_suites = [] | must name at least one
tls.cipher_suites = ["TLS_RSA_WITH_RC4_128_MD5"] | tls: cipher_suites = "TLS_RSA_WITH_RC4_128_MD5" | must be one of TLS_AES_128
tls.resumption.key_file = "k" | tls: resumption: key_file = "k" | cannot be read
tls.resumption.key_file = "ca.pem" | tls: resumption: key_file = "ca.pem" | run `chmod 600
tls.resumption.max_authentication_age = "8days" | tls: resumption: max_authentication_age = "8days" | must be 1s to 7days
tls.resumption.max_authentication_age = "0s" | tls: resumption: max_authentication_age = "0s" | must be 1s to 7days
guard.mode = "drop" | guard: mode = "drop" | must be "off", "monitor" or "enforce"
guard.mode = "enforce" | guard: interfaces | missing
guard.allow = ["10.0.0.1/8"] | guard: allow = "10.0.0.1/8" | say "10.0.0.0/8"
guard.allow = ["example.org"] | guard: allow = "example.org" | must be a network or an address
guard.deny = ["::1", "::1"] | guard: deny = "::1" | is named twice
guard = { allow = ["10.0.0.0/8"], deny = ["10.0.0.0/8"] } | guard: deny | is allowed and denied
guard.max_pending = 0 | guard: max_pending = 0 | must be 1 to 65536
guard.byte_budget = "1KiB" | guard: byte_budget = "1KiB" | 128 KiB to 64 MiB
guard.ban_threshold = 0 | guard: ban_threshold = 0 | must be 1 to 100000
guard.point_lifetime = "0s" | guard: point_lifetime = "0s" | must be 10ms to 1h
guard.ban_first = "2h" | guard: ban_first | is longer than ban_longest
guard.ban_longest = "1ms" | guard: ban_longest = "1ms" | must be 1s to
guard.weights = { nonsense = 1 } | guard: weights: nonsense = 1 | unknown reason
guard.weights = { authenticated = 1 } | guard: weights: authenticated = 1 | unknown reason
guard.weights = { no_data = -1 } | guard: weights: no_data = -1 | must be 0 to 1000 points
guard.weights = { no_data = "1" } | guard: weights: no_data = "1" | must be 0 to 1000 points
guard.mode = "monitor" | guard: interfaces | missing
guard.required = true | guard: required = true | what is off cannot be required
guard.interfaces = ["a/b"] | guard: interfaces = "a/b" | names of network interfaces
x = | not TOML | string values must be quoted
"#;

#[test]
fn broken_process_sections_say_where_and_why() {
    let pki = pki();
    symlink("server.key", pki.path("link")).unwrap();
    for [line, key, expectation] in rows(BROKEN_PROCESS_SECTIONS) {
        let error = pki.only_error(&format!("\n{line}\n{SMALLEST}"));
        let start = format!("{}:2: {key}: ", pki.file().display());
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

/// The section as it should be, each on a line of its own from the second on.
const ADMIN_TLS: &str = r#"
[admin.tls]
address = "0.0.0.0:9465"
certificate = "server.pem"
key = "server.key"
client_ca = ["ca.pem"]
allow = [{ dns = "prometheus.example.org" }]
"#;

const BROKEN_ADMIN_TLS: &str = r#"
address = "0.0.0.0:9465" | address = "0.0.0.0:0" | 3 | address = "0.0.0.0:0" | must have a port
address = "0.0.0.0:9465" | address = "0.0.0.0:4317" | 3 | address = "0.0.0.0:4317" | must be unique
address = "0.0.0.0:9465" | address = "admin:9465" | 3 | address = "admin:9465" | must be an IP address
client_ca = ["ca.pem"] | # | 2 | client_ca | missing
client_ca = ["ca.pem"] | client_ca = [] | 6 | client_ca = [] | must name at least one file
allow = [{ dns = "prometheus.example.org" }] | # | 2 | allow | missing: name the clients that may read the metrics
allow = [{ dns = "prometheus.example.org" }] | allow = [] | 7 | allow = [] | must name at least one
allow = [{ dns = "prometheus.example.org" }] | allow = [{}] | 7 | allow 1 | must have at least one of uri
allow = [{ dns = "prometheus.example.org" }] | allow = [{ cm = "a" }, { cn = "a" }] | 7 | allow 1: cm | unknown key
"prometheus.example.org" }] | "prometheus.example.org" }]\ncrl_grace = "24h" | 8 | crl_grace = "24h" | has no effect without crl
"prometheus.example.org" }] | "prometheus.example.org" }]\nsni = [] | 8 | sni | unknown key
"#;

#[test]
fn the_metrics_endpoint_for_other_hosts_asks_for_what_a_listener_asks_for() {
    let pki = pki();
    let text = |section: &str| format!("{section}{SMALLEST}");
    let Loaded { config, warnings } = pki.check(&text(ADMIN_TLS)).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert!(config.admin.is_none(), "no address on this host is needed");
    let names: Vec<_> = config
        .listeners
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["otlp-grpc", "admin"]);
    for [from, to, line, key, expectation] in rows(BROKEN_ADMIN_TLS) {
        let section = ADMIN_TLS.replace(&from, &to);
        assert_ne!(section, ADMIN_TLS, "{from}");
        let errors = pki.check(&text(&section)).expect_err(&section);
        let error = errors.as_slice()[0].to_string();
        let start = format!("{}:{line}: admin: tls: {key}", pki.file().display());
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

#[test]
fn the_name_of_the_metrics_endpoint_is_no_listeners_and_no_rule_of_others_opens_it() {
    let pki = pki();
    let text = |from: &str, to: &str| format!("{ADMIN_TLS}{}", with(from, to));
    let error = pki.only_error(&text("name = \"otlp-grpc\"", "name = \"admin\""));
    assert!(
        error.contains("is what the listener of [admin.tls] is called"),
        "{error}"
    );
    let rule = "tenant = \"team-a\"";
    let error = pki.only_error(&text(rule, "listeners = [\"admin\"]"));
    assert!(
        error.contains("must name a [[listener]]: otlp-grpc"),
        "{error}"
    );
    let config = pki.check(&format!("{ADMIN_TLS}{SMALLEST}")).unwrap().config;
    let [edge, admin] = [&config.listeners[0], &config.listeners[1]];
    assert_eq!(config.rules_of(edge).as_slice().len(), 1);
    assert_ne!(config.rules_of(edge), config.rules_of(admin));
}

const BROKEN_RULES: &str = r#"
match = | # match = | 16 | match | missing
{ uri = "spiffe://example.org/agent/*" } | {} | 17 | match | at least one of uri, dns, cn
{ uri = "spiffe://example.org/agent/*" } | { ur = "a", cn = "a" } | 17 | match: ur | did you mean `uri`?
"spiffe://example.org/agent/*" | "" | 17 | match: uri = "" | must not be empty
uri = "spiffe://example.org/agent/*" | dns = "a*.example.org" | 17 | match: dns = "a*.example.org" | in place of a whole label
uri = "spiffe://example.org/agent/*" | uri = "spiffe://a/b*/c" | 17 | match: uri = "spiffe://a/b*/c" | in place of a whole segment
uri = "spiffe://example.org/agent/*" | cn = "*.example.org" | 17 | match: cn = "*.example.org" | at its end
tenant = "team-a" | tenants = ["team-a"] | 18 | tenants = ["team-a"] | needs tenant_from
tenant = "team-a" | tenant_from = "uri"\ntenants = [] | 19 | tenants = [] | must name at least one
tenant = "team-a" | tenant_from = "uri"\ntenants = ["a", "a"] | 19 | tenants = "a" | is named twice
tenant = "team-a" | tenant_from = "uri"\ntenants = [".*"] | 19 | tenants = ".*" | at least one letter or digit
"team-a" | ".*" | 18 | tenant = ".*" | at least one letter or digit
"team-a" | "a/b" | 18 | tenant = "a/b" | letters, digits
tenant = "team-a" | tenant = "a"\ntenant_from = "cn" | 19 | tenant_from = "cn" | must not stand beside tenant
tenant = "team-a" | tenant_from = "o" | 18 | tenant_from = "o" | must be "uri", "dns", "cn" or "ou"
{ uri = "spiffe://example.org/agent/*" }\ntenant = "team-a" | { uri = "spiffe://a" }\ntenant_from = "uri" | 18 | tenant_from = "uri" | stands for, up to the next
{ uri = "spiffe://example.org/agent/*" }\ntenant = "team-a" | { cn = "a" }\ntenant_from = "uri" | 18 | tenant_from = "uri" | stands for, up to the next
tenant = "team-a" | listeners = ["otlp"] | 18 | listeners = "otlp" | must name a [[listener]]: otlp-grpc
tenant = "team-a" | listeners = [] | 18 | listeners = [] | must name at least one
tenant = "team-a" | listeners = ["otlp-grpc", "otlp-grpc"] | 18 | listeners = "otlp-grpc" | is named twice
tenant = "team-a" | max_connections = 0 | 18 | max_connections = 0 | must be 1 to 1000000
tenant = "team-a" | handshakes_per_second = -1 | 18 | handshakes_per_second = -1 | must be 1 to 1000000
tenant = "team-a" | bytes_per_second = "10" | 18 | bytes_per_second = "10" | must be a size with its unit
tenant = "team-a" | bytes_burst = "1MiB" | 18 | bytes_burst = "1MiB" | has no effect without bytes_per_second
tenant = "team-a" | bytes_per_second = "1KiB" | 18 | bytes_per_second = "1KiB" | 16 KiB to 1 TiB
uri = "spiffe://example.org/agent/*" | dns = "agent." | 17 | match: dns = "agent." | must not end in a dot
uri = "spiffe://example.org/agent/*" | dns = "ägent" | 17 | match: dns = "ägent" | must be ASCII
uri = "spiffe://example.org/agent/*" | ip = "10.0.0.0/8" | 17 | match: ip = "10.0.0.0/8" | must be an IP address
uri = "spiffe://example.org/agent/*" | trust_domain = "A" | 17 | match: trust_domain = "A" | lower-case letters
uri = "spiffe://example.org/agent/*" | fingerprint = "00" | 17 | match: fingerprint = "00" | 64 hexadecimal digits
uri = "spiffe://example.org/agent/*" | fingerprint = ["zz"] | 17 | match: fingerprint = "zz" | 64 hexadecimal digits
uri = "spiffe://example.org/agent/*" | fingerprint = [] | 17 | match: fingerprint = [] | must name at least one
uri = "spiffe://example.org/agent/*" | fingerprint = 1 | 17 | match: fingerprint = 1 | or an array of strings
"#;

#[test]
fn broken_rules_say_where_and_why() {
    pki().assert_refused("identity 1", BROKEN_RULES);
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

#[test]
fn rules_come_from_files_of_their_own_in_order_and_errors_name_file_and_line() {
    let pki = pki();
    let text = format!("include = [\"one.toml\", \"two.toml\"]\n{SMALLEST}");
    let rule = |name: &str| format!("[[identity]]\nmatch = {{ cn = \"{name}\" }}\n\n");
    let many: String = (0..5_000)
        .map(|number| rule(&format!("agent-{number}")))
        .collect();
    fs::write(pki.path("one.toml"), format!("# the first\n{many}")).unwrap();
    fs::write(pki.path("two.toml"), rule("late") + &rule("agent-7")).unwrap();
    let loaded = pki.check(&text).unwrap();
    let rules = loaded.config.rules.as_slice();
    assert_eq!(rules.len(), 1 + 5_000 + 2);
    assert_eq!(
        rules[1].common_name.as_ref().unwrap().to_string(),
        "agent-0"
    );
    assert_eq!(
        rules[5_001].common_name.as_ref().unwrap().to_string(),
        "late"
    );
    let warning = format!(
        "{}:4: identity 5003: never reached: the rule at line 23 of {} matches all that it matches",
        pki.path("two.toml").display(),
        pki.path("one.toml").display()
    );
    assert_eq!(loaded.warnings, [warning]);
    let files: Vec<_> = loaded.config.files.iter().map(|seen| seen.path()).collect();
    assert!(files.contains(&pki.path("two.toml").as_path()), "{files:?}");

    let broken = format!("{many}[[identity]]\nmatch = {{ cm = \"a\" }}\n[admin]\n");
    fs::write(pki.path("one.toml"), broken).unwrap();
    fs::remove_file(pki.path("two.toml")).unwrap();
    let errors = pki.check(&text).unwrap_err().to_string();
    let errors: Vec<_> = errors.lines().collect();
    let expected = [
        format!("{}:1: include = \"two.toml\": ", pki.file().display()),
        format!(
            "{}:15002: identity 5001: match: cm: unknown key",
            pki.path("one.toml").display()
        ),
        format!(
            "{}:15003: admin: unknown key",
            pki.path("one.toml").display()
        ),
    ];
    for expected in expected {
        assert!(
            errors.iter().any(|error| error.starts_with(&expected)),
            "{expected}\n{errors:#?}"
        );
    }
}

/// Three listeners, of which the last has a certificate of its own.
const SHARED: &str = r#"
[defaults]
certificate = "server.pem"
key = "server.key"
client_ca = ["ca.pem"]
backend = "collector"
idle_timeout = "5m"

[[listener]]
name = "one"
address = "127.0.0.1:4317"

[[listener]]
name = "two"
address = "127.0.0.1:4318"
idle_timeout = "1m"

[[listener]]
name = "three"
address = "127.0.0.1:4319"
certificate = "chained.pem"
key = "chained.key"

[[backend]]
name = "collector"
servers = ["127.0.0.1:1"]

[[identity]]
match = { cn = "agent" }
"#;

#[test]
fn listeners_have_in_common_what_the_defaults_say_and_a_missing_file_is_one_error() {
    let pki = pki();
    let config = pki.check(SHARED).unwrap().config;
    let minutes = |listener: usize| config.listeners[listener].times.idle_timeout.as_secs() / 60;
    assert_eq!([minutes(0), minutes(1), minutes(2)], [5, 1, 5]);
    let names = |listener: usize| &config.listeners[listener].certificates[0].dns_names;
    assert_eq!(names(0), names(1));
    assert_ne!(names(0), names(2));
    for (from, to) in [
        ("client_ca = [\"ca.pem\"]", "client_ca = [\"absent.pem\"]"),
        (
            "idle_timeout = \"1m\"",
            "client_ca = [\"ca.pem\", \"absent.pem\"]\ncrl = [\"absent.pem\"]",
        ),
    ] {
        let errors = pki
            .check(&SHARED.replace(from, to))
            .unwrap_err()
            .to_string();
        let of_file = errors
            .lines()
            .filter(|error| error.contains("absent.pem: cannot be read"));
        assert_eq!(of_file.count(), 1, "{errors}");
    }
    let half = SHARED.replace("key = \"chained.key\"", "");
    let error = pki.only_error(&half);
    assert!(
        error.contains("listener \"three\": key: missing: the one of [defaults] does not count"),
        "{error}"
    );
    let patient = SHARED.replace("idle_timeout = \"5m\"", "first_byte_timeout = \"9s\"");
    let config = pki.check(&patient).unwrap().config;
    let times = |listener: usize| config.listeners[listener].times.first_byte_timeout;
    assert_eq!([times(0), times(2)], [Duration::from_secs(9); 2]);
}

#[test]
fn more_lines_of_rules_than_the_limit_are_refused() {
    let pki = pki();
    let lines = "\n".repeat(limits::RULES_LINES_MAX / 2 + 1);
    fs::write(pki.path("lines.toml"), lines).unwrap();
    let text = format!("include = [\"lines.toml\", \"lines.toml\"]\n{SMALLEST}");
    let errors = pki.check(&text).unwrap_err().to_string();
    assert!(errors.contains("at most 1000000 lines"), "{errors}");
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
fn a_tenant_that_clients_of_a_bound_ca_cannot_have_is_warned_of() {
    let pki = pki();
    let warnings = |client_ca: &str, patterns: &str| {
        let text = with(
            "client_ca = [\"ca.pem\"]",
            &format!("client_ca = {client_ca}"),
        );
        let text = text.replace("tenant = \"team-a\"", "tenant_from = \"cn\"");
        let text = text.replace("match = { ", &format!("match = {{ {patterns}"));
        pki.check(&text).unwrap().warnings
    };
    let bound = "[{ file = \"ca.pem\", trust_domain = \"example.org\" }]";
    let [warning] = &warnings(bound, "")[..] else {
        panic!("one warning");
    };
    assert!(
        warning.contains(":16: ") && warning.contains("takes the tenant from cn or ou"),
        "{warning}"
    );
    assert!(warnings("[\"ca.pem\"]", "").is_empty());
    let named = warnings(bound, "trust_domain = \"example.org\", ");
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn two_cas_are_warned_of_only_where_a_rule_admits_clients_of_both() {
    let pki = pki();
    let unbound = "\"ca.pem\", \"edge.pem\"";
    let one_bound = "\"ca.pem\", { file = \"edge.pem\", trust_domain = \"a\" }";
    let both_bound = "{ file = \"ca.pem\", trust_domain = \"b\", dns = [\"a.b\"] }, \
                      { file = \"edge.pem\", trust_domain = \"a\", dns = [\"*.b\"] }";
    let fingerprint = format!("fingerprint = \"{}\"", "ab".repeat(32));
    for (client_ca, matched, is_warned) in [
        (unbound, "uri = \"spiffe://example.org/a\"", true),
        (unbound, "issuer = \"CN=Example CA\"", true),
        (unbound, &fingerprint, false),
        (one_bound, "uri = \"spiffe://a/x\"", true),
        (one_bound, "uri = \"spiffe://example.org/*\"", false),
        (one_bound, "trust_domain = \"a\"", false),
        (one_bound, "cn = \"x\"", false),
        (both_bound, "dns = \"a.b\"", true),
        (both_bound, "uri = \"spiffe://b/x\"", false),
        (both_bound, "dns = \"c.b\"", false),
    ] {
        let text = with(
            "client_ca = [\"ca.pem\"]",
            &format!("client_ca = [{client_ca}]"),
        );
        let text = text.replace("uri = \"spiffe://example.org/agent/*\"", matched);
        let warnings = pki.check(&text).unwrap().warnings;
        let warned = warnings
            .iter()
            .any(|warning| warning.contains("may issue the same names"));
        assert_eq!(warned, is_warned, "{client_ca}, {matched}: {warnings:?}");
    }
}

/// A CA with this extension.
fn authority_by_openssl(pki: &Pki, name: &str, extension: &str) {
    let output = Command::new("openssl")
        .args("req -x509 -nodes -days 30 -newkey ec -pkeyopt ec_paramgen_curve:P-256".split(' '))
        .args("-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign".split(' '))
        .args([
            "-addext",
            extension,
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
        ])
        .arg(pki.path(&format!("{name}.key")))
        .arg("-out")
        .arg(pki.path(&format!("{name}.pem")))
        .output()
        .expect("the openssl command runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
}

#[test]
fn a_ca_that_admits_nobody_and_one_whose_critical_extensions_do_not_count_are_warned_of() {
    let pki = pki();
    authority_by_openssl(
        &pki,
        "hosts",
        "nameConstraints=critical,permitted;URI:example.org",
    );
    authority_by_openssl(
        &pki,
        "policy",
        "policyConstraints=critical,requireExplicitPolicy:0",
    );
    let warnings = |client_ca: &str, matched: &str| {
        let text = with("\"ca.pem\"]\nbackend", &format!("{client_ca}]\nbackend"));
        let text = text.replace("uri = \"spiffe://example.org/agent/*\"", matched);
        pki.check(&text).unwrap().warnings
    };
    let bound = "{ file = \"ca.pem\", trust_domain = \"b\" }";
    for (client_ca, matched, admits) in [
        (bound, "uri = \"spiffe://example.org/*\"", false),
        (bound, "cn = \"x\"", false),
        (bound, "uri = \"spiffe://b/*\"", true),
        ("\"ca.pem\"", "trust_domain = \"a\"", false),
        ("\"hosts.pem\"", "uri = \"spiffe://example.org/a\"", true),
        ("\"hosts.pem\"", "uri = \"spiffe://example.net/*\"", false),
        (
            "\"hosts.pem\"",
            "uri = \"spiffe://example.org.evil/*/a\"",
            false,
        ),
        ("\"hosts.pem\"", "uri = \"spiffe://*\"", true),
        ("\"hosts.pem\"", "dns = \"a.example.net\"", true),
    ] {
        let warnings = warnings(client_ca, matched);
        let warned = warnings
            .iter()
            .any(|warning| warning.contains("admits no client"));
        assert_eq!(warned, !admits, "{client_ca}, {matched}: {warnings:?}");
    }
    let unbound = warnings("\"ca.pem\"", "trust_domain = \"a\"");
    let told = "identity 1: matches no client on otlp-grpc: no CA of client_ca is bound to the trust domain a there";
    assert!(
        unbound.iter().any(|warning| warning.contains(told)),
        "{unbound:?}"
    );
    let [policy] = &warnings("\"policy.pem\"", "cn = \"x\"")[..] else {
        panic!("one warning");
    };
    assert!(policy.contains("critical extension 2.5.29.36"), "{policy}");
}

#[test]
fn warnings_of_rules_in_other_files_have_the_numbers_of_the_table() {
    let pki = pki();
    let rules = "[[identity]]\nmatch = { cn = \"one\" }\n[[identity]]\nmatch = { cn = \"*\" }\n";
    fs::write(pki.path("rules.toml"), rules).unwrap();
    let text = format!("include = [\"rules.toml\"]\n{SMALLEST}");
    let warnings = pki.check(&text).unwrap().warnings;
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.contains("rules.toml:3: identity 3: `*` admits"),
        "{warning}"
    );
}

#[test]
fn a_bound_ca_that_has_ended_stays_bound() {
    let text = with(
        "client_ca = [\"ca.pem\"]",
        "client_ca = [\"ca.pem\", { file = \"expired-ca.pem\", trust_domain = \"a\" }]",
    );
    let config = pki().check(&text).unwrap().config;
    assert_eq!(config.listeners[0].client_scopes.len(), 1);
}

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

#[test]
fn plaintext_stays_on_this_host() {
    let pki = pki();
    let tls = SMALLEST
        .lines()
        .find(|line| line.starts_with("tls"))
        .unwrap();
    let text = |servers: &str| {
        let servers = format!("servers = [{servers}]");
        SMALLEST.replace(tls, "").replace(
            "servers = [\"10.0.0.11:4317\", \"10.0.0.12:4317\"]",
            &servers,
        )
    };
    for good in [
        "\"127.0.0.1:1\"",
        "\"127.8.8.8:1\", \"[::1]:1\"",
        "\"localhost:1\"",
        "\"[::ffff:127.0.0.1]:1\"",
    ] {
        let transport = &pki.check(&text(good)).unwrap().config.backends[0].transport;
        assert!(
            matches!(transport, BackendTransport::LoopbackPlaintext),
            "{good}"
        );
    }
    for bad in [
        "\"10.0.0.1:1\"",
        "\"127.0.0.1:1\", \"10.0.0.1:1\"",
        "\"localhost.example.org:1\"",
        "\"0.0.0.0:1\"",
        "\"loopback:1\"",
    ] {
        assert!(
            pki.only_error(&text(bad))
                .contains("must have tls, or dangerous_plaintext = true"),
            "{bad}"
        );
    }
}

#[test]
fn suites_and_groups_are_pinned_by_name_and_order() {
    let pki = pki();
    let text = format!(
        "[tls]\nprovider = \"aws-lc-rs\"\ncipher_suites = [\"TLS_CHACHA20_POLY1305_SHA256\", \"TLS_AES_128_GCM_SHA256\"]\n\
         groups = [\"X25519MLKEM768\", \"secp384r1\"]\nresumption.enabled = false\n{SMALLEST}"
    );
    let config = pki.check(&text).unwrap().config;
    let suites: Vec<_> = config
        .provider
        .cipher_suites
        .iter()
        .map(|suite| gateway::crypto::cipher_suite_name(suite.suite()))
        .collect();
    let groups: Vec<_> = config
        .provider
        .kx_groups
        .iter()
        .map(|group| format!("{:?}", group.name()))
        .collect();
    assert_eq!(
        suites,
        ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"]
    );
    assert_eq!(groups, ["X25519MLKEM768", "secp384r1"]);
    assert_eq!(config.provider_name, "aws-lc-rs");
}

#[test]
fn small_connection_limit_bounds_the_handshakes_too() {
    let text = with("alpn =", "max_connections = 7\nalpn =");
    assert_eq!(
        pki().check(&text).unwrap().config.listeners[0].max_handshakes,
        7
    );
}

#[test]
fn dns_rules_ignore_case() {
    let text = with(
        "uri = \"spiffe://example.org/agent/*\"",
        "dns = \"Agent-*\"",
    );
    let names = Certificate {
        dns_names: vec!["agent-1.example.org".to_owned()],
        ..Certificate::default()
    };
    assert!(
        pki()
            .check(&text)
            .unwrap()
            .config
            .rules
            .decide(&names, None, 0)
            .is_ok()
    );
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
fn recipes_lack_nothing_but_their_files_and_a_backend() {
    let backends = "[[backend]]\nname = \"collector\"\nservers = [\"127.0.0.1:14317\"]\n\
                    [[backend]]\nname = \"cortex\"\nservers = [\"127.0.0.1:19009\"]\n";
    assert_lacks_nothing_but_files(&page("recipes.md"), 7, backends);
}

/// Text that looks more like a configuration than noise does.
fn configuration_like() -> impl Strategy<Value = String> {
    let mut words = vec![
        "=", "[", "]", "[[", "]]", "{", "}", ",", "\n", "\"", "#", ".", "1", "true", "-9e9", "0x",
        "'''",
    ];
    words.extend(
        config::raw::SECTIONS
            .iter()
            .flat_map(|(section, keys)| keys.iter().chain([section])),
    );
    words.extend([
        "\"10s\"",
        "\"ca.pem\"",
        "\"server.key\"",
        "[\"h2\"]",
        "\u{1f5ff}",
        "1979-05-27T07:32:00Z",
    ]);
    prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|words| words.concat())
}

#[test]
fn arbitrary_text_never_panics_the_loader() {
    let pki = pki();
    proptest!(|(text in any::<String>())| {
        let _ = pki.check(&text);
    });
}

#[test]
fn text_like_a_configuration_never_panics_the_loader() {
    let pki = pki();
    proptest!(|(text in configuration_like())| {
        let _ = pki.check(&text);
    });
}

#[test]
fn errors_in_mutilated_files_name_lines_of_the_file() {
    let pki = pki();
    let insert = prop_oneof![any::<String>(), configuration_like()];
    proptest!(|(at in 0..SMALLEST.len(), length in 0..40_usize, insert in insert)| {
        let end = (at + length).min(SMALLEST.len());
        let text = format!("{}{insert}{}", &SMALLEST[..at], &SMALLEST[end..]);
        if let Err(errors) = pki.check(&text) {
            let lines = text.split('\n').count();
            for error in errors.as_slice() {
                prop_assert!(error.line.is_some_and(|line| (1..=lines).contains(&line)), "{error}");
                prop_assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    });
}
