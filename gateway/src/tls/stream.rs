//! An established TLS connection: plaintext in, plaintext out.
//! In: buffers of plaintext to send. Out: buffers of received plaintext. On its worker; one reader and one writer at
//! once. Between reads it holds keys and at most the beginning of one record, never an I/O buffer. How records
//! are opened and sealed is known to this type alone.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use rustls::pki_types::CertificateDer;

use super::engine::{Engine, Output, Progress};
use crate::limits;
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
    Protocol(#[from] rustls::Error),
}

/// An established TLS connection over TCP.
pub struct TlsStream {
    socket: Socket,
    pool: Rc<BufferPool>,
    session: RefCell<Session>,
}

/// What changes with every read and write; never borrowed across a wait.
struct Session {
    engine: Engine,
    /// Received bytes that are not a whole record yet.
    partial: Buffer,
    /// Plaintext that has not been handed out: what came with the handshake.
    plaintext: Buffer,
    /// Records the engine wants to send with the next write: alerts.
    outgoing: Buffer,
    peer_closed: bool,
}

impl Session {
    fn split(&mut self) -> (&mut Engine, &mut Buffer, Output<'_>) {
        let output = Output {
            plaintext: &mut self.plaintext,
            outgoing: &mut self.outgoing,
            peer_closed: &mut self.peer_closed,
        };
        (&mut self.engine, &mut self.partial, output)
    }

    /// Opens the whole records of `ciphertext` into `plaintext` and keeps the rest.
    fn open(&mut self, ciphertext: &mut Buffer, plaintext: &mut Buffer) -> Result<(), StreamError> {
        let mut output = Output {
            plaintext,
            outgoing: &mut self.outgoing,
            peer_closed: &mut self.peer_closed,
        };
        let opened = self.engine.advance(ciphertext, &mut output);
        if opened.is_err() {
            self.engine.alert(output.outgoing);
        }
        established(opened?)?;
        // What is left is the beginning of a record. Only a handshake message spread over many records leaves more,
        // and after the handshake nobody has a reason to send one.
        if ciphertext.len() > limits::RECORD_BYTES_MAX {
            return Err(
                rustls::Error::from(rustls::InvalidMessage::HandshakePayloadTooLarge).into(),
            );
        }
        self.partial = Buffer::with_capacity(0);
        self.partial.append(ciphertext.filled());
        Ok(())
    }
}

impl TlsStream {
    pub(super) fn new(
        socket: Socket,
        pool: Rc<BufferPool>,
        engine: Engine,
        partial: Buffer,
        plaintext: Buffer,
        peer_closed: bool,
    ) -> Self {
        let outgoing = Buffer::with_capacity(0);
        let mut tight = Buffer::with_capacity(0);
        tight.append(partial.filled());
        let session = Session {
            engine,
            partial: tight,
            plaintext,
            outgoing,
            peer_closed,
        };
        TlsStream {
            socket,
            pool,
            session: RefCell::new(session),
        }
    }

    /// The TCP connection below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Shows the certificates of the peer, its own first; of a client that resumed, those of its full handshake.
    pub fn with_peer_certificates<R>(
        &self,
        show: impl FnOnce(&[CertificateDer<'static>]) -> R,
    ) -> R {
        let session = self.session.borrow();
        show(
            session
                .engine
                .common()
                .peer_certificates()
                .unwrap_or_default(),
        )
    }

    /// Waits until a read would find something.
    pub async fn readable(&self) -> Result<(), StreamError> {
        let is_waiting = {
            let session = self.session.borrow();
            !session.plaintext.is_empty() || session.peer_closed
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
            {
                let mut session = self.session.borrow_mut();
                if !session.plaintext.is_empty() {
                    let waiting = Buffer::with_capacity(0);
                    return Ok(Some(std::mem::replace(&mut session.plaintext, waiting)));
                }
                if session.peer_closed {
                    return Ok(None);
                }
            }
            self.socket.readable().await?;
            let mut ciphertext = self.pool.take();
            ciphertext.append(self.session.borrow().partial.filled());
            let (received, mut ciphertext) = self.socket.read(ciphertext).await;
            let opened = received.map_err(StreamError::from).and_then(|received| {
                let mut plaintext = self.pool.take();
                if received == 0 {
                    return Err(StreamError::Truncated);
                }
                self.session
                    .borrow_mut()
                    .open(&mut ciphertext, &mut plaintext)?;
                Ok(plaintext)
            });
            self.pool.give(ciphertext);
            match opened? {
                plaintext if plaintext.is_empty() => self.pool.give(plaintext),
                plaintext => return Ok(Some(plaintext)),
            }
        }
    }

    /// Sends all of `plaintext`.
    pub async fn write(&self, plaintext: Buffer) -> Result<(), StreamError> {
        let sealed = self
            .prepare(|engine, partial, output| engine.seal(plaintext.filled(), partial, output));
        self.pool.give(plaintext);
        self.send(sealed?).await
    }

    /// Sends close_notify and FIN: nothing more will be written. Reading goes on.
    pub async fn finish(&self) -> Result<(), StreamError> {
        let sealed =
            self.prepare(|engine, partial, output| engine.close_notify(partial, output))?;
        self.send(sealed).await?;
        Ok(self.socket.finish()?)
    }

    /// Sends the alert that a protocol error of the peer calls for, if there is one. Only when no write is under way.
    pub async fn send_alert(&self) -> Result<(), StreamError> {
        let mut alert = Buffer::with_capacity(0);
        std::mem::swap(&mut alert, &mut self.session.borrow_mut().outgoing);
        let (written, _) = self.socket.write_all(alert).await;
        Ok(written?)
    }

    /// Lets the engine put records into a buffer from the pool.
    fn prepare(
        &self,
        fill: impl FnOnce(&mut Engine, &mut Buffer, &mut Output<'_>) -> Result<Progress, rustls::Error>,
    ) -> Result<Buffer, StreamError> {
        let mut session = self.session.borrow_mut();
        let mut records = self.pool.take();
        records.append(session.outgoing.filled());
        session.outgoing.clear();
        let (engine, partial, output) = session.split();
        let mut output = Output {
            outgoing: &mut records,
            ..output
        };
        established(fill(engine, partial, &mut output)?)?;
        Ok(records)
    }

    async fn send(&self, records: Buffer) -> Result<(), StreamError> {
        let (written, records) = self.socket.write_all(records).await;
        self.pool.give(records);
        Ok(written?)
    }
}

fn established(progress: Progress) -> Result<(), StreamError> {
    match progress {
        Progress::Established => Ok(()),
        Progress::Handshaking => Err(rustls::Error::HandshakeNotComplete.into()),
    }
}
