//! A connection of the load, with TLS or, for the baseline, without.
//! In: a socket that stands. Out: bytes, and what only the TLS layer knows of it. On the load's threads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection of the load.
pub(crate) struct Stream {
    transport: Transport,
}

enum Transport {
    Tls(Box<TlsStream<TcpStream>>),
    Plaintext(TcpStream),
}

impl Stream {
    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self {
            transport: Transport::Tls(Box::new(stream)),
        }
    }

    pub(super) fn plaintext(socket: TcpStream) -> Self {
        Self {
            transport: Transport::Plaintext(socket),
        }
    }

    /// Full or resumed; none without TLS.
    pub(crate) fn handshake_kind(&self) -> Option<HandshakeKind> {
        match &self.transport {
            Transport::Tls(stream) => stream.get_ref().1.handshake_kind(),
            Transport::Plaintext(_) => None,
        }
    }

    /// Session tickets that came on this connection.
    pub(crate) fn tickets_received(&self) -> u32 {
        match &self.transport {
            Transport::Tls(stream) => stream.get_ref().1.tls13_tickets_received(),
            Transport::Plaintext(_) => 0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Transport::Plaintext(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Transport::Plaintext(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Transport::Plaintext(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Transport::Plaintext(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}
