//! Listeners: their defaults, what they have in common, and what broken sections say.

use std::time::Duration;

use gateway_core::limits;

use super::{SMALLEST, pki, with};

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

/// The same of a route of streams.
const BROKEN_ROUTES: &str = r#"
[[identity]] | [[route]]\nlistener = "otlp-grpc"\nbackend = "collector"\npath = "/"\n[[identity]] | 19 | path = "/" | is for listeners of mode "http", and that of "otlp-grpc" is "stream"
[[identity]] | [[route]]\nlistener = "otlp-grpc"\nbackend = "collector"\ncanary = { backend = "collector", percent = 5 }\n[[identity]] | 19 | canary = { backend = "collector", percent = 5 } | is for listeners of mode "http"
[[identity]] | [[route]]\nlistener = "otlp-grpc"\nbackend = "collector"\nalpn = "http/1.1"\n[[identity]] | 19 | alpn = "http/1.1" | must stand in alpn of listener "otlp-grpc" as well
[[identity]] | [[route]]\nlistener = "otlp-grpc"\nbackend = "collector"\nidentity = "a*b"\n[[identity]] | 19 | identity = "a*b" | may have one `*`, at its end
"#;

#[test]
fn broken_routes_of_streams_say_where_and_why() {
    pki().assert_refused("route 1", BROKEN_ROUTES);
}

/// What is replaced by what, and the error's line, key with value, and expectation.
const BROKEN_LISTENERS: &str = r#"
backend = "collector" | | 1 | backend | missing: give the name of a [[backend]], or a [[route]]
"0.0.0.0:4317" | "4317" | 3 | address = "4317" | must be an IP address and a port
"0.0.0.0:4317" | "0.0.0.0:0" | 3 | address = "0.0.0.0:0" | port from 1 to 65535
"stream"  | "datagram" | 4 | mode = "datagram" | must be "stream" or "http"
"stream"  | "stream"\nmax_streams = 5 | 5 | max_streams = 5 | is for listeners of mode "http", and this one's is "stream"
"stream"  | "stream"\nheaders = { uri = "x-a" } | 5 | headers = { uri = "x-a" } | is for listeners of mode "http"
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
