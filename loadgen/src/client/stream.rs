//! A connection of the load, with TLS or, for the baseline, without.
//! In: a connected socket. Out: bytes, and what the TLS layer knows of it. On the load's threads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::tally::{ConnectionKind, SharedTally, record};

/// A connection of the load.
pub(crate) struct Stream {
    transport: Transport,
    /// The peer may end it without close_notify.
    may_end_abruptly: bool,
    /// Set until the first byte has come, where the tally wants its time.
    first_byte: Option<FirstByte>,
}

/// The wait for the first byte from the peer.
struct FirstByte {
    tally: SharedTally,
    /// When we first sent something.
    asked: Option<Instant>,
}

enum Transport {
    Tls(Box<TlsStream<TcpStream>>),
    Plaintext(TcpStream),
}

impl Stream {
    pub(super) fn tls(stream: TlsStream<TcpStream>, may_end_abruptly: bool) -> Self {
        Self {
            transport: Transport::Tls(Box::new(stream)),
            may_end_abruptly,
            first_byte: None,
        }
    }

    pub(super) fn plaintext(socket: TcpStream) -> Self {
        Self {
            transport: Transport::Plaintext(socket),
            may_end_abruptly: true,
            first_byte: None,
        }
    }

    pub(super) fn note_first_byte(&mut self, tally: SharedTally) {
        self.first_byte = Some(FirstByte { tally, asked: None });
    }

    /// Notes that the peer owes an answer from now on. A write notes it too.
    pub(crate) fn note_request(&mut self) {
        if let Some(FirstByte { asked, .. }) = &mut self.first_byte {
            asked.get_or_insert_with(Instant::now);
        }
    }

    /// Notes the first answer.
    pub(crate) fn note_answer(&mut self) {
        let Some(asked) = self.first_byte.as_ref().and_then(|first| first.asked) else {
            return;
        };
        let kind = self.kind();
        if let Some(first) = self.first_byte.take() {
            let mut tally = first.tally.lock().expect("no change to a tally panics");
            record(&mut tally.phases(kind).first_byte, asked.elapsed());
        }
    }

    /// What kind of connection it is.
    pub(crate) fn kind(&self) -> ConnectionKind {
        match self.handshake_kind() {
            None => ConnectionKind::Plaintext,
            Some(HandshakeKind::Resumed) => ConnectionKind::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => {
                ConnectionKind::Full
            }
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
        let mut result = match &mut self.transport {
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Transport::Plaintext(socket) => Pin::new(socket).poll_read(context, buffer),
        };
        if let Poll::Ready(Err(error)) = &result
            && error.kind() == io::ErrorKind::UnexpectedEof
            && self.may_end_abruptly
        {
            result = Poll::Ready(Ok(()));
        }
        // The end of the stream is an answer too: to close_notify.
        if self.first_byte.is_some() && matches!(result, Poll::Ready(Ok(()))) {
            self.note_answer();
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.note_request();
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
        self.note_request();
        match &mut self.transport {
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Transport::Plaintext(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}
