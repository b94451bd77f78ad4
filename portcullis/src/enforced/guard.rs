//! The guard, in words: what it does, where, and from when on it bans.
//! In: its settings. Out: rows of properties. Pure.

use std::time::Duration;

use bytesize::ByteSize;
use gateway::config::{GuardMode, GuardSettings};
use gateway_common::{COUNTERS, Listed, Reason, Settings};
use gateway_core::limits;
use gateway_core::sources::{Lists, Policy};

use super::duration;

/// What the guard does, where, and from when on it bans.
pub(super) fn rows(guard: &GuardSettings) -> Vec<(&'static str, String)> {
    let GuardSettings {
        mode,
        interfaces,
        required,
        // As it is of every gateway but a demo's.
        is_lasting: _,
        policy,
    } = guard;
    let name = mode.name().to_owned();
    if *mode == GuardMode::Off {
        return vec![("guard", name)];
    }
    let on = match interfaces.as_slice() {
        [] => "no interface".to_owned(),
        names => names.join(", "),
    };
    let required = match required {
        true => ", required: without it the gateway does not start",
        false => "",
    };
    let Policy { settings, lists } = &**policy;
    let Settings {
        deadline_ns,
        pending_max,
        point_ns,
        ban_debt_ns,
        ban_first_ns,
        ban_longest_ns,
        ban_memory_ns,
        budget_bytes,
        weights,
        // The mode is above, the rest is the running gateway's.
        mode: _,
        alive_until_ns: _,
        has_lists: _,
        padding: _,
    } = settings;
    let time = |nanoseconds: &u64| duration(Duration::from_nanos(*nanoseconds));
    vec![
        ("guard", format!("{name} on {on}{required}")),
        (
            "guard, unauthenticated",
            format!(
                "{pending_max} connections of a source at a time, {} and {} each",
                ByteSize(u64::from(*budget_bytes)),
                time(deadline_ns)
            ),
        ),
        (
            "guard, bans",
            format!(
                "beyond {} points, of which one is forgiven in {}; from {} to {}, remembered for {} more",
                ban_debt_ns / point_ns,
                time(point_ns),
                time(ban_first_ns),
                time(ban_longest_ns),
                time(ban_memory_ns)
            ),
        ),
        ("guard, points", points(weights)),
        ("guard, allowed", networks(lists, Listed::Allowed)),
        ("guard, denied", networks(lists, Listed::Denied)),
    ]
}

/// What each reason costs a source.
fn points(weights: &[u16; COUNTERS]) -> String {
    let counted = Reason::ALL.into_iter().skip(1);
    let points: Vec<_> = counted
        .map(|reason| format!("{} {}", reason.label(), weights[reason.index()]))
        .collect();
    points.join(", ")
}

/// The networks of which an operator has said this; so many of them.
fn networks(lists: &Lists, word: Listed) -> String {
    let listed = lists.networks().filter(|(_, listed)| *listed == word);
    let mut listed: Vec<_> = listed.map(|(network, _)| network).collect();
    listed.sort();
    let more = listed.len().saturating_sub(limits::NETWORKS_SHOWN_MAX);
    let shown = listed.into_iter().take(limits::NETWORKS_SHOWN_MAX);
    let shown: Vec<_> = shown.map(plain_network).collect();
    match (shown.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A network as it is written: those of IPv4 are kept as mapped ones.
fn plain_network(network: ipnet::Ipv6Net) -> String {
    const MAPPED_BITS: u8 = 96;
    match (network.addr().to_ipv4_mapped(), network.prefix_len()) {
        (Some(address), bits) if bits >= MAPPED_BITS => {
            format!("{address}/{}", bits - MAPPED_BITS)
        }
        _ => network.to_string(),
    }
}
