//! Servers that fail requests.

use std::time::Duration;

use gateway_core::http::pool::{
    EjectionCause, NoServer, PoolSettings, RequestEnd, ServerCondition,
};

use crate::support::{POLICY, SECOND, SETTINGS, World, assert_fair, server};

#[test]
fn failures_in_a_row_eject_a_server_and_others_take_its_share() {
    let mut world = World::new(SETTINGS, &[1, 1, 1]);
    let key = world.key(1);
    for _ in 1..POLICY.consecutive_failures {
        assert_eq!(world.pool.ended(key, RequestEnd::Failed, world.now), None);
    }
    world.pool.ended(key, RequestEnd::Served, world.now);
    for _ in 1..POLICY.consecutive_failures {
        assert_eq!(world.pool.ended(key, RequestEnd::Failed, world.now), None);
        // A client that leaves says nothing for the server.
        world.pool.ended(key, RequestEnd::Unjudged, world.now);
    }
    let cause = world.pool.ended(key, RequestEnd::Failed, world.now);
    assert_eq!(cause, Some(EjectionCause::ConsecutiveFailures));
    let shares = world.shares(10_000, 3);
    assert_eq!(shares[0], 0);
    assert_fair(&shares[1..], &[1, 1], 0.1);
}

#[test]
fn a_share_of_failures_ejects_a_server_once_it_had_enough_requests() {
    let mut world = World::new(SETTINGS, &[1, 1, 1]);
    let key = world.key(1);
    let alternate = |count, world: &mut World| {
        let ends = [RequestEnd::Served, RequestEnd::Failed]
            .into_iter()
            .cycle()
            .take(count);
        ends.filter_map(|end| world.pool.ended(key, end, world.now))
            .next()
    };
    assert_eq!(alternate(18, &mut world), None);
    // Another window has begun.
    world.now += POLICY.window;
    assert_eq!(alternate(18, &mut world), None);
    assert_eq!(alternate(2, &mut world), Some(EjectionCause::FailureShare));
}

#[test]
fn an_ejected_server_returns_and_stays_away_longer_each_time() {
    let mut world = World::new(SETTINGS, &[1, 1, 1]);
    for seconds in [30, 60, 120, 240, 300, 300] {
        world.eject(1);
        world.now += seconds * SECOND - Duration::from_millis(1);
        assert_eq!(world.shares(50, 3)[0], 0, "after {seconds}");
        world.now += Duration::from_millis(1);
        assert!(world.shares(50, 3)[0] > 0, "after {seconds}");
    }
    // It has recovered when it served for as long as it was away.
    world.now += 300 * SECOND;
    world.eject(1);
    world.now += POLICY.first;
    assert!(world.shares(50, 3)[0] > 0);
}

#[test]
fn no_more_servers_are_ejected_than_may_be() {
    for (servers, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (9, 4)] {
        let mut world = World::new(SETTINGS, &vec![1; servers]);
        let keys: Vec<_> = (1..=servers as u16).map(|port| world.key(port)).collect();
        let mut ejected = 0;
        for key in keys {
            for _ in 0..100 {
                ejected += usize::from(
                    world
                        .pool
                        .ended(key, RequestEnd::Failed, world.now)
                        .is_some(),
                );
            }
        }
        assert_eq!(ejected, most, "of {servers}");
    }
    let all = PoolSettings {
        ejection: Some(gateway_core::http::pool::EjectionPolicy {
            share_percent_max: 100,
            ..POLICY
        }),
        ..SETTINGS
    };
    let mut world = World::new(all, &[1, 1]);
    world.eject(1);
    let last = world.key(2);
    for _ in 0..100 {
        assert_eq!(world.pool.ended(last, RequestEnd::Failed, world.now), None);
    }
}

#[test]
fn fewer_servers_take_back_those_that_are_ejected_beyond_what_may_be() {
    let mut world = World::new(SETTINGS, &[1, 1, 1, 1]);
    world.eject(1);
    world.now += SECOND;
    world.eject(2);
    world
        .pool
        .replace(&[1, 2].map(|port| server(port, 1, false)), world.now);
    // The first one's time would have ended first.
    assert_eq!(world.shares(50, 2), [50, 0]);
    world.pool.configure(
        PoolSettings {
            ejection: None,
            ..SETTINGS
        },
        world.now,
    );
    assert!(world.shares(50, 2)[1] > 0);
}

#[test]
fn an_ejected_server_is_better_than_none() {
    let mut world = World::new(SETTINGS, &[1, 1]);
    world.eject(1);
    let other = world.key(2);
    world.pool.set_healthy(other, false, world.now);
    assert_eq!(world.shares(50, 2), [50, 0]);
    let only = world.key(1);
    world.pool.set_healthy(only, false, world.now);
    assert_eq!(world.choose(None, &[]), Err(NoServer::Unhealthy));
}

#[test]
fn a_connection_that_breaks_is_one_failure_however_many_requests_it_had() {
    let mut world = World::new(SETTINGS, &[1, 1, 1]);
    let key = world.key(1);
    for number in 1..=POLICY.consecutive_failures {
        assert!(world.pool.try_connect(key));
        for _ in 0..100 {
            assert_eq!(world.pool.ended(key, RequestEnd::Unjudged, world.now), None);
        }
        let cause = world.pool.broken(key, world.now);
        assert_eq!(cause.is_some(), number == POLICY.consecutive_failures);
    }
    let condition = world
        .pool
        .servers(world.now)
        .find(|(found, ..)| *found == key);
    assert_eq!(condition, Some((key, ServerCondition::Ejected, 0)));
}

#[test]
fn a_status_tells_of_the_server_or_of_the_request() {
    for (status, end) in [
        (200, RequestEnd::Served),
        (404, RequestEnd::Served),
        (429, RequestEnd::Served),
        (500, RequestEnd::Failed),
        (501, RequestEnd::Served),
        (502, RequestEnd::Failed),
        (503, RequestEnd::Failed),
        (504, RequestEnd::Failed),
        (505, RequestEnd::Served),
    ] {
        assert_eq!(RequestEnd::of_http_status(status), end, "{status}");
    }
    for status in 0..20 {
        let is_failed = RequestEnd::of_grpc_status(status) == RequestEnd::Failed;
        assert_eq!(is_failed, status == 14, "{status}");
    }
}
