//! What a client is connected with: a server of its listener's backend, or the gateway's own metrics page.
//! In: a connection that has been made; a client that may read the page. Out: a stream to relay to. On the worker; the page is
//! written by the control thread, at the other end of a pair of sockets.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use gateway_core::close_reason::CloseReason;
use gateway_core::descriptors::Side;
use gateway_rt::Socket;

use super::context::WorkerContext;
use crate::backend::Connection;
use crate::config::BackendId;
use crate::connection::{PlainStream, Stream};

/// What a client has been connected with.
pub(super) enum Opposite {
    /// A server of the listener's backend.
    Server(Connection),
    /// The gateway's own metrics page.
    Page(Stream),
}

impl Opposite {
    /// The stream to relay to, and which server of which backend it leads to, for a client that chose `protocol`.
    pub(super) fn into_stream(
        self,
        backend: Option<BackendId>,
        protocol: Option<Vec<u8>>,
    ) -> (Stream, Option<Behind>) {
        match self {
            Opposite::Server(connection) => {
                let behind = backend.map(|backend| Behind {
                    server: connection.server,
                    backend,
                    protocol,
                });
                (connection.stream, behind)
            }
            Opposite::Page(stream) => (stream, None),
        }
    }
}

/// The server behind a client, for a word about how that ended.
pub(super) struct Behind {
    pub(super) server: SocketAddr,
    pub(super) backend: BackendId,
    pub(super) protocol: Option<Vec<u8>>,
}

impl WorkerContext {
    /// A connection to the metrics page. Both ends count as connections' descriptors do; where none is left for them, the client
    /// comes back later.
    pub(super) fn open_page(&self) -> Result<Stream, CloseReason> {
        let mut descriptors = [Side::Server; 2].map(|side| self.descriptors.try_take(side));
        let [Some(own), Some(others)] = descriptors.each_mut().map(Option::take) else {
            self.descriptors.count_wait(Side::Server);
            return Err(CloseReason::BackendUnreachable);
        };
        let opened = Socket::to_other_thread().and_then(|(socket, other)| {
            let handed = self.scrapes.try_send((other, others));
            handed.map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(socket.holding(own))
        });
        match opened {
            Ok(socket) => {
                let stream = PlainStream::new(socket, Rc::clone(&self.buffers));
                Ok(Stream::Plain(stream))
            }
            Err(error) => {
                tracing::debug!(%error, "cannot reach the metrics page");
                Err(CloseReason::BackendUnreachable)
            }
        }
    }
}

/// How a connection to the page ended, which is hung up on when its time is over: with an answer, or before a request.
pub(super) fn end_of_page(end: CloseReason, sent_bytes: u64) -> CloseReason {
    match (end.is_backends_fault(), sent_bytes) {
        (true, 0) => CloseReason::Idle,
        (true, 1..) => CloseReason::Finished,
        (false, _) => end,
    }
}
