//! Everything that a checked configuration enforces, in words, for `portcullis check`.
//! In: the configuration, the block list. Out: text. Pure but for the clock. Each structure of the configuration is taken apart
//! here whole, without `..`: a new field does not compile before it is shown, or passed over with a reason.

mod backend;
mod guard;
pub(crate) mod http;
mod listener;

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use comfy_table::{Table, presets};
use gateway::blocks::BlockFile;
use gateway::config::{
    self, AuditTarget, BackendId, CertificateFile, Config, Destination, FiledAuthority, Listener,
    Loaded, Mode, Paths, ProxyProtocol, RequestSample, Resumption, Revoking,
};
use gateway::crypto::cipher_suite_name;
use gateway_core::identity::{Tenant, TenantSource};
use gateway_core::revocation::{IssuerList, Revocation, StalePolicy};
use gateway_core::stream_route::StreamRoute;
use gateway_core::succession::Succession;

use super::rules;

/// What a configuration means, for people. `rights` says with whose rights it was looked at.
pub fn explain(loaded: &Loaded, blocks: &BlockFile, rights: &str, now: SystemTime) -> String {
    let Loaded { config, warnings } = loaded;
    let mut text = titled("Process", &process(config, blocks, rights));
    for listener in &config.listeners {
        text += &titled(
            &format!("Listener {}", listener.name),
            &listener::table(listener, config),
        );
        if let Some(routes) =
            http::routes(listener, config).or_else(|| stream_routes(listener, config))
        {
            let title = format!("Routes of listener {}, first match wins", listener.name);
            text += &titled(&title, &routes);
        }
    }
    for backend in &config.backends {
        text += &titled(
            &format!("Backend {}", backend.name),
            &backend::table(backend, config),
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
        suites_are_pinned: _,
        key_policy: _,
        resumption: _,
        admin,
        audit,
        request_sample,
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
        Some(address) => address.to_string(),
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
        ("audited requests", audited(*request_sample)),
    ]);
    rows.extend(guard::rows(guard));
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
    let suite_order = match config.suites_are_pinned {
        true => "in this order",
        false => "in this order; ChaCha20 for a client that names it first",
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

/// The routes of a listener of mode "stream", if it has any.
fn stream_routes(listener: &Listener, config: &Config) -> Option<Table> {
    let Destination::Streams(routes) = &listener.destination else {
        return None;
    };
    let mut table = plain_table();
    table.set_header([
        " #",
        "SERVER NAMES",
        "ALPN",
        "IDENTITIES",
        "TENANTS",
        "BACKEND",
    ]);
    for (position, route) in routes.routes().iter().enumerate() {
        let StreamRoute {
            hosts,
            protocols,
            identities,
            tenants,
            backend,
        } = route;
        let identities: Vec<_> = identities.iter().map(ToString::to_string).collect();
        let tenants: Vec<_> = tenants.iter().map(Tenant::as_str).collect();
        let or_any = |text: String| match text.is_empty() {
            true => "any".to_owned(),
            false => text,
        };
        table.add_row([
            format!(" {}", position + 1),
            http::hosts(hosts),
            or_any(config::shown_protocols(protocols)),
            or_any(identities.join("\n")),
            or_any(tenants.join("\n")),
            http::backend_name(BackendId(*backend), config).to_owned(),
        ]);
    }
    Some(table)
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
    let mut listeners = config.listeners.iter();
    let any_taker = any_taker || listeners.any(|listener| matches!(listener.mode, Mode::Http(_)));
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

/// Which requests have a line in the audit log.
fn audited(RequestSample(one_in): RequestSample) -> String {
    match one_in.map(NonZeroU32::get) {
        None => "those that failed".to_owned(),
        Some(1) => "all".to_owned(),
        Some(one_in) => format!("those that failed, and 1 of {one_in} others"),
    }
}
