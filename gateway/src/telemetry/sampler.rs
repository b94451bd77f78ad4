//! Which requests that went well are written to the audit log.
//! In: how many of them are. Out: yes or no, at random, so that no rhythm of a client escapes it. A few instructions.

use crate::config::RequestSample;

/// A worker's dice: a linear congruential generator, whose high bits are good enough for this.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sampler(u64);

impl Sampler {
    /// Whether the next request is written.
    pub(super) fn takes(&mut self, RequestSample(one_in): RequestSample) -> bool {
        let Some(one_in) = one_in else { return false };
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let high = (self.0 >> 32) as u32;
        high % one_in == 0
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn about_so_many_are_taken_as_are_asked_for_and_in_no_rhythm() {
        let taken = |one_in, requests: usize| {
            let mut sampler = Sampler::default();
            let sample = RequestSample(NonZeroU32::new(one_in));
            let takes = (0..requests).filter(move |_| sampler.takes(sample));
            takes.collect::<Vec<_>>()
        };
        assert_eq!(taken(0, 1000).len(), 0);
        assert_eq!(taken(1, 1000).len(), 1000);
        let some = taken(100, 1_000_000);
        assert!((9_500..10_500).contains(&some.len()), "{}", some.len());
        for rhythm in [2, 10, 64] {
            let hits = some
                .iter()
                .filter(|position| *position % rhythm == 0)
                .count();
            let expected = some.len() / rhythm;
            assert!(
                hits.abs_diff(expected) < expected / 4 + 50,
                "{rhythm}: {hits}"
            );
        }
    }
}
