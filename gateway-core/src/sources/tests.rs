//! Sources on invented time: as the kernel keeps them, within bounds, exempt or not.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

const SECOND_NS: u64 = 1_000_000_000;
const ROOMY: Bounds = Bounds {
    accounts_max: 10_000,
    bans_max: 10_000,
};
/// The kernel's clock does not begin at nought either.
const START_NS: u64 = 1000 * SECOND_NS;

fn policy(mode: u32) -> Policy {
    Policy {
        settings: Settings::new(mode),
        lists: Lists::default(),
    }
}

fn listed(mode: u32, networks: &[(&str, Listed)]) -> Policy {
    let networks = networks
        .iter()
        .map(|(network, listed)| (network.parse().unwrap(), *listed));
    Policy {
        lists: Lists::new(networks),
        ..policy(mode)
    }
}

/// The address of a source with this number.
fn address(number: u16) -> Address {
    let [high, low] = number.to_be_bytes();
    Address::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, high, low])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn source(number: u16) -> Source {
    Source::of(address(number))
}

fn outcome(verdict: Reason) -> Outcome {
    Outcome {
        verdict,
        received_bytes: 500,
    }
}

fn admit(
    sources: &mut Sources,
    number: u16,
    now_ns: u64,
    policy: &Policy,
) -> Result<PendingFlow, Refusal> {
    let candidate = policy.candidate(Ipv6Addr::from(address(number)).into());
    sources.admit(candidate, now_ns, &policy.settings)
}

/// One connection of the source, from its admission to its end.
fn attempt(
    sources: &mut Sources,
    number: u16,
    verdict: Reason,
    now_ns: u64,
    policy: &Policy,
) -> Option<Ban> {
    let flow = admit(sources, number, now_ns, policy).unwrap();
    sources.settle(flow, outcome(verdict), now_ns, &policy.settings)
}

/// As many heavy failures as it takes for the next to be a ban.
fn offend(sources: &mut Sources, number: u16, now_ns: u64, policy: &Policy) {
    for _ in 0..10 {
        let ban = attempt(sources, number, Reason::UnknownIssuer, now_ns, policy);
        assert_eq!(ban, None);
    }
}

fn ban_of(sources: &Sources, number: u16) -> Option<Ban> {
    let mut bans = sources.bans();
    bans.find_map(|(banned, ban)| (banned == source(number)).then_some(ban))
}

fn pending_of(sources: &Sources, number: u16) -> u64 {
    sources
        .sources(START_NS)
        .find_map(|(known, standings)| (known == source(number)).then_some(standings.account))
        .map_or(0, |account| account.pending)
}

/// Something that happens to one of a few sources.
#[derive(Clone, Copy, Debug)]
enum Event {
    Opens(u16),
    /// The oldest open flow of the source ends.
    Ends(u16, Reason),
    Passes(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let number = 0u16..4;
    let event = prop_oneof![
        4 => number.clone().prop_map(Event::Opens),
        4 => (number, prop::sample::select(Reason::ALL.to_vec()))
            .prop_map(|(number, reason)| Event::Ends(number, reason)),
        2 => (0..2 * SECOND_NS).prop_map(Event::Passes),
        // Long enough for debts to leak away, for bans to end, and for them to be forgotten.
        1 => (0..8000u64).prop_map(|seconds| Event::Passes(seconds * SECOND_NS)),
    ];
    prop::collection::vec(event, 1..400)
}

/// Settings under which a few events make a ban.
fn strict() -> Policy {
    let mut policy = policy(mode::MONITOR);
    policy.settings.ban_debt_ns = 12 * policy.settings.point_ns;
    policy.settings.pending_max = 3;
    policy
}

/// What `gateway_common` makes of the same events, written down as the kernel program does it, without bounds.
#[derive(Default)]
struct Plain {
    accounts: HashMap<u16, Account>,
    bans: HashMap<u16, Ban>,
}

impl Plain {
    fn settle(&mut self, number: u16, reason: Reason, now_ns: u64, settings: &Settings) {
        let weight = settings.weights[reason.index()];
        let account = self.accounts.entry(number).or_default();
        if weight > 0 && account.charge(weight, now_ns, settings) {
            let before = self.bans.get(&number).copied();
            let ban = Ban::next(before, reason, now_ns, settings);
            self.bans.insert(number, ban);
        }
    }
}

proptest! {
    #[test]
    fn the_same_events_make_the_same_bans_as_in_the_kernel(events in events()) {
        let policy = strict();
        let settings = &policy.settings;
        let mut sources = Sources::new(ROOMY);
        let mut plain = Plain::default();
        let mut open: HashMap<u16, Vec<PendingFlow>> = HashMap::new();
        let (mut now_ns, mut begun) = (START_NS, 0);
        for event in events {
            match event {
                Event::Passes(time_ns) => now_ns += time_ns,
                Event::Opens(number) => {
                    let flow = admit(&mut sources, number, now_ns, &policy).unwrap();
                    open.entry(number).or_default().push(flow);
                }
                Event::Ends(number, reason) => {
                    let Some(flow) = open.get_mut(&number).and_then(Vec::pop) else { continue };
                    // What the cap does to a verdict is the subject of another test.
                    let flow = PendingFlow { liability: Liability::Counted, ..flow };
                    let before = plain.bans.get(&number).copied();
                    let ban = sources.settle(flow, outcome(reason), now_ns, settings);
                    plain.settle(number, reason, now_ns, settings);
                    let after = plain.bans.get(&number).copied();
                    prop_assert_eq!(ban, if after == before { None } else { after });
                    begun += u64::from(ban.is_some());
                }
            }
            for number in 0..4 {
                let kernels = plain.bans.get(&number).copied().filter(|ban| ban.holds(now_ns));
                let ours = ban_of(&sources, number).filter(|ban| ban.holds(now_ns));
                prop_assert_eq!(ours, kernels);
            }
        }
        prop_assert_eq!(sources.counts().bans_begun, begun);
    }

    #[test]
    fn pending_flows_are_those_opened_and_not_settled_however_little_room_there_is(
        events in events(),
        room in 0usize..3,
    ) {
        let policy = Policy { settings: Settings { mode: mode::ENFORCE, ..strict().settings }, ..strict() };
        let mut sources = Sources::new(Bounds { accounts_max: room, bans_max: room });
        let mut open: HashMap<u16, Vec<PendingFlow>> = HashMap::new();
        let (mut now_ns, mut admitted, mut settled) = (START_NS, 0, 0);
        for event in events {
            match event {
                Event::Passes(time_ns) => now_ns += time_ns,
                Event::Opens(number) => {
                    if let Ok(flow) = admit(&mut sources, number, now_ns, &policy) {
                        open.entry(number).or_default().push(flow);
                        admitted += 1;
                    }
                }
                Event::Ends(number, reason) => {
                    if let Some(flow) = open.get_mut(&number).and_then(Vec::pop) {
                        let _ = sources.settle(flow, outcome(reason), now_ns, &policy.settings);
                        settled += 1;
                    }
                }
            }
            for number in 0..4 {
                let flows = open.get(&number).map_or(0, Vec::len) as u64;
                prop_assert_eq!(pending_of(&sources, number), flows);
                prop_assert!(flows <= policy.settings.pending_max);
            }
            let holding = open.values().filter(|flows| !flows.is_empty()).count();
            prop_assert!(sources.accounts.len() <= room + holding);
            prop_assert!(sources.bans.len() <= room);
        }
        prop_assert_eq!(sources.counts().admitted, admitted);
        let refused: u64 = sources.counts().refused.iter().sum();
        prop_assert_eq!(sources.counts().opened(), admitted + refused);
        prop_assert_eq!(sources.counts().flows.iter().sum::<u64>(), settled + refused);
    }

    #[test]
    fn a_ban_is_forgotten_only_for_as_many_that_end_later(
        lengths in prop::collection::vec(1u64..1000, 20..60),
    ) {
        let bans_max = 10;
        let mut sources = Sources::new(Bounds { accounts_max: 0, bans_max });
        for (number, seconds) in lengths.iter().enumerate() {
            sources.ban(source(number as u16), ban_for(*seconds));
        }
        for (number, seconds) in lengths.iter().enumerate() {
            if ban_of(&sources, number as u16).is_none() {
                let longer = lengths.iter().filter(|other| *other >= seconds).count();
                prop_assert!(longer > bans_max, "{seconds} s are forgotten, and {longer} are as long");
            }
        }
        prop_assert_eq!(sources.bans().count(), bans_max);
    }

    #[test]
    fn of_the_networks_around_an_address_the_smallest_has_the_word(
        networks in prop::collection::vec((any::<u16>(), 104u8..=128, any::<bool>()), 0..30),
        number in any::<u16>(),
    ) {
        let networks: Vec<_> = networks
            .into_iter()
            .map(|(number, length, is_allowed)| {
                let network = ipnet::Ipv6Net::new(address(number).into(), length).unwrap();
                (network, if is_allowed { Listed::Allowed } else { Listed::Denied })
            })
            .collect();
        let lists = Lists::new(networks.iter().map(|(network, listed)| ((*network).into(), *listed)));
        let inside = Ipv6Addr::from(address(number));
        let expected = networks
            .iter()
            .filter(|(network, _)| network.contains(&inside))
            // The last of the longest, as `max_by_key` has it.
            .max_by_key(|(network, _)| network.prefix_len())
            .map(|(_, listed)| *listed);
        prop_assert_eq!(lists.find(address(number)), expected);
    }
}

/// A ban that begins now, for failures that are not TLS.
fn ban_for(seconds: u64) -> Ban {
    Ban {
        until_ns: START_NS + seconds * SECOND_NS,
        lasts_ns: seconds * SECOND_NS,
        reason: Reason::NotTls.index() as u32,
        operator: 0,
    }
}

#[test]
fn bans_double_up_to_the_longest_and_are_remembered_for_a_while() {
    let policy = policy(mode::ENFORCE);
    let mut sources = Sources::new(ROOMY);
    let mut now_ns = START_NS;
    for lasts_seconds in [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600] {
        offend(&mut sources, 1, now_ns, &policy);
        let ban = attempt(&mut sources, 1, Reason::UnknownIssuer, now_ns, &policy).unwrap();
        assert_eq!(ban.lasts_ns, lasts_seconds * SECOND_NS);
        assert_eq!(ban.until_ns, now_ns + ban.lasts_ns);
        let refused = admit(&mut sources, 1, ban.until_ns - 1, &policy);
        assert_eq!(refused, Err(Refusal::Banned));
        now_ns = ban.until_ns;
    }
    now_ns += policy.settings.ban_memory_ns;
    offend(&mut sources, 1, now_ns, &policy);
    let ban = attempt(&mut sources, 1, Reason::UnknownIssuer, now_ns, &policy).unwrap();
    assert_eq!(ban.lasts_ns, policy.settings.ban_first_ns);
    assert_eq!(sources.counts().refused(Refusal::Banned), 11);
    assert_eq!(sources.counts().bans_begun, 12);
}

#[test]
fn what_was_in_flight_when_a_ban_began_does_not_prolong_it() {
    let policy = policy(mode::ENFORCE);
    let mut sources = Sources::new(ROOMY);
    let in_flight: Vec<_> = (0..100)
        .map(|_| admit(&mut sources, 1, START_NS, &policy).unwrap())
        .collect();
    let bans: Vec<Ban> = in_flight
        .into_iter()
        .filter_map(|flow| {
            let failed = outcome(Reason::NotTls);
            sources.settle(flow, failed, START_NS, &policy.settings)
        })
        .collect();
    assert_eq!(bans, [ban_for(10)]);
    assert_eq!(pending_of(&sources, 1), 0);
}

#[test]
fn one_source_gets_no_more_pending_flows_than_the_cap_and_others_do_not_notice() {
    let policy = policy(mode::ENFORCE);
    let most = policy.settings.pending_max;
    let mut sources = Sources::new(ROOMY);
    let mut flows: Vec<_> = (0..most)
        .map(|_| admit(&mut sources, 1, START_NS, &policy).unwrap())
        .collect();
    let refused = admit(&mut sources, 1, START_NS, &policy);
    assert_eq!(refused, Err(Refusal::TooManyPending));
    let other = attempt(&mut sources, 2, Reason::Authenticated, START_NS, &policy);
    assert_eq!(other, None);
    let authenticated = outcome(Reason::Authenticated);
    let flow = flows.pop().unwrap();
    let _ = sources.settle(flow, authenticated, START_NS, &policy.settings);
    let again = admit(&mut sources, 1, START_NS, &policy).unwrap();
    assert_eq!(sources.counts().refused(Refusal::TooManyPending), 1);
    flows.push(again);
    for flow in flows {
        let _ = sources.settle(flow, authenticated, START_NS, &policy.settings);
    }
    assert_eq!(sources.accounts.len(), 0, "nothing is owed");
}

#[test]
fn all_of_one_ipv6_network_is_one_source() {
    let policy = policy(mode::ENFORCE);
    let mut sources = Sources::new(ROOMY);
    let held: Vec<_> = (0..policy.settings.pending_max)
        .map(|host| ip(&format!("2001:db8::{host:x}")))
        .map(|address| {
            sources
                .admit(policy.candidate(address), START_NS, &policy.settings)
                .unwrap()
        })
        .collect();
    let refused = sources.admit(
        policy.candidate(ip("2001:db8::ffff:1")),
        START_NS,
        &policy.settings,
    );
    assert_eq!(refused, Err(Refusal::TooManyPending));
    assert!(
        sources
            .admit(
                policy.candidate(ip("2001:db8:0:1::1")),
                START_NS,
                &policy.settings
            )
            .is_ok()
    );
    assert_eq!(held.len() as u64, policy.settings.pending_max);
}

#[test]
fn health_checks_that_send_nothing_cost_nothing() {
    let policy = policy(mode::ENFORCE);
    let mut sources = Sources::new(ROOMY);
    for second in 0..3600 {
        let now_ns = START_NS + second * SECOND_NS;
        let flow = admit(&mut sources, 1, now_ns, &policy).unwrap();
        let nothing = Outcome {
            verdict: Reason::Reset,
            received_bytes: 0,
        };
        assert_eq!(
            sources.settle(flow, nothing, now_ns, &policy.settings),
            None
        );
    }
    assert_eq!(sources.counts().flow(Reason::NoData), 3600);
    assert_eq!(sources.sources(START_NS).count(), 0);
    let flow = admit(&mut sources, 1, START_NS, &policy).unwrap();
    let one_byte = Outcome {
        verdict: Reason::Reset,
        received_bytes: 1,
    };
    let _ = sources.settle(flow, one_byte, START_NS, &policy.settings);
    assert_eq!(sources.counts().flow(Reason::Reset), 1);
}

#[test]
fn in_monitor_nobody_is_refused_and_the_same_is_counted() {
    let mut sources = Sources::new(ROOMY);
    let policy = listed(mode::MONITOR, &[("10.0.0.3/32", Listed::Denied)]);
    let held: Vec<_> = (0..300)
        .map(|_| admit(&mut sources, 1, START_NS, &policy).unwrap())
        .collect();
    sources.ban(source(2), ban_for(10));
    let banned = attempt(&mut sources, 2, Reason::Authenticated, START_NS, &policy);
    let denied = attempt(&mut sources, 3, Reason::Authenticated, START_NS, &policy);
    assert_eq!((banned, denied), (None, None));
    let counts = *sources.counts();
    let would = Refusal::ALL.map(|refusal| counts.would_refuse(refusal));
    assert_eq!(would, [1, 1, 300 - policy.settings.pending_max]);
    assert_eq!(counts.refused, [0; 3]);
    // The cap would have kept these out: that they run into the timeout is not held against their source.
    for flow in held {
        let late = outcome(Reason::Timeout);
        let _ = sources.settle(flow, late, START_NS, &policy.settings);
    }
    let over = 300 - policy.settings.pending_max;
    assert_eq!(sources.counts().flow(Reason::TooManyPending), over);
    assert_eq!(sources.counts().flow(Reason::Timeout), 300 - over);
}

#[test]
fn off_holds_nothing_against_anybody_and_counts_all_the_same() {
    let policy = listed(mode::OFF, &[("10.0.0.1/32", Listed::Denied)]);
    let mut sources = Sources::new(ROOMY);
    sources.ban(source(1), ban_for(1000));
    for _ in 0..1000 {
        let ban = attempt(&mut sources, 1, Reason::NotTls, START_NS, &policy);
        assert_eq!(ban, None);
    }
    assert_eq!(sources.counts().flow(Reason::NotTls), 1000);
    assert_eq!(sources.counts().would_refuse, [0; 3]);
    assert_eq!(sources.accounts.len(), 0);
}

#[test]
fn the_allowed_are_never_charged_capped_or_banned_and_the_denied_never_get_in() {
    let words = [
        ("10.0.0.0/16", Listed::Denied),
        ("10.0.0.1/32", Listed::Allowed),
        ("2001:db8::/32", Listed::Denied),
        ("2001:db8::7/128", Listed::Allowed),
    ];
    let policy = listed(mode::ENFORCE, &words);
    let mut sources = Sources::new(ROOMY);
    sources.ban(source(1), ban_for(1000));
    let held: Vec<_> = (0..2 * policy.settings.pending_max)
        .map(|_| admit(&mut sources, 1, START_NS, &policy).unwrap())
        .collect();
    for flow in held {
        let failed = outcome(Reason::NotTls);
        assert_eq!(
            sources.settle(flow, failed, START_NS, &policy.settings),
            None
        );
    }
    assert_eq!(pending_of(&sources, 1), 0);
    for denied in ["10.0.0.2", "10.0.255.255", "2001:db8::8"] {
        let refused = sources.admit(policy.candidate(ip(denied)), START_NS, &policy.settings);
        assert_eq!(refused, Err(Refusal::Denied), "{denied}");
    }
    for admitted in ["10.1.0.2", "2001:db8::7", "2001:db9::8"] {
        let flow = sources.admit(policy.candidate(ip(admitted)), START_NS, &policy.settings);
        assert!(flow.is_ok(), "{admitted}");
    }
    assert_eq!(sources.counts().refused(Refusal::Denied), 3);
}

#[test]
fn a_flow_that_was_admitted_before_its_source_was_allowed_is_released_all_the_same() {
    let before = policy(mode::ENFORCE);
    let after = listed(mode::ENFORCE, &[("10.0.0.0/8", Listed::Allowed)]);
    let mut sources = Sources::new(ROOMY);
    let flow = admit(&mut sources, 1, START_NS, &before).unwrap();
    let exempt = admit(&mut sources, 1, START_NS, &after).unwrap();
    let authenticated = outcome(Reason::Authenticated);
    let _ = sources.settle(flow, authenticated, START_NS, &after.settings);
    let _ = sources.settle(exempt, authenticated, START_NS, &before.settings);
    assert_eq!(sources.accounts.len(), 0);
}

#[test]
fn a_crowd_of_fresh_offenders_has_no_greater_debt_and_no_longer_ban_forgotten() {
    let policy = policy(mode::ENFORCE);
    let mut sources = Sources::new(Bounds {
        accounts_max: 100,
        bans_max: 100,
    });
    offend(&mut sources, 1, START_NS, &policy);
    sources.ban(source(2), ban_for(20));
    let held = admit(&mut sources, 3, START_NS, &policy).unwrap();
    for number in 1000..11_000 {
        let ban = attempt(&mut sources, number, Reason::NotTls, START_NS, &policy);
        assert_eq!(ban, None);
    }
    sources.ban(source(4), Ban::by_operator(0, START_NS, SECOND_NS));
    for number in 1000..2000 {
        sources.ban(source(number), ban_for(10));
    }
    assert!(ban_of(&sources, 4).is_some(), "an operator's goes last");
    assert_eq!(sources.accounts.len(), 101);
    assert_eq!(sources.bans.len(), 100);
    let refused = admit(&mut sources, 2, START_NS, &policy);
    assert_eq!(refused, Err(Refusal::Banned));
    assert_eq!(pending_of(&sources, 3), 1);
    let ban = attempt(&mut sources, 1, Reason::NotTls, START_NS, &policy);
    assert_eq!(ban, Some(ban_for(10)));
    let authenticated = outcome(Reason::Authenticated);
    let _ = sources.settle(held, authenticated, START_NS, &policy.settings);
}

#[test]
fn what_has_leaked_away_gives_its_memory_back() {
    let policy = policy(mode::ENFORCE);
    let mut sources = Sources::new(ROOMY);
    for number in 0..1000 {
        let _ = attempt(&mut sources, number, Reason::Reset, START_NS, &policy);
        sources.ban(source(number), ban_for(10));
    }
    sources.ban(source(1), Ban::by_operator(0, START_NS, SECOND_NS));
    assert_eq!((sources.accounts.len(), sources.bans.len()), (1000, 1000));
    let later_ns = START_NS + 2 * policy.settings.ban_memory_ns;
    for number in 2000..2500 {
        let _ = attempt(
            &mut sources,
            number,
            Reason::Authenticated,
            later_ns,
            &policy,
        );
    }
    assert_eq!((sources.accounts.len(), sources.bans.len()), (0, 0));
}

#[test]
fn a_ban_that_is_lifted_is_forgotten_with_what_was_owed() {
    let policy = policy(mode::ENFORCE);
    let mut sources = Sources::new(ROOMY);
    offend(&mut sources, 1, START_NS, &policy);
    sources.ban(source(1), ban_for(1000));
    assert!(sources.unban(&source(1), START_NS));
    assert!(!sources.unban(&source(1), START_NS));
    assert_eq!(sources.sources(START_NS).count(), 0, "nothing is owed");
    offend(&mut sources, 1, START_NS, &policy);
    let ban = attempt(&mut sources, 1, Reason::NotTls, START_NS, &policy);
    assert_eq!(ban, Some(ban_for(10)));
    assert!(!sources.unban(&source(1), START_NS + 11 * SECOND_NS));
}

#[test]
fn the_banned_are_among_the_sources_that_are_known() {
    let policy = policy(mode::ENFORCE);
    let mut sources = Sources::new(ROOMY);
    sources.ban(source(1), ban_for(10));
    let flow = admit(&mut sources, 2, START_NS, &policy).unwrap();
    let mut known: Vec<_> = sources
        .sources(START_NS)
        .map(|(source, standings)| (source, standings.account.pending, standings.ban))
        .collect();
    known.sort_by_key(|(source, ..)| source.0.octets());
    let expected = [(source(1), 0, Some(ban_for(10))), (source(2), 1, None)];
    assert_eq!(known, expected);
    let authenticated = outcome(Reason::Authenticated);
    let _ = sources.settle(flow, authenticated, START_NS, &policy.settings);
}
