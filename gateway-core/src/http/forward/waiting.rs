//! Requests that wait for a connection, in a queue for each backend. In: requests, with the identity of their clients.
//! Out: whose turn it is, and who gives way in a full queue. Pure.
//!
//! Identities take turns, each with its oldest request: one that sends a thousand delays another by one request at a
//! time. A full queue takes a request of an identity that has few there in place of the newest of the one that has most.

use std::collections::{BTreeMap, VecDeque};

use crate::http::limits::QUEUED_REQUESTS_MAX;

/// What becomes of a request that is to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    /// It waits.
    Waits,
    /// It waits, and this one does not any more.
    InPlaceOf(u32),
    /// There is no room for it.
    Full,
}

/// One queue. An identity is a number that all connections of one share.
#[derive(Debug, Default)]
struct FairQueue {
    /// Requests by identity, oldest first. None of them is empty.
    waiting: BTreeMap<u64, VecDeque<u32>>,
    /// Identities, the one whose turn it is first.
    turns: VecDeque<u64>,
    len: usize,
}

impl FairQueue {
    fn push(&mut self, identity: u64, key: u32) -> Queued {
        let own = self.waiting.get(&identity).map_or(0, VecDeque::len);
        let queued = match self.len < QUEUED_REQUESTS_MAX {
            true => Queued::Waits,
            false => match self.take_newest_of_most(own) {
                Some(other) => Queued::InPlaceOf(other),
                None => return Queued::Full,
            },
        };
        if own == 0 {
            self.turns.push_back(identity);
        }
        self.waiting.entry(identity).or_default().push_back(key);
        self.len += 1;
        queued
    }

    /// Takes out the newest request of the identity that has most, if one with `own` has fewer even with one more.
    fn take_newest_of_most(&mut self, own: usize) -> Option<u32> {
        let all = self.waiting.iter_mut();
        let (_, most) = all.max_by_key(|(_, keys)| keys.len())?;
        if most.len() <= own + 1 {
            return None;
        }
        self.len -= 1;
        // At least one is left: it keeps its turn.
        most.pop_back()
    }

    /// Takes out the request whose turn it is.
    fn pop(&mut self) -> Option<(u64, u32)> {
        let identity = self.turns.pop_front()?;
        let keys = self.waiting.get_mut(&identity)?;
        let key = keys.pop_front()?;
        self.len -= 1;
        match keys.is_empty() {
            true => {
                self.waiting.remove(&identity);
            }
            false => self.turns.push_back(identity),
        }
        Some((identity, key))
    }

    /// Takes back one that was popped: it is its turn again.
    fn put_back(&mut self, identity: u64, key: u32) {
        let keys = self.waiting.entry(identity).or_default();
        if !keys.is_empty() {
            self.turns.retain(|other| *other != identity);
        }
        keys.push_front(key);
        self.turns.push_front(identity);
        self.len += 1;
    }

    fn remove(&mut self, identity: u64, key: u32) {
        let Some(keys) = self.waiting.get_mut(&identity) else {
            return;
        };
        let before = keys.len();
        keys.retain(|other| *other != key);
        self.len -= before - keys.len();
        if keys.is_empty() {
            self.waiting.remove(&identity);
            self.turns.retain(|other| *other != identity);
        }
    }
}

/// The queues of all backends.
#[derive(Debug, Default)]
pub(super) struct Queues {
    queues: Vec<FairQueue>,
    /// Queues for which a connection may have room.
    due: Vec<usize>,
    /// The one whose requests are being placed.
    placing: Option<usize>,
    /// Requests of it for which there was no room, in order.
    missed: Vec<(u64, u32)>,
}

impl Queues {
    /// Has a request wait. One that has waited there, and was to be placed, keeps its place.
    pub(super) fn push(&mut self, queue: usize, identity: u64, key: u32) -> Queued {
        if self.placing == Some(queue) {
            self.missed.push((identity, key));
            return Queued::Waits;
        }
        if self.queues.len() <= queue {
            self.queues.resize_with(queue + 1, FairQueue::default);
        }
        self.queues[queue].push(identity, key)
    }

    pub(super) fn remove(&mut self, queue: usize, identity: u64, key: u32) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.remove(identity, key);
        }
    }

    /// How many queues there are.
    pub(super) fn count(&self) -> usize {
        self.queues.len()
    }

    /// How many requests wait in a queue.
    pub(super) fn waiting(&self, queue: usize) -> usize {
        self.queues.get(queue).map_or(0, |queue| queue.len)
    }

    /// Notes that a connection of a queue may have room.
    pub(super) fn note_room(&mut self, queue: usize) {
        if self.waiting(queue) > 0 && !self.due.contains(&queue) {
            self.due.push(queue);
        }
    }

    /// A queue for which a connection may have room, one after the other.
    pub(super) fn next_due(&mut self) -> Option<usize> {
        self.due.pop()
    }

    /// Begins to place the requests of a queue.
    pub(super) fn begin(&mut self, queue: usize) {
        self.placing = Some(queue);
    }

    /// The next request to place, until so many have found no room.
    pub(super) fn next(&mut self, misses_max: usize) -> Option<u32> {
        if self.missed.len() >= misses_max {
            return None;
        }
        let queue = self.queues.get_mut(self.placing?)?;
        queue.pop().map(|(_, key)| key)
    }

    /// Those that have found no room wait on, where they were.
    pub(super) fn end(&mut self) {
        let queue = self.placing.take();
        if let Some(queue) = queue.and_then(|queue| self.queues.get_mut(queue)) {
            for (identity, key) in self.missed.drain(..).rev() {
                queue.put_back(identity, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const GREEDY: u64 = 0;

    /// Pushes; what was given up for it is taken from those that wait.
    fn push(queue: &mut Queues, waiting: &mut BTreeSet<(u64, u32)>, identity: u64, key: u32) {
        match queue.push(0, identity, key) {
            Queued::Waits => {}
            Queued::InPlaceOf(other) => {
                let before = waiting.len();
                waiting.retain(|(_, key)| *key != other);
                assert_eq!(waiting.len(), before - 1);
            }
            Queued::Full => return,
        }
        waiting.insert((identity, key));
    }

    /// Places at most so many, and then one finds no room.
    fn place(queue: &mut Queues, room: usize) -> Vec<u32> {
        let mut placed = Vec::new();
        queue.begin(0);
        while let Some(key) = queue.next(1) {
            match placed.len() < room {
                true => placed.push(key),
                // The test's keys say whose they are.
                false => assert_eq!(queue.push(0, u64::from(key % 8), key), Queued::Waits),
            }
        }
        queue.end();
        placed
    }

    proptest! {
        /// However much one identity sends: each other one has a request placed with every round of the identities that
        /// wait, and none of an identity that keeps within its share is ever given up.
        #[test]
        fn a_greedy_identity_delays_others_by_one_request_each_round(
            steps in vec((0_u32..8, 0_usize..12, 0_usize..4), 1..200),
            flood in 0_u32..2000,
        ) {
            let (mut queues, mut waiting, mut number) = (Queues::default(), BTreeSet::new(), 0_u32);
            let mut next_key = |identity: u32| { number += 8; number + identity };
            for _ in 0..flood {
                push(&mut queues, &mut waiting, GREEDY, next_key(0));
            }
            for (identity, count, room) in steps {
                for _ in 0..count {
                    let key = next_key(identity);
                    let whose = u64::from(identity);
                    let own = waiting.iter().filter(|(other, _)| *other == whose).count();
                    push(&mut queues, &mut waiting, whose, key);
                    // Eight identities share the queue.
                    if own < QUEUED_REQUESTS_MAX / 8 {
                        prop_assert!(waiting.contains(&(whose, key)));
                    }
                }
                prop_assert_eq!(queues.waiting(0), waiting.len());
                prop_assert!(waiting.len() <= QUEUED_REQUESTS_MAX);
                let identities: BTreeSet<u64> = waiting.iter().map(|(identity, _)| *identity).collect();
                let oldest = |identity: u64| waiting.range((identity, 0)..).next().copied();
                let first: Vec<_> = identities.iter().filter_map(|identity| oldest(*identity)).collect();
                let placed = place(&mut queues, room);
                prop_assert_eq!(placed.len(), room.min(waiting.len()));
                // Those of one round are of as many identities, each its oldest.
                let round = &placed[..placed.len().min(identities.len())];
                prop_assert!(round.iter().all(|key| first.iter().any(|(_, oldest)| oldest == key)));
                waiting.retain(|(_, key)| !placed.contains(key));
            }
            let rounds = place(&mut queues, usize::MAX);
            prop_assert_eq!(rounds.len(), waiting.len());
            prop_assert_eq!(queues.waiting(0), 0);
        }

        #[test]
        fn requests_that_leave_take_nothing_along(
            keys in vec((0_u64..4, any::<bool>()), 1..100),
        ) {
            let mut queues = Queues::default();
            for (key, (identity, _)) in keys.iter().enumerate() {
                queues.push(0, *identity, key as u32);
            }
            for (key, (identity, leaves)) in keys.iter().enumerate() {
                if *leaves {
                    queues.remove(0, *identity, key as u32);
                }
            }
            let mut left = place(&mut queues, usize::MAX);
            left.sort_unstable();
            let stays = keys.iter().enumerate().filter(|(_, (_, leaves))| !leaves);
            let stays: Vec<u32> = stays.map(|(key, _)| key as u32).collect();
            prop_assert_eq!(left, stays);
        }
    }

    #[test]
    fn one_identity_alone_has_the_whole_queue_and_gives_up_its_newest() {
        let mut queues = Queues::default();
        for key in 0..QUEUED_REQUESTS_MAX as u32 {
            assert_eq!(queues.push(0, GREEDY, key), Queued::Waits);
        }
        assert_eq!(queues.push(0, GREEDY, 9999), Queued::Full);
        let newest = QUEUED_REQUESTS_MAX as u32 - 1;
        assert_eq!(queues.push(0, 1, 10_000), Queued::InPlaceOf(newest));
        assert_eq!(queues.push(0, 1, 10_001), Queued::InPlaceOf(newest - 1));
        assert_eq!(place(&mut queues, 3), [0, 10_000, 1]);
    }

    #[test]
    fn what_finds_no_room_keeps_its_turn() {
        let mut queues = Queues::default();
        for (identity, key) in [(1, 1), (1, 9), (2, 2), (3, 3)] {
            queues.push(0, identity, key);
        }
        assert_eq!(place(&mut queues, 1), [1]);
        assert_eq!(place(&mut queues, 0), []);
        assert_eq!(place(&mut queues, 3), [2, 3, 9]);
    }
}
