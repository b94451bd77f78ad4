//! An established TLS connection: plaintext in, plaintext out.
//! In: buffers of plaintext to send. Out: buffers of received plaintext. On its worker; one reader and one writer at
//! once. Bytes are opened and sealed in the buffer they are read into and written from. Between reads it holds keys and at
//! most the beginning of one record, never an I/O buffer. How records are opened and sealed, `session` knows.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use gateway_core::record::SealError;

use super::session::{ProtocolError, ROOM_BEFORE, ROOM_BEHIND, Session};
use crate::rt::{Buffer, BufferPool, Socket};

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
    Protocol(#[from] ProtocolError),
    /// Our own fault: nothing more can be sealed.
    #[error("TLS: {0}")]
    Seal(#[from] SealError),
    /// Our own fault: rustls has no next key.
    #[error("TLS: {0}")]
    Keys(#[from] rustls::Error),
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

    /// The TCP connection below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Waits until a read would find something.
    pub async fn readable(&self) -> Result<(), StreamError> {
        let is_waiting = {
            let session = self.session.borrow();
            session.is_unread() || session.peer_closed()
        };
        match is_waiting {
            true => Ok(()),
            false => Ok(self.socket.readable().await?),
        }
    }

    /// Received plaintext, at least one byte; `None` after the peer's close_notify.
    ///
    /// Bytes are lost when the future is dropped before it is ready: drop it only together with the connection.
    pub async fn read(&self) -> Result<Option<Buffer>, StreamError> {
        loop {
            if self.session.borrow().peer_closed() {
                return Ok(None);
            }
            let mut buffer = if self.session.borrow().is_unread() {
                let mut buffer = self.pool.take();
                self.session.borrow_mut().restore(&mut buffer);
                buffer
            } else {
                self.receive().await?
            };
            match self.session.borrow_mut().open(&mut buffer) {
                Ok(()) if !buffer.is_empty() => return Ok(Some(buffer)),
                opened => {
                    self.pool.give(buffer);
                    opened?;
                }
            }
        }
    }

    /// What is kept and what has arrived, in one buffer.
    async fn receive(&self) -> Result<Buffer, StreamError> {
        self.socket.readable().await?;
        let mut buffer = self.pool.take();
        self.session.borrow_mut().restore(&mut buffer);
        let (received, buffer) = self.socket.read(buffer).await;
        match received {
            Ok(count) if count > 0 => Ok(buffer),
            ended => {
                self.pool.give(buffer);
                ended?;
                Err(StreamError::Truncated)
            }
        }
    }

    /// Sends all of `plaintext`, sealed where it lies if there is room around it.
    pub async fn write(&self, plaintext: Buffer) -> Result<(), StreamError> {
        let mut buffer = plaintext;
        let first = self.session.borrow_mut().seal(&mut buffer)?;
        if let Some(first) = first {
            self.send(first).await?;
        }
        self.send(buffer).await
    }

    /// Sends close_notify and FIN: nothing more will be written. Reading goes on.
    pub async fn finish(&self) -> Result<(), StreamError> {
        let record = self.session.borrow_mut().close_notify()?;
        self.send(record).await?;
        Ok(self.socket.finish()?)
    }

    /// Sends the alert that a protocol error of the peer calls for, if there is one. Only when no write is under way.
    pub async fn send_alert(&self) -> Result<(), StreamError> {
        let alert = self.session.borrow_mut().alert()?;
        match alert {
            Some(record) => self.send(record).await,
            None => Ok(()),
        }
    }

    async fn send(&self, records: Buffer) -> Result<(), StreamError> {
        let (written, records) = self.socket.write_all(records).await;
        self.pool.give(records);
        Ok(written?)
    }
}
