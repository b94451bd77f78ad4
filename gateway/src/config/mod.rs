//! The configuration file: raw as written (`raw`), then checked and immutable (`checked`).
//! In: a TOML file and the certificates it names. Out: a `Config`, or every error with file, line and key.
//! On the main thread at start; never touches a socket.

pub mod admin_tls;
mod audit;
mod authorities;
mod backend;
mod bounds;
pub mod checked;
mod client_ca;
mod closing;
mod defaults;
mod guard;
mod identity;
mod ids;
mod include;
mod keys;
mod lifetimes;
mod listener;
mod observe;
mod paths;
mod process;
mod protocols;
pub mod raw;
mod report;
mod revocation;
mod scalar;
mod shadow;
mod shown;
mod tls;
mod value;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub use checked::*;
pub use ids::{BackendId, ListenerId};
pub use keys::{shown_path, shown_time};
pub use lifetimes::{
    Dependents, Mortal, backend_ca_usage, client_ca_usage, load_expired_too, mortals,
};
pub use paths::{LocateError, NAME_DEFAULT, locate, located};
pub use protocols::shown as shown_protocols;
pub use report::{ConfigError, ConfigErrors};
pub use revocation::{InForce, ListFile, ListFiles, Reread, Revoking, Unread};

use gateway_core::limits;
use gateway_files::FileSnapshot;
use gateway_x509::crl_ranks::{self, KnownLists};
use gateway_x509::file;
use listener::CheckedListener;
use raw::{RawAdminTls, RawConfig, RawDefaults, RawListener};
use report::Report;
use rustls::crypto::CryptoProvider;
use value::{Field, Sections};

/// A configuration that may be run, and what its operator should know about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What will be enforced.
    pub config: Config,
    /// What is allowed but questionable, each a line fit for the log.
    pub warnings: Vec<String>,
}

/// Reads and checks a configuration file and everything it names.
pub fn load(file: &Path) -> Result<Loaded, ConfigErrors> {
    let (snapshot, text) = text_of(file)?;
    let mut report = Report::new(file, &text, SystemTime::now());
    report.note(snapshot);
    conclude(report)
}

/// As `load`, for a configuration that another one observes.
fn load_observed(file: &Path) -> Result<Loaded, ConfigErrors> {
    let (snapshot, text) = text_of(file)?;
    let mut report = Report::new(file, &text, SystemTime::now());
    report.note(snapshot);
    report.is_observed = true;
    conclude(report)
}

/// The text of a configuration file, and the file as it was before it was read: what changes in the meantime has changed
/// since.
fn text_of(file: &Path) -> Result<(FileSnapshot, String), ConfigErrors> {
    let snapshot = FileSnapshot::now(file);
    let bytes = match file::file(file, limits::CONFIGURATION_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => return Err(ConfigErrors::of_file(snapshot, error.to_string())),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok((snapshot, text)),
        Err(error) => Err(ConfigErrors::of_file(
            snapshot,
            format!("is not UTF-8: {error}"),
        )),
    }
}

/// Checks the text of a configuration file. Paths in it are relative to the directory of `file`.
pub fn check(file: &Path, text: &str, now: SystemTime) -> Result<Loaded, ConfigErrors> {
    conclude(Report::new(file, text, now))
}

fn conclude(mut report: Report<'_>) -> Result<Loaded, ConfigErrors> {
    let raw = raw::parse(report.text(), &mut report);
    let config = raw.and_then(|raw| assemble(raw, &mut report));
    match config {
        Some(config) if report.is_clean() => Ok(Loaded {
            config,
            warnings: report.into_warnings(),
        }),
        _ => Err(report.into_errors()),
    }
}

/// Reads which lists were in force before.
fn know_lists(state: &Path, report: &mut Report<'_>) {
    report.note(FileSnapshot::now(&crl_ranks::file_in(state)));
    match KnownLists::read(state) {
        Ok(known) => report.known_lists = known,
        // What cannot be remembered is no reason to serve nobody; and a user who checks may read less than the gateway.
        Err(error) => {
            report.known_lists = KnownLists::remembered();
            report.warn(
                1,
                "",
                format_args!("{error}: older revocation lists are recognised only beside those that this process has \
                              used"),
            );
        }
    }
}

/// Gives the listeners of the file what `[defaults]` says and they do not.
fn with_defaults(
    mut listeners: Field<Sections<RawListener>>,
    defaults: Field<RawDefaults>,
    report: &mut Report<'_>,
) -> Field<Sections<RawListener>> {
    if let (Field::Given(listeners), Some(defaults)) = (&mut listeners, defaults.given()) {
        let listeners = listeners.value.0.iter_mut();
        listeners.for_each(|listener| defaults::fill(listener, &defaults.value, report));
    }
    listeners
}

/// Checks the listener of `[admin.tls]` and adds it behind those of the file.
fn add_admin(
    listeners: &mut Vec<CheckedListener>,
    admin: RawAdminTls,
    provider: &CryptoProvider,
    report: &mut Report<'_>,
) {
    admin_tls::refuse_namesakes(listeners, report);
    let own = admin_tls::check(admin, provider, report);
    listener::add(listeners, own, report);
}

/// Checks section by section, so that one run tells of every error; `None` when a required part is missing.
fn assemble(raw: RawConfig, report: &mut Report<'_>) -> Option<Config> {
    let provider = tls::check(raw.tls, report);
    let workers = process::workers(raw.workers, report);
    let mut admin = process::admin(raw.admin, report);
    let drain_timeout = process::drain_timeout(&raw.place, raw.drain_timeout, report);
    let paths = paths::check(&raw.place, raw.name, raw.paths, report);
    if let Some(paths) = &paths {
        know_lists(&paths.state, report);
    }
    paths::refuse_blocks(&raw.place, &raw.blocks, paths.as_ref(), report);
    let close_spread = closing::spread(&raw.place, raw.close_spread, report);
    let audit = audit::check(raw.audit, report);
    report.not_built(&raw.place, "outbound", &raw.outbound);
    let backends = backend::check_all(&raw.place, raw.backend, &provider.provider, report);
    let names = backend::Names::new(&backends);
    let written = with_defaults(raw.listener, raw.defaults, report);
    let mut listeners =
        listener::check_all(&raw.place, written, &provider.provider, &names, report);
    if let Some(admin) = admin.tls.take() {
        add_admin(&mut listeners, admin, &provider.provider, report);
    }
    let newer_lists = revocation::judge(report);
    backend::warn_of_unused(&backends, &listeners, report);
    protocols::warn_of_mismatches(&listeners, &backends, report);
    process::refuse_shared_address(&admin, &listeners, report);
    let guard = guard::check(raw.guard, &listeners, report);
    let observe = observe::check(&raw.place, raw.observe, &listeners, report);
    let ruled = admin_tls::others(&listeners);
    let written = (raw.identity, raw.include);
    let rules = identity::check_all(&raw.place, written, ruled, report);
    client_ca::warn_of_overlap(ruled, &rules, report);
    client_ca::warn_of_useless(ruled, &rules, report);
    let block_list = paths.as_ref().map(Paths::block_list);
    audit::refuse_other_file(audit.as_ref(), block_list.as_deref(), report);
    let config = Config {
        file: report.file().to_owned(),
        paths: paths?,
        workers: workers?,
        provider: provider.provider,
        provider_name: provider.name,
        prefers_own_suites: provider.prefers_own_suites,
        key_policy: Arc::new(provider.key_policy),
        resumption: provider.resumption,
        admin: admin.checked,
        audit: audit?.target,
        guard: guard?,
        drain_timeout: drain_timeout?,
        close_spread: close_spread?,
        listeners: listeners
            .into_iter()
            .map(|l| l.checked.map(Arc::new))
            .collect::<Option<_>>()?,
        backends: backends
            .into_iter()
            .map(|b| b.checked.map(Arc::new))
            .collect::<Option<_>>()?,
        rules: Arc::new(rules),
        observe: observe?,
        certificates: report.take_certificates(),
        files: report.files().to_vec(),
        again_at: report.again_at(),
    };
    Some(config.with_newer_lists(&newer_lists, report.now))
}
