//! Which server a request gets, and why none.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_core::balance::Server;
use gateway_core::http::pool::{NoServer, PoolServer, PoolSettings, RequestEnd, ServerCondition};

use crate::support::{SECOND, SETTINGS, World, assert_fair, server};

#[test]
fn each_of_three_servers_gets_a_third_of_ten_thousand_requests() {
    let shares = World::new(SETTINGS, &[1, 1, 1]).shares(10_000, 3);
    assert_fair(&shares, &[1, 1, 1], 0.1);
}

#[test]
fn requests_are_shared_by_weight_however_many_are_in_flight() {
    for weights in [
        &[1, 1, 1][..],
        &[1, 2],
        &[1, 2, 3],
        &[5, 1, 1],
        &[10, 100, 30, 20],
    ] {
        for in_flight_max in [1, 2, 3, 8, 16, 64, 500] {
            let mut world = World::new(SETTINGS, weights);
            let mut counts = vec![0; weights.len()];
            let mut in_flight = VecDeque::new();
            for _ in 0..20_000 {
                if in_flight.len() == in_flight_max {
                    let ended = in_flight.pop_front().expect("one in flight");
                    world.pool.ended(ended, RequestEnd::Served, world.now);
                }
                let key = world.begin();
                counts[usize::from(world.port(key)) - 1] += 1;
                in_flight.push_back(key);
            }
            // A handful of requests cannot be shared exactly.
            let tolerance = match in_flight_max {
                3..=16 => 0.2,
                _ => 0.1,
            };
            println!("{in_flight_max} in flight: {counts:?}");
            assert_fair(&counts, weights, tolerance);
        }
    }
}

#[test]
fn a_server_that_does_not_answer_is_left_alone() {
    let mut world = World::new(SETTINGS, &[1, 1, 1]);
    let mut stuck = 0;
    for _ in 0..1000 {
        let key = world.begin();
        if world.port(key) == 1 {
            stuck += 1;
        } else {
            world.pool.ended(key, RequestEnd::Served, world.now);
        }
    }
    assert_eq!(stuck, 1);
}

#[test]
fn no_server_gets_more_than_it_may_and_the_next_request_hears_that_all_are_full() {
    let settings = PoolSettings {
        max_requests: 7,
        ..SETTINGS
    };
    let mut world = World::new(settings, &[1, 5, 1]);
    let keys: Vec<_> = (0..21).map(|_| world.begin()).collect();
    for port in 1..=3 {
        assert_eq!(
            keys.iter().filter(|key| world.port(**key) == port).count(),
            7
        );
    }
    assert_eq!(world.choose(None, &[]), Err(NoServer::Full));
    assert_eq!(world.choose(Some(5), &[]), Err(NoServer::Full));
    world.pool.ended(keys[0], RequestEnd::Served, world.now);
    assert_eq!(world.begin(), keys[0]);
}

#[test]
fn a_retry_goes_to_a_server_that_has_not_been_tried() {
    let mut world = World::new(SETTINGS, &[1, 1, 1]);
    for _ in 0..100 {
        let mut tried = Vec::new();
        for _ in 0..3 {
            let key = world.choose(None, &tried).expect("another one");
            assert!(!tried.contains(&key));
            tried.push(key);
        }
        assert_eq!(world.choose(None, &tried), Err(NoServer::Exhausted));
    }
}

#[test]
fn backups_get_requests_only_while_no_other_server_can_take_any() {
    let servers = [server(1, 1, false), server(2, 1, true), server(3, 1, true)];
    let mut world = World::of(SETTINGS, &servers);
    assert_eq!(world.shares(100, 3), [100, 0, 0]);
    let primary = world.key(1);
    world.pool.set_healthy(primary, false, world.now);
    let shares = world.shares(1000, 3);
    assert!(
        shares[0] == 0 && shares[1] > 400 && shares[2] > 400,
        "{shares:?}"
    );
    world.pool.set_healthy(primary, true, world.now);
    assert_eq!(world.shares(100, 3), [100, 0, 0]);
}

#[test]
fn a_full_server_is_not_replaced_by_a_backup() {
    let settings = PoolSettings {
        max_requests: 1,
        ..SETTINGS
    };
    let mut world = World::of(settings, &[server(1, 1, false), server(2, 1, true)]);
    world.begin();
    assert_eq!(world.choose(None, &[]), Err(NoServer::Full));
}

#[test]
fn without_servers_none_is_known() {
    let mut world = World::new(SETTINGS, &[]);
    assert_eq!(world.choose(None, &[]), Err(NoServer::NoneKnown));
    world.pool.replace(&[server(1, 1, false)], world.now);
    assert_eq!(world.serve(RequestEnd::Served), 1);
    world.pool.replace(&[], world.now);
    assert_eq!(world.choose(None, &[]), Err(NoServer::NoneKnown));
}

#[test]
fn a_server_that_cannot_be_connected_rests_longer_each_time_and_one_request_tries_it() {
    let mut world = World::new(SETTINGS, &[1, 1]);
    for seconds in [5, 10, 20, 40, 60, 60] {
        world.connect_fails(1);
        assert_eq!(world.shares(50, 2), [0, 50]);
        world.now += seconds * SECOND - Duration::from_millis(1);
        assert_eq!(world.shares(50, 2), [0, 50], "after {seconds}");
        world.now += Duration::from_millis(1);
        let keys: Vec<_> = (0..50).map(|_| world.begin()).collect();
        let tried = keys.iter().filter(|key| world.port(**key) == 1);
        assert_eq!(tried.count(), 1, "after {seconds}");
        for key in keys {
            // None of them says that it could be connected.
            world.pool.ended(key, RequestEnd::Unjudged, world.now);
        }
    }
    let key = world.key(1);
    assert!(world.pool.try_connect(key));
    world.pool.connected(key, world.now);
    assert_fair(&world.shares(10_000, 2), &[1, 1], 0.1);
}

#[test]
fn where_none_can_be_connected_each_is_tried_again_soon_by_one_request() {
    let mut world = World::new(SETTINGS, &[1, 1]);
    world.connect_fails(1);
    world.connect_fails(2);
    let again_at = Some(world.now + SETTINGS.patience.retry);
    assert_eq!(world.choose(None, &[]), Err(NoServer::Down { again_at }));
    world.now += SETTINGS.patience.retry;
    let (one, other) = (world.begin(), world.begin());
    assert_ne!(one, other);
    assert!(matches!(
        world.choose(None, &[]),
        Err(NoServer::Down { .. })
    ));
    world.pool.connect_failed(one, world.now);
    world.pool.ended(one, RequestEnd::Unjudged, world.now);
    assert!(world.pool.connected(other, world.now), "it is back");
    assert!(!world.pool.connected(other, world.now));
    assert_eq!(world.begin(), other);
}

#[test]
fn a_further_connection_that_fails_says_nothing_against_one_that_stands() {
    let mut world = World::new(SETTINGS, &[1]);
    let key = world.key(1);
    assert!(world.pool.try_connect(key));
    world.pool.connected(key, world.now);
    world.connect_fails(1);
    assert_eq!(world.begin(), key);
    world.pool.pass_over(key, world.now);
    world.connect_fails(1);
    assert!(matches!(
        world.choose(None, &[]),
        Err(NoServer::Down { .. })
    ));
}

#[test]
fn an_address_that_fails_rests_longer_while_another_of_its_name_serves() {
    let of_name = |port| PoolServer {
        server: Server {
            source: 0,
            ..server(port, 1, false).server
        },
        ..server(port, 1, false)
    };
    let mut world = World::of(SETTINGS, &[of_name(1), of_name(2), server(3, 1, false)]);
    let key = world.key(1);
    for _ in 0..10 {
        assert!(world.pool.connect_failed(key, world.now));
    }
    world.now += SETTINGS.patience.longest_beside - SECOND;
    assert_eq!(world.shares(100, 3)[0], 0);
    let (second, third) = (world.key(2), world.key(3));
    world.pool.connect_failed(third, world.now);
    assert!(!world.pool.connect_failed(second, world.now));
}

#[test]
fn a_server_that_leaves_gets_nothing_new_until_a_connection_stands_if_there_is_another() {
    let mut world = World::new(SETTINGS, &[1, 1]);
    let (leaving, other) = (world.key(1), world.key(2));
    world.pool.pass_over(leaving, world.now);
    assert_eq!(world.shares(50, 2), [0, 50]);
    world.pool.connected(leaving, world.now);
    assert!(world.shares(50, 2)[0] > 0);
    world.pool.pass_over(leaving, world.now);
    world.now += SETTINGS.pass_over;
    assert!(world.shares(50, 2)[0] > 0);
    world.pool.pass_over(leaving, world.now);
    world.pool.set_healthy(other, false, world.now);
    assert_eq!(world.shares(50, 2), [50, 0]);
}

#[test]
fn connections_to_a_server_are_counted_up_to_their_maximum() {
    let mut world = World::new(SETTINGS, &[1]);
    let key = world.key(1);
    for _ in 0..SETTINGS.max_connections {
        assert!(world.pool.try_connect(key));
    }
    assert!(!world.pool.try_connect(key));
    world.pool.disconnected(key);
    assert!(world.pool.try_connect(key));
    world.pool.broken(key, world.now);
    assert!(world.pool.try_connect(key));
}

#[test]
fn other_servers_replace_those_before_and_what_is_known_of_them_stays() {
    let mut world = World::new(SETTINGS, &[1, 1, 1]);
    let gone = world.key(1);
    let held: Vec<_> = (0..30).map(|_| world.begin()).collect();
    world.connect_fails(2);
    world
        .pool
        .replace(&[server(2, 1, false), server(4, 1, false)], world.now);
    assert_eq!(world.shares(50, 4), [0, 0, 0, 50]);
    let conditions = |world: &World| -> Vec<_> {
        let servers = world.pool.servers(world.now);
        servers
            .map(|(key, condition, _)| (world.port(key), condition))
            .collect()
    };
    assert_eq!(
        conditions(&world),
        [
            (1, ServerCondition::Removed),
            (2, ServerCondition::Resting),
            (3, ServerCondition::Removed),
            (4, ServerCondition::Usable),
        ]
    );
    // One that comes back before it is forgotten is the same server.
    world
        .pool
        .replace(&[server(1, 1, false), server(1, 9, true)], world.now);
    assert_eq!(world.key(1), gone);
    for key in held {
        world.pool.ended(key, RequestEnd::Served, world.now);
    }
    assert_eq!(conditions(&world), [(1, ServerCondition::Usable)]);
    // The place of one that is gone is used again, and its key means nothing.
    let forgotten = world.key(1);
    world.pool.replace(&[], world.now);
    world.pool.replace(&[server(7, 1, false)], world.now);
    assert!(world.pool.server(forgotten).is_none());
    world.pool.set_healthy(forgotten, false, world.now);
    world.pool.ended(forgotten, RequestEnd::Served, world.now);
    assert_eq!(world.serve(RequestEnd::Served), 7);
}

#[test]
fn a_server_that_comes_back_takes_its_share_bit_by_bit() {
    let settings = PoolSettings {
        slow_start: 100 * SECOND,
        ..SETTINGS
    };
    let mut world = World::new(settings, &[1, 1, 1]);
    // The first servers have nobody to lean on.
    assert_fair(&world.shares(10_000, 3), &[1, 1, 1], 0.1);
    let key = world.key(1);
    world.pool.set_healthy(key, false, world.now);
    world.pool.set_healthy(key, true, world.now);
    for (seconds, least, most) in [(0, 200, 500), (49, 1_300, 2_000), (51, 2_900, 3_700)] {
        world.now += seconds * SECOND;
        let share = world.shares(10_000, 3)[0];
        assert!((least..most).contains(&share), "{share} {seconds} s later");
    }
    world
        .pool
        .replace(&[1, 2, 3, 4].map(|port| server(port, 1, false)), world.now);
    let share = world.shares(10_000, 4)[3];
    assert!((150..400).contains(&share), "{share} for a new server");
}
