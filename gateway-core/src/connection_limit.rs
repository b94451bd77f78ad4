//! Limits the open connections of a listener, over all workers.
//! In: a new connection. Out: a permit, or a refusal. One atomic per listener, touched once per connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit on open connections that all workers share.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    open: Arc<AtomicUsize>,
    max: usize,
}

/// The right to hold one connection; released when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    open: Arc<AtomicUsize>,
}

impl ConnectionLimit {
    /// A limit of `max` open connections.
    pub fn new(max: usize) -> Self {
        ConnectionLimit {
            open: Arc::default(),
            max,
        }
    }

    /// Takes a permit; `None` if `max` are taken.
    pub fn try_acquire(&self) -> Option<ConnectionPermit> {
        let below_max = |open: usize| (open < self.max).then_some(open + 1);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_max)
            .ok()?;
        Some(ConnectionPermit {
            open: Arc::clone(&self.open),
        })
    }

    /// Number of taken permits.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_over_threads_and_permits_come_back() {
        let limit = ConnectionLimit::new(100);
        let held: Vec<_> = std::thread::scope(|scope| {
            let take = || {
                (0..100)
                    .filter_map(|_| limit.try_acquire())
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!((held.len(), limit.open()), (100, 100));
        assert!(limit.try_acquire().is_none());
        drop(held);
        assert_eq!(limit.open(), 0);
        assert!(limit.try_acquire().is_some());
    }
}
