//! Backends: broken sections say where and why, and plaintext stays on this host.

use gateway::config::BackendTransport;

use super::{SMALLEST, pki};

const BROKEN_BACKENDS: &str = r#"
servers = ["10.0.0.11:4317", "10.0.0.12:4317"] | servers = [] | 13 | servers = [] | at least one server
servers = | # servers = | 11 | servers | missing
"10.0.0.12:4317" | "10.0.0.12" | 13 | servers = "10.0.0.12" | and a port
"10.0.0.12:4317" | "unix:run/otlp.sock" | 13 | servers = "unix:run/otlp.sock" | must be an absolute path of at most 107 bytes
"10.0.0.12:4317" | "10.0.0.11:4317" | 13 | servers = "10.0.0.11:4317" | named twice
tls = | # tls = | 11 | tls | 10.0.0.11:4317 is not on this host: must have tls, or dangerous_plaintext
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
        "\"unix:/run/collector/otlp.sock\", \"localhost:1\"",
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
