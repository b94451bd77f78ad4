//! Both kinds of stream that a connection joins: TLS and, towards backends on this host, plain TCP.
//! In: buffers. Out: buffers. One way to read, write and end both kinds. On the connection's worker.

use std::rc::Rc;

use gateway_core::delivery::DeliveryState;
use gateway_core::limits;
use gateway_rt::{Buffer, BufferPool, Presence, Socket};

use super::timer::WriteGuard;
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
        // UsageTable can be made of it where it lies.
        let mut buffer = sealable(&self.pool);
        let received = self.socket.read_now(&mut buffer);
        if matches!(received, Ok(Some(1..))) {
            return Ok(Some(Received::Bytes(buffer)));
        }
        self.pool.give(buffer);
        Ok(received?.map(|_| Received::End))
    }
}

/// One side of a connection.
pub enum Stream {
    /// TLS 1.3.
    Tls(TlsStream),
    /// Plain TCP.
    Plain(PlainStream),
}

impl Stream {
    /// Whether an attacker on the way cannot forge its end.
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

    /// What has arrived; `None` when no whole record has. Call it when the stream is readable. A TLS stream reads `bytes_max` at most.
    pub fn receive(&self, bytes_max: usize) -> Result<Option<Received>, StreamError> {
        match self {
            Stream::Tls(stream) => stream.receive(bytes_max),
            Stream::Plain(stream) => stream.receive(),
        }
    }

    /// What the peer has cost since the last call, in bytes of data. Only TLS counts it.
    pub fn take_cost(&self) -> u64 {
        match self {
            Stream::Tls(stream) => stream.take_cost(),
            Stream::Plain(_) => 0,
        }
    }

    /// The peer's state, without reading and without consuming an error. Where we have finished, a peer that has finished too is not
    /// gone: its last bytes may still be on their way to the other side.
    pub fn peer_state(&self, have_finished: bool) -> DeliveryState {
        if self.is_gone(have_finished) {
            return DeliveryState::Gone;
        }
        self.delivery_state()
    }

    /// Whether the bytes that were sent to the peer have arrived. A broken connection is noticed elsewhere.
    pub fn delivery_state(&self) -> DeliveryState {
        let delivery = self.socket().delivery();
        delivery.map_or(DeliveryState::Delivered, |delivery| {
            delivery.state(limits::PEER_SILENCE_MAX)
        })
    }

    /// Whether the TCP connection has broken, as far as is known without reading. A write may have consumed its error.
    pub fn is_gone(&self, have_finished: bool) -> bool {
        match have_finished {
            true => self.socket().holds_error(),
            false => self.socket().presence() == Presence::Gone,
        }
    }

    /// Sends all of `bytes`, and notes progress for a slow reader.
    pub async fn write(
        &self,
        bytes: &mut Buffer,
        write: &WriteGuard<'_>,
    ) -> Result<(), StreamError> {
        if let Stream::Tls(stream) = self {
            stream.seal(bytes)?;
        }
        while !bytes.is_empty() {
            self.socket().write(bytes).await?;
            write.progress();
        }
        Ok(())
    }

    /// Takes as much of `plaintext` as one buffer holds, and makes of it what is to be written by [`Self::try_write`].
    /// Returns that, and how much it took.
    pub fn prepare(&self, plaintext: &[u8]) -> Result<(Buffer, usize), StreamError> {
        let pool = match self {
            Stream::Tls(stream) => stream.pool(),
            Stream::Plain(stream) => &stream.pool,
        };
        let mut buffer = sealable(pool);
        let taken = plaintext.len().min(buffer.room());
        buffer.append(&plaintext[..taken]);
        if let Stream::Tls(stream) = self {
            stream.seal(&mut buffer)?;
        }
        Ok((buffer, taken))
    }

    /// Writes as much of what was prepared as the peer takes now. Whether that is all.
    pub fn try_write(&self, prepared: &mut Buffer) -> Result<bool, StreamError> {
        Ok(self.socket().try_write(prepared)?)
    }

    /// Returns a buffer to the worker's pool.
    pub fn give_back(&self, buffer: Buffer) {
        match self {
            Stream::Tls(stream) => stream.give_back(buffer),
            Stream::Plain(stream) => stream.pool.give(buffer),
        }
    }

    /// Ends our direction cleanly.
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

    /// Discards what the peer still sends while it reads what it was sent: unread bytes would turn the close into a reset. The caller
    /// bounds the time.
    pub async fn linger(&self) -> Result<(), StreamError> {
        match self {
            Stream::Tls(stream) => stream.linger().await,
            Stream::Plain(_) => Ok(()),
        }
    }

    /// Lets the close deliver what is queued.
    pub fn end_cleanly(&self) {
        self.socket().end_cleanly();
    }

    /// Makes the close a reset.
    pub fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }

    /// The socket of the stream.
    pub fn socket(&self) -> &Socket {
        match self {
            Stream::Tls(stream) => stream.socket(),
            Stream::Plain(stream) => &stream.socket,
        }
    }
}
