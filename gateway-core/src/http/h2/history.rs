//! What is remembered of streams that are gone: whether a late frame is its sender's fault. In: ids as they are opened
//! and left. Out: what a frame on an id that is not open means. A fixed size, whatever happens. Pure.

use super::StreamId;

/// Streams that are remembered, counted from the newest.
const REMEMBERED: u32 = u128::BITS;

/// What a stream is that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// Nobody has opened it.
    Idle,
    /// A newer one was opened before it (RFC 9113 section 5.1.1): nobody can open it any more.
    Skipped,
    /// The peer had ended or reset it: it may not say anything more.
    Ended,
    /// We have reset it, and the peer may not know yet (RFC 9113 section 5.4.2); or it is too long ago to know.
    Abandoned,
}

/// The streams of a connection that one side opens, in the order of their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    highest: StreamId,
    /// A bit for each of the newest ids, the lowest for the highest id: whether it was opened.
    opened: u128,
    /// Whether we left it before the peer had ended it.
    abandoned: u128,
}

impl History {
    /// The highest stream that was opened.
    pub(super) fn highest(&self) -> StreamId {
        self.highest
    }

    /// A stream is opened, above all that were before it.
    pub(super) fn open(&mut self, stream: StreamId) {
        debug_assert!(stream > self.highest);
        let steps = (stream.number() - self.highest.number()).div_ceil(2);
        self.opened = self.opened.checked_shl(steps).unwrap_or(0) | 1;
        self.abandoned = self.abandoned.checked_shl(steps).unwrap_or(0);
        self.highest = stream;
    }

    /// We leave a stream, and the peer may still send on it.
    pub(super) fn abandon(&mut self, stream: StreamId) {
        if let Some(bit) = self.bit(stream) {
            self.abandoned |= bit;
        }
    }

    /// What a frame on a stream means that is not open.
    pub(super) fn past(&self, stream: StreamId) -> Past {
        let is_of_this_side = stream.is_of_client();
        if stream > self.highest || !is_of_this_side {
            return Past::Idle;
        }
        match self.bit(stream) {
            None => Past::Abandoned,
            Some(bit) if self.opened & bit == 0 => Past::Skipped,
            Some(bit) if self.abandoned & bit == 0 => Past::Ended,
            Some(_) => Past::Abandoned,
        }
    }

    fn bit(&self, stream: StreamId) -> Option<u128> {
        let steps = (self.highest.number() - stream.number()) / 2;
        (steps < REMEMBERED).then(|| 1 << steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    fn id(number: u32) -> StreamId {
        StreamId::new(number)
    }

    #[test]
    fn a_stream_that_is_gone_is_remembered_by_how_it_went() {
        let mut history = History::default();
        assert_eq!(history.past(id(1)), Past::Idle);
        for number in [1, 3, 9] {
            history.open(id(number));
        }
        history.abandon(id(3));
        assert_eq!(history.past(id(1)), Past::Ended);
        assert_eq!(history.past(id(3)), Past::Abandoned);
        assert_eq!(history.past(id(5)), Past::Skipped);
        assert_eq!(history.past(id(7)), Past::Skipped);
        assert_eq!(history.past(id(9)), Past::Ended);
        assert_eq!(history.past(id(11)), Past::Idle);
        for even in [2, 8, 100] {
            assert_eq!(history.past(id(even)), Past::Idle);
        }
    }

    #[test]
    fn what_is_too_long_ago_is_nobodys_fault() {
        let mut history = History::default();
        history.open(id(1));
        history.open(id(1 + 2 * 127));
        assert_eq!(history.past(id(1)), Past::Ended);
        history.open(id(1 + 2 * 128));
        assert_eq!(history.past(id(1)), Past::Abandoned);
        history.open(StreamId::LAST);
        assert_eq!(history.past(id(3)), Past::Abandoned);
        assert_eq!(history.past(id(StreamId::LAST.number() - 2)), Past::Skipped);
    }

    proptest! {
        #[test]
        fn nothing_recent_is_forgotten(opened in btree_map(0_u32..300, any::<bool>(), 1..100)) {
            let mut history = History::default();
            for (step, is_abandoned) in &opened {
                history.open(id(2 * step + 1));
                if *is_abandoned {
                    history.abandon(id(2 * step + 1));
                }
            }
            let highest = *opened.last_key_value().unwrap().0;
            for step in 0..320 {
                let expected = match opened.get(&step) {
                    _ if step > highest => Past::Idle,
                    _ if highest - step >= REMEMBERED => Past::Abandoned,
                    Some(true) => Past::Abandoned,
                    Some(false) => Past::Ended,
                    None => Past::Skipped,
                };
                prop_assert_eq!(history.past(id(2 * step + 1)), expected);
            }
        }
    }
}
