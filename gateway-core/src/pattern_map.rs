//! A map from patterns to values, searched by name. The cost depends on the length of the name, not on the number of
//! patterns.
//! In: patterns with their values, then a name. Out: the value of every pattern that matches. Memory only.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::pattern::{Pattern, Separator};

/// A map from patterns to values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternMap<V> {
    exact: HashMap<Box<[u8]>, V>,
    prefixes: PrefixMap<V>,
    /// By the text before a star, then by the rest of the pattern.
    segments: [PrefixMap<PatternMap<V>>; 2],
}

impl<V> Default for PatternMap<V> {
    fn default() -> Self {
        PatternMap {
            exact: HashMap::new(),
            prefixes: PrefixMap::default(),
            segments: Default::default(),
        }
    }
}

impl<V: Default> PatternMap<V> {
    /// The value of a pattern; a new one if there is none.
    pub fn entry(&mut self, pattern: &Pattern) -> &mut V {
        match pattern {
            Pattern::Exact(name) => self.exact.entry(name.as_bytes().into()).or_default(),
            Pattern::Prefix(prefix) => self.prefixes.entry(prefix.as_bytes()),
            Pattern::Segment {
                before,
                separator,
                after,
            } => self.segments[*separator as usize]
                .entry(before.as_bytes())
                .entry(after),
        }
    }
}

impl<V> PatternMap<V> {
    /// The value of exactly this pattern.
    pub fn get(&self, pattern: &Pattern) -> Option<&V> {
        match pattern {
            Pattern::Exact(name) => self.exact.get(name.as_bytes()),
            Pattern::Prefix(prefix) => self.prefixes.0.get(prefix.as_bytes()),
            Pattern::Segment {
                before,
                separator,
                after,
            } => {
                let segments = &self.segments[*separator as usize];
                segments.0.get(before.as_bytes())?.get(after)
            }
        }
    }

    /// Passes the value of every pattern that matches `name` to `visit`, in no order.
    pub fn find<'m>(&'m self, name: &str, visit: &mut dyn FnMut(&'m V)) {
        self.find_bytes(name.as_bytes(), visit);
    }

    fn find_bytes<'m>(&'m self, name: &[u8], visit: &mut dyn FnMut(&'m V)) {
        if let Some(value) = self.exact.get(name) {
            visit(value);
        }
        self.prefixes
            .prefixes_of(name, &mut |_, value| visit(value));
        for separator in [Separator::Slash, Separator::Dot] {
            self.segments[separator as usize].prefixes_of(name, &mut |begin, rest| {
                let after_begin = &name[begin.len()..];
                if let Some(length) = separator.segment(after_begin) {
                    rest.find_bytes(&after_begin[length..], visit);
                }
            });
        }
    }

    /// Passes the value of every pattern that covers `narrow` to `visit`, in no order: see [`Pattern::covers`].
    pub fn find_covering<'m>(&'m self, narrow: &Pattern, visit: &mut dyn FnMut(&'m V)) {
        match narrow {
            Pattern::Exact(name) => self.find(name, visit),
            Pattern::Prefix(prefix) => {
                let prefix = prefix.as_bytes();
                self.prefixes
                    .prefixes_of(prefix, &mut |_, value| visit(value));
            }
            Pattern::Segment {
                before,
                separator,
                after,
            } => {
                let before = before.as_bytes();
                self.prefixes
                    .prefixes_of(before, &mut |_, value| visit(value));
                if let Some(rest) = self.segments[*separator as usize].0.get(before) {
                    rest.find_covering(after, visit);
                }
            }
        }
    }

    /// Whether a pattern matches `name`.
    pub fn contains(&self, name: &str) -> bool {
        let mut found = false;
        self.find(name, &mut |_| found = true);
        found
    }

    /// Number of patterns.
    pub fn len(&self) -> usize {
        let nested = self.segments.iter().flat_map(|map| map.0.values());
        self.exact.len() + self.prefixes.0.len() + nested.map(PatternMap::len).sum::<usize>()
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.prefixes.0.is_empty()
            && self.segments.iter().all(|map| map.0.is_empty())
    }
}

/// A map from prefixes to values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PrefixMap<V>(BTreeMap<Box<[u8]>, V>);

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        PrefixMap(BTreeMap::new())
    }
}

impl<V: Default> PrefixMap<V> {
    fn entry(&mut self, prefix: &[u8]) -> &mut V {
        self.0.entry(prefix.into()).or_default()
    }
}

impl<V> PrefixMap<V> {
    /// Passes every key that is a prefix of `name` to `visit`, the longest first.
    fn prefixes_of<'m>(&'m self, name: &[u8], visit: &mut dyn FnMut(&'m [u8], &'m V)) {
        if self.0.is_empty() {
            return;
        }
        // A prefix of `name` sorts before it, and everything in between has that prefix. So the last key up to `name`
        // is a prefix or shares one with it; the search goes on in the shared part.
        let mut shared = name;
        let mut end = Bound::Included(shared);
        while let Some((key, value)) = self.0.range::<[u8], _>((Bound::Unbounded, end)).next_back()
        {
            let pairs = key.iter().zip(shared);
            let length = pairs.take_while(|(one, other)| one == other).count();
            shared = &shared[..length];
            end = match length == key.len() {
                true => {
                    visit(key, value);
                    Bound::Excluded(shared)
                }
                false => Bound::Included(shared),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Names and patterns of few letters, so that they often match.
    fn pattern() -> impl Strategy<Value = Pattern> {
        let uri = "([ab]{0,2}|\\*)(/([ab]{1,2}|\\*)){0,3}\\*?"
            .prop_filter_map("no pattern", |text| Pattern::parse_uri(&text).ok());
        let dns = "([ab]{0,2}|\\*)(\\.([ab]{1,2}|\\*)){0,3}\\*?"
            .prop_filter_map("no pattern", |text| Pattern::parse_dns(&text).ok());
        prop_oneof![uri, dns]
    }

    fn map_of(patterns: &[Pattern]) -> PatternMap<Vec<usize>> {
        let mut map = PatternMap::<Vec<usize>>::default();
        for (number, pattern) in patterns.iter().enumerate() {
            map.entry(pattern).push(number);
        }
        map
    }

    proptest! {
        #[test]
        fn a_name_finds_the_patterns_that_match_it_and_no_other(
            patterns in vec(pattern(), 0..24), name in "[ab]{0,2}([/.][ab]{0,2}){0,3}"
        ) {
            let map = map_of(&patterns);
            let mut found: Vec<usize> = Vec::new();
            map.find(&name, &mut |numbers| found.extend(numbers));
            found.sort_unstable();
            let one_by_one: Vec<usize> = (0..patterns.len()).filter(|n| patterns[*n].matches(&name)).collect();
            prop_assert_eq!(map.contains(&name), !found.is_empty());
            prop_assert_eq!(found, one_by_one);
            for pattern in &patterns {
                prop_assert!(map.get(pattern).is_some());
            }
        }

        #[test]
        fn a_pattern_finds_those_that_cover_it_and_no_other(patterns in vec(pattern(), 0..24), narrow in pattern()) {
            let mut found: Vec<usize> = Vec::new();
            map_of(&patterns).find_covering(&narrow, &mut |numbers| found.extend(numbers));
            found.sort_unstable();
            let one_by_one: Vec<usize> = (0..patterns.len()).filter(|n| patterns[*n].covers(&narrow)).collect();
            prop_assert_eq!(found, one_by_one);
        }
    }

    #[test]
    fn a_pattern_that_stands_twice_counts_once() {
        let pattern = |text: &str| Pattern::parse_uri(text).unwrap();
        let map = map_of(&["a", "a", "a*", "a/*/b", "a/*/b", "a/*/c"].map(pattern));
        assert_eq!(map.len(), 4);
        assert!(!map.is_empty() && PatternMap::<()>::default().is_empty());
    }
}
