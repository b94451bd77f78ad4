//! Paths of requests: prefixes of rules and routes, gRPC's services and methods. In: a path as it came. Out: whether
//! it is below a prefix, or what it becomes below another. Never decodes a path.
//!
//! A rule that allows a prefix holds only if the backend does not leave it: so a path whose segments a server might
//! drop or walk up by is refused wherever prefixes decide, see [`is_plain`].

use super::character::{has_any, is_path, is_rpc_name};

/// The path without its query.
fn without_query(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|byte| *byte == b'?');
    &path[..end.unwrap_or(path.len())]
}

/// Whether every server takes the path for the same one: no segment is `.` or `..`, however they or the separators
/// around them are written; none is empty but the last; no escape stands for another escape, a control character, or a
/// character that needs none (RFC 3986 section 2.3).
pub fn is_plain(path: &[u8]) -> bool {
    let path = without_query(path);
    // Nearly all paths have none of what has to be looked at more closely, and no segment that begins with a dot.
    let is_odd = |byte: u8| {
        (byte == b'%')
            | (byte == b'\\')
            | (byte == b';')
            | (byte == b'#')
            | (byte < b' ')
            | (byte == 0x7f)
    };
    let pairs = path.iter().zip(path.get(1..).unwrap_or_default());
    let odd_pairs = pairs.fold(0, |any, (first, second)| {
        any | u8::from((*first == b'/') & ((*second == b'/') | (*second == b'.')))
    });
    let is_usual = !has_any(path, is_odd) && odd_pairs == 0 && path.first() != Some(&b'.');
    is_usual || is_plain_in_all_segments(path)
}

/// As above, looking at each segment.
fn is_plain_in_all_segments(path: &[u8]) -> bool {
    let mut rest = path;
    // The segment so far: how many dots it is made of, unless it has anything else.
    let mut dots = Some(0);
    while let Some((first, after)) = rest.split_first() {
        let (character, after) = match (first, after) {
            (b'/', [b'/', ..]) => return false,
            (b'%', [high, low, after @ ..]) => match (hexadecimal(*high), hexadecimal(*low)) {
                // No UTF-8 has these (RFC 3629 section 3): some decoders make a dot of them.
                (Some(high), Some(low)) if matches!(16 * high + low, 0xc0 | 0xc1 | 0xf5..) => {
                    return false;
                }
                (Some(high), Some(low)) if is_unreserved(16 * high + low) => return false,
                (Some(high), Some(low)) => (16 * high + low, after),
                _ => return false,
            },
            (b'%', _) => return false,
            (character, after) => (*character, after),
        };
        rest = after;
        match character {
            b'%' => return false,
            character if character.is_ascii_control() => return false,
            b'.' => dots = dots.map(|dots: u32| dots + 1),
            // Parameters behind `;` are dropped by some servers (RFC 3986 section 3.3), and a query behind `%3f`.
            b'/' | b'\\' | b';' | b'?' | b'#' => {
                if matches!(dots, Some(1 | 2)) {
                    return false;
                }
                dots = matches!(character, b'/' | b'\\').then_some(0);
            }
            _ => dots = None,
        }
    }
    !matches!(dots, Some(1 | 2))
}

fn is_unreserved(character: u8) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, b'-' | b'.' | b'_' | b'~')
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// A prefix of whole segments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPrefix(Box<[u8]>);

/// The text is no prefix of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must begin with a slash, and have neither a query nor segments that are . or ..")]
pub struct PathPrefixError;

impl PathPrefix {
    /// Checks a prefix. A slash at its end says nothing.
    ///
    /// # Errors
    ///
    /// No path is below it, or it is none that can be relied on.
    pub fn parse(text: &str) -> Result<Self, PathPrefixError> {
        let is_good = is_path(text.as_bytes()) && !text.contains('?') && is_plain(text.as_bytes());
        if !is_good {
            return Err(PathPrefixError);
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        Ok(PathPrefix(text.as_bytes().into()))
    }

    /// The prefix, without a slash at its end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What a path has below the prefix, its query included; `None` if it is not below it. Compares byte by byte, as
    /// servers do: an escaped letter is another path, which no rule allows.
    pub fn rest<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = path.strip_prefix(&*self.0)?;
        matches!(rest.first(), None | Some(b'/' | b'?')).then_some(rest)
    }

    /// Appends the path with this prefix in place of `before`; `false` if it is not below `before`.
    pub fn replace(&self, before: &PathPrefix, path: &[u8], output: &mut Vec<u8>) -> bool {
        let Some(rest) = before.rest(path) else {
            return false;
        };
        let start = output.len();
        output.extend_from_slice(&self.0);
        if output.len() == start && rest.first() != Some(&b'/') {
            output.push(b'/');
        }
        output.extend_from_slice(rest);
        true
    }
}

impl std::fmt::Display for PathPrefix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0 {
            [] => formatter.write_str("/"),
            prefix => write!(formatter, "{}", prefix.escape_ascii()),
        }
    }
}

/// The service, with its package, and the method of a gRPC request; `None` if the path is not that of one.
pub fn grpc_method(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let names = path.strip_prefix(b"/")?;
    let slash = names.iter().position(|byte| *byte == b'/')?;
    let (service, method) = (&names[..slash], &names[slash + 1..]);
    (is_rpc_name(service) && is_rpc_name(method)).then_some((service, method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rest<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
        let prefix = PathPrefix::parse(prefix).unwrap();
        let rest = prefix.rest(path.as_bytes())?;
        Some(std::str::from_utf8(rest).unwrap())
    }

    #[test]
    fn a_prefix_ends_with_a_segment() {
        assert_eq!(rest("/api/v1/push", "/api/v1/push"), Some(""));
        assert_eq!(rest("/api/v1/push", "/api/v1/push/a?b"), Some("/a?b"));
        assert_eq!(rest("/api/v1/push/", "/api/v1/push?b"), Some("?b"));
        assert_eq!(rest("/api/v1/push", "/api/v1/pushy"), None);
        assert_eq!(rest("/api/v1/push", "/api/v1/push%2fa"), None);
        assert_eq!(rest("/api/v1/push", "/api/v1/Push"), None);
        assert_eq!(rest("/api/v1/push", "//api/v1/push"), None);
        assert_eq!(rest("/", "/a"), Some("/a"));
        assert_eq!(rest("/", "*"), None);
    }

    #[test]
    fn paths_that_servers_read_differently_are_not_plain() {
        for path in [
            "/a/../b",
            "/..",
            "/.",
            "/a/..",
            "/a/./b",
            "/../",
            "/a/..?b",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/a%2f..%2fb",
            "/a%2F%2e%2e",
            "/a\\..\\b",
            "/a/..\\b",
            "/a%5c..%5cb",
            "/a/..;/b",
            "/a/..;x=y/b",
            "/a/.;/b",
            "/a/%2e%2e;b",
            "/a%252e%252e",
            "/a/..%3fb",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/%61dmin",
            "/a%7Eb",
            "/a%25",
            "/a%00b",
            "/a%0d%0ab",
            "/a%7f",
            "/a%",
            "/a%2",
            "/a%zz",
        ] {
            assert!(!is_plain(path.as_bytes()), "{path}");
        }
        for path in [
            "/",
            "/a",
            "/a/...",
            "/.well-known/a",
            "/a..b/c",
            "/..a",
            "/a..",
            "/a/b?c=../d%",
            "/a%2fb",
            "/a%20b",
            "/a/",
            "/a;b=../c",
            "/rules/my%2Fnamespace/group",
        ] {
            assert!(is_plain(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_prefix_that_cannot_be_relied_on_is_refused() {
        for text in ["", "api", "/a?b", "/a/../b", "/a b", "/a#b", "/a/%2e", "*"] {
            assert_eq!(PathPrefix::parse(text), Err(PathPrefixError), "{text}");
        }
    }

    #[test]
    fn a_prefix_is_replaced_by_another() {
        for (before, after, path, expected) in [
            ("/a", "/b", "/a/c?d", Some("/b/c?d")),
            ("/a", "/b", "/a", Some("/b")),
            ("/a", "/", "/a/c", Some("/c")),
            ("/a", "/", "/a", Some("/")),
            ("/a", "/", "/a?b", Some("/?b")),
            ("/", "/b", "/a", Some("/b/a")),
            ("/a", "/b", "/ab", None),
        ] {
            let [before, after] = [before, after].map(|text| PathPrefix::parse(text).unwrap());
            let mut output = Vec::new();
            let is_replaced = after.replace(&before, path.as_bytes(), &mut output);
            let output = is_replaced.then(|| String::from_utf8(output).unwrap());
            assert_eq!(output.as_deref(), expected);
        }
    }

    #[test]
    fn grpc_paths_are_a_service_and_a_method() {
        let path = b"/skywalking.v3.TraceSegmentReportService/collect";
        let expected = (
            &b"skywalking.v3.TraceSegmentReportService"[..],
            &b"collect"[..],
        );
        assert_eq!(grpc_method(path), Some(expected));
        for path in [
            "/", "/a", "/a/", "//b", "/a/b/c", "/a/b?c", "a/b", "/a/%62", "/v1/a b",
        ] {
            assert_eq!(grpc_method(path.as_bytes()), None, "{path}");
        }
    }

    /// What a server may do: decode twice, take either slash, drop parameters, then resolve dots (RFC 3986
    /// section 5.2.4).
    fn resolved(path: &str) -> Vec<String> {
        let decode = |text: &str| -> String {
            let (mut decoded, mut rest) = (String::new(), text.as_bytes());
            while let Some((first, after)) = rest.split_first() {
                let pair = after
                    .first_chunk::<2>()
                    .and_then(|[high, low]| Some(16 * hexadecimal(*high)? + hexadecimal(*low)?));
                let is_escape = *first == b'%' && pair.is_some();
                decoded.push(char::from(pair.filter(|_| is_escape).unwrap_or(*first)));
                rest = if is_escape { &after[2..] } else { after };
            }
            decoded
        };
        let path = decode(&decode(path.split('?').next().unwrap()));
        let path = path.split('?').next().unwrap();
        let mut segments = Vec::new();
        for segment in path.split(['/', '\\']).skip(1) {
            match segment.split(';').next().unwrap() {
                ".." => drop(segments.pop()),
                "." => {}
                segment => segments.push(segment.to_owned()),
            }
        }
        segments
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_plain_path_below_a_prefix_stays_there_whatever_a_server_does(
            path in "(/(a|b|\\.|;|%2e|%2f|%5c|%25|%3f|\\\\|\\?|%){0,6}){1,4}",
        ) {
            let prefix = PathPrefix::parse("/a").unwrap();
            if is_plain(path.as_bytes()) && prefix.rest(path.as_bytes()).is_some() {
                let resolved = resolved(&path);
                prop_assert_eq!(resolved.first().map(|first| &**first), Some("a"), "{}", path);
            }
        }

        #[test]
        fn what_needs_no_closer_look_is_plain_by_one(path in "[a/.%2e;#?\\\\\x01-]{0,9}") {
            let whole = is_plain_in_all_segments(without_query(path.as_bytes()));
            prop_assert_eq!(is_plain(path.as_bytes()), whole, "{}", path);
        }
    }
}
