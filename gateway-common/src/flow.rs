//! What the kernel knows of one flow, from the end of its three-way handshake to its close. Packets find it by its
//! addresses, user space's verdict by its socket. In: what the kernel's callbacks report. Out: the flow's reason.

use crate::address::Address;
use crate::packet::Segment;
use crate::reason::Reason;

/// Addresses and ports of a flow as in the client's packets; IPv4 is mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub remote: Address,
    /// Our address.
    pub local: Address,
    /// The client's port, in host order.
    pub remote_port: u16,
    /// Our port, in host order.
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

/// A flow as packets find it. The entry exists from the end of the three-way handshake to the end of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// End of the three-way handshake, in nanoseconds of the kernel's monotonic clock.
    pub opened_at_ns: u64,
    /// Sequence number of the client's first byte.
    pub first_sequence: u32,
    /// One of [`flow_state`].
    pub state: u8,
    /// One of [`first_bytes`].
    pub first_bytes: u8,
    /// Not zero if its source was at the cap when the flow opened.
    pub is_over_cap: u8,
    /// Fills the size up to the alignment, so that no byte is uninitialized.
    pub padding: u8,
}

/// The state of a flow. Bytes, since a map can hold any byte.
pub mod flow_state {
    /// No verdict yet.
    pub const PENDING: u8 = 0;
    /// The client is authenticated.
    pub const AUTHENTICATED: u8 = 1;
    /// The handshake has failed.
    pub const FAILED: u8 = 2;
}

/// What the packets of a flow have shown of its first bytes.
pub mod first_bytes {
    /// They were not seen.
    pub const UNSEEN: u8 = 0;
    /// They look like a TLS ClientHello.
    pub const TLS: u8 = 1;
    /// They are something else.
    pub const NOT_TLS: u8 = 2;
}

/// A flow as its socket keeps it. It lives as long as the socket, which is longer than the connection, and needs no
/// lookup by addresses, which may belong to another connection by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketFlow {
    /// The flow's key in the map.
    pub key: FlowKey,
    /// One of [`socket_state`].
    pub state: u8,
    /// One of [`first_bytes`], kept for a verdict that comes after the end.
    pub first_bytes: u8,
    /// As [`Flow::is_over_cap`].
    pub is_over_cap: u8,
    /// Not zero if its source's account counts it as pending. Flows of sources on the list of allowed ones are not
    /// counted.
    pub is_counted: u8,
}

/// The state of a socket's flow.
pub mod socket_state {
    /// Open, and pending in its source's account.
    pub const PENDING: u8 = 0;
    /// The connection has ended without a reason that the kernel can tell: it awaits user space's verdict.
    pub const UNDECIDED: u8 = 1;
    /// Counted under its reason; later verdicts change nothing.
    pub const SETTLED: u8 = 2;
}

const _: () = assert!(size_of::<FlowKey>() == 36 && align_of::<FlowKey>() == 4);
const _: () = assert!(size_of::<Flow>() == 16 && align_of::<Flow>() == 8);
const _: () = assert!(size_of::<SocketFlow>() == 40 && align_of::<SocketFlow>() == 4);

/// What the kernel knows of a flow's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Received bytes as TCP counts them; a FIN counts as one.
    pub received_bytes: u64,
    /// One of [`first_bytes`].
    pub first_bytes: u8,
    /// Its source was at the cap when the flow opened.
    pub is_over_cap: bool,
}

impl Evidence {
    /// The client sent no byte. A FIN counts as one.
    #[inline(always)]
    fn has_no_data(&self) -> bool {
        self.received_bytes <= 1
    }
}

/// The reason of a flow with a verdict of user space. User space may have seen only a timeout or a reset; then the
/// kernel's evidence is more exact.
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

/// The reason of a flow that ended before its verdict; `None` where only user space can tell.
///
/// A client may leave before the gateway has looked at its certificate: an end without a verdict is not a failure.
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
