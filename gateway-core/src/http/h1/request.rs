//! Header sections of requests (RFC 9112 sections 2, 3). In: a section. Out: a header list with pseudo-header fields, as
//! HTTP/2 has it, and what the section says about content and connection.

use super::Fault;
use super::fields::{Framing, Noted, is_http_1_0, push_te};
use super::section::lines;
use crate::http::message::character::{is_authority, is_method, is_path};
use crate::http::message::{Field, HeaderList};

/// What a request says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) framing: Framing,
    pub(super) is_head: bool,
    pub(super) is_http_1_0: bool,
    pub(super) ends_connection: bool,
    pub(super) takes_trailers: bool,
    pub(super) expects_continue: bool,
}

/// Reads a request.
///
/// # Errors
///
/// It is malformed, or asks for what is not served.
pub(super) fn read_request_head(
    section: &[u8],
    list: &mut HeaderList,
) -> Result<RequestHead, Fault> {
    list.clear();
    let mut lines = lines(section.strip_prefix(b"\r\n").unwrap_or(section));
    let line = lines.next().ok_or(Fault::RequestLine)?;
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(Fault::RequestLine);
    };
    if !is_method(method) {
        return Err(Fault::RequestMethod);
    }
    let is_http_1_0 = is_http_1_0(version)?;
    if method == b"CONNECT" {
        return Err(Fault::Connect);
    }
    list.push(Field::new(b":method", method));
    list.push(Field::new(b":scheme", b"https"));
    let authority = push_target(method, target, list)?;
    let pseudo = list.len();
    let mut noted = Noted::default();
    for line in lines {
        noted.take(line, list)?;
    }
    if noted.has_upgrade {
        return Err(Fault::Upgrade);
    }
    noted.remove_options(list);
    let takes_trailers = noted.takes_trailers && !is_http_1_0;
    if takes_trailers {
        push_te(list);
    }
    if let Some(authority) = check_host(authority, noted.host, is_http_1_0)? {
        list.insert(pseudo, Field::new(b":authority", authority));
    }
    Ok(RequestHead {
        framing: noted.framing(is_http_1_0)?,
        is_head: method == b"HEAD",
        is_http_1_0,
        ends_connection: noted.ends_connection(is_http_1_0),
        takes_trailers,
        // RFC 9110 section 10.1.1: in HTTP/1.0 it means nothing.
        expects_continue: noted.expects_continue && !is_http_1_0,
    })
}

/// Appends `:path`. Returns the authority of an absolute form (RFC 9112 section 3.2.2).
fn push_target<'a>(
    method: &[u8],
    target: &'a [u8],
    list: &mut HeaderList,
) -> Result<Option<&'a [u8]>, Fault> {
    let (authority, path) = match target {
        [b'/', ..] => (None, target),
        b"*" if method == b"OPTIONS" => (None, target),
        _ => {
            let rest = after_scheme(target).ok_or(Fault::RequestTarget)?;
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
            if !is_authority(authority) {
                return Err(Fault::RequestTarget);
            }
            (Some(authority), path)
        }
    };
    let bytes = list.unfinished();
    bytes.extend_from_slice(b":path");
    let start = bytes.len();
    match (path.first(), method) {
        (Some(b'/' | b'*'), _) => {}
        // RFC 9112 section 3.2.4.
        (None, b"OPTIONS") => bytes.push(b'*'),
        _ => bytes.push(b'/'),
    }
    bytes.extend_from_slice(path);
    if !is_path(&bytes[start..]) && (method, &bytes[start..]) != (b"OPTIONS", b"*") {
        return Err(Fault::RequestTarget);
    }
    list.finish(b":path".len(), false);
    Ok(authority)
}

fn after_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"https://"[..], b"http://"]
        .into_iter()
        .find_map(|scheme| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        })
}

/// RFC 9112 section 3.2: in HTTP/1.1 there is one Host. One that differs from the target is refused, where RFC 9112
/// section 3.2.2 would have it ignored: another server might not ignore it.
fn check_host<'a>(
    authority: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    is_http_1_0: bool,
) -> Result<Option<&'a [u8]>, Fault> {
    match (authority, host) {
        (_, None) if !is_http_1_0 => Err(Fault::HostField),
        (_, Some(host)) if !is_authority(host) => Err(Fault::HostField),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(Fault::HostMismatch)
        }
        (authority, host) => Ok(authority.or(host)),
    }
}
