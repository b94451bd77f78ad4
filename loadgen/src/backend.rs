//! The plain TCP servers behind the measured proxy: `echo`, `sink`, `source`.
//! In: connections from the proxy. Out: the bytes each kind owes, and counts. On one thread of their own.
//! An idle connection holds no buffer, so that thousands of them cost this process little.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::background::Background;
use crate::pattern;

/// What a backend does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendKind {
    /// Sends back what it gets.
    Echo,
    /// Reads to the end of the stream, then answers with the number of bytes as a decimal line.
    Sink,
    /// Reads a decimal line, sends that many bytes and ends the stream.
    Source,
}

/// Live counts of a backend.
#[derive(Debug, Default)]
pub struct BackendCounts {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Bytes received.
    pub received: AtomicU64,
    /// Bytes sent.
    pub sent: AtomicU64,
    /// Connections that did not end cleanly: reset, or cut off before the request was complete.
    pub broken: AtomicU64,
}

/// A running backend; dropping it ends it with all its connections.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    counts: Arc<BackendCounts>,
    _service: Background,
}

/// Size of a buffer, taken from the pool only while there is something to read.
const BUFFER: usize = 64 * 1024;

/// Accept queue: thousands of connections may arrive at once.
const BACKLOG: i32 = 4096;

impl Backend {
    /// Listens on `address` and serves until dropped.
    pub fn start(kind: BackendKind, address: SocketAddr) -> io::Result<Self> {
        Self::start_slow(kind, Duration::ZERO, address)
    }

    /// The same, with an echo that holds everything back for `delay`: a server whose speed is known beforehand.
    pub fn start_slow(kind: BackendKind, delay: Duration, address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let counts = Arc::new(BackendCounts::default());
        let service_counts = counts.clone();
        let service = Background::spawn("backend", move || async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => serve(listener, kind, delay, service_counts).await,
                Err(error) => eprintln!("backend: the listener cannot be watched: {error}"),
            }
        })?;
        Ok(Self {
            address,
            counts,
            _service: service,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen so far.
    pub fn counts(&self) -> &BackendCounts {
        &self.counts
    }
}

/// A non-blocking listener with a long accept queue.
pub(crate) fn listen(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn serve(
    listener: TcpListener,
    kind: BackendKind,
    delay: Duration,
    counts: Arc<BackendCounts>,
) {
    let pool = Arc::new(Pool::default());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: they come back when connections end.
                eprintln!("backend: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let connection = Connection {
            stream,
            delay,
            counts: counts.clone(),
            pool: pool.clone(),
        };
        tokio::spawn(async move {
            let counts = connection.counts.clone();
            if connection.serve(kind).await.is_err() {
                counts.broken.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Buffers not in use.
#[derive(Default)]
struct Pool {
    free: Mutex<Vec<Box<[u8]>>>,
}

impl Pool {
    fn take(&self) -> Box<[u8]> {
        self.free
            .lock()
            .expect("nothing panics while it holds the pool")
            .pop()
            .unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
    }

    fn give(&self, buffer: Box<[u8]>) {
        self.free
            .lock()
            .expect("nothing panics while it holds the pool")
            .push(buffer);
    }
}

struct Connection {
    stream: TcpStream,
    /// Of an echo.
    delay: Duration,
    counts: Arc<BackendCounts>,
    pool: Arc<Pool>,
}

impl Connection {
    async fn serve(mut self, kind: BackendKind) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        match kind {
            BackendKind::Echo => self.echo().await,
            BackendKind::Sink => self.sink().await,
            BackendKind::Source => self.source().await,
        }
    }

    async fn echo(&mut self) -> io::Result<()> {
        loop {
            let (buffer, count) = self.receive().await?;
            if !self.delay.is_zero() && count > 0 {
                tokio::time::sleep(self.delay).await;
            }
            let sent = self.stream.write_all(&buffer[..count]).await;
            self.pool.give(buffer);
            sent?;
            self.counts.sent.fetch_add(count as u64, Ordering::Relaxed);
            if count == 0 {
                return self.stream.shutdown().await;
            }
        }
    }

    async fn sink(&mut self) -> io::Result<()> {
        let mut total = 0_u64;
        loop {
            let (buffer, count) = self.receive().await?;
            self.pool.give(buffer);
            total += count as u64;
            if count == 0 {
                let answer = format!("{total}\n");
                self.stream.write_all(answer.as_bytes()).await?;
                return self.stream.shutdown().await;
            }
        }
    }

    async fn source(&mut self) -> io::Result<()> {
        let length = self.requested_length().await?;
        let mut offset = 0;
        while offset < length {
            let count = self
                .stream
                .write(pattern::run_at(offset, length - offset))
                .await?;
            offset += count as u64;
            self.counts.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        self.stream.shutdown().await
    }

    async fn requested_length(&mut self) -> io::Result<u64> {
        // The longest u64 has 20 digits.
        let mut line = Vec::with_capacity(24);
        while line.last() != Some(&b'\n') {
            let (buffer, count) = self.receive().await?;
            line.extend_from_slice(&buffer[..count]);
            self.pool.give(buffer);
            if count == 0 || line.len() > 21 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.trim().parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Waits for bytes and only then takes a buffer. Zero bytes are the end of the stream.
    async fn receive(&mut self) -> io::Result<(Box<[u8]>, usize)> {
        loop {
            self.stream.readable().await?;
            let mut buffer = self.pool.take();
            match self.stream.try_read(&mut buffer) {
                Ok(count) => {
                    self.counts
                        .received
                        .fetch_add(count as u64, Ordering::Relaxed);
                    return Ok((buffer, count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.pool.give(buffer),
                Err(error) => return Err(error),
            }
        }
    }
}
