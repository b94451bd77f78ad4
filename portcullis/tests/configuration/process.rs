//! Sections that concern the whole process: guard, audit log, administration endpoint and others.

use std::os::unix::fs::symlink;
use std::process::Command;

use gateway::config::Loaded;

use super::{SMALLEST, pki, rows, with};

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
