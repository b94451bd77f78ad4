//! The configuration file: raw as written (`raw`), then checked and immutable (`checked`).
//! In: a TOML file and the certificates it names. Out: a `Config`, or every error with file, line and key.
//! On the main thread at the start, on the thread `reload` afterwards; never touches a socket.

pub mod admin_tls;
mod allow;
mod audit;
mod authorities;
mod backend;
mod bounds;
pub mod checked;
mod client_ca;
mod closing;
mod credentials;
mod defaults;
mod diagnostics;
mod dry_run;
mod guard;
mod headers;
mod health;
mod http_backend;
mod http_mode;
mod identity;
mod ids;
mod include;
mod lifetimes;
mod listener;
mod paths;
mod process;
mod protocols;
pub mod raw;
mod reread;
mod revocation;
mod routes;
mod rule_lint;
mod rule_requests;
mod scalar;
mod servers;
mod shown;
mod tenants;
mod tls;
mod value;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub use checked::*;
pub use credentials::{shown_path, shown_time};
pub use diagnostics::{ConfigError, ConfigErrors};
pub use health::{HealthChecks, HealthKind};
pub use http_backend::{BackendProtocol, HttpBackend};
pub use http_mode::HttpMode;
pub use ids::{BackendId, ListenerId};
pub use lifetimes::{
    Dependents, Expiring, backend_ca_usage, client_ca_usage, expiring, load_expired_too,
};
pub use paths::{LocateError, NAME_DEFAULT, locate, located};
pub use protocols::shown as shown_protocols;
pub use reread::{InForce, ListFile, ListFiles, Reread, Revoking, Unread};

use diagnostics::Diagnostics;
use gateway_core::limits;
use gateway_files::FileSnapshot;
use gateway_x509::crl_ranks::{self, KnownLists};
use gateway_x509::file;
use listener::CheckedListener;
use raw::{RawAdminTls, RawConfig, RawDefaults, RawListener};
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
    let mut diagnostics = Diagnostics::new(file, &text, SystemTime::now());
    diagnostics.note(snapshot);
    conclude(diagnostics)
}

/// As `load`, for the dry run of another configuration.
fn load_for_dry_run(file: &Path) -> Result<Loaded, ConfigErrors> {
    let (snapshot, text) = text_of(file)?;
    let mut diagnostics = Diagnostics::new(file, &text, SystemTime::now());
    diagnostics.note(snapshot);
    diagnostics.is_dry_run = true;
    conclude(diagnostics)
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
    conclude(Diagnostics::new(file, text, now))
}

fn conclude(mut diagnostics: Diagnostics<'_>) -> Result<Loaded, ConfigErrors> {
    let raw = raw::parse(diagnostics.text(), &mut diagnostics);
    let config = raw.and_then(|raw| assemble(raw, &mut diagnostics));
    match config {
        Some(config) if diagnostics.is_clean() => Ok(Loaded {
            config,
            warnings: diagnostics.into_warnings(),
        }),
        _ => Err(diagnostics.into_errors()),
    }
}

/// Reads which lists were in force before.
fn know_lists(state: &Path, diagnostics: &mut Diagnostics<'_>) {
    diagnostics.note(FileSnapshot::now(&crl_ranks::file_in(state)));
    match KnownLists::read(state) {
        Ok(known) => diagnostics.known_lists = known,
        // What cannot be remembered is no reason to serve no client; and a user who checks may read less than the gateway.
        Err(error) => {
            diagnostics.known_lists = KnownLists::remembered();
            diagnostics.warn(
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
    diagnostics: &mut Diagnostics<'_>,
) -> Field<Sections<RawListener>> {
    if let (Field::Given(listeners), Some(defaults)) = (&mut listeners, defaults.given()) {
        let listeners = listeners.value.0.iter_mut();
        listeners.for_each(|listener| defaults::fill(listener, &defaults.value, diagnostics));
    }
    listeners
}

/// Checks the listener of `[admin.tls]` and adds it behind those of the file.
fn add_admin(
    listeners: &mut Vec<CheckedListener>,
    admin: RawAdminTls,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) {
    admin_tls::refuse_namesakes(listeners, diagnostics);
    let own = admin_tls::check(admin, provider, diagnostics);
    listener::add(listeners, own, diagnostics);
}

/// Checks section by section, so that one run tells of every error; `None` when a required part is missing.
fn assemble(raw: RawConfig, diagnostics: &mut Diagnostics<'_>) -> Option<Config> {
    let provider = tls::check(raw.tls, diagnostics);
    let workers = process::workers(raw.workers, diagnostics);
    let mut admin = process::admin(raw.admin, diagnostics);
    let drain_timeout = process::drain_timeout(&raw.location, raw.drain_timeout, diagnostics);
    let paths = paths::check(&raw.location, raw.name, raw.paths, diagnostics);
    if let Some(paths) = &paths {
        know_lists(&paths.state, diagnostics);
    }
    paths::refuse_blocks(&raw.location, &raw.blocks, paths.as_ref(), diagnostics);
    let close_spread = closing::spread(&raw.location, raw.close_spread, diagnostics);
    let audit = audit::check(raw.audit, diagnostics);
    diagnostics.not_built(&raw.location, "outbound", &raw.outbound);
    let backends = backend::check_all(&raw.location, raw.backend, &provider.provider, diagnostics);
    let names = backend::Names::new(&backends);
    let written = with_defaults(raw.listener, raw.defaults, diagnostics);
    let mut listeners = listener::check_all(
        &raw.location,
        written,
        &provider.provider,
        &names,
        diagnostics,
    );
    if let Some(admin) = admin.tls.take() {
        add_admin(&mut listeners, admin, &provider.provider, diagnostics);
    }
    let newer_lists = revocation::compare_lists(diagnostics);
    process::refuse_shared_address(&admin, &listeners, diagnostics);
    let guard = guard::check(raw.guard, &listeners, diagnostics);
    let dry_run = dry_run::check(&raw.location, raw.observe, &listeners, diagnostics);
    let ruled = admin_tls::others(&listeners);
    let written = (raw.identity, raw.include);
    let rules = identity::check_all(&raw.location, written, ruled, diagnostics);
    routes::check_all(raw.route, &mut listeners, (&rules, &names), diagnostics);
    backend::check_usage(&backends, &listeners, diagnostics);
    protocols::warn_of_mismatches(&listeners, &backends, &rules, diagnostics);
    let ruled = admin_tls::others(&listeners);
    client_ca::warn_of_overlap(ruled, &rules, diagnostics);
    client_ca::warn_of_useless(ruled, &rules, diagnostics);
    let block_list = paths.as_ref().map(Paths::block_list);
    audit::refuse_other_file(audit.as_ref(), block_list.as_deref(), diagnostics);
    let config = Config {
        file: diagnostics.file().to_owned(),
        paths: paths?,
        workers: workers?,
        provider: provider.provider,
        provider_name: provider.name,
        suites_are_pinned: provider.suites_are_pinned,
        key_policy: Arc::new(provider.key_policy),
        resumption: provider.resumption,
        admin: admin.checked,
        request_sample: audit.as_ref()?.requests,
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
        dry_run: dry_run?,
        certificates: diagnostics.take_certificates(),
        files: diagnostics.files().to_vec(),
        again_at: diagnostics.again_at(),
    };
    Some(config.with_newer_lists(&newer_lists, diagnostics.now))
}
