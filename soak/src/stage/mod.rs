//! The stage of a run: a gateway in namespaces of its own, its files, its CAs, servers behind it, a resolver, a clock.
//! In: changes by the director. Out: files, signals, commands. On the director's thread.

mod files;
mod gateway;
mod topology;

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tests::{Answering, Authority, Clock, Credentials, Process, Request, Resolver};

use crate::agents::{Agent, Card, Grounds, Intruder, Trick};
use crate::journal::{Disturbance, Fact, Forbidden, Journal, Milliseconds, Why};
use crate::line::{SERVER_NAME, Shown, serial, settings};
use crate::random::Random;
use crate::servers::Server;

pub use files::Of;
pub use topology::{AGENTS_INTERFACE, Topology};

/// How long the gateway may take to act by a publication. It promises a second; the rest is for a machine that builds
/// at the same time.
pub const ACTS_WITHIN: Milliseconds = 5000;
/// The same where the gateway spreads closes (`close_spread`).
pub const SPREADS_WITHIN: Milliseconds = ACTS_WITHIN + 2000;

/// Groups of agents, by what happens to them, and how many there are. A group's name is its tenant.
const GROUPS: [(&str, u32); 5] = [
    // Nothing, ever.
    ("steady", 5),
    // Their certificates are revoked, blocked, end, and are renewed.
    ("mortal", 4),
    // Their CA, or its list, ends.
    ("season", 2),
    // Their rule goes away.
    ("guest", 2),
    // Their certificates end when the clock is set.
    ("short", 1),
];

/// Certificates of `short` are valid for this many seconds longer than the run.
pub const SHORT_SECONDS: i64 = 7200;

/// An agent as the director sees it.
pub struct Member {
    /// Its group.
    pub group: &'static str,
    /// Its SPIFFE ID.
    pub identity: String,
    /// Its certificate and key.
    pub credentials: Credentials,
    /// Whether a deed acts on it at the moment.
    pub is_busy: bool,
    source: Ipv4Addr,
    card: Arc<Mutex<Card>>,
}

/// A CA and its list.
pub struct Issuer {
    /// The CA.
    pub authority: Authority,
    /// Certificates that its list names.
    pub revoked: Vec<PathBuf>,
    /// Number of its last list.
    pub number: u64,
}

/// All of it.
pub struct Stage {
    /// The journal of all facts.
    pub journal: Journal,
    /// What the director draws from.
    pub random: Random,
    /// The gateway's clock.
    pub clock: Clock,
    /// What the gateway asks for names.
    pub resolver: Resolver,
    /// Servers in clear, then the one over TLS.
    pub servers: Vec<Server>,
    /// The agents.
    pub members: Vec<Member>,
    /// Signs the agents' certificates.
    pub agents: Issuer,
    /// Signs those of `season`.
    pub season: Issuer,
    /// The network.
    pub topology: Topology,
    /// Signs those of the gateway and of the servers.
    pub gateways: Issuer,
    /// The certificate of the last server.
    pub server_certificate: PathBuf,
    folder: PathBuf,
    program: PathBuf,
    /// Processes of the gateway's, the newest last.
    processes: Vec<Process>,
    started: u32,
    was_alone: bool,
    issued: u32,
}

impl Stage {
    /// Makes everything but the gateway.
    ///
    /// # Errors
    ///
    /// When namespaces cannot be made, which takes root, or files cannot be written.
    pub fn set(folder: &Path, program: &Path, journal: &Journal, seed: u64) -> Result<Stage> {
        let topology = Topology::make()?;
        let gateways = Issuer::of(Authority::create(
            folder,
            "gateways",
            "Gateways of the soak",
        ));
        let authority = Authority::create(folder, "agents", "Agents of the soak");
        let agents = Issuer::of(authority);
        let season = Issuer::of(Authority::create(folder, "season-0", "Season 0"));
        let (servers, resolver) = topology.gateway_host.enter(|| {
            let servers = start_servers(&gateways.authority, journal);
            let host = tests::Host::take();
            (servers, Resolver::start(&host, folder, known()))
        });
        topology.use_resolver(&folder.join("resolv.conf"))?;
        let (servers, server_certificate) = servers?;
        let mut stage = Stage {
            journal: journal.clone(),
            random: Random::part(seed, 0),
            clock: Clock::make(folder),
            resolver,
            servers,
            members: Vec::new(),
            agents,
            season,
            topology,
            gateways,
            server_certificate,
            folder: folder.to_owned(),
            program: program.to_owned(),
            processes: Vec::new(),
            started: 0,
            was_alone: true,
            issued: 0,
        };
        stage.write_all_files()?;
        stage.invite()?;
        Ok(stage)
    }

    /// Issues a certificate for each agent.
    fn invite(&mut self) -> Result<()> {
        let mut source = 10;
        for (group, count) in GROUPS {
            for number in 1..=count {
                source += 1;
                let identity = format!("spiffe://soak.test/{group}/{number}");
                let credentials = self.issue(group, &identity, None);
                let card = self.card(&identity, &credentials)?;
                self.members.push(Member {
                    group,
                    identity,
                    credentials,
                    is_busy: false,
                    source: Ipv4Addr::new(192, 0, 2, source),
                    card: Arc::new(Mutex::new(card)),
                });
            }
        }
        Ok(())
    }

    /// Issues a certificate by the CA of its group, valid for `seconds` if given.
    fn issue(&mut self, group: &str, identity: &str, seconds: Option<i64>) -> Credentials {
        self.issued += 1;
        let mut request = Request::client(identity);
        let seconds = seconds.or((group == "short").then_some(SHORT_SECONDS));
        if let Some(seconds) = seconds {
            request = request.seconds(seconds);
        }
        let issuer = match group {
            "season" => &self.season,
            _ => &self.agents,
        };
        let name = format!("agent-{}", self.issued);
        issuer.authority.issue(&name, request)
    }

    fn card(&self, identity: &str, credentials: &Credentials) -> Result<Card> {
        Ok(Card {
            identity: identity.to_owned(),
            serial: serial(&credentials.certificate)?,
            settings: settings(
                &self.gateways.authority.certificate(),
                Shown::Own(credentials),
            )?,
        })
    }

    /// Gives an agent another certificate, valid for `seconds` if given.
    ///
    /// # Errors
    ///
    /// When files cannot be written.
    pub fn renew(&mut self, member: usize, seconds: Option<i64>) -> Result<()> {
        let (group, identity) = (
            self.members[member].group,
            self.members[member].identity.clone(),
        );
        let credentials = self.issue(group, &identity, seconds);
        let card = self.card(&identity, &credentials)?;
        self.members[member].credentials = credentials;
        *locked(&self.members[member].card) = card;
        Ok(())
    }

    /// Gives the last server another certificate.
    ///
    /// # Errors
    ///
    /// When files cannot be written.
    pub fn renew_server(&mut self) -> Result<()> {
        self.issued += 1;
        let gateways = &self.gateways.authority;
        let own = gateways.issue(&format!("server-{}", self.issued + 2), backend_request());
        let tls = topology::server_settings(gateways, &own)?;
        self.last_server().show(tls);
        self.server_certificate = own.certificate;
        Ok(())
    }

    /// The server whose certificate is revoked now and then.
    pub fn last_server(&self) -> &Server {
        self.servers.last().expect("there are four")
    }

    /// The serial number of an agent's certificate.
    pub fn serial(&self, member: usize) -> String {
        locked(&self.members[member].card).serial.clone()
    }

    /// The agents of a group.
    pub fn group(&self, group: &str) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members
            .filter(|(_, member)| member.group == group)
            .map(|(index, _)| index)
            .collect()
    }

    /// The serial numbers of a group's certificates.
    pub fn serials(&self, group: &str) -> Vec<String> {
        let members = self.group(group).into_iter();
        members.map(|member| self.serial(member)).collect()
    }

    /// An idle agent of `mortal`, busy from now on until its `is_busy` is cleared.
    pub fn take_mortal(&mut self) -> Option<usize> {
        let mut free = self.group("mortal");
        free.retain(|member| !self.members[*member].is_busy);
        if free.is_empty() {
            return None;
        }
        let member = *self.random.choice(&free);
        self.members[member].is_busy = true;
        Some(member)
    }

    /// Records that certificates have lost a right that open connections depend on, too.
    pub fn forbid(&self, serials: Vec<String>, why: Why, within: Milliseconds) {
        self.journal.note(Fact::Forbidden(Forbidden {
            serials,
            why,
            within,
            closes: why != Why::StaleList,
        }));
    }

    /// Writes down that they get it back.
    pub fn allow(&self, serials: Vec<String>, why: Why) {
        self.journal.note(Fact::Allowed { serials, why });
    }

    /// Writes down that something is out of order.
    pub fn disturb(&self, what: Disturbance) {
        self.journal.note(Fact::Disturbed { what });
    }

    /// Writes down that it is in order again.
    pub fn calm(&self, what: Disturbance) {
        self.journal.note(Fact::Calmed { what });
    }

    /// Agents and strangers begin to come, each on a thread of its own.
    ///
    /// # Errors
    ///
    /// When files cannot be read.
    pub fn populate(&mut self, grounds: &Arc<Grounds>, seed: u64) -> Result<()> {
        let tricks = self.tricks()?;
        let members = self.members.iter().zip(1..);
        let agents = members.map(|(member, part)| Agent {
            source: member.source,
            card: Arc::clone(&member.card),
            random: Random::part(seed, part),
        });
        let agents: Vec<Agent> = agents.collect();
        let intruders = (101..104).map(|last| Intruder {
            source: Ipv4Addr::new(192, 0, 2, last),
            tricks: tricks.clone(),
            random: Random::part(seed, last.into()),
        });
        let intruders: Vec<Intruder> = intruders.collect();
        self.topology.agents_host.enter(|| {
            // Threads are born into the namespace of the one that starts them.
            for agent in agents {
                let grounds = Arc::clone(grounds);
                std::thread::spawn(move || agent.live(&grounds));
            }
            for intruder in intruders {
                let grounds = Arc::clone(grounds);
                std::thread::spawn(move || intruder.live(&grounds));
            }
        });
        Ok(())
    }

    fn tricks(&self) -> Result<Vec<Trick>> {
        let foreign = Authority::create(&self.folder, "foreign", "Agents of the soak");
        let name = "spiffe://soak.test/steady/1";
        let stranger = foreign.issue("stranger", Request::client(name));
        let victim = &self.members[0].credentials;
        let roots = self.gateways.authority.certificate();
        let handshake =
            |kind, shown| -> Result<Trick> { Ok(Trick::Handshake(kind, settings(&roots, shown)?)) };
        Ok(vec![
            handshake("no certificate", Shown::Nothing)?,
            handshake("a foreign CA", Shown::Own(&stranger))?,
            handshake("a copied certificate", Shown::Copied(victim))?,
            Trick::Half(settings(&roots, Shown::Nothing)?),
            Trick::Plain,
            Trick::Silence,
        ])
    }
}

impl Issuer {
    /// A CA that has revoked nothing.
    pub fn of(authority: Authority) -> Self {
        Self {
            authority,
            revoked: Vec::new(),
            number: 0,
        }
    }
}

/// What the resolver knows while it is well.
pub fn known() -> Answering {
    let name = "backend.test".to_owned();
    Answering::With(HashMap::from([(name, vec![Ipv4Addr::LOCALHOST])]))
}

/// Where agents find the gateway.
pub fn listeners() -> Vec<SocketAddr> {
    let gateway = Ipv4Addr::new(192, 0, 2, 2);
    files::LISTENERS
        .map(|port| SocketAddr::from((gateway, port)))
        .to_vec()
}

/// Ports of the servers: two in clear, two over TLS.
const SERVER_PORTS: [u16; 4] = [9001, 9002, 9443, 9444];

/// The servers, and the certificate of the last one.
fn start_servers(gateways: &Authority, journal: &Journal) -> Result<(Vec<Server>, PathBuf)> {
    let shown = ["server-1", "server-2"].map(|name| gateways.issue(name, backend_request()));
    let [first, last] = &shown;
    let tls = [None, None, Some(first), Some(last)];
    let mut servers = Vec::new();
    for (port, own) in SERVER_PORTS.into_iter().zip(tls) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tls = own.map(|own| topology::server_settings(gateways, own));
        let server = Server::start(&port.to_string(), address, tls.transpose()?, journal)?;
        servers.push(server);
    }
    Ok((servers, last.certificate.clone()))
}

fn backend_request() -> Request {
    Request::server("backend.test").dns("backend.test")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A certificate for the gateway.
fn server_request() -> Request {
    Request::server(SERVER_NAME).dns(SERVER_NAME)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
