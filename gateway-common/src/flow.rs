//! What the kernel knows of one flow, from the end of its three-way handshake to its close: by its addresses for the
//! packets, and by its socket for user space's verdict. In: what the kernel's callbacks report. Out: how it came out.

use crate::address::Address;
use crate::packet::Segment;
use crate::reason::Reason;

/// Addresses and ports of a flow as the client's packets carry them; IPv4 is mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub remote: Address,
    /// Our address.
    pub local: Address,
    /// The client's port, host order.
    pub remote_port: u16,
    /// Our port, host order.
    pub local_port: u16,
}

impl FlowKey {
    /// The flow that a packet belongs to.
    #[inline(always)]
    pub fn of(segment: &Segment) -> Self {
        Self {
            remote: segment.source,
            local: segment.destination,
            remote_port: segment.source_port,
            local_port: segment.destination_port,
        }
    }
}

/// A flow as packets find it. Made when the three-way handshake is complete, gone when the connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// When the three-way handshake was complete, on the kernel's monotonic clock.
    pub opened_at_ns: u64,
    /// Sequence number of the client's first byte.
    pub first_sequence: u32,
    /// One of [`flow_state`].
    pub state: u8,
    /// One of [`first_bytes`].
    pub first_bytes: u8,
    /// Not zero when the cap of its source was reached before it was opened.
    pub is_over_cap: u8,
    /// Keeps the size a multiple of its alignment without bytes that nobody has written.
    pub padding: u8,
}

/// Where a flow stands: bytes, since any byte can lie in a map.
pub mod flow_state {
    /// Not judged yet.
    pub const PENDING: u8 = 0;
    /// Judged good.
    pub const AUTHENTICATED: u8 = 1;
    /// Judged bad.
    pub const FAILED: u8 = 2;
}

/// What the packets of a flow showed of its first bytes.
pub mod first_bytes {
    /// They were not seen.
    pub const UNSEEN: u8 = 0;
    /// They look like a TLS ClientHello.
    pub const TLS: u8 = 1;
    /// They are something else.
    pub const NOT_TLS: u8 = 2;
}

/// A flow as its socket knows it: it lives as long as the socket, longer than the connection, and is found without its
/// addresses, which another connection may have by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketFlow {
    /// Where packets find it.
    pub key: FlowKey,
    /// One of [`socket_state`].
    pub state: u8,
    /// One of [`first_bytes`], kept for a verdict that comes after the end.
    pub first_bytes: u8,
    /// As in [`Flow`].
    pub is_over_cap: u8,
    /// Not zero when its source's account counted it as pending, which those of sources that are always let through
    /// do not.
    pub is_counted: u8,
}

/// How far a socket's flow has got.
pub mod socket_state {
    /// Open, and counted among its source's pending flows.
    pub const PENDING: u8 = 0;
    /// The connection has ended, and the kernel cannot tell how it came out: user space's verdict is awaited.
    pub const UNDECIDED: u8 = 1;
    /// Counted; whatever comes changes nothing.
    pub const SETTLED: u8 = 2;
}

const _: () = assert!(size_of::<FlowKey>() == 36 && align_of::<FlowKey>() == 4);
const _: () = assert!(size_of::<Flow>() == 16 && align_of::<Flow>() == 8);
const _: () = assert!(size_of::<SocketFlow>() == 40 && align_of::<SocketFlow>() == 4);

/// What the kernel knows of a flow's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Bytes received as TCP counts them; a FIN counts as one.
    pub received_bytes: u64,
    /// One of [`first_bytes`].
    pub first_bytes: u8,
    /// The flow was one too many of its source.
    pub is_over_cap: bool,
}

impl Evidence {
    /// Not one byte of the client's was received. A FIN is counted as one, so one byte is none.
    #[inline(always)]
    fn has_no_data(&self) -> bool {
        self.received_bytes <= 1
    }
}

/// How a flow came out by user space's verdict. What the kernel has seen is more exact where user space, which was cut
/// off from the flow or saw an end only, can but say that nothing came.
#[inline(always)]
pub fn settled_by(verdict: Reason, evidence: &Evidence) -> Reason {
    match verdict {
        Reason::Reset | Reason::Timeout if evidence.first_bytes == first_bytes::NOT_TLS => {
            Reason::NotTls
        }
        Reason::Reset | Reason::Timeout if evidence.is_over_cap => Reason::TooManyPending,
        Reason::Reset if evidence.has_no_data() => Reason::NoData,
        verdict => verdict,
    }
}

/// How a flow came out that ended before user space said a word; `None` where only user space can tell.
///
/// A client may be gone for good before its certificate was even looked at: an end without a verdict is not a failure.
#[inline(always)]
pub fn settled_by_end(evidence: &Evidence) -> Option<Reason> {
    if evidence.first_bytes == first_bytes::NOT_TLS {
        Some(Reason::NotTls)
    } else if evidence.has_no_data() {
        Some(Reason::NoData)
    } else {
        None
    }
}
