//! The checked configuration: what the rest of the program works with.
//! In: values that the other files of this folder have checked against each other. Out: an immutable `Config`; a reload makes
//! another one. Made on the main thread and on `reload`, read on every thread.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::authority::Scope;
pub use gateway_core::balance::ServerShare;
use gateway_core::identity::Rules;
pub use gateway_core::names::ServerAddress;
use gateway_core::revocation::{AuthorityId, AuthorityKey, IssuerList, Revocation};
use gateway_core::sources::Policy;
use gateway_core::stream_route::StreamRoutes;
use gateway_core::succession::Succession;
use gateway_files::FileSnapshot;
use gateway_x509::Roots;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

use super::http_backend::HttpBackend;
use super::http_mode::HttpMode;
use super::ids::BackendId;
use super::reread::{InForce, ListFiles, Revoking, Unread};
use crate::crypto::{KeyPolicy, KeyRing};

/// Everything `portcullis run` enforces.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file this configuration came from.
    pub file: PathBuf,
    /// What the gateway is called on its host, and its folders.
    pub paths: Paths,
    /// Worker threads, each pinned to one CPU.
    pub workers: NonZeroUsize,
    /// Cryptography: provider with its suites and groups already reduced to the pinned ones.
    pub provider: Arc<CryptoProvider>,
    /// Name of the provider as configured: `ring` or `aws-lc-rs`.
    pub provider_name: &'static str,
    /// The operator has named the suites: their order holds, whatever a client would rather have.
    pub suites_are_pinned: bool,
    /// Keys, signatures and chain lengths that clients may come with.
    pub key_policy: Arc<KeyPolicy>,
    /// Tickets to resume with; `None`: every connection authenticates in full.
    pub resumption: Option<Resumption>,
    /// Where the administration endpoint listens, if anywhere.
    pub admin: Option<AdminAddress>,
    /// Where audit lines go, if anywhere.
    pub audit: Option<AuditTarget>,
    /// How many of the requests that went well have a line there.
    pub request_sample: RequestSample,
    /// The kernel guard.
    pub guard: GuardSettings,
    /// How long connections may take to finish after SIGTERM.
    pub drain_timeout: Duration,
    /// Closes that are not urgent are spread over this time.
    pub close_spread: Duration,
    /// Listeners in the order of the file, at least one; behind them that of `[admin.tls]`.
    pub listeners: Vec<Arc<Listener>>,
    /// Backends in the order of the file.
    pub backends: Vec<Arc<Backend>>,
    /// Identity rules in the order of the file. Without rules no client gets in.
    pub rules: Arc<Rules>,
    /// Another configuration, for a dry run on the clients of the listeners of the same names (`observe`).
    pub dry_run: Option<Arc<Config>>,
    /// Certificates of ours and CAs, for expiry metrics and `check`.
    pub certificates: Vec<CertificateFile>,
    /// Every file this configuration was read from, as it was then; its own file first.
    pub files: Vec<FileSnapshot>,
    /// The first time at which a certificate, CA or list of it begins, or a CA ends: from then on it reads differently.
    pub again_at: Option<SystemTime>,
}

impl Config {
    /// The revocation lists of each listener and backend.
    pub fn list_files(&self) -> Vec<ListFiles> {
        let listeners = self.listeners.iter().map(|listener| &listener.revoking);
        let backends = self
            .backends
            .iter()
            .filter_map(|backend| match &backend.transport {
                BackendTransport::Tls(tls) => Some(&tls.revoking),
                BackendTransport::LoopbackPlaintext | BackendTransport::DangerousPlaintext => None,
            });
        let all = listeners.chain(backends);
        all.map(|revoking| revoking.lists.clone()).collect()
    }

    /// The rules that say which clients get in at a listener.
    pub fn rules_of<'c>(&'c self, listener: &'c Listener) -> &'c Arc<Rules> {
        match &listener.destination {
            Destination::Backend(_) | Destination::Streams(_) | Destination::Routes(_) => {
                &self.rules
            }
            Destination::Metrics(rules) => rules,
        }
    }

    /// All revocation lists in force, with their issuers.
    pub fn lists(&self) -> impl Iterator<Item = (&AuthorityId, &IssuerList)> + Clone {
        let listeners = self.listeners.iter().map(|listener| &listener.revocation);
        let backends = self
            .backends
            .iter()
            .filter_map(|backend| match &backend.transport {
                BackendTransport::Tls(tls) => Some(&tls.revocation),
                BackendTransport::LoopbackPlaintext | BackendTransport::DangerousPlaintext => None,
            });
        let all: Vec<_> = listeners
            .chain(backends)
            .flat_map(|all| all.lists())
            .collect();
        all.into_iter()
    }

    /// The same with its revocation lists, and those that `named` adds to its listeners and backends, read once more; `None`
    /// where they say nothing new. What cannot be read is noted in `unread`.
    pub fn with_lists_reread(
        &self,
        named: &[ListFiles],
        now: SystemTime,
        unread: &mut Unread,
    ) -> Option<Config> {
        let lists = self.lists().map(|(issuer, list)| (*issuer, list.clone()));
        let anywhere: Vec<_> = lists.collect();
        let mut read = |revoking: &Revoking, here: &Revocation| {
            let mut places = named.iter();
            let more = places.find(|other| other.location == revoking.lists.location);
            let more = more.map_or(&[][..], |more| &more.files);
            let in_force = InForce {
                here,
                anywhere: &anywhere,
            };
            revoking.reread(in_force, more, (&self.provider, now), unread)
        };
        let mut config = self.clone();
        let mut is_new = false;
        for listener in &mut config.listeners {
            if let Some(reread) = read(&listener.revoking, &listener.revocation) {
                let listener = Arc::make_mut(listener);
                listener.client_roots = Arc::new(reread.authorities.into_roots());
                listener.revocation = Arc::new(reread.revocation);
                is_new = true;
            }
        }
        for backend in &mut config.backends {
            let BackendTransport::Tls(tls) = &backend.transport else {
                continue;
            };
            if let Some(reread) = read(&tls.revoking, &tls.revocation) {
                let tls = BackendTls {
                    roots: Arc::new(reread.authorities.into_roots()),
                    revocation: Arc::new(reread.revocation),
                    ..tls.clone()
                };
                Arc::make_mut(backend).transport = BackendTransport::Tls(tls);
                is_new = true;
            }
        }
        is_new.then_some(config)
    }

    /// The same with newer lists at the listeners and backends that name older ones alone.
    pub(super) fn with_newer_lists(self, newer: &[ListFiles], now: SystemTime) -> Config {
        if newer.is_empty() {
            return self;
        }
        // All of these files have just been read: what one of them says now that cannot be used is seen when it is watched.
        let with_newer = self.with_lists_reread(newer, now, &mut Unread::default());
        with_newer.unwrap_or(self)
    }

    /// The same, with the trust of `other`: its rules, its key policy, and the CAs and lists of its listeners and backends of
    /// the same names. Those that it does not have trust the same peers as before, as far as its rules admit them.
    pub fn trusting_as(&self, other: &Config) -> Config {
        let mut config = self.clone();
        let at = |listener: &Arc<Listener>| {
            let mut ours = self.listeners.iter();
            ours.position(|our| our.name == listener.name)
        };
        let positions: Vec<_> = other.listeners.iter().map(at).collect();
        let are_ours = (0..self.listeners.len())
            .map(Some)
            .eq(positions.iter().copied());
        config.rules = match are_ours {
            true => Arc::clone(&other.rules),
            false => Arc::new(other.rules.on_listeners_at(&positions)),
        };
        config.key_policy = Arc::clone(&other.key_policy);
        for listener in &mut config.listeners {
            let mut theirs = other.listeners.iter();
            if let Some(theirs) = theirs.find(|theirs| theirs.name == listener.name) {
                let listener = Arc::make_mut(listener);
                listener.client_roots = Arc::clone(&theirs.client_roots);
                listener.client_scopes = Arc::clone(&theirs.client_scopes);
                listener.revocation = Arc::clone(&theirs.revocation);
                listener.revoking = Arc::clone(&theirs.revoking);
            }
        }
        for (position, listener) in config.listeners.iter_mut().enumerate() {
            let Mode::Http(mode) = &listener.mode else {
                continue;
            };
            let mode = mode.with_rules(position, &config.rules);
            Arc::make_mut(listener).mode = Mode::Http(Arc::new(mode));
        }
        for backend in &mut config.backends {
            let mut theirs = other.backends.iter();
            let theirs = theirs.find(|theirs| theirs.name == backend.name);
            if let (BackendTransport::Tls(ours), Some(BackendTransport::Tls(theirs))) =
                (&backend.transport, theirs.map(|theirs| &theirs.transport))
            {
                let tls = BackendTls {
                    roots: Arc::clone(&theirs.roots),
                    revocation: Arc::clone(&theirs.revocation),
                    revoking: Arc::clone(&theirs.revoking),
                    ..ours.clone()
                };
                Arc::make_mut(backend).transport = BackendTransport::Tls(tls);
            }
        }
        config
    }

    /// Whether a file of it has changed, or it is made of other files.
    pub fn differs_from(&self, other: &Config) -> bool {
        self.files.len() != other.files.len()
            || self
                .files
                .iter()
                .zip(&other.files)
                .any(|(one, two)| one.path() != two.path() || one.differs_from(two))
    }
}

/// The name that tells a gateway from others on the host, and the folders that follow from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The name.
    pub name: Arc<str>,
    /// Folder of what outlives the process and the host: the block list, notes on bans.
    pub state: PathBuf,
    /// Folder of what lives as long as the process: sockets and the lock.
    pub run: PathBuf,
}

impl Paths {
    /// The file name of the control socket.
    pub const CONTROL_SOCKET: &str = "control.sock";
    /// The file name that this process's control socket is bound by, before it is put in its place. Shorter than the name that it
    /// gets: there is a bound on a socket's path.
    pub fn new_socket() -> String {
        format!("{}.sock", std::process::id())
    }

    /// Whether a file name is one that a process's control socket is bound by.
    pub fn is_new_socket(name: &OsStr) -> bool {
        let stem = name.to_str().and_then(|name| name.strip_suffix(".sock"));
        stem.is_some_and(|stem| stem.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// A new file name for the socket by which the other processes of the gateway reach this one. No longer than the control socket's.
    pub fn sibling_socket() -> String {
        // Process ids may be the same in two containers that share the folder.
        let random = RandomState::new().build_hasher().finish() >> 36;
        format!("{random:07x}{}", Self::SIBLING)
    }

    /// Whether a file name is one that a process is reached by.
    pub fn is_sibling_socket(name: &OsStr) -> bool {
        name.to_str()
            .is_some_and(|name| name.ends_with(Self::SIBLING))
    }

    /// How the names of such sockets end.
    const SIBLING: &str = ".peer";

    /// The list of blocked clients; the file need not exist.
    pub fn block_list(&self) -> PathBuf {
        self.state.join("blocked.json")
    }

    /// Folders of a gateway with the name `edge`, below one of the test's.
    #[cfg(test)]
    pub fn for_test(folder: &std::path::Path) -> Self {
        Paths {
            name: "edge".into(),
            state: folder.join("state/edge"),
            run: folder.join("run/edge"),
        }
    }

    /// Notes on bans that operators made.
    pub fn ban_notes(&self) -> PathBuf {
        self.state.join("bans.json")
    }

    /// The socket that commands speak to.
    pub fn control_socket(&self) -> PathBuf {
        self.run.join(Self::CONTROL_SOCKET)
    }

    /// Held by the process that has the name.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }
}

/// How clients may come back without proving their key again.
#[derive(Debug, Clone)]
pub struct Resumption {
    /// How long after a full handshake.
    pub max_authentication_age: Duration,
    /// Keys from a file that hosts and restarts share; `None`: keys live in memory, and rotate by themselves.
    pub keys: Option<Arc<KeyRing>>,
}

/// Where the administration endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A loopback address.
    Loopback(SocketAddr),
    /// A Unix socket, written `unix:/path`.
    Unix(PathBuf),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddress::Loopback(address) => address.fmt(formatter),
            AdminAddress::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// How many of the requests that went well have a line in the audit log: one in so many. Those that failed have one always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestSample(pub Option<NonZeroU32>);

/// Where audit lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditTarget {
    /// A file, appended to.
    File(PathBuf),
    /// Standard output, written `stdout`.
    StandardOutput,
}

/// One listening address. There is no field that switches client authentication off.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Name, unique; stands in metrics and logs.
    pub name: String,
    /// Address to listen on.
    pub address: SocketAddr,
    /// Application protocols in order of preference (RFC 7301); empty accepts what clients send without choosing.
    pub alpn: Vec<Vec<u8>>,
    /// Our certificates; the first also serves clients that send no server name.
    pub certificates: Vec<ServerCertificate>,
    /// Roots that client certificates must chain to.
    pub client_roots: Arc<Roots>,
    /// What those of `client_roots` may speak for that are bound to a trust domain.
    pub client_scopes: Arc<HashMap<AuthorityKey, Arc<Scope>>>,
    /// What the authorities of `client_roots` have revoked.
    pub revocation: Arc<Revocation>,
    /// How to read `revocation` once more, by itself.
    pub revoking: Arc<Revoking>,
    /// Whether its clients get tickets, where there are any.
    pub resumption: bool,
    /// How its connections are served.
    pub mode: Mode,
    /// What is behind it.
    pub destination: Destination,
    /// How long its connections may take for what.
    pub times: ConnectionTimes,
    /// Connections at once, over all workers.
    pub max_connections: usize,
    /// Handshakes at once, over all workers; more wait in the accept queue.
    pub max_handshakes: usize,
    /// How long before the end of its certificate a connection looks for a quiet moment to end; `None`: it goes on to the end.
    pub expiry_drain: Option<Duration>,
}

impl Listener {
    /// All backends that its clients may reach.
    pub fn backends(&self) -> Vec<BackendId> {
        let positions = match (&self.destination, &self.mode) {
            (Destination::Backend(backend), _) => return vec![*backend],
            (Destination::Streams(routes), _) => routes.backends(),
            (Destination::Routes(_), Mode::Http(mode)) => mode.routes.backends(),
            (Destination::Routes(_), Mode::Stream) | (Destination::Metrics(_), _) => {
                return Vec::new();
            }
        };
        positions.into_iter().map(BackendId).collect()
    }
}

/// How the connections of a listener are served.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Opaque bytes, to one backend connection for each client connection.
    Stream,
    /// Requests of HTTP, each to a backend of its own.
    Http(Arc<HttpMode>),
}

impl Mode {
    /// Whether it serves requests of HTTP.
    pub const fn is_http(&self) -> bool {
        match self {
            Mode::Stream => false,
            Mode::Http(_) => true,
        }
    }
}

/// What is behind a listener.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A backend. The `[[identity]]` rules admit its clients.
    Backend(BackendId),
    /// The backends of these routes of streams. The `[[identity]]` rules admit its clients.
    Streams(Arc<StreamRoutes>),
    /// Those of the routes of its `HttpMode`, and this one for requests that no route matches. The `[[identity]]` rules admit its
    /// clients.
    Routes(Option<BackendId>),
    /// The gateway's own metrics page (`[admin.tls]`). Only these rules admit its clients.
    Metrics(Arc<Rules>),
}

/// How long the connections of a listener may take for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTimes {
    /// How long a client may send nothing at all.
    pub first_byte_timeout: Duration,
    /// Bound on the whole handshake, from its first byte to Finished.
    pub handshake_timeout: Duration,
    /// A connection on which nothing moves for this long in either direction is closed.
    pub idle_timeout: Duration,
    /// A connection that has to go is quiet when nothing has moved for this long after bytes of the client's.
    pub quiet_timeout: Duration,
    /// Age at which a connection is closed, plus or minus a tenth at random.
    pub max_connection_age: Option<Duration>,
    /// How long a connection of that age looks for a quiet moment at most.
    pub max_connection_age_grace: Duration,
}

/// A certificate chain with its key, and the names it answers to.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    /// Chain and signing key; the key was tried against the certificate.
    pub key: Arc<CertifiedKey>,
    /// DNS names of the certificate in lower case, possibly with a leading `*.`.
    pub dns_names: Vec<String>,
}

/// A group of equivalent servers.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Name, unique.
    pub name: String,
    /// Servers in the order of the file; at least one.
    pub servers: Vec<ServerAddress>,
    /// How the hop is protected.
    pub transport: BackendTransport,
    /// Where a PROXY protocol version 2 header is sent, if anywhere.
    pub proxy_protocol: ProxyProtocol,
    /// Bound on one connection attempt, TCP and TLS together.
    pub connect_timeout: Duration,
    /// What it is for HTTP listeners.
    pub http: HttpBackend,
}

/// Where a PROXY protocol header goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Nowhere.
    Off,
    /// First on the connection, in clear: before TLS, where there is TLS.
    Outside,
    /// First inside TLS, once the server has proven its name.
    Inside,
}

/// How the hop to a backend is protected.
#[derive(Debug, Clone)]
pub enum BackendTransport {
    /// Plain text to this host, by its loopback or a Unix socket.
    LoopbackPlaintext,
    /// Plain TCP to another host: `dangerous_plaintext = true`.
    DangerousPlaintext,
    /// mTLS.
    Tls(BackendTls),
}

/// mTLS towards a backend.
#[derive(Debug, Clone)]
pub struct BackendTls {
    /// Roots the server's certificate must chain to.
    pub roots: Arc<Roots>,
    /// What the authorities of `roots` have revoked.
    pub revocation: Arc<Revocation>,
    /// How to read `revocation` once more, by itself.
    pub revoking: Arc<Revoking>,
    /// Our client certificate.
    pub key: Arc<CertifiedKey>,
    /// The name that must stand in the server's certificate.
    pub server_name: ServerName<'static>,
    /// Application protocols offered where a client chose none, or none of these; empty offers what the client chose.
    pub alpn: Vec<Vec<u8>>,
}

/// The kernel guard's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardSettings {
    /// Whether there is one.
    pub mode: GuardMode,
    /// Interfaces to attach to.
    pub interfaces: Vec<String>,
    /// Refuse to start when the programs cannot be attached.
    pub required: bool,
    /// Whether bans, counters and attachments outlive the process: as they do, but for the demo's.
    pub is_lasting: bool,
    /// What counts; its mode is `mode`.
    pub policy: Arc<Policy>,
}

/// What the guard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardMode {
    /// Not loaded.
    Off,
    /// Counts, never drops.
    Monitor,
    /// Drops.
    Enforce,
}

impl GuardMode {
    /// The word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Monitor => "monitor",
            Self::Enforce => "enforce",
        }
    }
}

/// A certificate the configuration uses.
#[derive(Debug, Clone)]
pub struct CertificateFile {
    /// File it was read from.
    pub file: PathBuf,
    /// What it is used for: `listener otlp-grpc certificate`, `backend collector ca` and so on.
    pub usage: String,
    /// Subject, as RFC 4514 text.
    pub subject: String,
    /// When it begins: of a chain, the certificate that ends first.
    pub not_before: SystemTime,
    /// End of its validity: of a chain, that of the certificate that ends first.
    pub not_after: SystemTime,
    /// Of a CA, what it is known by and what comes after it.
    pub authority: Option<FiledAuthority>,
}

/// A CA of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiledAuthority {
    /// Its name and key.
    pub id: AuthorityId,
    /// What comes after it among the CAs of the same use.
    pub succession: Succession,
}
