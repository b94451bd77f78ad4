//! Resolves the names of backends, again and again.
//! In: the backends. Out: their addresses, when they change. On the control thread, through the system's resolver, so
//! that /etc/hosts and nsswitch count; never on a worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Backend, BackendTransport, ServerAddress};
use crate::limits;

/// Keeps the last good answer for each name, so that a resolver's outage takes no backend away.
#[derive(Debug)]
pub struct Resolver {
    backends: Vec<Arc<Backend>>,
    last_good: HashMap<(String, u16), Vec<SocketAddr>>,
    published: HashMap<usize, Vec<SocketAddr>>,
}

impl Resolver {
    /// A resolver for `backends`.
    pub fn new(backends: &[Arc<Backend>]) -> Self {
        Resolver {
            backends: backends.to_vec(),
            last_good: HashMap::new(),
            published: HashMap::new(),
        }
    }

    /// Resolves all names once, and returns each backend's addresses.
    pub async fn first_round(&mut self) -> Vec<Vec<SocketAddr>> {
        let found = RefCell::new(vec![Vec::new(); self.backends.len()]);
        self.round(&|backend: usize, addresses: &[SocketAddr]| {
            found.borrow_mut()[backend] = addresses.to_vec();
        })
        .await;
        found.into_inner()
    }

    /// Publishes once more what was published last, over whatever an earlier resolver may have said in the meantime.
    pub fn republish(&self, publish: &impl Fn(usize, &[SocketAddr])) {
        for (position, addresses) in &self.published {
            publish(*position, addresses);
        }
    }

    /// Resolves again and again; `publish` gets a backend's position and its new addresses.
    pub async fn run(&mut self, publish: &impl Fn(usize, &[SocketAddr])) {
        let first = tokio::time::Instant::now() + limits::RESOLVE_INTERVAL;
        let mut interval = tokio::time::interval_at(first, limits::RESOLVE_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.round(publish).await;
        }
    }

    async fn round(&mut self, publish: &impl Fn(usize, &[SocketAddr])) {
        for position in 0..self.backends.len() {
            let backend = Arc::clone(&self.backends[position]);
            let mut addresses = Vec::new();
            for server in &backend.servers {
                match server {
                    ServerAddress::Address(address) => addresses.push(*address),
                    ServerAddress::Name { host, port } => {
                        addresses.extend_from_slice(self.look_up(&backend.name, host, *port).await);
                    }
                }
            }
            // Plaintext was allowed because the name is this host's; whatever else it resolves to is not used.
            if matches!(backend.transport, BackendTransport::LoopbackPlaintext) {
                addresses.retain(|address| address.ip().is_loopback());
            }
            if self.published.get(&position) != Some(&addresses) {
                tracing::debug!(backend = backend.name, ?addresses, "addresses");
                publish(position, &addresses);
                self.published.insert(position, addresses);
            }
        }
    }

    /// Addresses of one name, sorted so that an unchanged answer compares equal; the last good ones on failure.
    async fn look_up(&mut self, backend: &str, host: &str, port: u16) -> &[SocketAddr] {
        let look_up = tokio::net::lookup_host((host, port));
        let answer = tokio::time::timeout(limits::RESOLVE_TIMEOUT, look_up).await;
        let known = self.last_good.entry((host.to_owned(), port)).or_default();
        match answer {
            Ok(Ok(found)) => {
                let mut found: Vec<_> = found.collect();
                found.sort_unstable();
                found.dedup();
                *known = found;
            }
            Ok(Err(error)) => {
                tracing::warn!(backend, host, %error, "cannot resolve; keeping the last addresses")
            }
            Err(_) => tracing::warn!(
                backend,
                host,
                "resolver does not answer; keeping the last addresses"
            ),
        }
        known
    }
}
