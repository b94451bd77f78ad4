//! `portcullis check`. In: a configuration file. Out: what would be enforced and until when, or every error.
//! On the main thread; reads files and opens no socket. Exit code 0 is a configuration that `run` would take.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use clap::Args;
use comfy_table::{Table, presets};
use gateway_common::Listed;
use gateway_core::identity::TenantSource;
use gateway_core::revocation::{IssuerList, Revocation, StalePolicy};

use super::rules;
use super::which::ConfigFile;
use crate::blocks::BlockFile;
use crate::config::{
    self, AdminAddress, AuditTarget, Backend, BackendTransport, Config, GuardMode, GuardSettings,
    Listener, Loaded, ProxyProtocol, ServerAddress,
};
use crate::control::{self, Client, ReloadOutcome};
use crate::tls::cipher_suite_name;

/// Arguments of `portcullis check`.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Say in one line how long certificates and revocation lists last, as a plugin for Nagios does
    #[arg(long)]
    expiry: bool,
    /// Say instead what the listeners would make of a client with this certificate (PEM with its chain, or DER), and which
    /// rule matches why; the exit code is 0 if it would get in
    #[arg(long, value_name = "FILE", conflicts_with = "expiry")]
    certificate: Option<PathBuf>,
    /// Ask the running gateway as well what a reload would refuse of this file, which has to be its own; the exit code is 1 if
    /// anything
    #[arg(long, conflicts_with_all = ["expiry", "certificate"])]
    running: bool,
    /// Ask this listener only
    #[arg(long, value_name = "NAME", requires = "certificate")]
    listener: Option<String>,
}

impl Check {
    /// Checks the file, and prints what it means or everything that is wrong with it.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        if self.expiry {
            return super::expiry::execute(&self.file.config);
        }
        match config::load(&self.file.config) {
            Ok(loaded) => {
                let blocks = BlockFile::look(
                    &loaded.config.paths,
                    &BlockFile::former_place(&self.file.config),
                )?;
                if let Some(certificate) = &self.certificate {
                    return self.explain(&loaded.config, &blocks, certificate);
                }
                let text = explain(&loaded, &blocks, SystemTime::now());
                let printed = super::print(&text)?;
                match self.running {
                    true => self.ask_running(&loaded.config),
                    false => Ok(printed),
                }
            }
            Err(errors) => {
                eprintln!("{errors}");
                let count = match errors.as_slice().len() {
                    1 => "1 error".to_owned(),
                    many => format!("{many} errors"),
                };
                eprintln!("{}: {count}", self.file.config.display());
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

impl Check {
    /// What the running gateway would say to a reload.
    fn ask_running(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let status = Client::connect(&config.paths)?.status()?;
        let same = |path: &Path| std::fs::canonicalize(path).ok();
        let theirs = status.configuration;
        ensure!(
            same(&theirs) == same(&self.file.config),
            "the gateway runs with {}: check that file",
            theirs.display()
        );
        let client = Client::connect(&config.paths)?;
        let outcome: ReloadOutcome = client.post(control::CHECK, &())?;
        if outcome.refused.is_empty() {
            return super::print("The running gateway would take it on a reload.\n");
        }
        for error in &outcome.refused {
            eprintln!("{error}");
        }
        eprintln!("portcullis: the running gateway would refuse it on a reload");
        Ok(ExitCode::FAILURE)
    }

    /// Answers for one certificate.
    fn explain(
        &self,
        config: &Config,
        blocks: &BlockFile,
        certificate: &Path,
    ) -> anyhow::Result<ExitCode> {
        let blocks = Arc::new(blocks.blocks.list());
        let listener = self.listener.as_deref();
        let now = SystemTime::now();
        let found = super::explain::explain(config, &blocks, certificate, listener, now)?;
        let printed = super::print(&found.text)?;
        Ok(match found.admitted {
            true => printed,
            false => ExitCode::FAILURE,
        })
    }
}

/// What a configuration means, for people.
fn explain(loaded: &Loaded, blocks: &BlockFile, now: SystemTime) -> String {
    let config = &loaded.config;
    let mut text = titled("Process", &process(config, blocks));
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
    if !loaded.warnings.is_empty() {
        text += "\nWarnings\n";
        for warning in &loaded.warnings {
            text += &format!("  {warning}\n");
        }
    }
    text + &format!("\n{}: good\n", config.file.display())
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
fn properties<const N: usize>(rows: [(&str, String); N]) -> Table {
    let mut table = plain_table();
    for (name, value) in rows {
        table.add_row([format!(" {name}"), value]);
    }
    table
}

fn process(config: &Config, blocks: &BlockFile) -> Table {
    let suites = config
        .provider
        .cipher_suites
        .iter()
        .map(|suite| cipher_suite_name(suite.suite()));
    let groups = config
        .provider
        .kx_groups
        .iter()
        .map(|group| format!("{:?}", group.name()));
    let admin = match &config.admin {
        None => "off".to_owned(),
        Some(AdminAddress::Loopback(address)) => address.to_string(),
        Some(AdminAddress::Unix(path)) => format!("unix:{}", path.display()),
    };
    let audit = match &config.audit {
        None => "off".to_owned(),
        Some(AuditTarget::StandardOutput) => "standard output".to_owned(),
        Some(AuditTarget::File(path)) => path.display().to_string(),
    };
    let suite_order = match config.prefers_own_suites {
        true => "in this order",
        false => "a client's order decides",
    };
    let blocked = format!(
        "{}, {} entries",
        config.paths.block_list().display(),
        blocks.blocks.blocked.len()
    );
    properties([
        ("TLS", format!("1.3 only, by {}", config.provider_name)),
        ("resumption", resumption(config)),
        (
            "cipher suites",
            format!("{} ({suite_order})", suites.collect::<Vec<_>>().join(", ")),
        ),
        (
            "groups",
            format!(
                "{} (a client's order decides; towards backends this one)",
                groups.collect::<Vec<_>>().join(", ")
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
        ("workers", config.workers.to_string()),
        ("drain timeout", duration(config.drain_timeout)),
        ("close spread", duration(config.close_spread)),
        ("observes", observed(config)),
        ("admin endpoint", admin),
        ("audit log", audit),
        ("guard", guard(config)),
        ("block list", blocked),
    ])
}

/// What the guard does, where, and from when on it bans.
fn guard(config: &Config) -> String {
    let GuardSettings {
        mode,
        interfaces,
        required,
        policy,
        ..
    } = &config.guard;
    if *mode == GuardMode::Off {
        return mode.name().to_owned();
    }
    let settings = &policy.settings;
    let on = match interfaces.as_slice() {
        [] => "no interface".to_owned(),
        names => names.join(", "),
    };
    let required = if *required { ", required" } else { "" };
    format!(
        "{} on {on}{required}; {} unauthenticated connections of a source at a time, bans beyond {} points from {} to {}; \
         {} networks allowed, {} denied",
        mode.name(),
        settings.pending_max,
        settings.ban_debt_ns / settings.point_ns,
        duration(Duration::from_nanos(settings.ban_first_ns)),
        duration(Duration::from_nanos(settings.ban_longest_ns)),
        policy.lists.count(Listed::Allowed),
        policy.lists.count(Listed::Denied),
    )
}

fn observed(config: &Config) -> String {
    config.observe.as_ref().map_or_else(
        || "no other configuration".to_owned(),
        |other| config::shown_path(&other.file, &config.file),
    )
}

fn resumption(config: &Config) -> String {
    let Some(resumption) = &config.resumption else {
        return "none: every connection authenticates in full".to_owned();
    };
    let age = duration(resumption.max_authentication_age);
    let keys = match &resumption.keys {
        None => "with keys in memory".to_owned(),
        Some(keys) => format!("with {} shared keys, epoch {}", keys.len(), keys.epoch()),
    };
    format!("for {age} after the full handshake, {keys}")
}

fn listener_table(listener: &Listener, config: &Config) -> Table {
    let alpn = match listener.alpn.is_empty() {
        true => "none chosen".to_owned(),
        false => config::shown_protocols(&listener.alpn),
    };
    let age = match listener.times.max_connection_age {
        None => "none".to_owned(),
        Some(age) => {
            let grace = duration(listener.times.max_connection_age_grace);
            format!(
                "{} plus or minus a tenth, and up to {grace} more",
                duration(age)
            )
        }
    };
    let names: Vec<_> = listener
        .certificates
        .iter()
        .flat_map(|own| own.dns_names.clone())
        .collect();
    let backend = config
        .backends
        .get(listener.backend)
        .map_or("", |backend| backend.name.as_str());
    let authorities = authorities(config, &format!("listener {} client_ca", listener.name));
    properties([
        ("address", listener.address.to_string()),
        ("mode", "stream".to_owned()),
        (
            "clients",
            format!(
                "must have a certificate by one of:\n{}",
                authorities.join("\n")
            ),
        ),
        ("trust domains", trust_domains(listener)),
        (
            "server names",
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            },
        ),
        ("revocation", lists(&listener.revocation)),
        (
            "resumption",
            listener_resumption(config, listener).to_owned(),
        ),
        ("ALPN", alpn),
        ("backend", backend.to_owned()),
        (
            "first byte timeout",
            duration(listener.times.first_byte_timeout),
        ),
        (
            "handshake timeout",
            duration(listener.times.handshake_timeout),
        ),
        ("idle timeout", duration(listener.times.idle_timeout)),
        ("quiet timeout", duration(listener.times.quiet_timeout)),
        ("max. connections", listener.max_connections.to_string()),
        ("max. handshakes", listener.max_handshakes.to_string()),
        ("max. connection age", age),
    ])
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

/// The revocation lists that are in force, and what happens when they have ended.
fn lists(revocation: &Revocation) -> String {
    let describe = |list: &IssuerList| {
        let then = match list.stale_policy() {
            StalePolicy::Refuse => "nobody gets in after that".to_owned(),
            StalePolicy::Grace(grace) => format!("used for {} more", duration(grace)),
            StalePolicy::Allow => "DANGEROUS: used however old it is".to_owned(),
        };
        let (name, entries) = (list.issuer_name(), list.len());
        let end = config::shown_time(list.next_update(), SystemTime::now());
        format!("{name}: {entries} entries, ends {end}, {then}")
    };
    let mut described: Vec<_> = revocation.lists().map(|(_, list)| describe(list)).collect();
    described.sort();
    match described.is_empty() {
        true => "not looked at: no crl".to_owned(),
        false => described.join("\n"),
    }
}

fn backend_table(backend: &Backend, config: &Config) -> Table {
    let servers: Vec<_> = backend
        .servers
        .iter()
        .map(ServerAddress::to_string)
        .collect();
    let transport = match &backend.transport {
        BackendTransport::LoopbackPlaintext => "plain text on this host's loopback".to_owned(),
        BackendTransport::DangerousPlaintext => "DANGEROUS: plain text to another host".to_owned(),
        BackendTransport::Tls(tls) => {
            let authorities = authorities(config, &format!("backend {} tls ca", backend.name));
            let name = tls.server_name.to_str();
            format!(
                "mTLS; servers must be {name}, certified by one of:\n{}\nrevocation {}\noffered {}",
                authorities.join("\n"),
                lists(&tls.revocation),
                match tls.alpn.is_empty() {
                    true => "what the client chose".to_owned(),
                    false => format!(
                        "what the client chose among {0}, or {0}",
                        config::shown_protocols(&tls.alpn)
                    ),
                }
            )
        }
    };
    let is_tls = matches!(backend.transport, BackendTransport::Tls(_));
    let proxy_protocol = match backend.proxy_protocol {
        ProxyProtocol::Off => "off",
        ProxyProtocol::Inside => "version 2, inside TLS",
        ProxyProtocol::Outside if is_tls => "version 2, in clear before TLS",
        ProxyProtocol::Outside => "version 2",
    };
    properties([
        ("servers", servers.join(", ")),
        ("protection", transport),
        ("PROXY protocol", proxy_protocol.to_owned()),
        ("connect timeout", duration(backend.connect_timeout)),
    ])
}

/// A tenant that reaches nobody is not wrong, but its reader may expect more of it.
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
        table.add_row([
            format!(" {}", certificate.usage),
            certificate.subject.clone(),
            config::shown_path(&certificate.file, &config.file),
            config::shown_time(certificate.not_after, now),
        ]);
    }
    table
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
