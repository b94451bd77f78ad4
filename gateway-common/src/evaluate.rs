//! Decides on one packet to a protected port. In: its segment, the settings, the time, and a view of the kernel's
//! maps. Out: an `Evaluation`, which the kernel program carries out and counts. Pure, so user space tests what the
//! kernel does. A packet that is malformed or of an unknown flow passes: the network stack decides on it.

use crate::address::Address;
use crate::flow::{Flow, FlowKey, first_bytes, flow_state};
use crate::packet::{Packet, Segment};
use crate::reason::{DropReason, PacketVerdict, PassReason};
use crate::settings::{Settings, mode};
use crate::source::{Account, Ban, Source, is_past};

/// What is known of flows and sources: the kernel's maps and its clock, or those of a test. A decision asks only for
/// what it needs, since each answer costs a call.
pub trait State {
    /// The time, on the kernel's monotonic clock.
    fn now_ns(&self) -> u64;
    /// What the operator's lists say of an address.
    fn listed(&self, address: &Address) -> Option<Listed>;
    /// The open flow with this key.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;
    /// The account of a source.
    fn account(&self, source: &Source) -> Option<Account>;
    /// The last ban of a source.
    fn ban(&self, source: &Source) -> Option<Ban>;
}

/// What an operator's list says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// All its packets pass.
    Allowed,
    /// All its packets are dropped.
    Denied,
}

impl Listed {
    /// Reads a byte of the map of lists.
    #[inline(always)]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Allowed),
            2 => Some(Self::Denied),
            _ => None,
        }
    }

    /// The byte for the map of lists.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Allowed => 1,
            Self::Denied => 2,
        }
    }
}

/// What to do with a packet, and what to remember of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// Pass or drop, and the one counter that it belongs to.
    pub verdict: PacketVerdict,
    /// One of [`first_bytes`], to store with the flow; `None` when the packet does not show them.
    pub first_bytes: Option<u8>,
}

/// What happens to the packet in mode `enforce`.
type Decision = Result<PassReason, DropReason>;

/// Decides what happens to the packet that holds `segment`.
#[inline(always)] // one program without calls: the verifier then knows the context pointer everywhere
pub fn evaluate_packet<P: Packet + ?Sized, K: State>(
    packet: &P,
    segment: &Segment,
    settings: &Settings,
    known: &K,
) -> Evaluation {
    let (decision, first_bytes) = decide(packet, segment, settings, known);
    let verdict = match decision {
        Ok(pass) => PacketVerdict::Passed(pass),
        Err(drop) if is_enforced(settings, known) => PacketVerdict::Dropped(drop),
        Err(drop) => PacketVerdict::WouldDrop(drop),
    };
    Evaluation {
        verdict,
        first_bytes,
    }
}

#[inline(always)]
fn is_enforced<K: State>(settings: &Settings, known: &K) -> bool {
    settings.mode == mode::ENFORCE && !is_past(settings.alive_until_ns, known.now_ns())
}

#[inline(always)]
fn decide<P: Packet + ?Sized, K: State>(
    packet: &P,
    segment: &Segment,
    settings: &Settings,
    known: &K,
) -> (Decision, Option<u8>) {
    if segment.body.is_ending() {
        return (Ok(PassReason::Ending), None);
    }
    if settings.has_lists != 0 {
        match known.listed(&segment.source) {
            Some(Listed::Denied) => return (Err(DropReason::Denied), None),
            Some(Listed::Allowed) => return (Ok(PassReason::Allowed), None),
            None => {}
        }
    }
    // Without a look at the flows: an open one has no use for a SYN (RFC 9293 section 3.10.7.4), and a new one may
    // have the addresses of an old one.
    if segment.body.is_opening() {
        return (opening(segment, settings, known), None);
    }
    let Some(flow) = known.flow(&FlowKey::of(segment)) else {
        // It may belong to a flow that is older than the guard.
        return (Ok(PassReason::Unknown), None);
    };
    match flow.state {
        flow_state::AUTHENTICATED => (Ok(PassReason::Authenticated), None),
        // The close is under way, and the client still has to acknowledge our alert.
        flow_state::FAILED => (Ok(PassReason::Failed), None),
        _ => pending(packet, segment, &flow, settings, known),
    }
}

/// A packet that opens a flow.
#[inline(always)]
fn opening<K: State>(segment: &Segment, settings: &Settings, known: &K) -> Decision {
    let source = Source::of(segment.source);
    if is_banned(&source, known) {
        return Err(DropReason::Banned);
    }
    match known.account(&source) {
        Some(account) if account.pending >= settings.pending_max => Err(DropReason::TooManyPending),
        _ => Ok(PassReason::Opening),
    }
}

/// A packet of a flow that is not authenticated.
#[inline(always)]
fn pending<P: Packet + ?Sized, K: State>(
    packet: &P,
    segment: &Segment,
    flow: &Flow,
    settings: &Settings,
    known: &K,
) -> (Decision, Option<u8>) {
    if is_banned(&Source::of(segment.source), known) {
        return (Err(DropReason::Banned), None);
    }
    if flow.is_over_cap != 0 {
        return (Err(DropReason::TooManyPending), None);
    }
    let deadline_ns = flow.opened_at_ns.wrapping_add(settings.deadline_ns);
    if is_past(deadline_ns, known.now_ns()) {
        return (Err(DropReason::Deadline), None);
    }
    // RFC 9293 section 3.4: sequence numbers wrap. Retransmissions count once this way.
    let start = segment.body.sequence.wrapping_sub(flow.first_sequence);
    let end = start.wrapping_add(segment.body.payload_bytes);
    // Before the first byte: a keep-alive probe (RFC 9293 section 3.8.4) or a stray.
    let is_before = start > u32::MAX / 2;
    if !is_before && end > settings.budget_bytes {
        return (Err(DropReason::ByteBudget), None);
    }
    if start != 0 || segment.body.payload_bytes == 0 {
        return (Ok(PassReason::Pending), None);
    }
    match begins_tls(packet, segment) {
        Some(true) => (Ok(PassReason::Pending), Some(first_bytes::TLS)),
        Some(false) => (Ok(PassReason::NotTls), Some(first_bytes::NOT_TLS)),
        None => (Ok(PassReason::Pending), None),
    }
}

#[inline(always)]
fn is_banned<K: State>(source: &Source, known: &K) -> bool {
    known
        .ban(source)
        .is_some_and(|ban| ban.holds(known.now_ns()))
}

/// RFC 8446 section 5.1: a record of type handshake, version 3.x. Section 4, behind two bytes of length: a message of
/// type ClientHello. Reads as many of these bytes as the segment has; `None` if the frame ends before.
#[inline(always)]
fn begins_tls<P: Packet + ?Sized>(packet: &P, segment: &Segment) -> Option<bool> {
    const HANDSHAKE: u8 = 22;
    const MAJOR_VERSION: u8 = 3;
    const CLIENT_HELLO: u8 = 1;
    let offset = segment.body.payload_offset;
    if segment.body.payload_bytes < 6 {
        let [kind]: [u8; 1] = packet.load(offset)?;
        return Some(kind == HANDSHAKE);
    }
    let [kind, major, _, _, _, message]: [u8; 6] = packet.load(offset)?;
    Some(kind == HANDSHAKE && major == MAJOR_VERSION && message == CLIENT_HELLO)
}
