//! Servers behind the gateway, which record what the gateway tells them of each client, and what arrives.
//! In: connections of the gateway's, with a PROXY header first. Out: a `Delivery` for each. On threads of their own, in
//! the gateway's network namespace.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

use crate::journal::{Delivery, Fact, Journal};
use crate::line::{GET, GREETING, PUT, answering, pattern, patterned};

const PAUSE: Duration = Duration::from_millis(20);
/// Connections that wait before the kernel drops further SYNs.
const BACKLOG: i32 = 32;
/// Types of the PROXY header's values of our own: tenant and SPIFFE ID.
const TENANT: u8 = 0xe0;
const SPIFFE_ID: u8 = 0xe1;

/// A server.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The connections that fill the queue while it drops SYNs.
    fillers: Vec<Socket>,
}

struct Shared {
    name: String,
    tls: Mutex<Option<Arc<ServerConfig>>>,
    journal: Journal,
    is_away: AtomicBool,
    /// Raised to reset every connection that is open.
    generation: AtomicU64,
    /// Addresses of connections that are our own.
    own: Mutex<HashSet<SocketAddr>>,
}

impl Server {
    /// Listens, in the network namespace of the thread that calls.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub fn start(
        name: &str,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        journal: &Journal,
    ) -> Result<Server> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            tls: Mutex::new(tls),
            journal: journal.clone(),
            is_away: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            own: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let listener = TcpListener::from(socket);
        thread::spawn(move || accepting.accept(&listener));
        Ok(Server {
            address,
            shared,
            fillers: Vec::new(),
        })
    }

    /// Drops SYNs from now on: the server accepts no connection, and its queue is full. In the server's network
    /// namespace.
    ///
    /// # Errors
    ///
    /// When no socket can be made.
    pub fn go_away(&mut self) -> Result<()> {
        self.shared.is_away.store(true, Ordering::SeqCst);
        for _ in 0..4 * BACKLOG {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let connected =
                socket.connect_timeout(&self.address.into(), Duration::from_millis(100));
            if connected.is_err() {
                return Ok(());
            }
            let own = socket.local_addr()?.as_socket().context("it is of IPv4")?;
            locked(&self.shared.own).insert(own);
            self.fillers.push(socket);
        }
        anyhow::bail!("the queue of {} does not fill", self.shared.name)
    }

    /// Serves again.
    pub fn come_back(&mut self) {
        self.fillers.clear();
        self.shared.is_away.store(false, Ordering::SeqCst);
    }

    /// Presents another certificate from now on.
    pub fn show(&self, tls: Arc<ServerConfig>) {
        *locked(&self.shared.tls) = Some(tls);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Resets every connection that is open.
    pub fn reset_all(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            if self.is_away.load(Ordering::SeqCst) {
                thread::sleep(PAUSE);
                continue;
            }
            match listener.accept() {
                Ok((_, peer)) if locked(&self.own).remove(&peer) => {}
                Ok((stream, _)) => {
                    let shared = Arc::clone(self);
                    thread::spawn(move || shared.serve(stream));
                }
                Err(_) => thread::sleep(PAUSE / 4),
            }
        }
    }

    fn serve(&self, stream: TcpStream) {
        let mut delivery = Delivery {
            server: self.name.clone(),
            number: None,
            claimed: None,
            told: None,
            tenant: None,
            first: None,
            last: None,
            received: 0,
            sent: 0,
            is_intact: true,
            is_finished: false,
        };
        let generation = self.generation.load(Ordering::SeqCst);
        let served = self.prepare(stream).and_then(|stream| {
            let mut exchange = Exchange {
                shared: self,
                stream,
                generation,
                delivery: &mut delivery,
            };
            exchange.run()
        });
        delivery.is_finished = served.is_ok();
        // A probe of the server brings nothing.
        if delivery.told.is_some() || delivery.received > 0 {
            self.journal.note(Fact::Delivery(delivery));
        }
    }

    fn prepare(&self, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PAUSE * 5))?;
        stream.set_nodelay(true)?;
        let tls = locked(&self.tls).clone();
        Ok(match tls {
            None => Box::new(stream),
            Some(settings) => {
                let connection = ServerConnection::new(settings).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, stream))
            }
        })
    }
}

trait Stream: Read + Write {
    /// Ends by RST.
    fn reset(&self);
    /// Ends its direction: by close_notify over TLS, by FIN without it.
    fn say_goodbye(&mut self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn reset(&self) {
        // Refused where the peer has reset it already, which is as good.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn say_goodbye(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for StreamOwned<ServerConnection, TcpStream> {
    fn reset(&self) {
        self.sock.reset();
    }

    fn say_goodbye(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }
}

struct Exchange<'a> {
    shared: &'a Shared,
    stream: Box<dyn Stream>,
    generation: u64,
    delivery: &'a mut Delivery,
}

impl Exchange<'_> {
    /// Until the client ends its direction.
    fn run(&mut self) -> io::Result<()> {
        self.header()?;
        let mut greeting = [0; 13];
        if !self.read(&mut greeting)? {
            return Ok(());
        }
        if &greeting[..4] != GREETING {
            self.delivery.is_intact = false;
            return Err(io::Error::other("no greeting"));
        }
        let number = u64::from_be_bytes(greeting[4..12].try_into().expect("eight bytes"));
        self.delivery.number = Some(number);
        let mut identity = vec![0; greeting[12].into()];
        self.read_all(&mut identity)?;
        self.delivery.claimed = Some(String::from_utf8_lossy(&identity).into_owned());
        let (mut put, mut got) = (0, 0);
        loop {
            let mut head = [0; 5];
            if !self.read(&mut head)? {
                return self.stream.say_goodbye();
            }
            let count = u32::from_be_bytes(head[1..].try_into().expect("four bytes"));
            match head[0] {
                PUT => {
                    self.take(number, put, count.into())?;
                    put += u64::from(count);
                    self.write(&put.to_be_bytes())?;
                }
                GET => {
                    let bytes = patterned(answering(number), got, count.into());
                    got += u64::from(count);
                    self.write(&bytes)?;
                }
                _ => {
                    self.delivery.is_intact = false;
                    return Err(io::Error::other("no frame"));
                }
            }
        }
    }

    /// The PROXY header, version 2.
    fn header(&mut self) -> io::Result<()> {
        let mut head = [0; 16];
        self.read_all(&mut head)?;
        if &head[..12] != b"\r\n\r\n\0\r\nQUIT\n" {
            self.delivery.is_intact = false;
            return Err(io::Error::other("no PROXY header"));
        }
        let mut body = vec![0; u16::from_be_bytes([head[14], head[15]]).into()];
        self.read_all(&mut body)?;
        // What was read so far is the gateway's own.
        self.delivery.received = 0;
        (self.delivery.first, self.delivery.last) = (None, None);
        let mut values = body.get(12..).unwrap_or_default();
        self.delivery.told = Some(String::new());
        while let [kind, high, low, rest @ ..] = values {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
            let (value, after) = rest.split_at(length);
            let text = || Some(String::from_utf8_lossy(value).into_owned());
            match *kind {
                TENANT => self.delivery.tenant = text(),
                SPIFFE_ID => self.delivery.told = text(),
                _ => {}
            }
            values = after;
        }
        Ok(())
    }

    fn take(&mut self, number: u64, from: u64, count: u64) -> io::Result<()> {
        let mut bytes = vec![0; count as usize];
        self.read_all(&mut bytes)?;
        let mut offsets = from..;
        let is_intact = bytes
            .iter()
            .zip(&mut offsets)
            .all(|(byte, offset)| *byte == pattern(number, offset));
        self.delivery.is_intact &= is_intact;
        Ok(())
    }

    fn read_all(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match self.read(bytes)? {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Fills `bytes`; `false` if the client ended its direction before the first of them.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            if self.shared.generation.load(Ordering::SeqCst) != self.generation {
                self.stream.reset();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    filled += count;
                    self.delivery.received += count as u64;
                    let now = self.shared.journal.now();
                    self.delivery.first.get_or_insert(now);
                    self.delivery.last = Some(now);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()?;
        self.delivery.sent += bytes.len() as u64;
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
