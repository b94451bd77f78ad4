//! What a gateway wrote to a backend, read from the bytes themselves: strictly where a server might be lenient.
//! In: the bytes of a connection. Out: requests, field by field and with their content, or why servers might read them in
//! two ways.

use std::collections::BTreeMap;

use crate::frames::{Field, PREFACE, Said, Sections, take_frame};
use crate::http_backend::Speaks;

/// A request as its bytes say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taped {
    /// Its fields in their order and spelling. Those of HTTP/1.1 begin with `:method` and `:path`, made of its first line.
    pub fields: Vec<Field>,
    /// Its content.
    pub content: Vec<u8>,
    /// Its trailers.
    pub trailers: Vec<Field>,
    /// Whether all of it came.
    pub is_whole: bool,
}

impl Taped {
    /// The values of a name in any spelling that some server takes for it, trailers included.
    pub fn spelled(&self, name: &str) -> Vec<&Field> {
        let fields = self.fields.iter().chain(&self.trailers);
        let is_spelling = |held: &str| held.to_ascii_lowercase().replace('_', "-").trim() == name;
        fields.filter(|(held, _)| is_spelling(held)).collect()
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        let path = self.fields.iter().find(|(name, _)| name == ":path");
        path.map_or("", |(_, path)| path)
    }
}

/// The requests of a connection.
///
/// # Errors
///
/// What is not as a strict sender writes it.
pub fn requests_of(tape: &[u8], speaks: Speaks) -> Result<Vec<Taped>, String> {
    match speaks {
        Speaks::Http2 => of_http2(tape),
        Speaks::Http1 => of_http1(tape),
    }
}

fn of_http2(tape: &[u8]) -> Result<Vec<Taped>, String> {
    let mut frames = match tape.strip_prefix(PREFACE) {
        Some(frames) => frames.to_vec(),
        None => return Ok(Vec::new()),
    };
    let mut sections = Sections::default();
    let mut streams: BTreeMap<u32, Taped> = BTreeMap::new();
    while let Some(frame) = take_frame(&mut frames) {
        let Some(said) = sections.take(&frame) else {
            continue;
        };
        match said {
            Said::Section(fields, ends) => {
                let request = streams.entry(frame.stream).or_default();
                match request.fields.is_empty() {
                    true => request.fields = fields,
                    false => request.trailers = fields,
                }
                request.is_whole |= ends;
            }
            Said::Content(content, ends) => {
                if let Some(request) = streams.get_mut(&frame.stream) {
                    request.content.extend(content);
                    request.is_whole |= ends;
                }
            }
            // What had come whole may have been served.
            Said::Reset(_) => {}
        }
    }
    for request in streams.values() {
        for (name, value) in request.fields.iter().chain(&request.trailers) {
            let bad = |text: &str| text.contains(['\r', '\n', '\0']);
            if bad(name) || bad(value) || name.chars().any(|letter| letter.is_ascii_uppercase()) {
                return Err(format!("a field that is none: {name:?}: {value:?}"));
            }
        }
    }
    Ok(streams.into_values().collect())
}

fn of_http1(tape: &[u8]) -> Result<Vec<Taped>, String> {
    let mut rest = tape;
    let mut requests = Vec::new();
    while !rest.is_empty() {
        let (request, after) = one_of_http1(rest)?;
        requests.push(request);
        rest = after;
    }
    Ok(requests)
}

/// The first request of these bytes, and what follows it.
fn one_of_http1(bytes: &[u8]) -> Result<(Taped, &[u8]), String> {
    let mut request = Taped::default();
    let Some((head, mut rest)) = split(bytes, b"\r\n\r\n") else {
        return Ok((request, &[]));
    };
    let head = String::from_utf8_lossy(head).into_owned();
    let (line, lines) = head.split_once("\r\n").unwrap_or((&head, ""));
    let words: Vec<&str> = line.split(' ').collect();
    let [method, path, "HTTP/1.1"] = words[..] else {
        return Err(format!("a request line that is none: {line:?}"));
    };
    request.fields = vec![
        (":method".to_owned(), method.to_owned()),
        (":path".to_owned(), path.to_owned()),
    ];
    request.fields.extend(fields_of(lines)?);
    let values = |name: &str| -> Vec<String> {
        let fields = request.fields.iter();
        let fields = fields.filter(|(held, _)| held.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.clone()).collect()
    };
    match (
        &values("content-length")[..],
        &values("transfer-encoding")[..],
    ) {
        ([], []) => request.is_whole = true,
        ([length], []) => {
            let length: usize = match length.bytes().all(|digit| digit.is_ascii_digit()) {
                true => length.parse().map_err(|_| format!("length {length:?}"))?,
                false => return Err(format!("a length that is none: {length:?}")),
            };
            request.is_whole = rest.len() >= length;
            let (content, after) = rest.split_at(length.min(rest.len()));
            request.content = content.to_vec();
            rest = after;
        }
        ([], [coding]) if coding == "chunked" => rest = chunks(&mut request, rest)?,
        (lengths, codings) => return Err(format!("framed by {lengths:?} and {codings:?}")),
    }
    Ok((request, rest))
}

/// Reads content in chunks; returns what follows.
fn chunks<'a>(request: &mut Taped, mut rest: &'a [u8]) -> Result<&'a [u8], String> {
    loop {
        let Some((line, after)) = split(rest, b"\r\n") else {
            return Ok(&[]);
        };
        let line = String::from_utf8_lossy(line).into_owned();
        let is_size = !line.is_empty() && line.bytes().all(|digit| digit.is_ascii_hexdigit());
        let size = usize::from_str_radix(&line, 16);
        let (true, Ok(size)) = (is_size, size) else {
            return Err(format!("a chunk's size that is none: {line:?}"));
        };
        if size == 0 {
            return last_chunk(request, after);
        }
        let Some(chunk) = after.get(..size + 2) else {
            request.content.extend(&after[..size.min(after.len())]);
            return Ok(&[]);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk longer than its size".to_owned());
        }
        request.content.extend(&chunk[..size]);
        rest = &after[size + 2..];
    }
}

fn last_chunk<'a>(request: &mut Taped, after: &'a [u8]) -> Result<&'a [u8], String> {
    if let Some(after) = after.strip_prefix(b"\r\n") {
        request.is_whole = true;
        return Ok(after);
    }
    let Some((trailers, after)) = split(after, b"\r\n\r\n") else {
        return Ok(&[]);
    };
    request.trailers = fields_of(&String::from_utf8_lossy(trailers))?;
    request.is_whole = true;
    Ok(after)
}

fn fields_of(lines: &str) -> Result<Vec<Field>, String> {
    let lines = lines.split("\r\n").filter(|line| !line.is_empty());
    let fields = lines.map(|line| {
        let Some((name, value)) = line.split_once(':') else {
            return Err(format!("a line without a colon: {line:?}"));
        };
        let is_token =
            |letter: char| letter.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(letter);
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(format!("a name that is none: {line:?}"));
        }
        if value.contains(|letter: char| letter != '\t' && letter.is_ascii_control()) {
            return Err(format!("a value that is none: {line:?}"));
        }
        Ok((name.to_owned(), value.trim().to_owned()))
    });
    fields.collect()
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tape: &str) -> Result<Vec<Taped>, String> {
        requests_of(tape.as_bytes(), Speaks::Http1)
    }

    #[test]
    fn requests_are_told_apart_by_their_framing() {
        let tape = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nabPOST /b HTTP/1.1\r\n\
                    X_Tenant: y\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\nGET /c HTTP/1.1\r\n\r\n";
        let requests = read(tape).unwrap();
        let seen: Vec<_> = requests
            .iter()
            .map(|request| (request.path(), &request.content[..], request.is_whole))
            .collect();
        let expected: [(&str, &[u8], bool); 3] =
            [("/a", b"ab", true), ("/b", b"abc", true), ("/c", b"", true)];
        assert_eq!(seen, expected);
        assert_eq!(requests[1].trailers, [("T".to_owned(), "u".to_owned())]);
        assert_eq!(requests[1].spelled("x-tenant").len(), 1);
    }

    #[test]
    fn what_servers_may_read_in_two_ways_is_an_error() {
        for tape in [
            "GET /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "GET /a HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
            "GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET /a HTTP/1.1\r\nA : b\r\n\r\n",
            "GET /a HTTP/1.1\nA: b\r\n\r\n",
            "GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n",
        ] {
            assert!(read(tape).is_err(), "{tape:?}");
        }
    }

    #[test]
    fn what_was_cut_is_not_whole() {
        for tape in [
            "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\na",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            "POST /a HTTP",
        ] {
            assert!(!read(tape).unwrap()[0].is_whole, "{tape:?}");
        }
    }
}
