//! Any packet under any circumstances, through the evaluation that runs in the kernel.
//!
//! What must hold beyond "no panic": it comes to what this file says in its own words and its own arithmetic; it asks
//! about nobody but the packet's own flow and source; it notes first bytes with pending flows only; and nothing is
//! dropped but in mode `enforce`, while somebody answers for it.
#![no_main]

use fuzz::scene::Known;
use gateway_common::{
    Ban, DropReason, Evaluation, Flow, Listed, PacketVerdict, PassReason, Segment, evaluate_packet,
    first_bytes, flow_state, mode, parse,
};
use libfuzzer_sys::fuzz_target;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fuzz_target!(|bytes: &[u8]| {
    let Some((known, frame)) = Known::read(bytes) else {
        return;
    };
    let Ok(segment) = parse(frame) else {
        return;
    };
    known.is_of(&segment);
    let evaluation = evaluate_packet(frame, &segment, &known.settings, &known);
    let (decision, first_bytes) = opinion(frame, &segment, &known);
    let settings = &known.settings;
    let is_enforced =
        settings.mode == mode::ENFORCE && !is_over(settings.alive_until_ns, known.now_ns);
    let verdict = match decision {
        Ok(pass) => PacketVerdict::Passed(pass),
        Err(drop) if is_enforced => PacketVerdict::Dropped(drop),
        Err(drop) => PacketVerdict::WouldDrop(drop),
    };
    assert_eq!(
        evaluation,
        Evaluation {
            verdict,
            first_bytes
        }
    );
});

/// Whether a moment has come. The clock may wrap: half of all moments are over, the other half is to come.
fn is_over(moment_ns: u64, now_ns: u64) -> bool {
    now_ns.wrapping_sub(moment_ns) < 1 << 63
}

fn opinion(
    frame: &[u8],
    segment: &Segment,
    known: &Known,
) -> (Result<PassReason, DropReason>, Option<u8>) {
    let flags = segment.body.flags;
    let is_banned = |ban: Ban| !is_over(ban.until_ns, known.now_ns);
    let listed = match known.settings.has_lists {
        0 => None,
        _ => known.listed,
    };
    let is_banned = known.ban.is_some_and(is_banned);
    let decision = if flags & FIN != 0 || flags & RST != 0 {
        Ok(PassReason::Ending)
    } else if listed == Some(Listed::Denied) {
        Err(DropReason::Denied)
    } else if listed == Some(Listed::Allowed) {
        Ok(PassReason::Allowed)
    } else if flags & SYN != 0 && flags & ACK == 0 {
        let pending = known.account.map_or(0, |account| account.pending);
        // A source without an account has no flows, which a cap of none allows as many of.
        let is_at_cap = known.account.is_some() && pending >= known.settings.pending_max;
        match (is_banned, is_at_cap) {
            (true, _) => Err(DropReason::Banned),
            (false, true) => Err(DropReason::TooManyPending),
            (false, false) => Ok(PassReason::Opening),
        }
    } else {
        match known.flow {
            None => Ok(PassReason::Unknown),
            Some(flow) if flow.state == flow_state::AUTHENTICATED => Ok(PassReason::Authenticated),
            Some(flow) if flow.state == flow_state::FAILED => Ok(PassReason::Failed),
            Some(_) if is_banned => Err(DropReason::Banned),
            Some(flow) => return pending(frame, segment, &flow, known),
        }
    };
    (decision, None)
}

fn pending(
    frame: &[u8],
    segment: &Segment,
    flow: &Flow,
    known: &Known,
) -> (Result<PassReason, DropReason>, Option<u8>) {
    let deadline_ns = flow.opened_at_ns.wrapping_add(known.settings.deadline_ns);
    if flow.is_over_cap != 0 {
        return (Err(DropReason::TooManyPending), None);
    }
    if is_over(deadline_ns, known.now_ns) {
        return (Err(DropReason::Deadline), None);
    }
    let payload_bytes = i64::from(segment.body.payload_bytes);
    let distance = segment.body.sequence.wrapping_sub(flow.first_sequence);
    let start = i64::from(distance.cast_signed());
    if start >= 0 && start + payload_bytes > i64::from(known.settings.budget_bytes) {
        return (Err(DropReason::ByteBudget), None);
    }
    if start != 0 || payload_bytes == 0 {
        return (Ok(PassReason::Pending), None);
    }
    let offset = segment.body.payload_offset as usize;
    let payload = &frame[offset..offset + segment.body.payload_bytes as usize];
    let is_hello = match payload {
        [22, 3, _, _, _, message, ..] => *message == 1,
        [first, ..] => *first == 22 && payload.len() < 6,
        [] => return (Ok(PassReason::Pending), None),
    };
    if is_hello {
        (Ok(PassReason::Pending), Some(first_bytes::TLS))
    } else {
        (Ok(PassReason::NotTls), Some(first_bytes::NOT_TLS))
    }
}
