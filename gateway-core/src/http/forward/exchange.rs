//! An exchange: a request and its response, as a stream of a client and one of a backend. In: what passes. Out: when it
//! is over, and what it came to. Knows no connection.

use std::time::Instant;

use super::{ConnectionKey, MirroredRequest};
use crate::http::answer::{Protocol, RequestRefusal};
use crate::http::h2::StreamId;
use crate::http::limits::HELD_CONTENT_BYTES_MAX;
use crate::http::message::{ContentLeft, HeaderList, RequestParts};

/// Whose stream of an exchange.
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

    /// That stream of an exchange.
    pub(super) const fn of(self, key: u32) -> LegKey {
        LegKey { key, kind: self }
    }
}

/// One stream of one exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct LegKey {
    pub(super) key: u32,
    pub(super) kind: PeerKind,
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
    /// Bytes at the front of what is sent for which the other stream has got its credit before: of an earlier attempt.
    pub(super) credited: usize,
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
            credited: 0,
            content,
        }
    }

    /// Of bytes that have left, those for which credit is due.
    pub(super) fn due(&mut self, left: usize) -> usize {
        let before = left.min(self.credited);
        self.credited -= before;
        left - before
    }

    fn is_over(&self) -> bool {
        self.is_gone || (self.has_received_end && self.has_sent_end && self.waiting == 0)
    }
}

/// What is kept of a request, so that it can be sent to another server.
#[derive(Debug)]
pub(super) struct Held {
    /// Its header section, as the client sent it. Kept to the end of the exchange.
    pub(super) list: HeaderList,
    /// What that says, if it is well-formed.
    pub(super) parts: Option<RequestParts>,
    /// The content that has come.
    pub(super) content: Vec<u8>,
    /// Its trailers, if they have come.
    pub(super) trailers: Option<HeaderList>,
    /// Whether nothing of it was dropped.
    pub(super) is_whole: bool,
}

impl Held {
    /// A request of which the header section has come.
    pub(super) fn new(list: HeaderList, content: Vec<u8>) -> Self {
        Held {
            list,
            parts: None,
            content,
            trailers: None,
            is_whole: true,
        }
    }

    /// Whether so much more can be kept.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.is_whole && self.content.len() + bytes <= HELD_CONTENT_BYTES_MAX
    }

    /// Gives the content up: the request cannot be sent again.
    pub(super) fn take_content(&mut self) -> Vec<u8> {
        self.is_whole = false;
        std::mem::take(&mut self.content)
    }
}

/// What an exchange came to.
#[derive(Debug, Default)]
pub(super) struct ExchangeOutcome {
    /// The status of the response; 0: none has begun.
    pub(super) status: u16,
    /// The status of gRPC, if the response has said it.
    pub(super) grpc_status: Option<u16>,
    /// Why the gateway answered, or broke off, itself.
    pub(super) refusal: Option<RequestRefusal>,
    /// When the last backend got it.
    pub(super) sent_at: Option<Instant>,
    pub(super) responded_at: Option<Instant>,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

/// A request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: Leg,
    /// That of its client.
    pub(super) identity: u64,
    /// `None` while it waits for one, and if the gateway answers itself.
    pub(super) backend: Option<Leg>,
    /// The last backend that it was sent to.
    pub(super) last_backend: Option<ConnectionKey>,
    /// Whether its client's input is still being read, and it gets a backend behind that.
    pub(super) is_arriving: bool,
    /// The queue in which it waits for a backend.
    pub(super) queue: Option<usize>,
    pub(super) held: Held,
    /// The copy of it that another backend gets, without its content.
    pub(super) mirror: Option<Box<MirroredRequest>>,
    /// Bytes of the request's content for which the client has got its credit back, as long as all of it is held.
    pub(super) credited: usize,
    pub(super) protocol: Protocol,
    /// How much content the request may have.
    pub(super) content_bytes_max: u64,
    pub(super) is_head: bool,
    /// Whether the response has no content, whatever the backend sends.
    pub(super) has_no_content: bool,
    /// Whether the header section of the response has passed.
    pub(super) has_response: bool,
    /// How often it was sent to a backend.
    pub(super) attempts: u32,
    /// Whether the router was asked for a connection.
    pub(super) was_asked: bool,
    pub(super) began: Instant,
    /// When something of it has passed last.
    pub(super) moved: Instant,
    /// When the client has no use for a response any more.
    pub(super) deadline: Option<Instant>,
    pub(super) outcome: ExchangeOutcome,
}

impl Exchange {
    pub(super) fn leg(&self, kind: PeerKind) -> Option<&Leg> {
        match kind {
            PeerKind::Client => Some(&self.client),
            PeerKind::Backend => self.backend.as_ref(),
        }
    }

    pub(super) fn leg_mut(&mut self, kind: PeerKind) -> Option<&mut Leg> {
        match kind {
            PeerKind::Client => Some(&mut self.client),
            PeerKind::Backend => self.backend.as_mut(),
        }
    }

    /// Bytes of the request's content that are here, and for which the client has no credit yet.
    pub(super) fn uncredited(&self) -> usize {
        match &self.backend {
            Some(leg) => leg.waiting - leg.credited,
            None if self.held.is_whole => self.held.content.len() - self.credited,
            None => 0,
        }
    }

    /// Whether another server may get the request: none has processed it, and all of it is there.
    pub(super) fn can_be_sent_again(&self) -> bool {
        self.held.is_whole
            && !self.has_response
            && !self.client.is_gone
            && !self.client.has_sent_end
    }

    /// Whether all that comes of the request is kept for now.
    pub(super) fn is_kept(&self) -> bool {
        self.is_arriving || self.queue.is_some()
    }

    /// Whether nothing passes any more.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_none()
            && self.client.is_over()
            && self.backend.as_ref().is_none_or(Leg::is_over)
    }
}
