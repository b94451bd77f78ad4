//! The two kinds of stream a relay joins: TLS and, towards backends on this host, plain TCP.
//! In: buffers. Out: buffers. One way to read, write and end both kinds.

use std::rc::Rc;

use crate::rt::{Buffer, BufferPool, Socket};
use crate::tls::{StreamError, TlsStream, sealable};

/// Plain TCP, towards a backend.
pub struct PlainStream {
    socket: Socket,
    pool: Rc<BufferPool>,
}

impl PlainStream {
    /// Takes a connected socket.
    pub fn new(socket: Socket, pool: Rc<BufferPool>) -> Self {
        PlainStream { socket, pool }
    }

    async fn read(&self) -> Result<Option<Buffer>, StreamError> {
        self.socket.readable().await?;
        // Records can be made of it where it lies.
        let buffer = sealable(&self.pool);
        let (received, buffer) = self.socket.read(buffer).await;
        match received {
            Ok(count) if count > 0 => Ok(Some(buffer)),
            ended => {
                self.pool.give(buffer);
                Ok(ended.map(|_| None)?)
            }
        }
    }

    async fn write(&self, bytes: Buffer) -> Result<(), StreamError> {
        let (written, buffer) = self.socket.write_all(bytes).await;
        self.pool.give(buffer);
        Ok(written?)
    }
}

/// One side of a relayed connection.
pub enum Stream {
    /// TLS 1.3.
    Tls(TlsStream),
    /// Plain TCP.
    Plain(PlainStream),
}

impl Stream {
    /// Received bytes, at least one; `None` at the clean end. Without a buffer while nothing arrives.
    pub async fn read(&self) -> Result<Option<Buffer>, StreamError> {
        match self {
            Stream::Tls(stream) => stream.read().await,
            Stream::Plain(stream) => stream.read().await,
        }
    }

    /// Waits until a read would find something. Holds no buffer.
    pub async fn readable(&self) -> Result<(), StreamError> {
        match self {
            Stream::Tls(stream) => stream.readable().await,
            Stream::Plain(stream) => Ok(stream.socket.readable().await?),
        }
    }

    /// Whether the connection below has broken, as far as is known without reading.
    pub fn broken(&self) -> Result<(), StreamError> {
        Ok(self.socket().broken()?)
    }

    /// Sends all of `bytes`.
    pub async fn write(&self, bytes: Buffer) -> Result<(), StreamError> {
        match self {
            Stream::Tls(stream) => stream.write(bytes).await,
            Stream::Plain(stream) => stream.write(bytes).await,
        }
    }

    /// Says that nothing more will be written.
    pub async fn finish(&self) -> Result<(), StreamError> {
        match self {
            Stream::Tls(stream) => stream.finish().await,
            Stream::Plain(stream) => Ok(stream.socket.finish()?),
        }
    }

    /// Sends the alert that the peer's protocol error calls for.
    pub async fn send_alert(&self) -> Result<(), StreamError> {
        match self {
            Stream::Tls(stream) => stream.send_alert().await,
            Stream::Plain(_) => Ok(()),
        }
    }

    /// The coming close may deliver what is queued.
    pub fn end_cleanly(&self) {
        self.socket().end_cleanly();
    }

    /// The coming close is a reset.
    pub fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }

    fn socket(&self) -> &Socket {
        match self {
            Stream::Tls(stream) => stream.socket(),
            Stream::Plain(stream) => &stream.socket,
        }
    }
}
