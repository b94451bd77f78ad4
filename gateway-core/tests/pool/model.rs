//! A model: random events, and what must hold after each.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_core::http::pool::{
    EjectionPolicy, NoServer, PoolSettings, RequestEnd, ServerCondition, ServerKey, Wish,
};
use proptest::prelude::*;

use crate::support::{POLICY, SETTINGS, World, server};

const MAX_REQUESTS: u32 = 3;

/// What happens to a server, by its port.
#[derive(Debug, Clone)]
enum Step {
    Request { by_key: Option<u64> },
    End { number: usize, end: RequestEnd },
    Connect { port: u16, works: bool },
    Break { port: u16 },
    Leave { port: u16 },
    Health { port: u16, is_good: bool },
    Replace { ports: Vec<u16> },
    Wait { milliseconds: u64 },
}

fn steps() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        1 => Just(RequestEnd::Served),
        2 => Just(RequestEnd::Failed),
        1 => Just(RequestEnd::Unjudged),
    ];
    let port = 1u16..8;
    prop_oneof![
        6 => proptest::option::of(any::<u64>()).prop_map(|by_key| Step::Request { by_key }),
        6 => (any::<usize>(), end).prop_map(|(number, end)| Step::End { number, end }),
        2 => (port.clone(), any::<bool>()).prop_map(|(port, works)| Step::Connect { port, works }),
        1 => port.clone().prop_map(|port| Step::Break { port }),
        1 => port.clone().prop_map(|port| Step::Leave { port }),
        1 => (port.clone(), any::<bool>()).prop_map(|(port, is_good)| Step::Health { port, is_good }),
        1 => proptest::collection::vec(port, 0..6).prop_map(|ports| Step::Replace { ports }),
        2 => (0u64..40_000).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ]
}

struct Model {
    world: World,
    in_flight: Vec<ServerKey>,
}

impl Model {
    fn new(percent: u32) -> Self {
        let settings = PoolSettings {
            max_requests: MAX_REQUESTS,
            slow_start: Duration::from_secs(3),
            ejection: Some(EjectionPolicy {
                share_percent_max: percent,
                consecutive_failures: 2,
                ..POLICY
            }),
            ..SETTINGS
        };
        Model {
            world: World::new(settings, &[1, 2, 1, 1]),
            in_flight: Vec::new(),
        }
    }

    fn key(&self, port: u16) -> Option<ServerKey> {
        let mut keys = self.world.pool.servers(self.world.now).map(|(key, ..)| key);
        keys.find(|key| self.world.port(*key) == port)
    }

    fn condition(&self, key: ServerKey) -> ServerCondition {
        let mut servers = self.world.pool.servers(self.world.now);
        servers
            .find(|(known, ..)| *known == key)
            .expect("a known server")
            .1
    }

    fn play(&mut self, step: &Step) {
        let now = self.world.now;
        match step {
            Step::Request { by_key } => self.request(*by_key),
            Step::End { number, end } if !self.in_flight.is_empty() => {
                let key = self.in_flight.swap_remove(number % self.in_flight.len());
                self.world.pool.ended(key, *end, now);
            }
            Step::End { .. } => {}
            Step::Connect { port, works } => {
                if let Some(key) = self
                    .key(*port)
                    .filter(|key| self.world.pool.try_connect(*key))
                {
                    if *works {
                        self.world.pool.connected(key, now);
                    } else {
                        self.world.pool.connect_failed(key, now);
                    }
                }
            }
            Step::Break { port } => {
                if let Some(key) = self.key(*port) {
                    self.world.pool.broken(key, now);
                }
            }
            Step::Leave { port } => {
                if let Some(key) = self.key(*port) {
                    self.world.pool.pass_over(key, now);
                }
            }
            Step::Health { port, is_good } => {
                if let Some(key) = self.key(*port) {
                    self.world.pool.set_healthy(key, *is_good, now);
                }
            }
            Step::Replace { ports } => {
                let servers: Vec<_> = ports
                    .iter()
                    .map(|port| server(*port, 1, *port > 5))
                    .collect();
                self.world.pool.replace(&servers, now);
            }
            Step::Wait { milliseconds } => self.world.now += Duration::from_millis(*milliseconds),
        }
    }

    fn request(&mut self, key_hash: Option<u64>) {
        let random = self.world.random();
        let wish = Wish {
            random,
            key_hash,
            tried: &[],
        };
        match self.world.pool.choose(&wish, self.world.now) {
            Ok(key) => {
                let condition = self.condition(key);
                assert!(!matches!(
                    condition,
                    ServerCondition::Removed | ServerCondition::Unhealthy
                ));
                self.in_flight.push(key);
            }
            Err(NoServer::Full | NoServer::Exhausted) => {}
            Err(NoServer::NoneKnown) => {
                let mut servers = self.world.pool.servers(self.world.now);
                assert!(servers.all(|(_, condition, _)| condition == ServerCondition::Removed));
            }
            Err(NoServer::Unhealthy) => {
                for (_, condition, _) in self.world.pool.servers(self.world.now) {
                    assert!(matches!(
                        condition,
                        ServerCondition::Unhealthy | ServerCondition::Removed
                    ));
                }
            }
            Err(NoServer::Down { again_at }) => {
                assert!(again_at.is_none_or(|at| at > self.world.now));
                for (_, condition, _) in self.world.pool.servers(self.world.now) {
                    assert!(!matches!(
                        condition,
                        ServerCondition::Usable
                            | ServerCondition::PassedOver
                            | ServerCondition::Ejected
                    ));
                }
            }
        }
    }

    fn check(&self, percent: u32) {
        let mut expected: BTreeMap<ServerKey, u32> = BTreeMap::new();
        for key in &self.in_flight {
            *expected.entry(*key).or_default() += 1;
        }
        let (mut known, mut ejected) = (0, 0);
        for (key, condition, in_flight) in self.world.pool.servers(self.world.now) {
            assert_eq!(in_flight, expected.remove(&key).unwrap_or(0));
            assert!(in_flight <= MAX_REQUESTS);
            known += u32::from(condition != ServerCondition::Removed);
            ejected += u32::from(condition == ServerCondition::Ejected);
        }
        assert!(expected.is_empty(), "a server with requests is forgotten");
        assert!(ejected * 100 <= known * percent, "{ejected} of {known}");
    }

    /// With time, servers that can be connected and whose checks pass are usable again, each.
    fn recover(&mut self) {
        let now = self.world.now;
        for key in std::mem::take(&mut self.in_flight) {
            self.world.pool.ended(key, RequestEnd::Unjudged, now);
        }
        let keys: Vec<_> = self.world.pool.servers(now).map(|(key, ..)| key).collect();
        for key in &keys {
            self.world.pool.set_healthy(*key, true, now);
        }
        self.world.now += POLICY.longest + SETTINGS.patience.longest_beside;
        for _ in 0..10 * keys.len() {
            let Ok(key) = self.world.choose(None, &[]) else {
                break;
            };
            self.world.pool.connected(key, self.world.now);
            self.world
                .pool
                .ended(key, RequestEnd::Served, self.world.now);
        }
        let mut servers = self.world.pool.servers(self.world.now);
        assert!(servers.all(|(_, condition, _)| {
            matches!(
                condition,
                ServerCondition::Usable | ServerCondition::Removed
            )
        }));
    }
}

proptest! {
    /// Whatever happens: a request gets a server whose checks pass and that has room, or none can be reached; requests
    /// in flight are counted, no more servers are ejected than may be, and all recover.
    #[test]
    fn whatever_happens_requests_get_what_there_is(
        steps in proptest::collection::vec(steps(), 1..300),
        percent in prop_oneof![Just(10u32), Just(34), Just(50), Just(100)],
    ) {
        let mut model = Model::new(percent);
        for step in &steps {
            model.play(step);
            model.check(percent);
        }
        model.recover();
    }
}
