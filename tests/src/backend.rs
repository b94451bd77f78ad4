//! A plain TCP backend that writes down what every connection brought and how it ended.
//! In: connections from the gateway. Out: their bytes, and whether they were finished or reset.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::wait::eventually;

/// How often a connection looks whether it is to be reset or released.
const PAUSE: Duration = Duration::from_millis(10);

/// What the backend does with a connection, apart from recording it.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Reads; finishes when the peer has.
    Sink,
    /// Sends back what comes, as it comes; finishes when the peer has.
    Echo,
    /// Reads to the end, then sends everything back and finishes.
    EchoAfterEnd,
    /// Sends these bytes and finishes at once, then goes on reading.
    Source(Arc<Vec<u8>>),
    /// Reads nothing until it is released, then is a `Sink`.
    Held,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By FIN: to the backend this is a complete stream.
    Finished,
    /// By RST: the backend knows that something is missing.
    Reset,
}

/// What one connection brought.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Everything read.
    pub bytes: Vec<u8>,
    /// How it ended, once it has.
    pub ending: Option<Ending>,
}

/// A listening backend. Stops when dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    connections: Mutex<Vec<Arc<Mutex<Recorded>>>>,
    released: AtomicBool,
    reset: AtomicBool,
    stopped: AtomicBool,
}

impl Backend {
    /// Listens on a free port of 127.0.0.1.
    pub fn start(behaviour: Behaviour) -> Backend {
        Backend::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), behaviour)
    }

    /// Listens on an address of the caller's choice.
    pub fn start_at(address: SocketAddr, behaviour: Behaviour) -> Backend {
        let listener = TcpListener::bind(address).expect("the backend's address is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            behaviour,
            connections: Mutex::default(),
            released: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Backend {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every connection so far, in the order of their arrival.
    pub fn connections(&self) -> Vec<Recorded> {
        let connections = locked(&self.shared.connections);
        connections
            .iter()
            .map(|connection| locked(connection).clone())
            .collect()
    }

    /// Waits until the only connection has ended.
    pub fn only_connection(&self) -> Recorded {
        let connections = eventually("the backend's connection ends", || {
            let connections = self.connections();
            let ended = connections
                .iter()
                .all(|connection| connection.ending.is_some());
            (!connections.is_empty() && ended).then_some(connections)
        });
        assert_eq!(connections.len(), 1, "one connection was expected");
        connections.into_iter().next().expect("there is one")
    }

    /// Bytes received over all connections.
    pub fn received_bytes(&self) -> usize {
        let connections = locked(&self.shared.connections);
        connections
            .iter()
            .map(|connection| locked(connection).bytes.len())
            .sum()
    }

    /// Lets a `Held` backend read.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// Resets every connection, now and in future.
    pub fn reset_all(&self) {
        self.shared.reset.store(true, Ordering::SeqCst);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.reset.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let connection = Arc::new(Mutex::new(Recorded::default()));
            locked(&self.connections).push(Arc::clone(&connection));
            let shared = Arc::clone(self);
            thread::spawn(move || {
                let ending = shared.serve(&stream, &connection);
                locked(&connection).ending = ending;
            });
        }
    }

    /// Serves one connection; `None` when it was the backend that reset it.
    fn serve(&self, stream: &TcpStream, connection: &Mutex<Recorded>) -> Option<Ending> {
        let served = self.exchange(stream, connection);
        match served {
            Ok(ending) => ending,
            Err(_) => Some(Ending::Reset),
        }
    }

    fn exchange(
        &self,
        mut stream: &TcpStream,
        connection: &Mutex<Recorded>,
    ) -> io::Result<Option<Ending>> {
        stream.set_read_timeout(Some(PAUSE))?;
        if let Behaviour::Source(bytes) = &self.behaviour {
            stream.write_all(bytes)?;
            stream.shutdown(Shutdown::Write)?;
        }
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if self.reset.load(Ordering::SeqCst) {
                SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
                return Ok(None);
            }
            if matches!(self.behaviour, Behaviour::Held) && !self.released.load(Ordering::SeqCst) {
                thread::sleep(PAUSE);
                continue;
            }
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let received = &buffer[..count];
                    locked(connection).bytes.extend_from_slice(received);
                    if matches!(self.behaviour, Behaviour::Echo) {
                        stream.write_all(received)?;
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        if matches!(self.behaviour, Behaviour::EchoAfterEnd) {
            let bytes = locked(connection).bytes.clone();
            stream.write_all(&bytes)?;
        }
        Ok(Some(Ending::Finished))
    }
}

/// A thread that panicked with the lock has failed the test already.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
