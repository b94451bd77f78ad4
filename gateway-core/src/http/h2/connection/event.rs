//! What a connection tells its owner. In: nothing. Out: types. `key` is the number that the owner gave a stream.

use crate::http::h1::Fault;
use crate::http::h2::{ErrorCode, StreamId, Violation};

/// Something that came from the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A client has opened a stream; the header section of its request is in the list. Its owner gives it a key, by
    /// [`Connection::own`](super::Connection::own), or resets it.
    Request {
        /// The stream.
        stream: StreamId,
        /// Whether the request has neither content nor trailers.
        end_stream: bool,
    },
    /// A further section of an open stream is in the list: one of a response, or trailers.
    Section {
        /// The stream's key.
        key: u32,
        /// Whether nothing follows.
        end_stream: bool,
    },
    /// Content. Credit for it is given by [`Connection::release`](super::Connection::release), once it has been
    /// passed on.
    Data {
        /// The stream's key.
        key: u32,
        /// A piece of it; empty only at the end.
        data: &'a [u8],
        /// Whether nothing follows.
        end_stream: bool,
    },
    /// The peer has reset a stream, which is gone.
    Reset {
        /// The stream's key.
        key: u32,
        /// Why.
        code: ErrorCode,
        /// Bytes that still waited to be sent on it: they are dropped, and their source gets its credit.
        unsent: usize,
    },
    /// The peer has broken a rule on a stream, which was reset and is gone.
    Broken {
        /// The stream's key.
        key: u32,
        /// What it did.
        violation: Violation,
        /// As above.
        unsent: usize,
    },
    /// A frame that is no matter of the owner's has been taken: each is told of, so that the owner can see to others
    /// between two of them.
    Control,
    /// The peer takes no new streams, and will not have processed any above `last`: those are still open here.
    Goaway {
        /// The last stream of ours that it may have processed.
        last: StreamId,
        /// Why.
        code: ErrorCode,
    },
    /// The peer has broken a rule, and the connection is over. Its GOAWAY is in the output. All streams are still in
    /// the table, for [`Connection::take_streams`](super::Connection::take_streams).
    Failed(Violation),
    /// A peer of HTTP/1 has sent what it must not, and the connection is over. If a client can be answered, that is in
    /// the output. What was in flight is still there, as above.
    Malformed(Fault),
}

/// Content that waited and has been written to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The key of its stream.
    pub key: u32,
    /// How many bytes.
    pub bytes: usize,
}
