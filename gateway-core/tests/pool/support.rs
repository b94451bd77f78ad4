//! What the tests of pools share: servers by port, settings, a repeatable random number.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use gateway_core::balance::{Patience, Server};
use gateway_core::endpoint::Endpoint;
use gateway_core::http::pool::{
    EjectionPolicy, NoServer, PoolServer, PoolSettings, RequestEnd, ServerKey, ServerPool, Wish,
};

pub const SECOND: Duration = Duration::from_secs(1);

pub const POLICY: EjectionPolicy = EjectionPolicy {
    consecutive_failures: 5,
    failure_percent: 50,
    requests_min: 20,
    window: Duration::from_secs(10),
    first: Duration::from_secs(30),
    longest: Duration::from_secs(300),
    share_percent_max: 50,
};

pub const SETTINGS: PoolSettings = PoolSettings {
    patience: Patience {
        first: Duration::from_secs(5),
        longest: Duration::from_secs(60),
        longest_beside: Duration::from_secs(600),
        retry: Duration::from_millis(250),
        head_start: Duration::from_millis(250),
        head_start_max: Duration::from_secs(2),
    },
    max_requests: 1000,
    max_connections: 4,
    slow_start: Duration::ZERO,
    pass_over: Duration::from_secs(5),
    ejection: Some(POLICY),
};

pub fn server(port: u16, weight: u32, is_backup: bool) -> PoolServer {
    PoolServer {
        server: Server {
            source: usize::from(port),
            address: SocketAddr::from(([127, 0, 0, 1], port)).into(),
            share: None,
        },
        weight: NonZeroU32::new(weight).expect("a weight"),
        is_backup,
    }
}

/// A pool, a clock and random numbers.
pub struct World {
    pub pool: ServerPool,
    pub now: Instant,
    random: u64,
}

impl World {
    /// Servers at ports 1, 2, ... with these weights.
    pub fn new(settings: PoolSettings, weights: &[u32]) -> Self {
        let servers = (1..).zip(weights);
        let servers: Vec<_> = servers
            .map(|(port, weight)| server(port, *weight, false))
            .collect();
        World::of(settings, &servers)
    }

    pub fn of(settings: PoolSettings, servers: &[PoolServer]) -> Self {
        let mut pool = ServerPool::new(settings);
        let now = Instant::now();
        pool.replace(servers, now);
        World {
            pool,
            now,
            random: 1,
        }
    }

    /// xorshift64* (Vigna, 2016).
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn choose(
        &mut self,
        key_hash: Option<u64>,
        tried: &[ServerKey],
    ) -> Result<ServerKey, NoServer> {
        let random = self.random();
        self.pool.choose(
            &Wish {
                random,
                key_hash,
                tried,
            },
            self.now,
        )
    }

    pub fn begin(&mut self) -> ServerKey {
        self.choose(None, &[]).expect("a server")
    }

    pub fn port(&self, key: ServerKey) -> u16 {
        match self
            .pool
            .server(key)
            .expect("a known server")
            .server
            .address
        {
            Endpoint::Ip(address) => address.port(),
            Endpoint::Unix(_) => unreachable!("all servers have ports"),
        }
    }

    /// The key of the server at a port.
    pub fn key(&self, port: u16) -> ServerKey {
        let mut keys = self.pool.servers(self.now).map(|(key, ..)| key);
        keys.find(|key| self.port(*key) == port)
            .expect("a known server")
    }

    /// A request that ends at once. Its server.
    pub fn serve(&mut self, end: RequestEnd) -> u16 {
        let key = self.begin();
        let port = self.port(key);
        self.pool.ended(key, end, self.now);
        port
    }

    /// How many of `count` requests that end at once each of so many servers gets.
    pub fn shares(&mut self, count: usize, servers: usize) -> Vec<usize> {
        let mut shares = vec![0; servers];
        for _ in 0..count {
            shares[usize::from(self.serve(RequestEnd::Served)) - 1] += 1;
        }
        shares
    }

    /// Lets a server fail until it is ejected.
    pub fn eject(&mut self, port: u16) {
        let key = self.key(port);
        let policy = POLICY.consecutive_failures;
        let causes = (0..policy).filter_map(|_| self.pool.ended(key, RequestEnd::Failed, self.now));
        assert_eq!(causes.count(), 1);
    }

    pub fn connect_fails(&mut self, port: u16) {
        let key = self.key(port);
        assert!(self.pool.try_connect(key));
        self.pool.connect_failed(key, self.now);
    }
}

/// Each count is close to its share by weight, but for a part of it.
pub fn assert_fair(counts: &[usize], weights: &[u32], tolerance: f64) {
    let total: usize = counts.iter().sum();
    let weight: u32 = weights.iter().sum();
    for (count, own) in counts.iter().zip(weights) {
        let expected = total as f64 * f64::from(*own) / f64::from(weight);
        let off = (*count as f64 - expected).abs() / expected;
        assert!(off < tolerance, "{counts:?} for {weights:?}");
    }
}
