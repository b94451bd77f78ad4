//! Evaluation and accounting in user space: the table of scenes, and properties of debts and bans on invented time. The
//! same table goes through the kernel in the `tests` crate.

#[allow(dead_code, reason = "the parser's tests use the rest")]
mod frames;
mod scenes;

use std::collections::HashSet;

use gateway_common::{
    Account, Ban, BanEvent, COUNTERS, DropReason, Evidence, PacketVerdict, PassReason, Reason,
    Settings, Source, evaluate_packet, first_bytes, mode, parse, settled_by, settled_by_end,
};
use proptest::prelude::*;

const NOW_NS: u64 = 1 << 50;

#[test]
fn every_scene_is_evaluated_as_the_table_says() {
    for scene in scenes::table(NOW_NS) {
        let segment = parse(scene.frame.as_slice()).expect("it is TCP");
        let frame = scene.frame.as_slice();
        let evaluation = evaluate_packet(frame, &segment, &scene.settings, &scene);
        assert_eq!(evaluation.verdict, scene.verdict(), "{}", scene.name);
        assert_eq!(evaluation.first_bytes, scene.first_bytes, "{}", scene.name);
    }
}

#[test]
fn the_table_has_every_verdict_and_no_name_twice() {
    let scenes = scenes::table(NOW_NS);
    let names: HashSet<_> = scenes.iter().map(|scene| scene.name.as_str()).collect();
    assert_eq!(names.len(), scenes.len());
    let verdicts: HashSet<_> = scenes.iter().map(scenes::Scene::verdict).collect();
    for pass in PassReason::ALL {
        assert!(
            verdicts.contains(&PacketVerdict::Passed(pass)),
            "{}",
            pass.label()
        );
    }
    for drop in DropReason::ALL {
        for verdict in [PacketVerdict::Dropped(drop), PacketVerdict::WouldDrop(drop)] {
            assert!(verdicts.contains(&verdict), "{verdict:?}");
        }
    }
}

#[test]
fn numbers_and_labels_stand_for_one_thing_each() {
    let labels: HashSet<_> = Reason::ALL.into_iter().map(Reason::label).collect();
    assert_eq!(labels.len(), Reason::ALL.len());
    for (position, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), position, "{}", reason.label());
    }
    let verdicts: Vec<_> = PassReason::ALL
        .into_iter()
        .map(PacketVerdict::Passed)
        .collect();
    let drops = DropReason::ALL.into_iter();
    let verdicts = verdicts.into_iter().chain(
        drops.flat_map(|drop| [PacketVerdict::Dropped(drop), PacketVerdict::WouldDrop(drop)]),
    );
    let indices: Vec<_> = verdicts.map(PacketVerdict::index).collect();
    assert!(indices.iter().all(|index| *index < COUNTERS));
    assert_eq!(indices.iter().collect::<HashSet<_>>().len(), indices.len());
}

#[test]
fn only_verdicts_can_be_said_by_number() {
    for number in -3..300 {
        let expected = usize::try_from(number)
            .ok()
            .and_then(|number| Reason::ALL.get(number).copied())
            .filter(|reason| !matches!(reason, Reason::NoData | Reason::TooManyPending));
        assert_eq!(Reason::verdict(number), expected, "{number}");
    }
}

#[test]
fn an_ipv6_source_is_its_network_and_an_ipv4_source_its_address() {
    let of = |text: &str| {
        let address: std::net::IpAddr = text.parse().expect("an address");
        let Source(source) = Source::of(address);
        std::net::Ipv6Addr::from(source).to_canonical().to_string()
    };
    assert_eq!(of("192.0.2.17"), "192.0.2.17");
    assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    assert_eq!(of("2001:db8:1:2::"), "2001:db8:1:2::");
    assert_eq!(of("::1"), "::");
    assert_eq!(of("64:ff9b::192.0.2.17"), "64:ff9b::");
}

#[test]
fn an_end_without_a_verdict_is_a_failure_only_where_the_kernel_has_seen_one() {
    let evidence = |received_bytes, first_bytes| Evidence {
        received_bytes,
        first_bytes,
        is_over_cap: false,
    };
    let cases = [
        (0, first_bytes::UNSEEN, Some(Reason::NoData)),
        (1, first_bytes::UNSEEN, Some(Reason::NoData)),
        (2, first_bytes::UNSEEN, None),
        (500, first_bytes::UNSEEN, None),
        (500, first_bytes::TLS, None),
        (500, first_bytes::NOT_TLS, Some(Reason::NotTls)),
        (0, first_bytes::NOT_TLS, Some(Reason::NotTls)),
    ];
    for (received, first_bytes, expected) in cases {
        let found = settled_by_end(&evidence(received, first_bytes));
        assert_eq!(found, expected, "{received} bytes, {first_bytes}");
    }
}

#[test]
fn what_the_kernel_saw_explains_silence_and_never_overrules_a_verdict() {
    for verdict in Reason::ALL {
        for (received_bytes, first_bytes, is_over_cap, instead) in [
            (500, first_bytes::TLS, false, None),
            (0, first_bytes::UNSEEN, false, Some(Reason::NoData)),
            (500, first_bytes::NOT_TLS, false, Some(Reason::NotTls)),
            (0, first_bytes::UNSEEN, true, Some(Reason::TooManyPending)),
        ] {
            let evidence = Evidence {
                received_bytes,
                first_bytes,
                is_over_cap,
            };
            let expected = match (verdict, instead) {
                // A client that stays and is silent has not been a health check.
                (Reason::Timeout, Some(Reason::NoData)) => Reason::Timeout,
                (Reason::Reset | Reason::Timeout, Some(instead)) => instead,
                _ => verdict,
            };
            assert_eq!(
                settled_by(verdict, &evidence),
                expected,
                "{}",
                verdict.label()
            );
        }
    }
}

fn settings() -> Settings {
    Settings::new(mode::ENFORCE)
}

proptest! {
    #[test]
    fn a_debt_is_forgiven_point_by_point(weight in 1..=10_u16, start in any::<u64>(), failures in 1..9_u64) {
        let settings = settings();
        let mut account = Account { clear_at_ns: start, pending: 0 };
        for _ in 0..failures {
            prop_assert!(!account.charge(weight, start, &settings));
        }
        let debt = account.clear_at_ns.wrapping_sub(start);
        prop_assert_eq!(debt, failures * u64::from(weight) * settings.point_ns);
        // After that time one more costs what the first did.
        let later = start.wrapping_add(debt);
        prop_assert!(!account.charge(weight, later, &settings));
        prop_assert_eq!(account.clear_at_ns.wrapping_sub(later), u64::from(weight) * settings.point_ns);
    }

    #[test]
    fn a_rate_that_is_forgiven_as_fast_as_it_comes_never_bans(weight in 1..=10_u16, start in any::<u64>()) {
        let settings = settings();
        let mut account = Account::default();
        for number in 0..500_u64 {
            let now = start.wrapping_add(number * u64::from(weight) * settings.point_ns);
            account.clear_at_ns = if number == 0 { now } else { account.clear_at_ns };
            prop_assert!(!account.charge(weight, now, &settings), "after {}", number);
        }
    }

    #[test]
    fn a_burst_bans_as_soon_as_the_debt_is_too_high(weight in 1..=10_u16, start in any::<u64>()) {
        let settings = settings();
        let mut account = Account { clear_at_ns: start, pending: 0 };
        let bearable = settings.ban_debt_ns / (u64::from(weight) * settings.point_ns);
        for _ in 0..bearable {
            prop_assert!(!account.charge(weight, start, &settings));
        }
        prop_assert!(account.charge(weight, start, &settings));
        // The ban has paid for it.
        prop_assert!(!account.charge(weight, start, &settings));
    }

    #[test]
    fn bans_double_up_to_the_longest_and_are_forgotten(start in 0..u64::MAX / 2, pause in 0..3600_u64) {
        let settings = settings();
        let mut ban = Ban::next(None, Reason::Malformed, start, &settings);
        let mut expected = settings.ban_first_ns;
        for _ in 0..20 {
            prop_assert_eq!(ban.lasts_ns, expected);
            prop_assert!(ban.holds(ban.until_ns - 1) && !ban.holds(ban.until_ns));
            // What comes during a ban changes nothing.
            let during = ban.until_ns - 1;
            prop_assert_eq!(Ban::next(Some(ban), Reason::Reset, during, &settings), ban);
            let then = ban.until_ns + pause * 1_000_000_000;
            ban = Ban::next(Some(ban), Reason::Malformed, then, &settings);
            expected = (expected * 2).min(settings.ban_longest_ns);
        }
        let long_after = ban.until_ns + settings.ban_memory_ns;
        let forgotten = Ban::next(Some(ban), Reason::Reset, long_after, &settings);
        prop_assert_eq!(forgotten.lasts_ns, settings.ban_first_ns);
    }

    #[test]
    fn a_ban_says_what_tipped_it_and_an_operators_who_ordered_it(
        now in any::<u64>(),
        lasts in 1..=u64::MAX,
        user in 0..u32::MAX,
        reason in prop::sample::select(&Reason::ALL[..]),
    ) {
        let settings = settings();
        let ban = Ban::next(None, reason, now, &settings);
        prop_assert_eq!((ban.tipped_by(), ban.ordered_by()), (Some(reason), None));
        let ordered = Ban::by_operator(user, now, lasts);
        prop_assert_eq!((ordered.tipped_by(), ordered.ordered_by()), (None, Some(user)));
        prop_assert!(ordered.holds(now) && ordered.holds(now.wrapping_add(ordered.lasts_ns - 1)));
        // It is kept to its end, and makes none that the kernel finds later longer.
        prop_assert_eq!(Ban::next(Some(ordered), reason, now, &settings), ordered);
        let later = Ban::next(Some(ordered), reason, ordered.until_ns, &settings);
        prop_assert_eq!(later.lasts_ns, settings.ban_first_ns);
    }

    #[test]
    fn a_record_is_an_event_only_if_it_has_its_size(record in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(BanEvent::read(&record).is_some(), record.len() == size_of::<BanEvent>());
    }

    #[test]
    fn whatever_lies_in_the_maps_is_answered_without_a_panic(
        numbers in prop::array::uniform12(any::<u64>()),
        weight in any::<u16>(),
    ) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = numbers;
        let settings = Settings {
            point_ns: a,
            ban_debt_ns: b,
            ban_first_ns: c,
            ban_longest_ns: d,
            ban_memory_ns: e,
            ..settings()
        };
        let mut account = Account { clear_at_ns: f, pending: g };
        let _ = account.charge(weight, h, &settings);
        let before = Ban { until_ns: i, lasts_ns: j, reason: l as u32, operator: (l >> 32) as u32 };
        let _ = before.tipped_by();
        let _ = before.ordered_by();
        let _ = Ban::next(Some(before), Reason::Reset, k, &settings).holds(l);
    }
}
