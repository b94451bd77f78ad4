//! Scene by scene through the kernel's own test run: with flows, accounts, bans, lists and settings laid into the maps
//! byte by byte, the verdict and the one counter that the table says; and what a packet of each kind costs.

use gateway_common::{PacketVerdict, PortCounter, Settings, Source};

use crate::frames::{self, PORT};
use crate::programs::{Programs, now_ns};
use crate::scenes::{self, Scene};

/// linux/bpf.h
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Lays a scene into the maps, in place of the one before, and all counters to zero.
fn set(programs: &mut Programs, scene: &Scene) {
    let source = Source::of(scene.key.remote);
    programs.set_flow(&scene.key, scene.flow);
    programs.set_account(source, scene.account);
    programs.set_ban(source, scene.ban);
    // A network around the address.
    programs.set_listed(scene.key.remote, 120, scene.listed);
    programs.set_settings(&scene.settings);
    programs.protect(PORT);
}

#[test]
fn every_scene_ends_in_the_kernel_as_the_table_says_and_counts_once() {
    let mut programs = Programs::load();
    let scenes = scenes::table(now_ns());
    assert!(
        scenes.len() >= 60,
        "the table has shrunk to {}",
        scenes.len()
    );
    for scene in scenes {
        set(&mut programs, &scene);
        let (action, _) = programs.run(&scene.frame, 1);
        let verdict = scene.verdict();
        let expected = match verdict {
            PacketVerdict::Dropped(_) => XDP_DROP,
            PacketVerdict::Passed(_) | PacketVerdict::WouldDrop(_) => XDP_PASS,
        };
        assert_eq!(action, expected, "{}", scene.name);
        let mut counter = PortCounter {
            packets: 1,
            bytes: scene.frame.len() as u64,
            ..PortCounter::ZERO
        };
        counter.packets_by_verdict[verdict.index()] = 1;
        assert_eq!(programs.counter(PORT), counter, "{}", scene.name);
        let noted = scene
            .flow
            .map(|flow| scene.first_bytes.unwrap_or(flow.first_bytes));
        let found = programs.flow(&scene.key).map(|flow| flow.first_bytes);
        assert_eq!(found, noted, "{}", scene.name);
    }
}

/// Not an assertion of time: the figures are printed, and the runs must end as one run does.
#[test]
fn a_million_packets_of_each_kind_are_evaluated_alike() {
    const REPEAT: u32 = 1_000_000;
    const KINDS: [&str; 7] = [
        "an authenticated flow of a banned source",
        "a SYN of a banned source",
        "a pending flow of a banned source",
        "a ClientHello",
        "data behind the first",
        "a first SYN",
        "an ACK of an old flow of a banned source",
    ];
    let mut programs = Programs::load();
    let scenes = scenes::table(now_ns());
    for family in ["IPv4", "IPv6"] {
        for kind in KINDS {
            let name = format!("{family}, enforce: {kind}");
            let scene = scenes.iter().find(|scene| scene.name == name);
            let scene = scene.unwrap_or_else(|| panic!("{name} is not in the table"));
            set(&mut programs, scene);
            programs.set_settings(&Settings {
                has_lists: 0,
                ..scene.settings
            });
            let (_, each) = programs.run(&scene.frame, REPEAT);
            eprintln!("{family}: {kind}: {} ns", each.as_nanos());
            let counter = programs.counter(PORT);
            assert_eq!(
                counter.packets_with(scene.verdict()),
                u64::from(REPEAT),
                "{name}"
            );
        }
    }
    let before = programs.counter(PORT);
    for case in frames::table() {
        if ["IPv4, other port", "IPv6, other port", "IPv4, UDP", "ARP"].contains(&case.name) {
            let (verdict, each) = programs.run(&case.frame, REPEAT);
            eprintln!("{}: {} ns", case.name, each.as_nanos());
            assert_eq!(verdict, XDP_PASS, "{}", case.name);
        }
    }
    assert_eq!(programs.counter(PORT), before);
}
