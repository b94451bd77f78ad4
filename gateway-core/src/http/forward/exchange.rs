//! An exchange: a request and its response, as a stream of a client and one of a backend. In: what passes. Out: when it
//! is over. Knows no connection.

use super::ConnectionKey;
use crate::http::answer::Protocol;
use crate::http::h2::StreamId;
use crate::http::message::ContentLeft;

/// Which stream of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerKind {
    Client,
    Backend,
}

impl PeerKind {
    pub(super) const fn other(self) -> Self {
        match self {
            PeerKind::Client => PeerKind::Backend,
            PeerKind::Backend => PeerKind::Client,
        }
    }
}

/// One of its streams.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) connection: ConnectionKey,
    pub(super) stream: StreamId,
    /// Whether its connection does not have it any more, after a reset.
    pub(super) is_gone: bool,
    /// Whether the peer has ended its half.
    pub(super) has_received_end: bool,
    /// Whether we have ended ours.
    pub(super) has_sent_end: bool,
    /// Bytes of the other stream that wait to be sent on this one.
    pub(super) waiting: usize,
    /// The content that its peer is still to send.
    pub(super) content: ContentLeft,
}

impl Leg {
    pub(super) fn new(connection: ConnectionKey, stream: StreamId, content: ContentLeft) -> Self {
        Leg {
            connection,
            stream,
            is_gone: false,
            has_received_end: false,
            has_sent_end: false,
            waiting: 0,
            content,
        }
    }

    fn is_over(&self) -> bool {
        self.is_gone || (self.has_received_end && self.has_sent_end && self.waiting == 0)
    }
}

/// A request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: Leg,
    /// `None` if the gateway answers itself.
    pub(super) backend: Option<Leg>,
    pub(super) protocol: Protocol,
    pub(super) is_head: bool,
    /// Whether the header section of the response has passed.
    pub(super) has_response: bool,
}

impl Exchange {
    pub(super) fn end(&self, side: PeerKind) -> Option<&Leg> {
        match side {
            PeerKind::Client => Some(&self.client),
            PeerKind::Backend => self.backend.as_ref(),
        }
    }

    pub(super) fn end_mut(&mut self, side: PeerKind) -> Option<&mut Leg> {
        match side {
            PeerKind::Client => Some(&mut self.client),
            PeerKind::Backend => self.backend.as_mut(),
        }
    }

    /// Whether nothing passes any more.
    pub(super) fn is_over(&self) -> bool {
        self.client.is_over() && self.backend.as_ref().is_none_or(Leg::is_over)
    }
}
