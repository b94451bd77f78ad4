//! Agents that connect, send data and disconnect, and strangers that have no right to connect.
//! In: cards (`Card`) from the director, and a gate that it closes for roll calls. Out: a `Visit` or a `Stranger` for
//! each connection. On threads of their own, in the agents' network namespace.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Socket, Type};

use crate::journal::{Fact, Journal, Outcome, Stranger, Visit};
use crate::line::{Broken, Counts, Line, SERVER_NAME};
use crate::random::Random;

/// Longest wait for a connection: three SYNs.
const CONNECT_PATIENCE: Duration = Duration::from_secs(8);

/// The identity of an agent at the moment.
#[derive(Clone)]
pub struct Card {
    /// Its SPIFFE ID.
    pub identity: String,
    /// Serial number of its certificate.
    pub serial: String,
    /// Its TLS settings.
    pub settings: Arc<ClientConfig>,
}

/// What agents and the director share.
pub struct Grounds {
    /// The journal of all facts.
    pub journal: Journal,
    /// The gateway's listeners, as the agents reach them.
    pub listeners: Vec<SocketAddr>,
    /// Numbers of visits, each given once.
    numbers: AtomicU64,
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Default)]
struct Gate {
    is_closed: bool,
    is_over: bool,
    inside: usize,
}

/// A visit under way, which a roll call waits for.
struct Pass<'a>(&'a Grounds);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.gate().inside -= 1;
        self.0.moved.notify_all();
    }
}

impl Grounds {
    /// With an open gate.
    pub fn new(journal: Journal, listeners: Vec<SocketAddr>) -> Self {
        Self {
            journal,
            listeners,
            numbers: AtomicU64::new(1),
            gate: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the gate is open. None at the end of the run.
    fn enter(&self) -> Option<Pass<'_>> {
        let mut gate = self.gate();
        while gate.is_closed && !gate.is_over {
            let waited = self.moved.wait(gate);
            gate = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if gate.is_over {
            return None;
        }
        gate.inside += 1;
        Some(Pass(self))
    }

    fn is_closing(&self) -> bool {
        let gate = self.gate();
        gate.is_closed || gate.is_over
    }

    /// Closes the gate and waits at most this long until every client has disconnected. Returns whether all have.
    pub fn close(&self, patience: Duration) -> bool {
        let mut gate = self.gate();
        gate.is_closed = true;
        let deadline = Instant::now() + patience;
        while gate.inside > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.moved.wait_timeout(gate, left);
            gate = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Opens the gate again.
    pub fn open(&self) {
        self.gate().is_closed = false;
        self.moved.notify_all();
    }

    /// Ends all clients.
    pub fn end(&self) {
        self.gate().is_over = true;
        self.moved.notify_all();
    }

    /// Sleeps, not beyond the closing of the gate.
    fn rest(&self, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && !self.is_closing() {
            thread::sleep(Duration::from_millis(20).min(time));
        }
    }

    fn connect(&self, source: Ipv4Addr, random: &mut Random) -> std::io::Result<TcpStream> {
        let target = *random.choice(&self.listeners);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&target.into(), CONNECT_PATIENCE)?;
        Ok(socket.into())
    }
}

/// An agent.
pub struct Agent {
    /// Its own address.
    pub source: Ipv4Addr,
    /// What it is, which the director may change.
    pub card: Arc<Mutex<Card>>,
    /// What it draws from.
    pub random: Random,
}

impl Agent {
    /// Connects and disconnects until the end of the run.
    pub fn live(mut self, grounds: &Grounds) {
        loop {
            let Some(pass) = grounds.enter() else { return };
            let card = locked(&self.card).clone();
            self.visit(grounds, &card);
            drop(pass);
            grounds.rest(Duration::from_millis(self.random.between(50, 500)));
        }
    }

    fn visit(&mut self, grounds: &Grounds, card: &Card) {
        let mut visit = Visit {
            number: grounds.numbers.fetch_add(1, Ordering::Relaxed),
            identity: card.identity.clone(),
            serial: card.serial.clone(),
            peer: None,
            began: grounds.journal.now(),
            served: None,
            sent: 0,
            received: 0,
            said_goodbye: false,
            outcome: Outcome::Finished,
            detail: None,
        };
        let ended = self.come(grounds, card, &mut visit);
        let broken = ended.err();
        visit.detail = broken.as_ref().map(|broken| match broken {
            Broken::Dismissed => "FIN".to_owned(),
            Broken::Lost(detail) | Broken::Corrupted(detail) => detail.clone(),
        });
        match broken {
            None => {}
            Some(Broken::Dismissed) if visit.served.is_some() => {
                visit.outcome = Outcome::Dismissed;
            }
            Some(Broken::Dismissed | Broken::Lost(_)) => visit.outcome = Outcome::Lost,
            Some(Broken::Corrupted(_)) => visit.outcome = Outcome::Corrupted,
        }
        grounds.journal.note(Fact::Visit(visit));
    }

    fn come(&mut self, grounds: &Grounds, card: &Card, visit: &mut Visit) -> Result<(), Broken> {
        let socket = grounds.connect(self.source, &mut self.random)?;
        visit.peer = socket.local_addr().ok().map(|peer| peer.to_string());
        let mut line = Line::open(&card.settings, socket, visit.number, &card.identity)?;
        let stayed = self.stay(grounds, &mut line, visit);
        let count = |visit: &mut Visit, counts: Counts| {
            (visit.sent, visit.received) = (counts.sent, counts.received);
        };
        count(visit, line.counts());
        stayed?;
        if self.random.once_in(20) {
            visit.outcome = Outcome::Left;
            line.leave();
            return Ok(());
        }
        visit.said_goodbye = true;
        line.finish().map(drop).map_err(|(_, broken)| broken)
    }

    /// Exchanges: a handful, or for a while.
    fn stay(
        &mut self,
        grounds: &Grounds,
        line: &mut Line,
        visit: &mut Visit,
    ) -> Result<(), Broken> {
        let is_long = self.random.once_in(4);
        let exchanges = match is_long {
            true => self.random.between(10, 60),
            false => self.random.between(1, 4),
        };
        for _ in 0..exchanges {
            match self.random.between(0, 12) {
                0 => line.change_keys()?,
                1 => {
                    let count = self.random.between(1, 200_000) as u32;
                    let stall = Duration::from_millis(self.random.between(0, 1500));
                    line.get(count, stall)?;
                }
                2 => line.put(self.random.between(1, 100_000) as u32)?,
                _ => line.put(self.random.between(1, 2000) as u32)?,
            }
            if line.received > 0 && visit.served.is_none() {
                visit.served = Some(grounds.journal.now());
            }
            if grounds.is_closing() {
                break;
            }
            if is_long {
                grounds.rest(Duration::from_millis(self.random.between(50, 700)));
            }
        }
        Ok(())
    }
}

/// The attempt of a client without any right.
#[derive(Clone)]
pub enum Trick {
    /// A handshake with these settings: without a certificate, with one of a foreign CA, with a copied one.
    Handshake(&'static str, Arc<ClientConfig>),
    /// Half a ClientHello with these settings, and silence.
    Half(Arc<ClientConfig>),
    /// HTTP.
    Plain,
    /// Nothing at all.
    Silence,
}

/// A client without any right.
pub struct Intruder {
    /// Its own address.
    pub source: Ipv4Addr,
    /// What it tries.
    pub tricks: Vec<Trick>,
    /// What it draws from.
    pub random: Random,
}

impl Intruder {
    /// Tries until the end of the run.
    pub fn live(mut self, grounds: &Grounds) {
        loop {
            let Some(pass) = grounds.enter() else { return };
            let number = grounds.numbers.fetch_add(1, Ordering::Relaxed);
            let began = grounds.journal.now();
            let trick = self.random.choice(&self.tricks).clone();
            // A source that is banned, or has no address for the moment, gets no connection.
            if let Ok(socket) = grounds.connect(self.source, &mut self.random) {
                let (kind, was_served) = try_out(&trick, socket, number);
                grounds.journal.note(Fact::Stranger(Stranger {
                    number,
                    kind: kind.to_owned(),
                    began,
                    was_served,
                }));
            }
            drop(pass);
            grounds.rest(Duration::from_millis(self.random.between(300, 1500)));
        }
    }
}

/// Tries a trick. Returns its name, and whether any byte but those of TLS came back.
fn try_out(trick: &Trick, mut socket: TcpStream, number: u64) -> (&'static str, bool) {
    // A socket that takes no time-out has been reset.
    let _ = socket.set_read_timeout(Some(Duration::from_secs(6)));
    let mut bytes = [0; 256];
    match trick {
        Trick::Handshake(kind, settings) => {
            let line = Line::open(settings, socket, number, "spiffe://soak.test/stranger");
            let served = line.and_then(|mut line| line.put(100));
            (kind, served.is_ok())
        }
        Trick::Half(settings) => {
            let name = SERVER_NAME.try_into().expect("it is a DNS name");
            let mut hello = Vec::new();
            if let Ok(mut connection) = ClientConnection::new(Arc::clone(settings), name) {
                let _ = connection.write_tls(&mut hello);
            }
            let _ = socket.write_all(&hello[..hello.len() / 2]);
            let got = socket.read(&mut bytes).unwrap_or(0);
            // A time-out is told by an alert, at most.
            ("half a hello", got > 0 && bytes[0] != 21)
        }
        Trick::Plain => {
            let _ = socket.write_all(b"POST /v1/traces HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
            let got = socket.read(&mut bytes).unwrap_or(0);
            ("HTTP", got > 0 && !bytes.starts_with(b"HTTP/1.1 400"))
        }
        Trick::Silence => {
            let got = socket.read(&mut bytes).unwrap_or(0);
            ("silence", got > 0)
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
