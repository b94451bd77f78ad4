//! What of a configuration ends by itself: certificates, authorities, revocation lists.
//! In: a checked configuration, or its file. Out: names and lifetimes, for the log, the metrics and `check --expiry`.

use std::path::Path;
use std::time::SystemTime;

use gateway_core::expiry::Lifetime;

use super::checked::{BackendTransport, CertificateFile, Config};
use super::report::{ConfigErrors, Report};
use super::{Loaded, conclude, shown_path, text_of};

/// Something that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mortal {
    /// What it is used for: `listener edge certificate`.
    pub usage: String,
    /// Its file, as the configuration's reader knows it; empty for a revocation list.
    pub file: String,
    /// Whose it is; of a revocation list, its issuer's.
    pub subject: String,
    /// From when to when.
    pub lifetime: Lifetime,
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

/// Everything of `config` that ends by itself.
pub fn mortals(config: &Config) -> Vec<Mortal> {
    let certificates = config.certificates.iter().map(|certificate| Mortal {
        usage: certificate.usage.clone(),
        file: shown_path(&certificate.file, &config.file),
        subject: certificate.subject.clone(),
        lifetime: certificate.lifetime(),
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
        revocation.lists().map(move |(_, list)| Mortal {
            usage: usage.clone(),
            file: String::new(),
            subject: list.issuer_name().to_owned(),
            lifetime: list.lifetime(),
        })
    });
    let mut lists: Vec<_> = lists.collect();
    // Lists have no order of their own; a plugin's performance data keeps to one.
    lists.sort_by(|one, other| (&one.usage, &one.subject).cmp(&(&other.usage, &other.subject)));
    certificates.chain(lists).collect()
}

/// Reads and checks a configuration, and takes certificates that have ended for good: whoever asks when things end has to
/// hear of those as well.
pub fn load_expired_too(file: &Path, now: SystemTime) -> Result<Loaded, ConfigErrors> {
    let (seen, text) = text_of(file)?;
    let mut report = Report::new(file, &text, now);
    report.note(seen);
    report.takes_expired = true;
    conclude(report)
}
