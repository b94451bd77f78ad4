//! Header sections of responses (RFC 9112 section 4), and trailer sections. In: a section. Out: a header list as HTTP/2
//! has it, and what the section says about content and connection.

use super::Fault;
use super::fields::{Framing, Noted, is_http_1_0};
use super::section::lines;
use crate::http::message::character::is_value;
use crate::http::message::{Field, HeaderList};

/// What a response says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    pub(super) framing: Framing,
    pub(super) ends_connection: bool,
}

/// Reads a response.
///
/// # Errors
///
/// It is malformed, or switches protocols.
pub(super) fn read_response_head(
    section: &[u8],
    list: &mut HeaderList,
) -> Result<ResponseHead, Fault> {
    list.clear();
    let mut lines = lines(section);
    let line = lines.next().ok_or(Fault::StatusLine)?;
    let (version, rest) = line.split_at_checked(8).ok_or(Fault::StatusLine)?;
    let is_http_1_0 = is_http_1_0(version)?;
    // Many servers leave out the space behind the status, if they give no reason.
    let digits = match rest {
        [b' ', digits @ ..] if digits.len() == 3 => digits,
        [b' ', a, b, c, b' ', reason @ ..] if is_value(reason.trim_ascii()) => &[*a, *b, *c],
        _ => return Err(Fault::StatusLine),
    };
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return Err(Fault::StatusLine);
    }
    let status = digits
        .iter()
        .fold(0, |status, digit| 10 * status + u16::from(digit - b'0'));
    if status == 101 {
        return Err(Fault::SwitchedProtocols);
    }
    list.push(Field::new(b":status", digits));
    let mut noted = Noted::default();
    for line in lines {
        noted.take(line, list)?;
    }
    noted.remove_options(list);
    // RFC 9110 section 8.6: these have none, though some servers say so.
    if status < 200 || status == 204 {
        list.remove(b"content-length");
    }
    Ok(ResponseHead {
        status,
        framing: noted.framing(is_http_1_0)?,
        ends_connection: noted.ends_connection(is_http_1_0),
    })
}

/// Reads trailers.
///
/// # Errors
///
/// They are malformed.
pub(super) fn read_trailers(section: &[u8], list: &mut HeaderList) -> Result<(), Fault> {
    list.clear();
    let mut noted = Noted::default();
    lines(section).try_for_each(|line| noted.take_trailer(line, list))
}
