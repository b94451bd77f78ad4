//! Everything that a checked configuration enforces, in words, for `portcullis check`.
//! In: the configuration, the block list. Out: text. Pure but for the clock. Each structure of the configuration is taken apart
//! here whole, without `..`: a new field does not compile before it is shown, or passed over with a reason.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use comfy_table::{Table, presets};
use gateway::blocks::BlockFile;
use gateway::config::{
    self, AdminAddress, AuditTarget, Backend, BackendId, BackendTls, BackendTransport,
    CertificateFile, Config, ConnectionTimes, Destination, FiledAuthority, GuardMode,
    GuardSettings, Listener, Loaded, Mode, Paths, ProxyProtocol, Resumption, Revoking,
    ServerAddress, ServerCertificate,
};
use gateway::crypto::cipher_suite_name;
use gateway_common::{COUNTERS, Listed, Reason, Settings};
use gateway_core::identity::TenantSource;
use gateway_core::limits;
use gateway_core::revocation::{IssuerList, Revocation, StalePolicy};
use gateway_core::sources::{Lists, Policy};
use gateway_core::succession::Succession;
use gateway_x509::certificate::CertificateInfo;

use super::rules;

/// What a configuration means, for people. `rights` says with whose rights it was looked at.
pub fn explain(loaded: &Loaded, blocks: &BlockFile, rights: &str, now: SystemTime) -> String {
    let Loaded { config, warnings } = loaded;
    let mut text = titled("Process", &process(config, blocks, rights));
    for listener in &config.listeners {
        text += &titled(
            &format!("Listener {}", listener.name),
            &listener_table(listener, config),
        );
    }
    for backend in &config.backends {
        text += &titled(
            &format!("Backend {}", backend.name),
            &backend_table(backend, config),
        );
    }
    text += &titled(
        "Identities, first match wins; no match is refused",
        &rules::table(config, plain_table()),
    );
    if let Some(note) = tenant_note(config) {
        text += &format!("  {note}\n");
    }
    text += &titled("Certificates", &certificates(config, now));
    if !warnings.is_empty() {
        text += "\nWarnings\n";
        for warning in warnings {
            text += &format!("  {warning}\n");
        }
    }
    text
}

fn titled(title: &str, table: &Table) -> String {
    format!("\n{title}\n{}\n", table.trim_fmt())
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// A table of properties, indented under its title.
fn properties(rows: impl IntoIterator<Item = (&'static str, String)>) -> Table {
    let mut table = plain_table();
    for (name, value) in rows {
        table.add_row([format!(" {name}"), value]);
    }
    table
}

fn process(config: &Config, blocks: &BlockFile, rights: &str) -> Table {
    let Config {
        // Said at the end.
        file: _,
        paths,
        workers,
        provider: _,
        provider_name: _,
        prefers_own_suites: _,
        key_policy: _,
        resumption: _,
        admin,
        audit,
        guard,
        drain_timeout,
        close_spread,
        // Each in a table of its own.
        listeners: _,
        backends: _,
        rules: _,
        certificates: _,
        dry_run,
        // How it was read, which enforces nothing.
        files: _,
        again_at: _,
    } = config;
    let admin = match admin {
        None => "off".to_owned(),
        Some(AdminAddress::Loopback(address)) => address.to_string(),
        Some(AdminAddress::Unix(path)) => format!("unix:{}", path.display()),
    };
    let audit = match audit {
        None => "off".to_owned(),
        Some(AuditTarget::StandardOutput) => "standard output".to_owned(),
        Some(AuditTarget::File(path)) => path.display().to_string(),
    };
    let observed = dry_run.as_ref().map_or_else(
        || "no other configuration".to_owned(),
        |other| config::shown_path(&other.file, &config.file),
    );
    let Paths { name, state, run } = paths;
    let blocked = format!(
        "{}, {} entries",
        paths.block_list().display(),
        blocks.blocks.blocked.len()
    );
    let mut rows = vec![
        ("name", name.to_string()),
        ("state folder", state.display().to_string()),
        ("run folder", run.display().to_string()),
        ("rights", rights.to_owned()),
    ];
    rows.extend(tls(config));
    rows.extend([
        ("workers", workers.to_string()),
        ("drain timeout", duration(*drain_timeout)),
        ("close spread", duration(*close_spread)),
        ("observes", observed),
        ("admin endpoint", admin),
        ("audit log", audit),
    ]);
    rows.extend(self::guard(guard));
    rows.push(("block list", blocked));
    properties(rows)
}

/// What holds for the handshakes of all listeners, and towards backends.
fn tls(config: &Config) -> [(&'static str, String); 7] {
    let suites = config.provider.cipher_suites.iter();
    let suites: Vec<_> = suites
        .map(|suite| cipher_suite_name(suite.suite()))
        .collect();
    let groups = config.provider.kx_groups.iter();
    let groups: Vec<_> = groups.map(|group| format!("{:?}", group.name())).collect();
    let suite_order = match config.prefers_own_suites {
        true => "in this order",
        false => "the client's order decides",
    };
    [
        ("TLS", format!("1.3 only, by {}", config.provider_name)),
        ("resumption", resumption(config.resumption.as_ref())),
        (
            "cipher suites",
            format!("{} ({suite_order})", suites.join(", ")),
        ),
        (
            "groups",
            format!(
                "{} (the client's order decides; towards backends this one)",
                groups.join(", ")
            ),
        ),
        ("client keys", config.key_policy.key_names()),
        ("client signatures", config.key_policy.signature_names()),
        (
            "client chains",
            format!(
                "up to {} certificates below a CA",
                config.key_policy.depth_max()
            ),
        ),
    ]
}

/// What the guard does, where, and from when on it bans.
fn guard(guard: &GuardSettings) -> Vec<(&'static str, String)> {
    let GuardSettings {
        mode,
        interfaces,
        required,
        // As it is of every gateway but a demo's.
        is_lasting: _,
        policy,
    } = guard;
    let name = mode.name().to_owned();
    if *mode == GuardMode::Off {
        return vec![("guard", name)];
    }
    let on = match interfaces.as_slice() {
        [] => "no interface".to_owned(),
        names => names.join(", "),
    };
    let required = match required {
        true => ", required: without it the gateway does not start",
        false => "",
    };
    let Policy { settings, lists } = &**policy;
    let Settings {
        deadline_ns,
        pending_max,
        point_ns,
        ban_debt_ns,
        ban_first_ns,
        ban_longest_ns,
        ban_memory_ns,
        budget_bytes,
        weights,
        // The mode is above, the rest is the running gateway's.
        mode: _,
        alive_until_ns: _,
        has_lists: _,
        padding: _,
    } = settings;
    let time = |nanoseconds: &u64| duration(Duration::from_nanos(*nanoseconds));
    vec![
        ("guard", format!("{name} on {on}{required}")),
        (
            "guard, unauthenticated",
            format!(
                "{pending_max} connections of a source at a time, {} and {} each",
                ByteSize(u64::from(*budget_bytes)),
                time(deadline_ns)
            ),
        ),
        (
            "guard, bans",
            format!(
                "beyond {} points, of which one is forgiven in {}; from {} to {}, remembered for {} more",
                ban_debt_ns / point_ns,
                time(point_ns),
                time(ban_first_ns),
                time(ban_longest_ns),
                time(ban_memory_ns)
            ),
        ),
        ("guard, points", points(weights)),
        ("guard, allowed", networks(lists, Listed::Allowed)),
        ("guard, denied", networks(lists, Listed::Denied)),
    ]
}

/// What each reason costs a source.
fn points(weights: &[u16; COUNTERS]) -> String {
    let counted = Reason::ALL.into_iter().skip(1);
    let points: Vec<_> = counted
        .map(|reason| format!("{} {}", reason.label(), weights[reason.index()]))
        .collect();
    points.join(", ")
}

/// The networks of which an operator has said this; so many of them.
fn networks(lists: &Lists, word: Listed) -> String {
    let listed = lists.networks().filter(|(_, listed)| *listed == word);
    let mut listed: Vec<_> = listed.map(|(network, _)| network).collect();
    listed.sort();
    let more = listed.len().saturating_sub(limits::NETWORKS_SHOWN_MAX);
    let shown = listed.into_iter().take(limits::NETWORKS_SHOWN_MAX);
    let shown: Vec<_> = shown.map(plain_network).collect();
    match (shown.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A network as it is written: those of IPv4 are kept as mapped ones.
fn plain_network(network: ipnet::Ipv6Net) -> String {
    const MAPPED_BITS: u8 = 96;
    match (network.addr().to_ipv4_mapped(), network.prefix_len()) {
        (Some(address), bits) if bits >= MAPPED_BITS => {
            format!("{address}/{}", bits - MAPPED_BITS)
        }
        _ => network.to_string(),
    }
}

fn resumption(resumption: Option<&Resumption>) -> String {
    let Some(Resumption {
        max_authentication_age,
        keys,
    }) = resumption
    else {
        return "none: every connection authenticates in full".to_owned();
    };
    let age = duration(*max_authentication_age);
    let keys = match keys {
        None => "with keys in memory".to_owned(),
        Some(keys) => format!("with {} shared keys, epoch {}", keys.len(), keys.epoch()),
    };
    format!("for {age} after the full handshake, {keys}")
}

fn listener_table(listener: &Listener, config: &Config) -> Table {
    let Listener {
        // In the title.
        name: _,
        address,
        alpn,
        certificates,
        // Shown as the certificates they were read from.
        client_roots: _,
        client_scopes: _,
        revocation,
        revoking,
        resumption: _,
        // The only one there is.
        mode: Mode::Stream,
        destination,
        times,
        max_connections,
        max_handshakes,
        expiry_drain,
    } = listener;
    let alpn = match alpn.is_empty() {
        true => "none chosen".to_owned(),
        false => config::shown_protocols(alpn),
    };
    let behind = match destination {
        Destination::Backend(BackendId(position)) => {
            let backend = config.backends.get(*position);
            let name = backend.map_or("", |backend| backend.name.as_str());
            name.to_owned()
        }
        Destination::Metrics(rules) => rules::of_page(rules),
    };
    let authorities = authorities(config, &config::client_ca_usage(listener));
    let expiry = match expiry_drain {
        None => {
            "open connections go on to the end of the certificate, and are closed then".to_owned()
        }
        Some(period) => format!(
            "open connections look for a quiet moment to end from {} before the end of the certificate on",
            duration(*period)
        ),
    };
    let mut rows = vec![
        ("address", address.to_string()),
        ("mode", "stream".to_owned()),
        (
            "clients",
            format!(
                "must have a certificate by one of:\n{}",
                authorities.join("\n")
            ),
        ),
        ("trust domains", trust_domains(listener)),
        ("server names", server_names(certificates)),
        ("revocation", lists(revocation, revoking, config)),
        (
            "resumption",
            listener_resumption(config, listener).to_owned(),
        ),
        ("ALPN", alpn),
        ("backend", behind),
    ];
    rows.extend(connection_times(times));
    rows.extend([
        ("at expiry", expiry),
        ("max. connections", max_connections.to_string()),
        ("max. handshakes", max_handshakes.to_string()),
    ]);
    properties(rows)
}

fn connection_times(times: &ConnectionTimes) -> [(&'static str, String); 5] {
    let ConnectionTimes {
        first_byte_timeout,
        handshake_timeout,
        idle_timeout,
        quiet_timeout,
        max_connection_age,
        max_connection_age_grace,
    } = times;
    let age = match max_connection_age {
        None => "none".to_owned(),
        Some(age) => {
            let grace = duration(*max_connection_age_grace);
            format!(
                "{} plus or minus a tenth, and up to {grace} more",
                duration(*age)
            )
        }
    };
    [
        ("first byte timeout", duration(*first_byte_timeout)),
        ("handshake timeout", duration(*handshake_timeout)),
        ("idle timeout", duration(*idle_timeout)),
        ("quiet timeout", duration(*quiet_timeout)),
        ("max. connection age", age),
    ]
}

/// The names that the listener's certificates answer to, and the addresses that clients may find in them.
fn server_names(certificates: &[ServerCertificate]) -> String {
    let names = certificates.iter().flat_map(|certificate| {
        let ServerCertificate { key, dns_names } = certificate;
        let info = key
            .cert
            .first()
            .and_then(|leaf| CertificateInfo::parse(leaf).ok());
        let addresses = info.map_or_else(Vec::new, |info| info.ip_addresses);
        let addresses = addresses.iter().map(IpAddr::to_string);
        let names = dns_names.iter().cloned();
        names.chain(addresses).collect::<Vec<_>>()
    });
    let names: Vec<_> = names.collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}
fn listener_resumption(config: &Config, listener: &Listener) -> &'static str {
    match (&config.resumption, listener.resumption) {
        (Some(_), true) => "on",
        (Some(_), false) => "off: every connection authenticates in full",
        (None, _) => "off for all listeners",
    }
}

/// What those of the listener's authorities may speak for that are bound.
fn trust_domains(listener: &Listener) -> String {
    let scopes = listener.client_scopes.values();
    let described: BTreeSet<String> = scopes
        .map(|scope| {
            let dns: Vec<_> = scope.dns.iter().map(ToString::to_string).collect();
            match dns.is_empty() {
                true => format!("{}, no DNS names", scope.trust_domain),
                false => format!("{}, DNS names {}", scope.trust_domain, dns.join(", ")),
            }
        })
        .collect();
    match described.is_empty() {
        true => "none: each CA may issue any name".to_owned(),
        false => Vec::from_iter(described).join("\n"),
    }
}

/// Subjects of the authorities that are in use under a key.
fn authorities(config: &Config, usage: &str) -> Vec<String> {
    let in_use = config
        .certificates
        .iter()
        .filter(|certificate| certificate.usage == usage);
    in_use
        .map(|certificate| certificate.subject.clone())
        .collect()
}

/// The revocation lists that are in force, what happens when they have ended, and where they come from.
fn lists(revocation: &Revocation, revoking: &Revoking, config: &Config) -> String {
    let describe = |list: &IssuerList| {
        let then = match list.stale_policy() {
            StalePolicy::Refuse => "no client gets in after that".to_owned(),
            StalePolicy::Grace(grace) => format!("used for {} more", duration(grace)),
            StalePolicy::Allow => "DANGEROUS: used however old it is".to_owned(),
        };
        let (name, entries) = (list.issuer_name(), list.len());
        let end = config::shown_time(list.next_update(), SystemTime::now());
        format!("{name}: {entries} entries, ends {end}, {then}")
    };
    let Revoking {
        // All that a list may be of: the CAs above.
        authorities: _,
        lists,
    } = revoking;
    let mut described: Vec<_> = revocation.lists().map(|(_, list)| describe(list)).collect();
    described.sort();
    let files = lists.files.iter();
    described.extend(files.map(|list| {
        let file = config::shown_path(&list.path, &config.file);
        format!("read from {file}")
    }));
    match described.is_empty() {
        true => "not looked at: no crl".to_owned(),
        false => described.join("\n"),
    }
}

fn backend_table(backend: &Backend, config: &Config) -> Table {
    let Backend {
        name,
        servers,
        transport,
        proxy_protocol,
        connect_timeout,
    } = backend;
    let servers: Vec<_> = servers.iter().map(ServerAddress::to_string).collect();
    let is_tls = matches!(transport, BackendTransport::Tls(_));
    let transport = match transport {
        BackendTransport::LoopbackPlaintext => "plain text on this host's loopback".to_owned(),
        BackendTransport::DangerousPlaintext => "DANGEROUS: plain text to another host".to_owned(),
        BackendTransport::Tls(tls) => backend_tls(name, tls, config),
    };
    let proxy_protocol = match proxy_protocol {
        ProxyProtocol::Off => "off",
        ProxyProtocol::Inside => "version 2, inside TLS",
        ProxyProtocol::Outside if is_tls => "version 2, in clear before TLS",
        ProxyProtocol::Outside => "version 2",
    };
    properties([
        ("servers", servers.join(", ")),
        ("protection", transport),
        ("PROXY protocol", proxy_protocol.to_owned()),
        ("connect timeout", duration(*connect_timeout)),
    ])
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

/// A tenant that reaches no backend is not wrong, but its reader may expect more of it.
fn tenant_note(config: &Config) -> Option<&'static str> {
    let any_tenant = config
        .rules
        .as_slice()
        .iter()
        .any(|rule| rule.tenant != TenantSource::Nowhere);
    let any_taker = config
        .backends
        .iter()
        .any(|backend| backend.proxy_protocol != ProxyProtocol::Off);
    (any_tenant && !any_taker).then_some(
        "Tenants reach no backend: in mode \"stream\" they travel in the PROXY protocol header, and none asks for it.",
    )
}

fn certificates(config: &Config, now: SystemTime) -> Table {
    let mut table = plain_table();
    table.set_header([" USE", "SUBJECT", "FILE", "END"]);
    for certificate in &config.certificates {
        let CertificateFile {
            file,
            usage,
            subject,
            // It is past: what begins later is not used.
            not_before: _,
            not_after,
            authority,
        } = certificate;
        let ends = config::shown_time(*not_after, now);
        table.add_row([
            format!(" {usage}"),
            subject.clone(),
            config::shown_path(file, &config.file),
            format!("{ends}{}", succession(*authority)),
        ]);
    }
    table
}

/// What comes after a CA, where that makes its end none to act on.
fn succession(authority: Option<FiledAuthority>) -> &'static str {
    match authority.map(|found| found.succession) {
        None | Some(Succession::Last) => "",
        Some(Succession::Superseded) => ", superseded by another CA",
        Some(Succession::Renewed) => ", renewed",
    }
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
