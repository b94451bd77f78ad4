//! The layout that the kernel program and every gateway of one version share through pinned maps, written out: names,
//! capacities, the places of all fields, the meaning of all numbers. What differs from the text of its version fails.

use std::fmt::Write;
use std::mem::offset_of;
use std::path::Path;

use gateway_common::{
    ACCOUNTS_MAP, ACCOUNTS_MAX, Account, BANS_MAP, BANS_MAX, Ban, BanEvent, COUNTERS, DropReason,
    EVENTS_BYTES, EVENTS_MAP, FLOWS_MAP, FLOWS_MAX, Flow, FlowKey, LAYOUT_VERSION, LIFE_PROGRAM,
    LISTS_MAP, LISTS_MAX, LOST_MAP, Listed, Overflow, PORT_COUNTS_ENTRIES, PORT_COUNTS_MAP,
    PORTS_ENTRIES, PORTS_MAP, PacketVerdict, PassReason, PortCounter, Reason, SETTINGS_MAP,
    SOCKET_FLOWS_MAP, Settings, Slot, SocketFlow, Source, VERDICT_LEVEL, VERDICT_PROGRAM,
    XDP_PROGRAM, first_bytes, flow_state, mode, socket_state,
};

/// Writes size and alignment of a type and the offsets of all its fields: one that is left out does not compile.
macro_rules! write_type {
    ($text:ident, $type:ident { $($field:ident),* }) => {
        let _ = |value: $type| { let $type { $($field: _),* } = value; };
        let bytes = (size_of::<$type>(), align_of::<$type>());
        write!($text, "{} {bytes:?}:", stringify!($type)).expect("a string grows");
        $(write!($text, " {} {}", stringify!($field), offset_of!($type, $field))
            .expect("a string grows");)*
        $text.push('\n');
    };
}

fn layout() -> String {
    let mut text = format!(
        "programs: {XDP_PROGRAM} {LIFE_PROGRAM} {VERDICT_PROGRAM}\nlevel of verdicts: {VERDICT_LEVEL}\n"
    );
    for (map, entries) in [
        (PORTS_MAP, Some(PORTS_ENTRIES)),
        (PORT_COUNTS_MAP, Some(PORT_COUNTS_ENTRIES)),
        (FLOWS_MAP, Some(FLOWS_MAX)),
        (SOCKET_FLOWS_MAP, None),
        (ACCOUNTS_MAP, Some(ACCOUNTS_MAX)),
        (BANS_MAP, Some(BANS_MAX)),
        (LISTS_MAP, Some(LISTS_MAX)),
        (SETTINGS_MAP, Some(1)),
        (EVENTS_MAP, Some(EVENTS_BYTES)),
        (LOST_MAP, u32::try_from(Overflow::ALL.len()).ok()),
    ] {
        writeln!(text, "map {map}: {entries:?}").expect("a string grows");
    }
    writeln!(text, "Slot: {}", size_of::<Slot>()).expect("a string grows");
    writeln!(text, "Source: {}", size_of::<Source>()).expect("a string grows");
    write_flows(&mut text);
    write_sources(&mut text);
    write_numbers(&mut text);
    text
}

fn write_flows(text: &mut String) {
    write_type!(
        text,
        PortCounter {
            packets,
            bytes,
            packets_by_verdict,
            flows_opened,
            flows
        }
    );
    write_type!(
        text,
        FlowKey {
            remote,
            local,
            remote_port,
            local_port
        }
    );
    write_type!(
        text,
        Flow {
            opened_at_ns,
            first_sequence,
            state,
            first_bytes,
            is_over_cap,
            padding
        }
    );
    write_type!(
        text,
        SocketFlow {
            key,
            state,
            first_bytes,
            is_over_cap,
            is_counted
        }
    );
}

fn write_sources(text: &mut String) {
    write_type!(
        text,
        Account {
            clear_at_ns,
            pending
        }
    );
    write_type!(
        text,
        Ban {
            until_ns,
            lasts_ns,
            reason,
            operator
        }
    );
    write_type!(
        text,
        BanEvent {
            source,
            ban,
            local_port,
            padding,
            more_padding
        }
    );
    write_type!(
        text,
        Settings {
            alive_until_ns,
            deadline_ns,
            pending_max,
            point_ns,
            ban_debt_ns,
            ban_first_ns,
            ban_longest_ns,
            ban_memory_ns,
            budget_bytes,
            mode,
            has_lists,
            padding,
            weights
        }
    );
}

fn write_numbers(text: &mut String) {
    let reasons = Reason::ALL.map(|reason| (reason.index(), reason.label()));
    let passes = PassReason::ALL.map(|pass| (PacketVerdict::Passed(pass).index(), pass.label()));
    let drops = DropReason::ALL.map(|drop| {
        let indices = (
            PacketVerdict::Dropped(drop).index(),
            PacketVerdict::WouldDrop(drop).index(),
        );
        (indices, drop.label())
    });
    let lost = Overflow::ALL.map(|lost| (lost.index(), lost.label()));
    let listed: Vec<_> = (0..=u8::MAX)
        .filter_map(|byte| Some((byte, Listed::from_byte(byte)?)))
        .collect();
    let states = [
        flow_state::PENDING,
        flow_state::AUTHENTICATED,
        flow_state::FAILED,
    ];
    let socket_states = [
        socket_state::PENDING,
        socket_state::UNDECIDED,
        socket_state::SETTLED,
    ];
    let first_bytes = [first_bytes::UNSEEN, first_bytes::TLS, first_bytes::NOT_TLS];
    let modes = [mode::OFF, mode::MONITOR, mode::ENFORCE];
    write!(
        text,
        "counters: {COUNTERS}\nreasons: {reasons:?}\npasses: {passes:?}\ndrops: {drops:?}\nlost: {lost:?}\n\
         listed: {listed:?}\nflow states: {states:?}\nsocket states: {socket_states:?}\n\
         first bytes: {first_bytes:?}\nmodes: {modes:?}\n"
    )
    .expect("a string grows");
}

#[test]
fn the_layout_is_that_of_its_version() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layout");
    let path = folder.join(format!("{LAYOUT_VERSION}.txt"));
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let layout = layout();
    assert!(
        committed == layout,
        "{} differs from the layout: raise LAYOUT_VERSION, so that no gateway takes over maps that it misreads, and \
         write the file of the new version:\n{layout}",
        path.display()
    );
}
