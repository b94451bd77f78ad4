//! The two kinds of stream a relay joins: TLS and, towards backends on this host, plain TCP.
//! In: buffers. Out: buffers. One way to read, write and end both kinds.

use std::rc::Rc;

use gateway_core::delivery::DeliveryState;
use gateway_core::limits;
use gateway_rt::{Buffer, BufferPool, Presence, Socket};

use super::lifetime::Writing;
use crate::tls::{Received, StreamError, TlsStream, sealable};

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

    fn receive(&self) -> Result<Option<Received>, StreamError> {
        // Records can be made of it where it lies.
        let mut buffer = sealable(&self.pool);
        let received = self.socket.read_now(&mut buffer);
        if matches!(received, Ok(Some(1..))) {
            return Ok(Some(Received::Bytes(buffer)));
        }
        self.pool.give(buffer);
        Ok(received?.map(|_| Received::End))
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
    /// Whether its end can be told from one that was brought about on the way.
    pub fn is_authentic(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Waits until a read would find something. Holds no buffer.
    pub async fn readable(&self) -> Result<(), StreamError> {
        match self {
            Stream::Tls(stream) if stream.is_waiting() => Ok(()),
            Stream::Tls(_) | Stream::Plain(_) => Ok(self.socket().readable().await?),
        }
    }

    /// What has arrived; `None` when nothing whole has. To be called when the stream is readable. A TLS stream is read for
    /// `bytes_max` at most.
    pub fn receive(&self, bytes_max: usize) -> Result<Option<Received>, StreamError> {
        match self {
            Stream::Tls(stream) => stream.receive(bytes_max),
            Stream::Plain(stream) => stream.receive(),
        }
    }

    /// What the peer has cost since this was asked last, in bytes of data. Only TLS counts it.
    pub fn take_cost(&self) -> u64 {
        match self {
            Stream::Tls(stream) => stream.take_cost(),
            Stream::Plain(_) => 0,
        }
    }

    /// What is known of a peer, without reading and without taking an error away. Where we have finished, a peer that has
    /// finished too is not gone: what it sent last may still be on its way to the other side.
    pub fn standing(&self, have_finished: bool) -> DeliveryState {
        if self.is_gone(have_finished) {
            return DeliveryState::Gone;
        }
        self.delivery()
    }

    /// What is known of the bytes that were sent to a peer. A broken connection is noticed elsewhere.
    pub fn delivery(&self) -> DeliveryState {
        let delivery = self.socket().delivery();
        delivery.map_or(DeliveryState::Delivered, |delivery| {
            delivery.state(limits::PEER_SILENCE_MAX)
        })
    }

    /// Whether the connection below has broken, as far as is known without reading. A write may have taken its error.
    pub fn is_gone(&self, have_finished: bool) -> bool {
        match have_finished {
            true => self.socket().holds_error(),
            false => self.socket().presence() == Presence::Gone,
        }
    }

    /// Sends all of `bytes`. A reader that is slow makes progress all the same.
    pub async fn write(
        &self,
        bytes: &mut Buffer,
        writing: &Writing<'_>,
    ) -> Result<(), StreamError> {
        if let Stream::Tls(stream) = self {
            stream.seal(bytes)?;
        }
        while !bytes.is_empty() {
            self.socket().write(bytes).await?;
            writing.progress();
        }
        Ok(())
    }

    /// Takes a buffer back into the worker's pool.
    pub fn give_back(&self, buffer: Buffer) {
        match self {
            Stream::Tls(stream) => stream.give_back(buffer),
            Stream::Plain(stream) => stream.pool.give(buffer),
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

    /// Gives the peer a moment to read what it was sent, while what it still sends is thrown away: bytes that are left unread
    /// would make a reset of the close. The caller bounds the time.
    pub async fn linger(&self) -> Result<(), StreamError> {
        match self {
            Stream::Tls(stream) => stream.linger().await,
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
