//! Scene by scene through the kernel's own test run: with flows, accounts, bans, lists and settings laid into the maps
//! byte by byte, the verdict and the one counter that the table says; and what a packet of each kind costs.

use gateway_common::{Fate, PortCounter, Source};

use crate::frames::PORT;
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
        let (verdict, _) = programs.run(&scene.frame, 1);
        let fate = scene.fate();
        let expected = match fate {
            Fate::Dropped(_) => XDP_DROP,
            Fate::Passed(_) | Fate::WouldDrop(_) => XDP_PASS,
        };
        assert_eq!(verdict, expected, "{}", scene.name);
        let mut counter = PortCounter {
            packets: 1,
            bytes: scene.frame.len() as u64,
            ..PortCounter::ZERO
        };
        counter.fates[fate.index()] = 1;
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
fn a_million_packets_of_each_kind_are_judged_alike() {
    const REPEAT: u32 = 1_000_000;
    let kinds = [
        "IPv4, enforce: an authenticated flow of a banned source",
        "IPv4, enforce: a SYN of a banned source",
        "IPv4, enforce: a pending flow of a banned source",
        "IPv4, enforce: a ClientHello",
        "IPv6, enforce: an authenticated flow of a banned source",
        "IPv6, enforce: a SYN of a banned source",
    ];
    let mut programs = Programs::load();
    for kind in kinds {
        let scenes = scenes::table(now_ns());
        let mut scene = scenes
            .into_iter()
            .find(|scene| scene.name == kind)
            .unwrap_or_else(|| panic!("{kind} is not in the table"));
        scene.settings.has_lists = 0;
        set(&mut programs, &scene);
        let (_, each) = programs.run(&scene.frame, REPEAT);
        eprintln!("{kind}: {} ns", each.as_nanos());
        let counter = programs.counter(PORT);
        assert_eq!(counter.fate(scene.fate()), u64::from(REPEAT), "{kind}");
    }
}
