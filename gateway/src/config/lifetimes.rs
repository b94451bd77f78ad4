//! What of a configuration ends by itself: certificates, authorities, revocation lists.
//! In: a checked configuration, or its file. Out: names and lifetimes, for the log, the metrics and `check --expiry`.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use gateway_core::expiry::{Band, Lifetime};
use gateway_core::revocation::AuthorityId;
use gateway_core::succession::Succession;

use super::checked::{
    BackendTransport, CertificateFile, Config, Destination, FiledAuthority, Listener,
};
use super::diagnostics::{ConfigErrors, Diagnostics};
use super::{Loaded, conclude, shown_path, text_of};

/// Something that expires: a certificate, an authority or a revocation list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expiring {
    /// What it is used for: `listener edge certificate`.
    pub usage: String,
    /// Its file, as the configuration's reader knows it; empty for a revocation list.
    pub file: String,
    /// Its subject; of a revocation list, its issuer.
    pub subject: String,
    /// From when to when.
    pub lifetime: Lifetime,
    /// Of a CA, what it is known by and what comes after it.
    pub authority: Option<FiledAuthority>,
}

impl Expiring {
    /// Whether its end shuts any client out: not that of a CA with a successor, unless a connected client or server depends on
    /// it alone.
    pub fn matters(&self, dependents: &Dependents) -> bool {
        dependents.matters(&self.usage, self.authority)
    }

    /// Where it stands, as far as its end matters.
    pub fn pressing_band(&self, dependents: &Dependents, now: SystemTime) -> Band {
        match self.matters(dependents) {
            true => self.lifetime.band(now),
            false => Band::Good,
        }
    }
}

/// Connections that end with a CA and cannot come back, because the certificates below it last longer and nothing else is above
/// them; by what the CA is used for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependents(HashMap<(String, AuthorityId), u64>);

impl Dependents {
    /// Counts connections that stand on a CA.
    pub fn add(&mut self, usage: String, authority: AuthorityId, connections: u64) {
        *self.0.entry((usage, authority)).or_default() += connections;
    }

    /// Whether the end of something with this use shuts any client out, be it a CA or not.
    pub fn matters(&self, usage: &str, authority: Option<FiledAuthority>) -> bool {
        authority.is_none_or(|authority| {
            authority.succession == Succession::Last || self.of(usage, authority) > 0
        })
    }

    /// Those that stand on this CA alone.
    pub fn of(&self, usage: &str, authority: FiledAuthority) -> u64 {
        match authority.succession {
            // Another certificate of the same name and key takes them.
            Succession::Renewed => 0,
            Succession::Last | Succession::Superseded => {
                let known = self.0.get(&(usage.to_owned(), authority.id));
                known.copied().unwrap_or_default()
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, AuthorityId, u64)> {
        let known = self.0.iter();
        known.map(|((usage, authority), count)| (usage.as_str(), *authority, *count))
    }
}

impl CertificateFile {
    /// From when to when it is valid.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime {
            begins: self.not_before,
            // As the certificate says it and every other tool shows it, although it is valid to the end of that second (RFC
            // 5280 section 4.1.2.5).
            ends: self.not_after,
        }
    }
}

/// What the CAs of a listener's clients are used for, as `Expiring::usage` says it.
pub fn client_ca_usage(listener: &Listener) -> String {
    match &listener.destination {
        Destination::Backend(_) | Destination::Streams(_) | Destination::Routes(_) => {
            format!("listener {} client_ca", listener.name)
        }
        Destination::Metrics(_) => "admin tls client_ca".to_owned(),
    }
}

/// The same of the CAs of a backend's servers.
pub fn backend_ca_usage(backend: &str) -> String {
    format!("backend {backend} tls ca")
}

/// Everything of `config` that expires.
pub fn expiring(config: &Config) -> Vec<Expiring> {
    let certificates = config.certificates.iter().map(|certificate| Expiring {
        usage: certificate.usage.clone(),
        file: shown_path(&certificate.file, &config.file),
        subject: certificate.subject.clone(),
        lifetime: certificate.lifetime(),
        authority: certificate.authority,
    });
    let listeners = config.listeners.iter().map(|listener| {
        (
            format!("listener {} crl", listener.name),
            &listener.revocation,
        )
    });
    let backends = config
        .backends
        .iter()
        .filter_map(|backend| match &backend.transport {
            BackendTransport::Tls(tls) => {
                Some((format!("backend {} tls crl", backend.name), &tls.revocation))
            }
            BackendTransport::LoopbackPlaintext | BackendTransport::DangerousPlaintext => None,
        });
    let lists = listeners.chain(backends).flat_map(|(usage, revocation)| {
        revocation.lists().map(move |(_, list)| Expiring {
            usage: usage.clone(),
            file: String::new(),
            subject: list.issuer_name().to_owned(),
            lifetime: list.lifetime(),
            authority: None,
        })
    });
    let mut lists: Vec<_> = lists.collect();
    // Lists have no order of their own; a plugin's performance data keeps to one.
    lists.sort_by(|one, other| (&one.usage, &one.subject).cmp(&(&other.usage, &other.subject)));
    certificates.chain(lists).collect()
}

/// Reads and checks a configuration, and takes certificates that have ended for good: `check --expiry` has to tell of those
/// as well.
pub fn load_expired_too(file: &Path, now: SystemTime) -> Result<Loaded, ConfigErrors> {
    let (snapshot, text) = text_of(file)?;
    let mut diagnostics = Diagnostics::new(file, &text, now);
    diagnostics.note(snapshot);
    diagnostics.takes_expired = true;
    conclude(diagnostics)
}
