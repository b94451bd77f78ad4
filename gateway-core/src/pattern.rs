//! Patterns: names with stars, as rules write them.
//! In: text of the configuration. Out: whether a name matches, and what a star stands for. Pure text; never parses a
//! certificate.

use std::fmt;

/// A pattern for names: exact, with stars for whole segments, or a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The whole name.
    Exact(String),
    /// The prefix of the name.
    Prefix(String),
    /// A prefix, one segment of any text, and a pattern for the rest.
    Segment {
        /// The text before the star.
        before: String,
        /// The separator: `/` of a URI, `.` of a DNS name.
        separator: Separator,
        /// The pattern after the star.
        after: Box<Pattern>,
    },
}

/// The separator of a name's segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Separator {
    /// `/`, of a URI's path.
    Slash,
    /// `.`, of a DNS name.
    Dot,
}

impl Separator {
    const fn byte(self) -> u8 {
        match self {
            Separator::Slash => b'/',
            Separator::Dot => b'.',
        }
    }

    /// Length of the first segment of `name`; `None` if it is empty, since a star stands for at least one character.
    pub(crate) fn segment(self, name: &[u8]) -> Option<usize> {
        let end = name.iter().position(|byte| *byte == self.byte());
        Some(end.unwrap_or(name.len())).filter(|length| *length > 0)
    }
}

/// Why a pattern is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is empty.
    #[error("must not be empty")]
    Empty,
    /// It has a `*` elsewhere than at the end.
    #[error("may have one `*`, at its end")]
    StarInside,
    /// It has a `*` inside a segment of a URI.
    #[error(
        "may have a `*` in place of a whole segment, as in \"spiffe://a/*/b\", and one at its end"
    )]
    StarInsideSegment,
    /// It has a `*` inside a label of a DNS name.
    #[error(
        "may have a `*` in place of a whole label, as in \"*.agents.example\", and one at its end"
    )]
    StarInsideLabel,
}

impl Pattern {
    /// Parses a pattern: exact, or a prefix that ends in `*`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (body, prefix) = match text.strip_suffix('*') {
            Some(body) => (body, true),
            None => (text, false),
        };
        if body.contains('*') {
            return Err(PatternError::StarInside);
        }
        match (body.is_empty(), prefix) {
            (true, false) => Err(PatternError::Empty),
            (_, true) => Ok(Pattern::Prefix(body.to_owned())),
            (false, false) => Ok(Pattern::Exact(body.to_owned())),
        }
    }

    /// Parses a pattern for URIs: a `*` may also stand for a whole segment.
    pub fn parse_uri(text: &str) -> Result<Self, PatternError> {
        Self::parse_segments(text, 0, Separator::Slash, PatternError::StarInsideSegment)
    }

    /// Parses a pattern for DNS names, in lower case as they are compared: a `*` may also stand for a whole label.
    pub fn parse_dns(text: &str) -> Result<Self, PatternError> {
        let text = text.to_ascii_lowercase();
        Self::parse_segments(&text, 0, Separator::Dot, PatternError::StarInsideLabel)
    }

    /// Parses `text` from `from` on; what comes before has been parsed.
    fn parse_segments(
        text: &str,
        from: usize,
        separator: Separator,
        misplaced: PatternError,
    ) -> Result<Self, PatternError> {
        let rest = &text[from..];
        let Some(star) = rest.find('*').filter(|star| star + 1 < rest.len()) else {
            return Self::parse(rest);
        };
        let at = from + star;
        let bytes = text.as_bytes();
        let begins = at == 0 || bytes[at - 1] == separator.byte();
        if !begins || bytes[at + 1] != separator.byte() {
            return Err(misplaced);
        }
        let after = Self::parse_segments(text, at + 1, separator, misplaced)?;
        Ok(Pattern::Segment {
            before: text[from..at].to_owned(),
            separator,
            after: Box::new(after),
        })
    }

    /// Whether `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Exact(exact) => exact == name,
            Pattern::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Pattern::Segment { after, .. } => self
                .split(name)
                .is_some_and(|(_, rest)| after.matches(rest)),
        }
    }

    /// The part of `name` that the first star stands for: empty for an exact pattern, `None` if `name` does not
    /// match.
    pub fn star<'n>(&self, name: &'n str) -> Option<&'n str> {
        match self {
            Pattern::Exact(exact) => (exact == name).then_some(""),
            Pattern::Prefix(prefix) => name.strip_prefix(prefix.as_str()),
            Pattern::Segment { after, .. } => {
                let (segment, rest) = self.split(name)?;
                after.matches(rest).then_some(segment)
            }
        }
    }

    /// The segment that the first star stands for, and the rest. Only of a pattern with a segment.
    fn split<'n>(&self, name: &'n str) -> Option<(&'n str, &'n str)> {
        let Pattern::Segment {
            before, separator, ..
        } = self
        else {
            return None;
        };
        let rest = name.strip_prefix(before.as_str())?;
        let length = separator.segment(rest.as_bytes())?;
        Some(rest.split_at(length))
    }

    /// Whether the pattern has a star.
    pub fn has_star(&self) -> bool {
        !matches!(self, Pattern::Exact(_))
    }

    /// Whether every name matches.
    pub fn is_everything(&self) -> bool {
        matches!(self, Pattern::Prefix(prefix) if prefix.is_empty())
    }

    /// Whether every name that matches `narrow` matches this pattern too. May return false where it cannot tell.
    pub fn covers(&self, narrow: &Pattern) -> bool {
        match (self, narrow) {
            (wide, Pattern::Exact(exact)) => wide.matches(exact),
            (Pattern::Prefix(wide), Pattern::Prefix(narrow)) => narrow.starts_with(wide.as_str()),
            (Pattern::Prefix(wide), Pattern::Segment { before, .. }) => {
                before.starts_with(wide.as_str())
            }
            (
                Pattern::Segment {
                    before,
                    separator,
                    after,
                },
                Pattern::Segment {
                    before: narrow_before,
                    separator: narrow_separator,
                    after: narrow_after,
                },
            ) => {
                before == narrow_before
                    && separator == narrow_separator
                    && after.covers(narrow_after)
            }
            (Pattern::Exact(_), Pattern::Prefix(_) | Pattern::Segment { .. })
            | (Pattern::Segment { .. }, Pattern::Prefix(_)) => false,
        }
    }

    /// Whether a name can match both.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        match (self, other) {
            (one, Pattern::Exact(exact)) => one.matches(exact),
            (Pattern::Exact(exact), other) => other.matches(exact),
            (
                Pattern::Segment {
                    before,
                    separator,
                    after,
                },
                Pattern::Segment {
                    before: other,
                    separator: other_separator,
                    after: other_after,
                },
            ) if before == other && separator == other_separator => after.overlaps(other_after),
            (one, other) => {
                let (one, other) = (one.literal_begin(), other.literal_begin());
                one.starts_with(other) || other.starts_with(one)
            }
        }
    }

    /// The same pattern, in lower case.
    #[must_use]
    pub fn to_ascii_lowercase(&self) -> Self {
        match self {
            Pattern::Exact(exact) => Pattern::Exact(exact.to_ascii_lowercase()),
            Pattern::Prefix(prefix) => Pattern::Prefix(prefix.to_ascii_lowercase()),
            Pattern::Segment {
                before,
                separator,
                after,
            } => Pattern::Segment {
                before: before.to_ascii_lowercase(),
                separator: *separator,
                after: Box::new(after.to_ascii_lowercase()),
            },
        }
    }

    fn literal_begin(&self) -> &str {
        match self {
            Pattern::Exact(text) | Pattern::Prefix(text) => text,
            Pattern::Segment { before, .. } => before,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(exact) => formatter.write_str(exact),
            Pattern::Prefix(prefix) => write!(formatter, "{prefix}*"),
            Pattern::Segment { before, after, .. } => write!(formatter, "{before}*{after}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_take_one_star_at_their_end() {
        assert_eq!(Pattern::parse("a*b"), Err(PatternError::StarInside));
        assert_eq!(Pattern::parse("**"), Err(PatternError::StarInside));
        assert_eq!(Pattern::parse(""), Err(PatternError::Empty));
        assert!(Pattern::parse("*").unwrap().matches(""));
    }

    #[test]
    fn a_star_stands_for_one_whole_label_or_segment_that_is_not_empty() {
        let dns = |pattern: &str, name: &str| Pattern::parse_dns(pattern).unwrap().matches(name);
        assert!(dns("*.agents.example", "a.agents.example"));
        assert!(dns("*.Agents.example", "a.agents.example"));
        assert!(!dns("*.agents.example", "agents.example"));
        assert!(!dns("*.agents.example", ".agents.example"));
        assert!(!dns("*.agents.example", "a.b.agents.example"));
        assert!(!dns("*.agents.example", "a.agents.example.org"));
        assert!(dns("*.*.agents.example", "a.b.agents.example"));
        assert!(dns("a.*.example", "a.b.example"));
        let uri = |pattern: &str, name: &str| Pattern::parse_uri(pattern).unwrap().matches(name);
        assert!(uri("spiffe://e/*/collector", "spiffe://e/red/collector"));
        assert!(!uri(
            "spiffe://e/*/collector",
            "spiffe://e/red/blue/collector"
        ));
        assert!(!uri("spiffe://e/*/collector", "spiffe://e//collector"));
        assert!(!uri("spiffe://e/*/collector", "spiffe://e/red/collector/x"));
        assert!(uri("spiffe://e/*/agent/*", "spiffe://e/red/agent/1/2"));
        assert!(uri("spiffe://*/agent", "spiffe://e/agent"));
        assert!(uri("spiffe://e/*", "spiffe://e/red/agent"));
    }

    #[test]
    fn a_star_inside_a_label_or_a_segment_is_refused() {
        for text in ["a*.example", "*a.example", "**.example", "a.*b.example"] {
            let parsed = Pattern::parse_dns(text);
            assert_eq!(parsed, Err(PatternError::StarInsideLabel), "{text}");
        }
        for text in ["spiffe://e/a*/b", "spiffe://e/*a/b", "spiffe://e/**"] {
            let parsed = Pattern::parse_uri(text);
            assert_eq!(parsed, Err(PatternError::StarInsideSegment), "{text}");
        }
        assert_eq!(Pattern::parse_uri(""), Err(PatternError::Empty));
    }

    #[test]
    fn the_first_star_is_what_a_tenant_is_taken_from() {
        let star =
            |pattern: &str, name: &'static str| Pattern::parse_uri(pattern).unwrap().star(name);
        assert_eq!(
            star("spiffe://e/*/agent/*", "spiffe://e/red/agent/1"),
            Some("red")
        );
        assert_eq!(star("spiffe://e/*/agent", "spiffe://e/red/agency"), None);
        assert_eq!(star("spiffe://e/*", "spiffe://e/red/1"), Some("red/1"));
    }

    /// Names and patterns of few letters, so that they often match.
    fn pattern() -> impl Strategy<Value = Pattern> {
        "([ab]{0,2}|\\*)(/([ab]{1,2}|\\*)){0,3}\\*?"
            .prop_filter_map("no pattern", |text| Pattern::parse_uri(&text).ok())
    }

    fn name() -> impl Strategy<Value = String> {
        "[ab]{0,2}(/[ab]{0,2}){0,3}"
    }

    proptest! {
        #[test]
        fn a_prefix_matches_exactly_the_names_that_begin_with_it(prefix in "[a-z/:.]{0,12}", name in "[a-z/:.]{0,16}") {
            let pattern = Pattern::parse(&format!("{prefix}*")).unwrap();
            prop_assert_eq!(pattern.matches(&name), name.starts_with(&prefix));
            let longer = format!("{}{}", prefix, name);
            prop_assert!(pattern.matches(&longer));
        }

        #[test]
        fn an_exact_pattern_matches_itself_alone(text in "[a-z]{1,8}", other in "[a-z]{1,8}") {
            let pattern = Pattern::parse(&text).unwrap();
            prop_assert_eq!(pattern.matches(&other), text == other);
        }

        #[test]
        fn a_pattern_is_read_as_it_is_shown(pattern in pattern()) {
            let again = Pattern::parse_uri(&pattern.to_string());
            prop_assert_eq!(again, Ok(pattern));
        }

        #[test]
        fn what_is_covered_matches_wherever_the_narrow_one_does(wide in pattern(), narrow in pattern(), name in name()) {
            if wide.covers(&narrow) && narrow.matches(&name) {
                prop_assert!(wide.matches(&name), "{wide} {narrow} {name}");
            }
        }

        #[test]
        fn two_that_match_one_name_overlap(one in pattern(), other in pattern(), name in name()) {
            if one.matches(&name) && other.matches(&name) {
                prop_assert!(one.overlaps(&other) && other.overlaps(&one), "{one} {other} {name}");
            }
        }
    }
}
