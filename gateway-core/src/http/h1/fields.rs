//! Field lines (RFC 9112 section 5), and what they say about their message and their connection. In: a line. Out: a
//! field in the list, in lower case; or, of those that speak of one connection only, what they say.

use super::Fault;
use crate::http::limits::{CONNECTION_OPTIONS_MAX, FIELDS_MAX};
use crate::http::message::character::{is_name, is_value};
use crate::http::message::{Field, HeaderList, is_connection_specific, number};

/// What the fields of a section say that do not pass as they are.
#[derive(Debug, Default)]
pub(super) struct Noted<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) content_length: Option<u64>,
    pub(super) has_encoding: bool,
    pub(super) has_upgrade: bool,
    /// `Connection: close`.
    pub(super) closes: bool,
    /// `Connection: keep-alive`.
    pub(super) keeps_alive: bool,
    /// `TE: trailers`.
    pub(super) takes_trailers: bool,
    pub(super) expects_continue: bool,
    /// Fields that Connection names, and that would pass otherwise.
    options: [&'a [u8]; CONNECTION_OPTIONS_MAX],
    options_len: usize,
    fields: usize,
}

/// How the content of a message is framed, as its header section says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// It says nothing.
    None,
    Length(u64),
    Chunked,
}

impl<'a> Noted<'a> {
    /// Reads a line of a header section.
    pub(super) fn take(&mut self, line: &'a [u8], list: &mut HeaderList) -> Result<(), Fault> {
        let (name_bytes, value) = self.append(line, list)?;
        match list.unfinished_field() {
            b"content-length" => self.note_length(value)?,
            b"host" => {
                list.drop_unfinished();
                return match self.host.replace(value) {
                    None => Ok(()),
                    Some(_) => Err(Fault::HostField),
                };
            }
            b"connection" => {
                list.drop_unfinished();
                return self.note_options(value);
            }
            b"transfer-encoding" => {
                list.drop_unfinished();
                return self.note_encoding(value);
            }
            b"te" => {
                list.drop_unfinished();
                let mut codings = value.split(|byte| *byte == b',');
                self.takes_trailers |=
                    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"));
                return Ok(());
            }
            b"expect" => {
                list.drop_unfinished();
                self.expects_continue = true;
                return match value.eq_ignore_ascii_case(b"100-continue") {
                    true => Ok(()),
                    false => Err(Fault::Expectation),
                };
            }
            name if is_connection_specific(name) || name == b"http2-settings" => {
                self.has_upgrade |= name == b"upgrade";
                list.drop_unfinished();
                return Ok(());
            }
            _ => {}
        }
        list.unfinished().extend_from_slice(value);
        list.finish(name_bytes, false);
        Ok(())
    }

    /// Reads a line of a trailer section: what frames or routes a message, or speaks of the connection, does not stand
    /// there (RFC 9110 section 6.5.1).
    pub(super) fn take_trailer(
        &mut self,
        line: &'a [u8],
        list: &mut HeaderList,
    ) -> Result<(), Fault> {
        let (name_bytes, value) = self.append(line, list)?;
        let name = list.unfinished_field();
        if is_connection_specific(name) || matches!(name, b"host" | b"content-length" | b"te") {
            return Err(Fault::TrailerField);
        }
        list.unfinished().extend_from_slice(value);
        list.finish(name_bytes, false);
        Ok(())
    }

    /// Appends a line's name to the list, in lower case. Returns its length, and the value.
    fn append(
        &mut self,
        line: &'a [u8],
        list: &mut HeaderList,
    ) -> Result<(usize, &'a [u8]), Fault> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(Fault::TooManyFields);
        }
        if let [b' ' | b'\t', ..] = line {
            return Err(Fault::FoldedLine);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Fault::HeaderName)?);
        let is_white = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = value[1..].iter().position(|byte| !is_white(byte));
        let value = &value[start.map_or(value.len(), |start| 1 + start)..];
        let end = value.iter().rposition(|byte| !is_white(byte));
        let value = &value[..end.map_or(0, |end| end + 1)];
        if !is_value(value) {
            return Err(Fault::HeaderValue);
        }
        let bytes = list.unfinished();
        let before = bytes.len();
        bytes.extend_from_slice(name);
        bytes[before..].make_ascii_lowercase();
        match is_name(&bytes[before..]) {
            true => Ok((name.len(), value)),
            false => Err(Fault::HeaderName),
        }
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = number(value).map_err(|_| match is_number {
            true => Fault::LengthTooLarge,
            false => Fault::LengthField,
        })?;
        match self.content_length.replace(length) {
            None => Ok(()),
            Some(_) => Err(Fault::LengthField),
        }
    }

    fn note_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if std::mem::replace(&mut self.has_encoding, true) {
            return Err(Fault::EncodingRepeated);
        }
        match value {
            b"chunked" => Ok(()),
            _ => Err(Fault::EncodingUnknown),
        }
    }

    /// RFC 9110 section 7.6.1.
    fn note_options(&mut self, value: &'a [u8]) -> Result<(), Fault> {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            if is(b"close") {
                self.closes = true;
            } else if is(b"keep-alive") {
                self.keeps_alive = true;
            } else if is(b"host") || is(b"content-length") || is(b"content-type") {
                return Err(Fault::ConnectionOption);
            } else if !option.is_empty() && !is(b"te") {
                self.note_option(option)?;
            }
        }
        Ok(())
    }

    fn note_option(&mut self, option: &'a [u8]) -> Result<(), Fault> {
        if !option
            .iter()
            .all(|byte| is_name(&[byte.to_ascii_lowercase()]))
        {
            return Err(Fault::ConnectionOption);
        }
        let place = self.options.get_mut(self.options_len);
        *place.ok_or(Fault::ConnectionOption)? = option;
        self.options_len += 1;
        Ok(())
    }

    /// Removes the fields that Connection names, once all lines are read.
    pub(super) fn remove_options(&self, list: &mut HeaderList) {
        for option in &self.options[..self.options_len] {
            list.remove(option);
        }
    }

    /// How the content is framed (RFC 9112 section 6.3).
    pub(super) fn framing(&self, is_http_1_0: bool) -> Result<Framing, Fault> {
        match (self.content_length, self.has_encoding) {
            (_, true) if is_http_1_0 => Err(Fault::EncodingInHttp10),
            (Some(_), true) => Err(Fault::TwoLengths),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::None),
        }
    }

    /// Whether the connection ends with this exchange (RFC 9112 section 9.3).
    pub(super) fn ends_connection(&self, is_http_1_0: bool) -> bool {
        self.closes || (is_http_1_0 && !self.keeps_alive)
    }
}

/// The version (RFC 9112 section 2.3): whether it is 1.0. Higher ones than 1.1 mean what 1.1 means (RFC 9110 section
/// 2.5).
pub(super) fn is_http_1_0(version: &[u8]) -> Result<bool, Fault> {
    match version {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor @ b'0'..=b'9',
        ] => Ok(*minor == b'0'),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Fault::VersionUnsupported)
        }
        _ => Err(Fault::Version),
    }
}

/// Appends `te: trailers` in the one form that HTTP/2 has (RFC 9113 section 8.2.2).
pub(super) fn push_te(list: &mut HeaderList) {
    list.push(Field::new(b"te", b"trailers"));
}
