//! `portcullis check` shows everything that it has checked: each key of the reference, set to a value of its own, is found in
//! what is printed. In: two listeners and three backends that use every key. Out: nothing is left behind.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use gateway::config::raw::SECTIONS;

const CONFIGURATION: &str = r#"
name = "shown"
drain_timeout = "11s"
close_spread = "12s"
include = ["rules.toml"]
observe = "next.toml"

[paths]
state = "elsewhere/state"
run = "elsewhere/run"

[workers]
count = 1

[admin]
address = "127.0.0.1:9461"

[admin.tls]
address = "127.0.0.1:9465"
certificate = "server.pem"
key = "server.key"
client_ca = ["scrapers.pem"]
crl = ["scrapers.crl.pem"]
crl_grace = "29h"
dangerous_accept_stale_crl = false
allow = [{ cn = "Shown scraper" }]

[audit]
file = "shown.jsonl"

[tls]
provider = "aws-lc-rs"
cipher_suites = ["TLS_CHACHA20_POLY1305_SHA256"]
groups = ["secp384r1"]
client_keys = ["ECDSA-P256", "Ed25519"]
client_signatures = ["ecdsa_secp256r1_sha256"]
max_chain_depth = 3

[tls.resumption]
enabled = true
key_file = "tickets.keys"
max_authentication_age = "13h"

[guard]
mode = "monitor"
interfaces = ["nosuch0"]
required = true
allow = ["192.0.2.0/24"]
deny = ["198.51.100.7", "2001:db8::/32"]
max_pending = 77
byte_budget = "333KiB"
ban_threshold = 88
point_lifetime = "7s"
ban_first = "14s"
ban_longest = "15m"
weights = { not_tls = 17 }

[[listener]]
name = "one"
address = "127.0.0.1:4391"
mode = "stream"
alpn = ["shown/1"]
certificate = "server.pem"
key = "server.key"
sni = [{ certificate = "other.pem", key = "other.key" }]
client_ca = [{ file = "ca.pem", trust_domain = "shown.example", dns = ["*.agents.shown.example"] }]
crl = [{ file = "own.crl.pem", grace = "16h" }]
resumption = true
backend = "tls"
first_byte_timeout = "21s"
handshake_timeout = "22s"
idle_timeout = "23m"
quiet_timeout = "24s"
max_connections = 251
max_handshakes = 126
max_connection_age = "27h"
max_connection_age_grace = "28s"
at_expiry = "drain"
expiry_drain = "17m"

[[listener]]
name = "two"
address = "127.0.0.1:4392"
certificate = "server.pem"
key = "server.key"
client_ca = ["ca.pem"]
crl = ["ca.crl.pem"]
crl_grace = "18days"
resumption = false
backend = "plain"

[[listener]]
name = "three"
address = "127.0.0.1:4393"
certificate = "server.pem"
key = "server.key"
client_ca = ["ca.pem"]
crl = [{ file = "ca.crl.pem", dangerous_accept_stale = true }]
dangerous_accept_stale_crl = true
backend = "dangerous"

[[backend]]
name = "tls"
servers = ["192.0.2.31:4317"]
proxy_protocol = "outside"
dangerous_proxy_protocol_outside = true
connect_timeout = "901ms"
[backend.tls]
ca = ["backends.pem"]
certificate = "client.pem"
key = "client.key"
server_name = "collector.shown.example"
alpn = ["shown/2"]
crl = ["ca.crl.pem"]
crl_grace = "19h"

[[backend]]
name = "plain"
servers = ["192.0.2.32:4317"]
dangerous_plaintext = true

[[backend]]
name = "dangerous"
servers = ["192.0.2.33:4317"]
[backend.tls]
ca = ["backends.pem"]
certificate = "client.pem"
key = "client.key"
server_name = "192.0.2.33"
crl = ["ca.crl.pem"]
dangerous_accept_stale_crl = true

[[identity]]
listeners = ["two"]
tenant = "shown-tenant"
max_connections = 41
handshakes_per_second = 42
bytes_per_second = "43MiB"
bytes_burst = "44MiB"
[identity.match]
uri = "spiffe://shown.example/agent/*"
dns = "one.agents.shown.example"
cn = "Shown name"
ou = "Shown unit"
ip = "192.0.2.45"
issuer = "CN=Shown issuer"
trust_domain = "shown.example"
fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

[[identity]]
match = { cn = "Other name" }
tenant_from = "cn"
tenants = ["shown-among"]
"#;

/// What is printed of each key. `-` is a key that is no value of its own: a table, or what another key is shown by.
const SHOWN: &[(&str, &str, &str)] = &[
    ("top level", "name", " name "),
    ("top level", "drain_timeout", "11s"),
    ("top level", "close_spread", "12s"),
    ("top level", "include", "spiffe://included.example/agent"),
    ("top level", "observe", "next.toml"),
    ("[paths]", "state", "elsewhere/state/shown"),
    ("[paths]", "run", "elsewhere/run/shown"),
    ("[workers]", "count", "workers"),
    ("[admin]", "address", "127.0.0.1:9461"),
    ("[admin.tls]", "address", "127.0.0.1:9465"),
    ("[admin.tls]", "certificate", "server.pem"),
    ("[admin.tls]", "key", "-"),
    ("[admin.tls]", "client_ca", "scrapers.pem"),
    ("[admin.tls]", "crl", "read from scrapers.crl.pem"),
    ("[admin.tls]", "crl_grace", "used for 1day 5h more"),
    // As of a listener, which shows it.
    ("[admin.tls]", "dangerous_accept_stale_crl", "-"),
    ("[admin.tls]", "allow", "cn Shown scraper"),
    ("[audit]", "file", "shown.jsonl"),
    ("[audit]", "requests", "-"),
    ("[tls]", "provider", "1.3 only, by aws-lc-rs"),
    (
        "[tls]",
        "cipher_suites",
        "TLS_CHACHA20_POLY1305_SHA256 (in this order)",
    ),
    ("[tls]", "groups", "secp384r1 (the client's order"),
    ("[tls]", "client_keys", "ECDSA-P256, Ed25519"),
    ("[tls]", "client_signatures", "ecdsa_secp256r1_sha256"),
    ("[tls]", "max_chain_depth", "up to 3 certificates"),
    ("[tls.resumption]", "enabled", "after the full handshake"),
    ("[tls.resumption]", "key_file", "with 1 shared keys"),
    ("[tls.resumption]", "max_authentication_age", "for 13h"),
    ("[guard]", "mode", "monitor on"),
    ("[guard]", "interfaces", "nosuch0"),
    ("[guard]", "required", "required: without it"),
    ("[guard]", "allow", "192.0.2.0/24"),
    ("[guard]", "deny", "198.51.100.7/32, 2001:db8::/32"),
    ("[guard]", "max_pending", "77 connections of a source"),
    ("[guard]", "byte_budget", "333.0 KiB"),
    ("[guard]", "ban_threshold", "beyond 88 points"),
    ("[guard]", "point_lifetime", "forgiven in 7s"),
    ("[guard]", "ban_first", "from 14s"),
    ("[guard]", "ban_longest", "to 15m"),
    ("[guard]", "weights", "not_tls 17"),
    ("[[listener]]", "name", "Listener one"),
    ("[[listener]]", "address", "127.0.0.1:4391"),
    ("[[listener]]", "mode", "stream"),
    ("[[listener]]", "alpn", "shown/1"),
    ("[[listener]]", "certificate", "server.pem"),
    ("[[listener]]", "key", "-"),
    ("[[listener]]", "sni", "-"),
    ("[[listener]]", "client_ca", "ca.pem"),
    ("[[listener]]", "crl", "read from ca.crl.pem"),
    ("[[listener]]", "crl_grace", "used for 18days more"),
    (
        "[[listener]]",
        "dangerous_accept_stale_crl",
        "DANGEROUS: used however old it is",
    ),
    (
        "[[listener]]",
        "resumption",
        "off: every connection authenticates in full",
    ),
    ("[[listener]]", "backend", " backend "),
    ("[[listener]]", "first_byte_timeout", "21s"),
    ("[[listener]]", "handshake_timeout", "22s"),
    ("[[listener]]", "idle_timeout", "23m"),
    ("[[listener]]", "quiet_timeout", "24s"),
    ("[[listener]]", "max_connections", "251"),
    ("[[listener]]", "max_handshakes", "126"),
    (
        "[[listener]]",
        "max_connection_age",
        "1day 3h plus or minus a tenth",
    ),
    ("[[listener]]", "max_connection_age_grace", "up to 28s more"),
    ("[[listener]]", "at_expiry", "look for a quiet moment"),
    ("[[listener]]", "expiry_drain", "from 17m before the end"),
    ("[[listener.client_ca]]", "file", "ca.pem"),
    (
        "[[listener.client_ca]]",
        "trust_domain",
        "shown.example, DNS names",
    ),
    ("[[listener.client_ca]]", "dns", "*.agents.shown.example"),
    ("[[listener.crl]]", "file", "read from own.crl.pem"),
    ("[[listener.crl]]", "grace", "used for 16h more"),
    (
        "[[listener.crl]]",
        "dangerous_accept_stale",
        "DANGEROUS: used however old it is",
    ),
    ("[[listener.sni]]", "certificate", "other.pem"),
    ("[[listener.sni]]", "key", "-"),
    ("[[backend]]", "name", "Backend tls"),
    ("[[backend]]", "servers", "192.0.2.31:4317"),
    (
        "[[backend]]",
        "dangerous_plaintext",
        "DANGEROUS: plain text to another host",
    ),
    (
        "[[backend]]",
        "proxy_protocol",
        "version 2, in clear before TLS",
    ),
    (
        "[[backend]]",
        "dangerous_proxy_protocol_outside",
        "in clear before TLS",
    ),
    ("[[backend]]", "connect_timeout", "901ms"),
    ("[backend.tls]", "ca", "backends.pem"),
    ("[backend.tls]", "certificate", "client.pem"),
    ("[backend.tls]", "key", "-"),
    (
        "[backend.tls]",
        "server_name",
        "servers must be collector.shown.example",
    ),
    ("[backend.tls]", "alpn", "shown/2"),
    ("[backend.tls]", "crl", "read from ca.crl.pem"),
    ("[backend.tls]", "crl_grace", "used for 19h more"),
    ("[backend.tls]", "dangerous_accept_stale_crl", "DANGEROUS"),
    ("[[identity]]", "listeners", "two"),
    ("[[identity]]", "tenant", "shown-tenant"),
    ("[[identity]]", "tenant_from", "from cn"),
    ("[[identity]]", "tenants", "shown-among"),
    ("[[identity]]", "max_connections", "41 connections"),
    ("[[identity]]", "handshakes_per_second", "42 handshakes/s"),
    ("[[identity]]", "bytes_per_second", "43.0 MiB/s"),
    ("[[identity]]", "bytes_burst", "44.0 MiB at once"),
    (
        "[identity.match]",
        "uri",
        "uri spiffe://shown.example/agent/*",
    ),
    ("[identity.match]", "dns", "dns one.agents.shown.example"),
    ("[identity.match]", "cn", "cn Shown name"),
    ("[identity.match]", "ou", "ou Shown unit"),
    ("[identity.match]", "ip", "ip 192.0.2.45"),
    ("[identity.match]", "issuer", "issuer CN=Shown issuer"),
    (
        "[identity.match]",
        "trust_domain",
        "trust_domain shown.example",
    ),
    ("[identity.match]", "fingerprint", "fingerprint 0011"),
    // No configuration with them is taken before the mode is served.
    ("[[listener]]", "header_timeout", "-"),
    ("[[listener]]", "request_idle_timeout", "-"),
    ("[[listener]]", "max_request_headers", "-"),
    ("[[listener]]", "max_request_body", "-"),
    ("[[listener]]", "max_streams", "-"),
    ("[[listener]]", "grpc_health", "-"),
    ("[listener.headers]", "tenant", "-"),
    ("[listener.headers]", "identity", "-"),
    ("[listener.headers]", "certificate", "-"),
    ("[listener.headers]", "forwarded", "-"),
    ("[listener.headers]", "uri", "-"),
    ("[listener.headers]", "dns", "-"),
    ("[listener.headers]", "cn", "-"),
    ("[listener.headers]", "ou", "-"),
    ("[listener.headers]", "issuer", "-"),
    ("[listener.headers]", "fingerprint", "-"),
    ("[listener.headers.set]", "file", "-"),
    ("[[route]]", "listener", "-"),
    ("[[route]]", "host", "-"),
    ("[[route]]", "alpn", "-"),
    ("[[route]]", "tenants", "-"),
    ("[[route]]", "path", "-"),
    ("[[route]]", "service", "-"),
    ("[[route]]", "methods", "-"),
    ("[[route]]", "header", "-"),
    ("[[route]]", "backend", "-"),
    ("[[route]]", "replace_prefix", "-"),
    ("[[route]]", "replace_host", "-"),
    ("[route.mirror]", "backend", "-"),
    ("[route.mirror]", "percent", "-"),
    ("[route.canary]", "backend", "-"),
    ("[route.canary]", "percent", "-"),
    ("[route.canary]", "tenants", "-"),
    ("[[backend]]", "protocol", "-"),
    ("[[backend]]", "patience", "-"),
    ("[[backend]]", "response_timeout", "-"),
    ("[[backend]]", "stream_idle_timeout", "-"),
    ("[[backend]]", "ping_interval", "-"),
    ("[[backend]]", "max_connections", "-"),
    ("[[backend]]", "max_requests", "-"),
    ("[[backend]]", "hash", "-"),
    ("[[backend]]", "slow_start", "-"),
    ("[[backend.servers]]", "address", "-"),
    ("[[backend.servers]]", "weight", "-"),
    ("[[backend.servers]]", "backup", "-"),
    ("[backend.health]", "kind", "-"),
    ("[backend.health]", "path", "-"),
    ("[backend.health]", "service", "-"),
    ("[backend.health]", "interval", "-"),
    ("[backend.health]", "timeout", "-"),
    ("[backend.health]", "healthy_after", "-"),
    ("[backend.health]", "unhealthy_after", "-"),
    ("[backend.ejection]", "enabled", "-"),
    ("[backend.ejection]", "consecutive_failures", "-"),
    ("[backend.ejection]", "failure_percent", "-"),
    ("[backend.ejection]", "first", "-"),
    ("[backend.ejection]", "longest", "-"),
    ("[backend.ejection]", "max_percent", "-"),
    ("[backend.hash]", "header", "-"),
    ("[[identity]]", "default_tenant", "-"),
    ("[[identity]]", "component", "-"),
    ("[[identity]]", "allow", "-"),
    ("[[identity]]", "requests_per_second", "-"),
    ("[[identity]]", "max_requests_in_flight", "-"),
    ("[identity.per_tenant]", "requests_per_second", "-"),
    ("[identity.per_tenant]", "bytes_per_second", "-"),
    ("[identity.per_tenant]", "bytes_burst", "-"),
    ("[[identity.allow]]", "set", "-"),
    ("[[identity.allow]]", "from", "-"),
    ("[[identity.allow]]", "host", "-"),
    ("[[identity.allow]]", "methods", "-"),
    ("[[identity.allow]]", "path", "-"),
    ("[[identity.allow]]", "service", "-"),
];

/// Keys whose value is a section of its own, and those that only say that there is no such thing.
const TABLES: &[&str] = &[
    "paths",
    "workers",
    "admin",
    "audit",
    "tls",
    "resumption",
    "guard",
    "defaults",
    "listener",
    "backend",
    "identity",
    "match",
    "outbound",
    "blocks",
    "headers",
    "per_tenant",
    "set",
    "route",
    "canary",
    "mirror",
    "health",
    "ejection",
];

fn portcullis(folder: &Path, arguments: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.current_dir(folder).args(arguments.split(' '));
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn files(folder: &Path) {
    for arguments in [
        "pki init --directory .",
        "pki issue gateway server --directory . --dns server.shown.example --ip 192.0.2.46",
        "pki issue gateway other --directory . --dns other.shown.example",
        "pki issue agent client --directory .",
        "pki crl --directory .",
        "keys rotate tickets.keys",
    ] {
        portcullis(folder, arguments);
    }
    fs::copy(folder.join("ca.pem"), folder.join("backends.pem")).unwrap();
    fs::copy(folder.join("ca.crl.pem"), folder.join("own.crl.pem")).unwrap();
    fs::copy(folder.join("ca.pem"), folder.join("scrapers.pem")).unwrap();
    fs::copy(folder.join("ca.crl.pem"), folder.join("scrapers.crl.pem")).unwrap();
    let rules = "[[identity]]\nmatch = { uri = \"spiffe://included.example/agent\" }\n";
    fs::write(folder.join("rules.toml"), rules).unwrap();
    let next = "[[listener]]\nname = \"one\"\naddress = \"127.0.0.1:4391\"\ncertificate = \"server.pem\"\n\
                key = \"server.key\"\nclient_ca = [\"ca.pem\"]\nbackend = \"b\"\n\
                [[backend]]\nname = \"b\"\nservers = [\"127.0.0.1:1\"]\n";
    fs::write(folder.join("next.toml"), next).unwrap();
    fs::write(folder.join("portcullis.toml"), CONFIGURATION).unwrap();
}

#[test]
fn check_shows_every_key_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    let text = portcullis(folder.path(), "check --files-only --config portcullis.toml");
    for (section, key, shown) in SHOWN {
        assert!(
            *shown == "-" || text.contains(shown),
            "{section} {key}: {shown:?} in\n{text}"
        );
    }
    // Addresses stand in certificates as names do.
    assert!(text.contains("192.0.2.46"), "{text}");

    let shown: BTreeSet<(&str, &str)> = SHOWN
        .iter()
        .map(|(section, key, _)| (*section, *key))
        .collect();
    assert_eq!(shown.len(), SHOWN.len(), "each key stands once");
    let mut keys = BTreeSet::new();
    for (section, all) in SECTIONS {
        // What a listener does not state, and is shown as the listener's.
        let section = match *section {
            "[defaults]" => "[[listener]]",
            other => other,
        };
        let is_value = |key: &&&str| !TABLES.contains(*key) || shown.contains(&(section, **key));
        keys.extend(all.iter().filter(is_value).map(|key| (section, *key)));
    }
    assert_eq!(shown, keys);
    // The file that it observes names no suites.
    let text = portcullis(folder.path(), "check --files-only --config next.toml");
    let by_default = "TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256 \
                      (in this order; ChaCha20 for a client that names it first)";
    assert!(text.contains(by_default), "{text}");
}
