//! Finds what is said of a path, by the prefixes that it is below. In: prefixes with numbers, then a path. Out: the
//! numbers, of the longest prefix first. A binary search, and a step for each prefix within another.

use crate::http::message::PathPrefix;

/// Numbers by prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PathIndex {
    /// In the order of their bytes.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    prefix: PathPrefix,
    /// The longest other prefix that this one's text begins with.
    parent: Option<usize>,
    /// Ascending.
    numbers: Vec<usize>,
}

impl PathIndex {
    /// Sorts prefixes. One may occur any number of times.
    pub(super) fn new(entries: impl IntoIterator<Item = (PathPrefix, usize)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort();
        let mut nodes: Vec<Node> = Vec::new();
        for (prefix, number) in entries {
            match nodes.last_mut() {
                Some(last) if last.prefix == prefix => last.numbers.push(number),
                Some(_) | None => nodes.push(Node {
                    prefix,
                    parent: None,
                    numbers: vec![number],
                }),
            }
        }
        for at in 1..nodes.len() {
            let mut candidate = Some(at - 1);
            while let Some(before) = candidate {
                let begins_so = nodes[at].prefix.as_bytes();
                if begins_so.starts_with(nodes[before].prefix.as_bytes()) {
                    break;
                }
                candidate = nodes[before].parent;
            }
            nodes[at].parent = candidate;
        }
        PathIndex { nodes }
    }

    /// The numbers of each prefix that a path is below, of the longest first.
    pub(super) fn find<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a [usize]> {
        // A prefix of the path stands before the path, and every text in between begins with it: so it is the last
        // text before the path, or that one's parent, or so on.
        let after = self
            .nodes
            .partition_point(|node| node.prefix.as_bytes() <= path);
        let last = after.checked_sub(1).map(|at| &self.nodes[at]);
        let chain = std::iter::successors(last, |node| node.parent.map(|at| &self.nodes[at]));
        let above = chain.filter(move |node| node.prefix.rest(path).is_some());
        above.map(|node| &*node.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> PathPrefix {
        PathPrefix::parse(text).unwrap()
    }

    proptest! {
        #[test]
        fn all_prefixes_of_a_path_are_found_the_longest_first(
            prefixes in prop::collection::vec("(/[ab]{1,2}){0,3}/?", 0..12),
            path in "(/[ab]{1,2}){1,4}(\\?/a)?",
        ) {
            let prefixes: Vec<_> = prefixes
                .iter()
                .map(|text| prefix(if text.is_empty() { "/" } else { text }))
                .collect();
            let index = PathIndex::new(prefixes.iter().cloned().zip(0..));
            let found: Vec<usize> = index.find(path.as_bytes()).flatten().copied().collect();
            let mut expected: Vec<usize> = (0..prefixes.len())
                .filter(|at| prefixes[*at].rest(path.as_bytes()).is_some())
                .collect();
            expected.sort_by_key(|at| (usize::MAX - prefixes[*at].as_bytes().len(), *at));
            prop_assert_eq!(found, expected);
        }
    }
}
