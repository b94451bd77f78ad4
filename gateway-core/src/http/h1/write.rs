//! What is written: first lines, field lines, chunks, trailers, and the answers to what cannot be read. In: fields that
//! are well-formed. Out: bytes behind others. Names are in lower case, as they came.

use super::Fault;
use crate::http::message::{Field, number};

/// Room that a chunk needs beside its content: up to sixteen digits, and two line ends.
pub(super) const CHUNK_OVERHEAD_BYTES: usize = 20;

/// What ends chunked content without trailers.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// RFC 9110 section 15: the statuses that are common here. Any other goes without a reason, as RFC 9112 section 4 allows.
const REASONS: [(&[u8; 3], &[u8]); 32] = [
    (b"100", b"Continue"),
    (b"103", b"Early Hints"),
    (b"200", b"OK"),
    (b"201", b"Created"),
    (b"202", b"Accepted"),
    (b"204", b"No Content"),
    (b"206", b"Partial Content"),
    (b"301", b"Moved Permanently"),
    (b"302", b"Found"),
    (b"304", b"Not Modified"),
    (b"307", b"Temporary Redirect"),
    (b"400", b"Bad Request"),
    (b"401", b"Unauthorized"),
    (b"403", b"Forbidden"),
    (b"404", b"Not Found"),
    (b"405", b"Method Not Allowed"),
    (b"408", b"Request Timeout"),
    (b"409", b"Conflict"),
    (b"413", b"Content Too Large"),
    (b"414", b"URI Too Long"),
    (b"415", b"Unsupported Media Type"),
    (b"417", b"Expectation Failed"),
    (b"421", b"Misdirected Request"),
    (b"422", b"Unprocessable Content"),
    (b"429", b"Too Many Requests"),
    (b"431", b"Request Header Fields Too Large"),
    (b"500", b"Internal Server Error"),
    (b"501", b"Not Implemented"),
    (b"502", b"Bad Gateway"),
    (b"503", b"Service Unavailable"),
    (b"504", b"Gateway Timeout"),
    (b"505", b"HTTP Version Not Supported"),
];

pub(super) fn write_status_line(output: &mut Vec<u8>, status: &[u8]) {
    output.extend_from_slice(b"HTTP/1.1 ");
    output.extend_from_slice(status);
    output.push(b' ');
    if let Some((_, reason)) = REASONS.iter().find(|(known, _)| *known == status) {
        output.extend_from_slice(reason);
    }
    output.extend_from_slice(b"\r\n");
}

/// A request line, and Host behind it (RFC 9112 section 3.2). Without an authority Host is empty.
pub(super) fn write_request_line(
    output: &mut Vec<u8>,
    method: &[u8],
    path: &[u8],
    authority: &[u8],
) {
    for part in [
        method,
        b" ",
        path,
        b" HTTP/1.1\r\nhost: ",
        authority,
        b"\r\n",
    ] {
        output.extend_from_slice(part);
    }
}

pub(super) fn write_field(output: &mut Vec<u8>, field: Field<'_>) {
    for part in [field.name, b": ", field.value, b"\r\n"] {
        output.extend_from_slice(part);
    }
}

/// Writes the fields of a header section that are no pseudo-header fields. Returns what Content-Length says.
pub(super) fn write_fields<'a>(
    output: &mut Vec<u8>,
    fields: impl Iterator<Item = Field<'a>>,
) -> Option<u64> {
    let mut content_length = None;
    let mut cookies: Vec<u8> = Vec::new();
    for field in fields {
        match field.name {
            // RFC 9113 section 8.2.3: HTTP/2 may split what is one field.
            b"cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(field.value);
                continue;
            }
            b"content-length" => content_length = number(field.value).ok(),
            // RFC 9110 section 10.1.4: it speaks of this connection.
            b"te" => output.extend_from_slice(b"connection: te\r\n"),
            _ => {}
        }
        write_field(output, field);
    }
    if !cookies.is_empty() {
        write_field(output, Field::new(b"cookie", &cookies));
    }
    content_length
}

/// Writes a chunk. Content that is empty would be the last one, and is none.
pub(super) fn write_chunk(output: &mut Vec<u8>, content: &[u8]) {
    if content.is_empty() {
        return;
    }
    let digits = (usize::BITS - content.len().leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        let value = content.len() >> (4 * digit) & 0xf;
        output.push(b"0123456789abcdef"[value]);
    }
    output.extend_from_slice(b"\r\n");
    output.extend_from_slice(content);
    output.extend_from_slice(b"\r\n");
}

/// Writes the answer to what cannot be read. Nothing follows it.
pub(super) fn write_answer(output: &mut Vec<u8>, fault: Fault, is_head: bool) {
    let status = fault.status().to_string();
    let words = fault.message();
    let length = (words.len() + 1).to_string();
    write_status_line(output, status.as_bytes());
    for (name, value) in [
        ("connection", "close"),
        ("content-type", "text/plain"),
        ("content-length", &length),
    ] {
        write_field(output, Field::new(name.as_bytes(), value.as_bytes()));
    }
    output.extend_from_slice(b"\r\n");
    if !is_head {
        output.extend_from_slice(words.as_bytes());
        output.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_chunk_has_as_many_digits_as_it_needs() {
        for (bytes, expected) in [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (4096, "1000")] {
            let mut output = Vec::new();
            write_chunk(&mut output, &vec![b'a'; bytes]);
            let expected = format!("{expected}\r\n{}\r\n", "a".repeat(bytes));
            assert_eq!(output, expected.as_bytes());
            assert!(output.len() <= bytes + CHUNK_OVERHEAD_BYTES);
        }
        let mut output = Vec::new();
        write_chunk(&mut output, b"");
        assert_eq!(output, b"");
    }

    #[test]
    fn every_answer_has_a_reason_and_ends_the_connection() {
        for fault in Fault::ALL {
            let mut output = Vec::new();
            write_answer(&mut output, fault, false);
            let text = String::from_utf8(output).unwrap();
            let (line, rest) = text.split_once("\r\n").unwrap();
            assert!(line.len() > "HTTP/1.1 400 ".len(), "{line}");
            assert!(rest.starts_with("connection: close\r\n"));
            let (_, content) = rest.split_once("\r\n\r\n").unwrap();
            assert!(rest.contains(&format!("content-length: {}\r\n", content.len())));
        }
    }
}
