//! A backend, in words: its servers and how they are protected.
//! In: the backend, the configuration. Out: a table. Pure but for the clock.

use comfy_table::Table;
use gateway::config::{self, Backend, BackendTls, BackendTransport, Config, ProxyProtocol};

use super::{authorities, duration, http, lists, properties};

pub(super) fn table(backend: &Backend, config: &Config) -> Table {
    let Backend {
        name,
        servers,
        transport,
        proxy_protocol,
        connect_timeout,
        http,
    } = backend;
    let servers: Vec<_> = servers
        .iter()
        .zip(&http.shares)
        .map(|(server, share)| format!("{server}{}", http::share(*share)))
        .collect();
    let is_tls = matches!(transport, BackendTransport::Tls(_));
    let transport = match transport {
        BackendTransport::LoopbackPlaintext => "plain text on this host".to_owned(),
        BackendTransport::DangerousPlaintext => "DANGEROUS: plain text to another host".to_owned(),
        BackendTransport::Tls(tls) => backend_tls(name, tls, config),
    };
    let proxy_protocol = match proxy_protocol {
        ProxyProtocol::Off => "off",
        ProxyProtocol::Inside => "version 2, inside TLS",
        ProxyProtocol::Outside if is_tls => "version 2, in clear before TLS",
        ProxyProtocol::Outside => "version 2",
    };
    let mut rows = vec![
        ("servers", servers.join(", ")),
        ("protection", transport),
        ("PROXY protocol", proxy_protocol.to_owned()),
        ("connect timeout", duration(*connect_timeout)),
    ];
    if http::is_routed_to(backend, config) {
        rows.extend(http::backend(http));
    }
    properties(rows)
}

fn backend_tls(name: &str, tls: &BackendTls, config: &Config) -> String {
    let BackendTls {
        // Both are shown among the certificates.
        roots: _,
        key: _,
        revocation,
        revoking,
        server_name,
        alpn,
    } = tls;
    let authorities = authorities(config, &config::backend_ca_usage(name));
    let offered = match alpn.is_empty() {
        true => "what the client chose".to_owned(),
        false => format!(
            "what the client chose among {0}, or {0}",
            config::shown_protocols(alpn)
        ),
    };
    format!(
        "mTLS; servers must be {}, certified by one of:\n{}\nrevocation {}\noffered {offered}",
        server_name.to_str(),
        authorities.join("\n"),
        lists(revocation, revoking, config),
    )
}
