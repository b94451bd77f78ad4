//! An established TLS connection: plaintext in, plaintext out.
//! In: buffers of plaintext to send. Out: buffers of received plaintext. On its worker; one reader and one writer at
//! once. Bytes are opened and sealed in the buffer they are read into and written from. Between reads it holds keys and at
//! most the beginning of one record, never an I/O buffer. How records are opened and sealed, `session` knows.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use gateway_core::limits;
use gateway_core::record::{OpenError, SealError};
use gateway_rt::{Buffer, BufferPool, Socket};

use super::session::{ROOM_BEFORE, ROOM_BEHIND, Session};

/// Why a stream ended other than by close_notify.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer's bytes ended without close_notify: whatever was sent may be incomplete (RFC 8446 section 6.1).
    #[error("ended without close_notify")]
    Truncated,
    /// The peer broke the TLS protocol, or sent a fatal alert.
    #[error("TLS: {0}")]
    Protocol(#[from] OpenError),
    /// Our own fault: nothing more can be sealed.
    #[error("TLS: {0}")]
    Seal(#[from] SealError),
    /// Our own fault: there is no next key.
    #[error("TLS: no next key can be derived")]
    Keys,
}

/// What a read came to.
#[derive(Debug)]
pub enum Received {
    /// Plaintext, at least one byte.
    Bytes(Buffer),
    /// Nothing more comes, and nothing is missing.
    End,
}

/// An established TLS connection over TCP.
pub struct TlsStream {
    socket: Socket,
    pool: Rc<BufferPool>,
    // What changes with every read and write; never borrowed across a wait. Boxed, since streams are moved about.
    session: Box<RefCell<Session>>,
}

/// A buffer for plaintext from elsewhere that a `TlsStream` can seal where it lies.
pub fn sealable(pool: &BufferPool) -> Buffer {
    let mut buffer = pool.take();
    buffer.keep_room(ROOM_BEFORE, ROOM_BEHIND);
    buffer
}

impl TlsStream {
    pub(super) fn new(socket: Socket, pool: Rc<BufferPool>, session: Session) -> Self {
        TlsStream {
            socket,
            pool,
            session: Box::new(RefCell::new(session)),
        }
    }

    /// The worker's buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// The TCP connection below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether a read would find something without waiting, as far as is known without asking the kernel.
    pub fn is_waiting(&self) -> bool {
        let session = self.session.borrow();
        session.is_unread() || session.peer_closed()
    }

    /// What has arrived, opened; `None` when that is not a whole record of data yet. To be called when the socket is readable,
    /// or when something is waiting. Reads no more than `bytes_max`, which has to leave room for a whole record.
    pub fn receive(&self, bytes_max: usize) -> Result<Option<Received>, StreamError> {
        let mut session = self.session.borrow_mut();
        if session.peer_closed() {
            return Ok(Some(Received::End));
        }
        let is_unread = session.is_unread();
        let mut buffer = self.pool.take();
        buffer.keep_room(0, buffer.capacity().saturating_sub(bytes_max));
        session.restore(&mut buffer);
        let opened = match is_unread {
            true => session.open(&mut buffer),
            false => self.read_and_open(&mut session, &mut buffer),
        };
        if opened.is_ok() && !buffer.is_empty() {
            return Ok(Some(Received::Bytes(buffer)));
        }
        self.pool.give(buffer);
        opened?;
        Ok(session.peer_closed().then_some(Received::End))
    }

    /// What the peer has sent since this was asked last, in bytes of data that would have cost us as much: records with all
    /// that is in them, and a good deal more for each change of keys.
    pub fn take_cost(&self) -> u64 {
        self.session.borrow_mut().take_cost()
    }

    fn read_and_open(&self, session: &mut Session, buffer: &mut Buffer) -> Result<(), StreamError> {
        match self.socket.read_now(buffer)? {
            Some(0) => Err(StreamError::Truncated),
            Some(_) | None => session.open(buffer),
        }
    }

    /// Makes records of plaintext, where it lies if there is room around it. They have to be sent next.
    pub fn seal(&self, plaintext: &mut Buffer) -> Result<(), StreamError> {
        self.session.borrow_mut().seal(plaintext)
    }

    /// Takes a buffer back into the worker's pool.
    pub fn give_back(&self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    /// Sends close_notify and FIN: nothing more will be written. Reading goes on.
    pub async fn finish(&self) -> Result<(), StreamError> {
        let mut record = self.session.borrow_mut().close_notify()?;
        self.socket.write_ahead(&mut record).await?;
        Ok(self.socket.finish()?)
    }

    /// Sends FIN and gives the peer a moment to read what it was sent, without a close_notify. The caller bounds the time.
    pub async fn linger(&self) -> Result<(), StreamError> {
        // However much it still sends: what is not read throws away what it has not read yet.
        Ok(linger(&self.socket, usize::MAX).await?)
    }

    /// Sends the alert that the peer's protocol error calls for, if there is one, and gives the peer a moment to read it. Only
    /// when no write is under way; the caller bounds the time.
    pub async fn send_alert(&self) -> Result<(), StreamError> {
        let alert = self.session.borrow_mut().alert()?;
        let Some(mut record) = alert else {
            return Ok(());
        };
        self.socket.write_ahead(&mut record).await?;
        Ok(linger(&self.socket, limits::LINGER_BYTES_MAX).await?)
    }
}

/// Sends FIN and discards what the peer still sends, `most` bytes at most, until it has closed too: closing a socket on
/// which unread bytes wait would throw away the alert before it. The caller bounds the time.
pub(super) async fn linger(socket: &Socket, most: usize) -> io::Result<()> {
    socket.finish()?;
    let mut buffer = Buffer::with_capacity(0);
    let mut discarded = 0;
    while discarded < most {
        socket.readable().await?;
        buffer.clear();
        buffer.reserve(limits::HANDSHAKE_READ_BYTES);
        match socket.read(&mut buffer).await? {
            0 => break,
            count => discarded += count,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use gateway_rt::{AcceptStop, Listener, on_each_driver};

    #[test]
    fn a_client_that_goes_on_sending_still_gets_what_it_was_sent() {
        on_each_driver(async || {
            let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = bound.local_addr().unwrap();
            let listener = Listener::new(bound).unwrap();
            let client = std::thread::spawn(move || {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.write_all(&vec![1; 4 << 20]).unwrap();
                socket.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                socket.read_to_end(&mut answer).map(|_| answer)
            });
            let stop = AcceptStop::new();
            let (socket, _) = listener.accept(stop.handle()).await.unwrap().unwrap();
            socket
                .write_all(&mut Buffer::of(b"an answer"))
                .await
                .unwrap();
            let lingering = linger(&socket, usize::MAX);
            let lingered = monoio::time::timeout(Duration::from_secs(20), lingering).await;
            assert!(lingered.is_ok_and(|lingered| lingered.is_ok()));
            drop(socket);
            assert_eq!(client.join().unwrap().unwrap(), b"an answer");
        });
    }
}
