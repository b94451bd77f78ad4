//! The decision on one packet to a protected port. In: its segment, the settings, the time, and whatever holds the
//! kernel's maps. Out: a `Judgement` for the kernel program to carry out and count. Pure: what the kernel does is
//! tested in user space first. What is not understood or not known passes: the network stack has the last word on it.

use crate::address::Address;
use crate::flow::{Flow, FlowKey, first_bytes, flow_state};
use crate::packet::{Packet, Segment};
use crate::reason::{Drop, Fate, Pass};
use crate::settings::{Settings, mode};
use crate::source::{Account, Ban, Source, is_past};

/// What is known of flows and sources: the kernel's maps and its clock, or a test's. Asked only for what a decision
/// needs, since each answer costs a call.
pub trait Knowledge {
    /// The time, on the kernel's monotonic clock.
    fn now_ns(&self) -> u64;
    /// What an operator said of an address.
    fn listed(&self, address: &Address) -> Option<Listed>;
    /// A flow that is open.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;
    /// The account of a source.
    fn account(&self, source: &Source) -> Option<Account>;
    /// The last ban of a source.
    fn ban(&self, source: &Source) -> Option<Ban>;
}

/// An operator's word on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Its packets are let through, whatever they are.
    Allowed,
    /// Its packets are dropped, whatever they are.
    Denied,
}

impl Listed {
    /// What a byte in the map of lists says.
    #[inline(always)]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Allowed),
            2 => Some(Self::Denied),
            _ => None,
        }
    }

    /// The byte that says this.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Allowed => 1,
            Self::Denied => 2,
        }
    }
}

/// What to do with a packet and what to remember of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Pass or drop, and the one counter it belongs to.
    pub fate: Fate,
    /// One of [`first_bytes`] to note with the flow, when the packet shows them.
    pub first_bytes: Option<u8>,
}

/// What would be done with the packet in mode `enforce`.
type Sentence = Result<Pass, Drop>;

/// Decides what happens to the packet that `segment` was found in.
#[inline(always)] // one program without calls: the verifier then knows the context pointer everywhere
pub fn judge<P: Packet + ?Sized, K: Knowledge>(
    packet: &P,
    segment: &Segment,
    settings: &Settings,
    known: &K,
) -> Judgement {
    let (sentence, first_bytes) = sentence(packet, segment, settings, known);
    let fate = match sentence {
        Ok(pass) => Fate::Passed(pass),
        Err(drop) if is_enforced(settings, known) => Fate::Dropped(drop),
        Err(drop) => Fate::WouldDrop(drop),
    };
    Judgement { fate, first_bytes }
}

#[inline(always)]
fn is_enforced<K: Knowledge>(settings: &Settings, known: &K) -> bool {
    settings.mode == mode::ENFORCE && !is_past(settings.alive_until_ns, known.now_ns())
}

#[inline(always)]
fn sentence<P: Packet + ?Sized, K: Knowledge>(
    packet: &P,
    segment: &Segment,
    settings: &Settings,
    known: &K,
) -> (Sentence, Option<u8>) {
    if segment.body.is_ending() {
        return (Ok(Pass::Ending), None);
    }
    if settings.has_lists != 0 {
        match known.listed(&segment.source) {
            Some(Listed::Denied) => return (Err(Drop::Denied), None),
            Some(Listed::Allowed) => return (Ok(Pass::Allowed), None),
            None => {}
        }
    }
    // Not in the name of any flow: one that is open has no use for a SYN (RFC 9293 section 3.10.7.4), and a new one with
    // the addresses of an old one is as new as any.
    if segment.body.is_opening() {
        return (opening(segment, settings, known), None);
    }
    let Some(flow) = known.flow(&FlowKey::of(segment)) else {
        // It may belong to a flow that is older than the guard.
        return (Ok(Pass::Unknown), None);
    };
    match flow.state {
        flow_state::AUTHENTICATED => (Ok(Pass::Authenticated), None),
        // Its close is under way, and what we still send it, an alert, has to be acknowledged.
        flow_state::FAILED => (Ok(Pass::Failed), None),
        _ => pending(packet, segment, &flow, settings, known),
    }
}

/// A packet that asks for a flow.
#[inline(always)]
fn opening<K: Knowledge>(segment: &Segment, settings: &Settings, known: &K) -> Sentence {
    let source = Source::of(segment.source);
    if is_banned(&source, known) {
        return Err(Drop::Banned);
    }
    match known.account(&source) {
        Some(account) if account.pending >= settings.pending_max => Err(Drop::TooManyPending),
        _ => Ok(Pass::Opening),
    }
}

/// A packet of a flow that is not authenticated.
#[inline(always)]
fn pending<P: Packet + ?Sized, K: Knowledge>(
    packet: &P,
    segment: &Segment,
    flow: &Flow,
    settings: &Settings,
    known: &K,
) -> (Sentence, Option<u8>) {
    if is_banned(&Source::of(segment.source), known) {
        return (Err(Drop::Banned), None);
    }
    if flow.is_over_cap != 0 {
        return (Err(Drop::TooManyPending), None);
    }
    let deadline_ns = flow.opened_at_ns.wrapping_add(settings.deadline_ns);
    if is_past(deadline_ns, known.now_ns()) {
        return (Err(Drop::Deadline), None);
    }
    // RFC 9293 section 3.4: sequence numbers wrap. Retransmissions count once this way.
    let start = segment.body.sequence.wrapping_sub(flow.first_sequence);
    let end = start.wrapping_add(segment.body.payload_bytes);
    // Before the first byte: a keep-alive probe (RFC 9293 section 3.8.4) or a stray.
    let is_before = start > u32::MAX / 2;
    if !is_before && end > settings.budget_bytes {
        return (Err(Drop::ByteBudget), None);
    }
    if start != 0 || segment.body.payload_bytes == 0 {
        return (Ok(Pass::Pending), None);
    }
    match begins_tls(packet, segment) {
        Some(true) => (Ok(Pass::Pending), Some(first_bytes::TLS)),
        Some(false) => (Ok(Pass::NotTls), Some(first_bytes::NOT_TLS)),
        None => (Ok(Pass::Pending), None),
    }
}

#[inline(always)]
fn is_banned<K: Knowledge>(source: &Source, known: &K) -> bool {
    known
        .ban(source)
        .is_some_and(|ban| ban.holds(known.now_ns()))
}

/// RFC 8446 section 5.1: a record of type handshake, version 3.x. Then, behind two bytes of length, section 4: a
/// message of type ClientHello. As many of these as the segment has are looked at; `None` if the frame ends before.
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
