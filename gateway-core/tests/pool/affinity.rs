//! Servers by the hash of a key.

use gateway_core::balance::Server;
use gateway_core::endpoint::Endpoint;
use gateway_core::http::pool::{PoolServer, PoolSettings, RequestEnd, hash_key};

use crate::support::{SETTINGS, World, assert_fair, server};

/// The servers of keys.
fn ports(world: &mut World, keys: usize) -> Vec<u16> {
    let mut ports = Vec::new();
    for key in 0..keys {
        let hash = hash_key(format!("tenant-{key}").as_bytes());
        let chosen = world.choose(Some(hash), &[]).expect("a server");
        ports.push(world.port(chosen));
        world.pool.ended(chosen, RequestEnd::Served, world.now);
    }
    ports
}

fn counts(ports: &[u16], servers: u16) -> Vec<usize> {
    let count = |port| ports.iter().filter(|found| **found == port).count();
    (1..=servers).map(count).collect()
}

#[test]
fn keys_are_shared_by_weight() {
    for weights in [&[1, 1, 1][..], &[7, 7, 7], &[1, 2, 3], &[10, 1, 5, 4]] {
        let mut world = World::new(SETTINGS, weights);
        let ports = ports(&mut world, 20_000);
        assert_fair(&counts(&ports, weights.len() as u16), weights, 0.1);
    }
}

#[test]
fn only_the_keys_of_a_server_that_goes_move_and_they_return_with_it() {
    for weights in [&[1, 1, 1, 1][..], &[1, 2, 3, 4]] {
        let mut world = World::new(SETTINGS, weights);
        let before = ports(&mut world, 10_000);
        let gone = world.key(2);
        world.pool.set_healthy(gone, false, world.now);
        let without = ports(&mut world, 10_000);
        for (before, without) in before.iter().zip(&without) {
            assert!(*before == 2 || before == without);
        }
        world.pool.set_healthy(gone, true, world.now);
        assert_eq!(ports(&mut world, 10_000), before);
    }
}

#[test]
fn a_new_server_takes_its_share_and_no_other_key_moves() {
    let mut world = World::new(SETTINGS, &[1, 1, 1]);
    let before = ports(&mut world, 10_000);
    let four = [4, 3, 2, 1].map(|port| server(port, 1, false));
    world.pool.replace(&four, world.now);
    let after = ports(&mut world, 10_000);
    for (before, after) in before.iter().zip(&after) {
        assert!(*after == 4 || before == after);
    }
    assert_fair(&counts(&after, 4), &[1, 1, 1, 1], 0.1);
}

#[test]
fn what_a_full_server_cannot_take_goes_to_the_next_of_its_key() {
    let settings = PoolSettings {
        max_requests: 2,
        ..SETTINGS
    };
    let mut world = World::new(settings, &[1, 1, 1]);
    let mut of_one_key = || {
        let key = world.choose(Some(77), &[]).expect("a server");
        world.port(key)
    };
    let chosen: Vec<_> = (0..6).map(|_| of_one_key()).collect();
    assert_eq!(chosen[0], chosen[1]);
    assert_eq!(chosen[2], chosen[3]);
    assert_eq!(
        chosen
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        3
    );
}

#[test]
fn addresses_and_ports_that_resemble_each_other_are_different_servers() {
    let servers =
        [("10.0.0.1:2", 1), ("10.0.0.2:1", 2), ("10.0.0.3:0", 3)].map(|(text, source)| {
            let one = server(1, 1, false);
            let address = Endpoint::Ip(text.parse().expect("an address"));
            PoolServer {
                server: Server {
                    source,
                    address,
                    share: None,
                },
                ..one
            }
        });
    let mut world = World::of(SETTINGS, &servers);
    let mut counts = vec![0; 3];
    for key in 0..10_000 {
        let chosen = world.choose(Some(key), &[]).expect("a server");
        let chosen_server = world.pool.server(chosen).expect("a known server");
        counts[chosen_server.server.source - 1] += 1;
        world.pool.ended(chosen, RequestEnd::Served, world.now);
    }
    assert_fair(&counts, &[1, 1, 1], 0.1);
}

#[test]
fn every_gateway_gives_a_key_the_same_hash() {
    // By another implementation of FNV-1a and the finalizer.
    assert_eq!(hash_key(b""), 0xf52a_15e9_a9b5_e89b);
    assert_eq!(hash_key(b"team-a"), 0x45e5_c4ef_ef52_9ae3);
}
