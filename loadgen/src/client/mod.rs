//! The client's side of a connection: the servers under load, identities, TLS.
//! In: names, files and options, checked once. Out: a `Dialer` for each connection. Before the load, on the main
//! thread.

mod confirm;
mod dialer;
mod identities;
mod stream;
mod tickets;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::credentials::{Identity, provider};
use crate::limits::SOURCES_DEFAULT;
use crate::sources::Sources;
use crate::tally::Flaw;

pub(crate) use confirm::{confirm_by_close, confirm_by_ticket, explain};
pub(crate) use dialer::Dialer;
use dialer::Handshaker;
use identities::IdentityPerHandshake;
pub(crate) use identities::{Cadence, FlawedClient, place};
pub use identities::{Flawed, Rotation};
pub(crate) use stream::Stream;
pub(crate) use tickets::TICKETS_KEPT;
use tickets::TicketStore;

/// The servers under load, and what a client needs to connect to them.
#[derive(Debug, Clone)]
pub struct Target {
    /// Their addresses; the connections take them in turn.
    endpoints: Vec<Endpoint>,
    /// Client identities, used in turn by the connections; none means no client certificate at all.
    identities: Arc<[Identity]>,
    /// Presents another one in each handshake instead.
    per_handshake: Option<Arc<IdentityPerHandshake>>,
    flawed: Vec<Flawed>,
    cadence: Cadence,
    rotation: Option<Rotation>,
    /// Application protocols to offer (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// Bound on each connection attempt, handshake, echo or export.
    pub timeout: Duration,
    /// Whether a TLS connection may end without close_notify.
    pub may_end_abruptly: bool,
    sources: Origin,
    /// None is plain TCP.
    tls: Option<Tls>,
    /// Cipher suite and group of the first handshake.
    negotiated: Arc<OnceLock<String>>,
}

/// One address of the servers under load.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `HOST:PORT` as given, for reports and HTTP authorities.
    pub name: String,
    /// Its address, resolved once.
    pub address: SocketAddr,
}

/// The source addresses of connections.
#[derive(Debug, Clone)]
enum Origin {
    /// As many addresses of 127.0.0.0/8 towards an endpoint there, for enough ports; else the kernel chooses.
    Loopback(u8),
    /// These addresses.
    Given(Sources),
}

#[derive(Debug, Clone)]
struct Tls {
    /// The name of every endpoint; without it, each must have the name that it was given by.
    server_name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

/// Whether tickets are kept and used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tickets {
    Ignored,
    Used,
}

impl Target {
    /// A target by `HOST:PORT`, verified against `roots`, by default under its own host name.
    pub fn new(name: &str, roots: RootCertStore) -> Result<Self> {
        Self::several(&[name.to_owned()], roots)
    }

    /// Several addresses, each as `HOST:PORT`, that serve the same.
    pub fn several(names: &[String], roots: RootCertStore) -> Result<Self> {
        let provider = Arc::new(provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .context("no usable root certificate; give the server's CA with --ca")?;
        let mut target = Self::plaintext(names)?;
        for name in names {
            parse_server_name(host(name))?;
        }
        target.tls = Some(Tls {
            server_name: None,
            provider,
            verifier,
        });
        Ok(target)
    }

    /// Without TLS: the same work over plain TCP, to show what TLS costs.
    pub fn plaintext(names: &[String]) -> Result<Self> {
        ensure!(!names.is_empty(), "no target is given");
        let distinct: HashSet<&String> = names.iter().collect();
        ensure!(
            distinct.len() == names.len(),
            "a target is given twice; their figures could not be told apart"
        );
        let endpoints = names.iter().map(|name| {
            Ok(Endpoint {
                name: name.clone(),
                address: resolve(name)?,
            })
        });
        Ok(Self {
            endpoints: endpoints.collect::<Result<_>>()?,
            identities: Arc::default(),
            per_handshake: None,
            flawed: Vec::new(),
            cadence: Cadence::EachSecond,
            rotation: None,
            alpn: Vec::new(),
            timeout: Duration::from_secs(10),
            may_end_abruptly: false,
            sources: Origin::Loopback(SOURCES_DEFAULT),
            tls: None,
            negotiated: Arc::default(),
        })
    }

    /// Connects to an endpoint on 127.0.0.0/8 from as many addresses; to any other one as before.
    pub fn with_loopback_sources(mut self, number: u8) -> Self {
        self.sources = Origin::Loopback(number);
        self
    }

    /// Connects from these addresses, which must belong to this host and to the family of every endpoint.
    pub fn with_sources(mut self, sources: Sources) -> Result<Self> {
        for endpoint in &self.endpoints {
            sources.ensure_usable(endpoint.address.ip())?;
        }
        self.sources = Origin::Given(sources);
        Ok(self)
    }

    /// Presents these identities in turn.
    pub fn with_identities(mut self, identities: Vec<Identity>) -> Self {
        self.identities = identities.into();
        self
    }

    /// Presents another identity in each handshake, in turn through all of them, so that every client is new to the
    /// server. Only for full handshakes: tickets belong to the identity that they were issued to.
    pub fn with_identity_per_handshake(mut self) -> Self {
        self.per_handshake = Some(IdentityPerHandshake::new(&self.identities));
        self
    }

    /// Makes these shares of the connections present certificates that the server must refuse.
    pub fn with_flawed(mut self, flawed: Vec<Flawed>) -> Self {
        self.flawed = flawed;
        self
    }

    /// Fails unless each share of `connections` is one connection at least.
    pub fn ensure_shares(&self, connections: usize) -> Result<()> {
        let parts = (0..connections).map(|index| {
            self.flawed_client(index)
                .map(|flawed_client| flawed_client.flaw)
        });
        let parts: Vec<Option<Flaw>> = parts.collect();
        for flawed in &self.flawed {
            ensure!(
                parts.contains(&Some(flawed.flaw)),
                "a share of {} of {connections} connections is none; more --connections",
                flawed.share
            );
        }
        ensure!(
            self.flawed.is_empty() || !self.identities.is_empty() || !parts.contains(&None),
            "no identity is left for the clients that the server must accept; more with --issue"
        );
        Ok(())
    }

    /// Replaces the identities in mid-run.
    pub fn with_rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = Some(rotation);
        self
    }

    /// Sets how often a client tries that must be refused.
    pub(crate) fn with_cadence(mut self, cadence: Cadence) -> Self {
        self.cadence = cadence;
        self
    }

    /// Offers these application protocols.
    pub fn with_alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self
    }

    /// Expects this name in the server's certificate and sends it as SNI.
    pub fn with_server_name(mut self, name: &str) -> Result<Self> {
        let name = parse_server_name(name)?;
        if let Some(tls) = &mut self.tls {
            tls.server_name = Some(name);
        }
        Ok(self)
    }

    /// Offers only these cipher suites, by their IANA names.
    pub fn with_cipher_suites(mut self, names: &[String]) -> Result<Self> {
        let Some(tls) = &mut self.tls else {
            return Ok(self);
        };
        let mut narrowed = (*tls.provider).clone();
        narrowed.cipher_suites = names
            .iter()
            .map(|name| {
                let known = &tls.provider.cipher_suites;
                let found = known
                    .iter()
                    .find(|suite| suite_name(suite.suite()) == *name);
                found.copied().with_context(|| {
                    let known: Vec<_> = known
                        .iter()
                        .map(|suite| suite_name(suite.suite()))
                        .collect();
                    format!("cipher suite {name:?}: must be one of {}", known.join(", "))
                })
            })
            .collect::<Result<_>>()?;
        tls.provider = Arc::new(narrowed);
        Ok(self)
    }

    /// Offers only these key exchange groups, by their IANA names. The post-quantum one, which another library
    /// computes, is offered only if named.
    pub fn with_groups(mut self, names: &[String]) -> Result<Self> {
        let Some(tls) = &mut self.tls else {
            return Ok(self);
        };
        let mut narrowed = (*tls.provider).clone();
        let mut known = narrowed.kx_groups.clone();
        known.push(X25519MLKEM768);
        narrowed.kx_groups = names
            .iter()
            .map(|name| {
                let found = known
                    .iter()
                    .find(|group| format!("{:?}", group.name()).eq_ignore_ascii_case(name));
                found.copied().with_context(|| {
                    let known: Vec<_> = known
                        .iter()
                        .map(|group| format!("{:?}", group.name()))
                        .collect();
                    format!("group {name:?}: must be one of {}", known.join(", "))
                })
            })
            .collect::<Result<_>>()?;
        tls.provider = Arc::new(narrowed);
        Ok(self)
    }

    /// The way to the endpoint of connection `index`, with the identity whose turn it is. With `Tickets::Used` each
    /// dialer has a ticket store of its own.
    pub(crate) fn dialer(&self, index: usize, tickets: Tickets) -> Result<Dialer> {
        let endpoint = self.endpoint(index);
        let (mut now, mut later) = (None, None);
        if let Some(tls) = &self.tls {
            now = Some(self.handshaker(tls, index, self.resolver(index), tickets)?);
            if let Some(rotation) = &self.rotation {
                let resolver = in_turn(&rotation.identities, index);
                later = Some(self.handshaker(tls, index, resolver, tickets)?);
            }
        }
        Ok(Dialer {
            address: endpoint.address,
            tls: now,
            later,
            sources: self.sources(endpoint.address.ip()),
            next_source: index as u64,
            timeout: self.timeout,
            may_end_abruptly: self.may_end_abruptly,
            negotiated: Arc::clone(&self.negotiated),
            tally: None,
        })
    }

    /// The certificate that connection `index` presents.
    fn resolver(&self, index: usize) -> Option<Arc<dyn ResolvesClientCert>> {
        if let Some(flawed_client) = self.flawed_client(index) {
            return Some(flawed_client.identity.resolver.clone());
        }
        match &self.per_handshake {
            Some(per_handshake) => Some(per_handshake.clone()),
            None => in_turn(&self.identities, index),
        }
    }

    fn handshaker(
        &self,
        tls: &Tls,
        index: usize,
        resolver: Option<Arc<dyn ResolvesClientCert>>,
        tickets: Tickets,
    ) -> Result<Handshaker> {
        let builder = ClientConfig::builder_with_provider(tls.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3 with the chosen suites and groups")?
            .with_webpki_verifier(tls.verifier.clone());
        let mut config = match resolver {
            Some(resolver) => builder.with_client_cert_resolver(resolver),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        let store = (tickets == Tickets::Used).then(TicketStore::new);
        config.resumption = match &store {
            None => Resumption::disabled(),
            Some(store) => Resumption::store(store.clone()),
        };
        let server_name = match &tls.server_name {
            Some(name) => name.clone(),
            None => parse_server_name(host(&self.endpoint(index).name))?,
        };
        Ok(Handshaker {
            connector: TlsConnector::from(Arc::new(config)),
            server_name,
            tickets: store,
        })
    }

    fn sources(&self, endpoint: IpAddr) -> Option<Sources> {
        match &self.sources {
            Origin::Given(sources) => Some(sources.clone()),
            Origin::Loopback(number) => {
                let is_near = endpoint.is_ipv4() && endpoint.is_loopback();
                (is_near && *number > 1).then(|| Sources::loopback(*number))
            }
        }
    }

    /// The endpoint of connection `index`.
    pub(crate) fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index % self.endpoints.len()]
    }

    /// All addresses, as given.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// All addresses as given, for readers.
    pub(crate) fn name(&self) -> String {
        let names: Vec<&str> = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.name.as_str())
            .collect();
        names.join(", ")
    }

    /// Cipher suite and group of the first handshake, once there was one.
    pub(crate) fn negotiated(&self) -> Option<&str> {
        self.negotiated.get().map(String::as_str)
    }

    /// Whether there is TLS at all.
    pub(crate) fn is_plaintext(&self) -> bool {
        self.tls.is_none()
    }

    /// The place of that address in the list, where there are several.
    pub(crate) fn endpoint_apart(&self, index: usize) -> Option<usize> {
        let count = self.endpoints.len();
        (count > 1).then_some(index % count)
    }

    /// What is wrong with the certificate of connection `index`, if it must be refused.
    pub(crate) fn flawed_client(&self, index: usize) -> Option<FlawedClient<'_>> {
        identities::flawed_client(&self.flawed, index)
    }

    /// The parts of the connections that must be refused.
    pub(crate) fn flawed(&self) -> &[Flawed] {
        &self.flawed
    }

    pub(crate) fn cadence(&self) -> Cadence {
        self.cadence
    }

    /// When the identities are replaced.
    pub(crate) fn rotate_after(&self) -> Option<Duration> {
        self.rotation.as_ref().map(|rotation| rotation.after)
    }

    /// The identity of connection `index`.
    pub(crate) fn identity(&self, index: usize) -> Option<&Identity> {
        match self.identities.len() {
            0 => None,
            count => Some(&self.identities[index % count]),
        }
    }

    /// Whether connection `index` is the first one with its identity.
    pub(crate) fn is_first_of_identity(&self, index: usize) -> bool {
        index < self.identities.len()
    }

    /// How many different identities `connections` present that the server must accept.
    pub(crate) fn identities_shown(&self, connections: usize) -> usize {
        if let Some(per_handshake) = &self.per_handshake {
            return per_handshake.shown();
        }
        let served = (0..connections).filter(|index| self.flawed_client(*index).is_none());
        match self.identities.len() {
            0 => 0,
            count => served
                .map(|index| index % count)
                .collect::<HashSet<_>>()
                .len(),
        }
    }
}

fn in_turn(identities: &[Identity], index: usize) -> Option<Arc<dyn ResolvesClientCert>> {
    let identity = identities.get(index % identities.len().max(1))?;
    Some(identity.resolver.clone())
}

/// The address behind `HOST:PORT`.
pub(crate) fn resolve(name: &str) -> Result<SocketAddr> {
    name.to_socket_addrs()
        .with_context(|| format!("target {name:?}: must be HOST:PORT that can be resolved"))?
        .next()
        .with_context(|| format!("target {name:?}: has no address"))
}

/// The host in `HOST:PORT`.
pub(crate) fn host(name: &str) -> &str {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

pub(crate) fn parse_server_name(name: &str) -> Result<ServerName<'static>> {
    if name.is_empty() {
        bail!("the server name is empty");
    }
    ServerName::try_from(name.to_owned())
        .with_context(|| format!("server name {name:?}: must be a DNS name or an IP address"))
}

/// IANA spells `TLS_AES_128_GCM_SHA256` what rustls spells with a version in it.
pub(super) fn suite_name(suite: rustls::CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}

/// Checks that the descriptor limit allows `connections` with `descriptors_each`, raising the soft limit as needed.
pub(crate) fn ensure_descriptors(connections: usize, descriptors_each: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = connections as u64 * descriptors_each + crate::limits::DESCRIPTORS_RESERVED;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "{connections} connections need {needed} file descriptors, and the limit is {}; see `ulimit -Hn`",
        limit.maximum.unwrap_or(u64::MAX)
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        },
    )
    .context("raising the limit of open files")
}
