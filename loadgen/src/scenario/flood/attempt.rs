//! One attempt: a connection from one of the sources, and then whatever its kind does to the server.
//! In: the turn. Out: the `AttemptOutcome`, or why the attempt could not be made.
//! On the load's threads, one at a time for each `Attacker`; bounded by the time-out.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use anyhow::Result;
use rustls::crypto::SecureRandom;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::outcome::{AttemptOutcome, not_made};
use super::peer::{Heard, Peer, Until};
use super::{Flood, FloodKind, Turn};
use crate::credentials::provider;
use crate::failure::Failure;
use crate::limits::{JUNK_BYTES_MAX, SLOW_INTERVAL};

/// What plain HTTP looks like to a server that expects TLS.
const PLAIN_HTTP: &[u8] = b"POST /v1/traces HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n";

/// The type of the record that a TLS client sends first.
const HANDSHAKE_RECORD: u8 = 22;

/// Makes attempts, one after the other.
pub(super) struct Attacker {
    flood: Arc<Flood>,
    hello: Vec<u8>,
    random: &'static dyn SecureRandom,
}

impl Attacker {
    pub(super) fn new(flood: Arc<Flood>) -> Result<Self> {
        Ok(Self {
            hello: flood.disguise.hello()?,
            random: provider().secure_random,
            flood,
        })
    }

    /// Makes one attempt. Gives it up after the time-out, or at `end` once it is connected.
    pub(super) async fn attempt(
        &self,
        turn: Turn,
        end: Instant,
    ) -> Result<AttemptOutcome, Failure> {
        let give_up = Instant::now() + self.flood.timeout;
        let connecting = timeout_at(give_up, self.connect(turn)).await;
        let socket = match connecting {
            Err(_) => return Ok(AttemptOutcome::Unanswered),
            Ok(Err(error)) => return AttemptOutcome::of_connecting(&error),
            Ok(Ok(socket)) => socket,
        };
        let until = if give_up < end {
            Until {
                at: give_up,
                outcome: AttemptOutcome::TimedOut,
            }
        } else {
            Until {
                at: end,
                outcome: AttemptOutcome::OpenAtTheEnd,
            }
        };
        let peer = Peer::new(socket);
        Ok(match turn.kind {
            FloodKind::Syn => unreachable!("SYNs are sent without a connection"),
            FloodKind::Idle => peer.hear_out(until).await,
            FloodKind::Junk => self.junk(peer, turn, until).await?,
            FloodKind::Slow => self.slow(peer, until).await,
            FloodKind::Half => self.half(peer, turn, until).await,
            FloodKind::Badcert => self.badcert(peer, until).await,
        })
    }

    async fn connect(&self, turn: Turn) -> std::io::Result<TcpStream> {
        let socket = match self.flood.target {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(sources) = &self.flood.sources {
            socket.bind(SocketAddr::new(sources.at(turn.place), 0))?;
        }
        socket.set_nodelay(true)?;
        socket.connect(self.flood.target).await
    }

    /// Random bytes and plain HTTP in turn.
    async fn junk(
        &self,
        mut peer: Peer,
        turn: Turn,
        until: Until,
    ) -> Result<AttemptOutcome, Failure> {
        if turn.is_second {
            peer.say(PLAIN_HTTP, until).await;
        } else {
            let bytes = random_bytes(self.random)?;
            peer.say(&bytes, until).await;
        }
        Ok(peer.hear_out(until).await)
    }

    /// A hello that takes minutes.
    async fn slow(&self, mut peer: Peer, until: Until) -> AttemptOutcome {
        for byte in self.hello.chunks(1) {
            if !peer.say(byte, until).await {
                break;
            }
            let next = Instant::now() + SLOW_INTERVAL;
            match peer.hear(next.min(until.at)).await {
                Heard::End(outcome) => return outcome,
                Heard::Silence if next >= until.at => return until.outcome,
                Heard::Silence => {}
                // An answer to half a hello is a last word: the end follows.
                Heard::Bytes => break,
            }
        }
        peer.hear_out(until).await
    }

    /// A hello that costs the server its answer; then a reset and silence in turn.
    async fn half(&self, mut peer: Peer, turn: Turn, until: Until) -> AttemptOutcome {
        peer.say(&self.hello, until).await;
        match peer.hear(until.at).await {
            Heard::End(outcome) => outcome,
            Heard::Silence => until.outcome,
            Heard::Bytes if turn.is_second || peer.has_said_goodbye() => peer.hear_out(until).await,
            Heard::Bytes => peer.leave(),
        }
    }

    /// The whole handshake with a certificate that the server has no reason to trust.
    async fn badcert(&self, peer: Peer, until: Until) -> AttemptOutcome {
        let disguise = &self.flood.disguise;
        let handshake = disguise
            .connector()
            .connect(disguise.server_name(), peer.into_socket());
        match timeout_at(until.at, handshake).await {
            Err(_) => until.outcome,
            Ok(Err(error)) => AttemptOutcome::of_tls(&error),
            // Under TLS 1.3 this means only that we are content with the server.
            Ok(Ok(mut stream)) => timeout_at(until.at, judgement(&mut stream))
                .await
                .unwrap_or(until.outcome),
        }
    }
}

/// Some bytes that do not begin like TLS.
fn random_bytes(random: &dyn SecureRandom) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; JUNK_BYTES_MAX];
    random
        .fill(&mut bytes)
        .map_err(|_| not_made(&std::io::Error::other("no random bytes")))?;
    // One in 256 would, and the counts could not be compared with the server's.
    if bytes[0] == HANDSHAKE_RECORD {
        bytes[0] = !HANDSHAKE_RECORD;
    }
    bytes.truncate(1 + usize::from(bytes[1]) * JUNK_BYTES_MAX / 256);
    Ok(bytes)
}

/// Waits for the verdict on our certificate. Only an accepted client gets a ticket or data.
async fn judgement(stream: &mut TlsStream<TcpStream>) -> AttemptOutcome {
    poll_fn(|context| {
        let mut scratch = [0; 256];
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
        if stream.get_ref().1.tls13_tickets_received() > 0 || !buffer.filled().is_empty() {
            return Poll::Ready(AttemptOutcome::LetIn);
        }
        match read {
            Poll::Ready(Ok(())) => Poll::Ready(AttemptOutcome::Closed),
            Poll::Ready(Err(error)) => Poll::Ready(AttemptOutcome::of_tls(&error)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_of_many_lengths_and_never_begins_like_tls() {
        let random = provider().secure_random;
        let junk: Vec<Vec<u8>> = (0..5000).map(|_| random_bytes(random).unwrap()).collect();
        assert!(junk.iter().all(|bytes| bytes[0] != HANDSHAKE_RECORD));
        let lengths: std::collections::BTreeSet<usize> = junk.iter().map(Vec::len).collect();
        assert!(lengths.len() > 100, "{lengths:?}");
        assert!(*lengths.last().unwrap() <= JUNK_BYTES_MAX);
    }
}
