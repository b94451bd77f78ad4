//! Header and trailer sections of HTTP/2 (RFC 9113 sections 8.2, 8.3). In: a header list. Out: what it says, or why
//! it is malformed. Changes nothing.

use super::character::{
    has_only_value_characters, has_white_end, is_authority, is_method, is_name, is_path,
};
use super::header_list::Span;
use super::{Field, HeaderList, Malformed};

/// A well-formed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a [u8],
    /// `http` or `https`, as the client says.
    pub scheme: &'a [u8],
    /// Path and query, which begin with a slash; or `*`, of OPTIONS alone.
    pub path: &'a [u8],
    /// Host and port, from `:authority` or else from Host.
    pub authority: Option<&'a [u8]>,
    /// What Content-Length says.
    pub content_length: Option<u64>,
    /// What Content-Type says; its last, if there are several.
    pub content_type: Option<&'a [u8]>,
    /// Whether it has `te: trailers`.
    pub accepts_trailers: bool,
}

/// What a request says, by where it lies in the list: a request that is kept with its list, which may move.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts {
    method: Span,
    scheme: Span,
    path: Span,
    authority: Option<Span>,
    content_length: Option<u64>,
    content_type: Option<Span>,
    accepts_trailers: bool,
}

impl RequestParts {
    /// The parts of a request that was read from this list.
    pub fn new(request: &Request<'_>, list: &HeaderList) -> Self {
        RequestParts {
            method: list.span(request.method),
            scheme: list.span(request.scheme),
            path: list.span(request.path),
            authority: request.authority.map(|part| list.span(part)),
            content_length: request.content_length,
            content_type: request.content_type.map(|part| list.span(part)),
            accepts_trailers: request.accepts_trailers,
        }
    }

    /// The request again, from the same list.
    pub fn in_list<'a>(&self, list: &'a HeaderList) -> Request<'a> {
        Request {
            method: list.part(self.method),
            scheme: list.part(self.scheme),
            path: list.part(self.path),
            authority: self.authority.map(|span| list.part(span)),
            content_length: self.content_length,
            content_type: self.content_type.map(|span| list.part(span)),
            accepts_trailers: self.accepts_trailers,
        }
    }
}

/// A well-formed header section of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// The status, from 100 to 999. Below 200 another header section follows (RFC 9113 section 8.1).
    pub status: u16,
    /// What Content-Length says.
    pub content_length: Option<u64>,
}

impl Response {
    /// Whether it only goes before the response (RFC 9110 section 15.2).
    pub const fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// Pseudo-header fields and those regular ones that matter here, as they were found.
#[derive(Debug, Default)]
struct Found<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    accepts_trailers: bool,
    has_regular: bool,
}

/// Reads the header section of a request.
///
/// # Errors
///
/// The request is malformed.
pub fn read_request(list: &HeaderList) -> Result<Request<'_>, Malformed> {
    let found = Found::in_list(list)?;
    if found.status.is_some() {
        return Err(Malformed::PseudoUnknown);
    }
    let method = found.method.ok_or(Malformed::PseudoMissing)?;
    if method == b"CONNECT" {
        return Err(Malformed::Connect);
    }
    let scheme = found.scheme.ok_or(Malformed::PseudoMissing)?;
    let path = found.path.ok_or(Malformed::PseudoMissing)?;
    if !is_method(method) {
        return Err(Malformed::Method);
    }
    if !matches!(scheme, b"http" | b"https") {
        return Err(Malformed::Scheme);
    }
    // RFC 9113 section 8.3.1: an OPTIONS request for no path has "*".
    if !is_path(path) && (method, path) != (b"OPTIONS", b"*") {
        return Err(Malformed::Path);
    }
    Ok(Request {
        method,
        scheme,
        path,
        authority: authority(found.authority, found.host)?,
        content_length: found.content_length.map(number).transpose()?,
        content_type: found.content_type,
        accepts_trailers: found.accepts_trailers,
    })
}

/// Reads the header section of a response.
///
/// # Errors
///
/// The response is malformed, or switches protocols.
pub fn read_response(list: &HeaderList) -> Result<Response, Malformed> {
    let found = Found::in_list(list)?;
    if found.has_of_request() {
        return Err(Malformed::PseudoUnknown);
    }
    let status = match found.status.ok_or(Malformed::PseudoMissing)? {
        // RFC 9113 section 8.6: HTTP/2 does not switch protocols.
        b"101" => return Err(Malformed::Status),
        [hundreds @ b'1'..=b'9', rest @ ..] if rest.len() == 2 => {
            let digits = [*hundreds, rest[0], rest[1]];
            number(&digits).map_err(|_| Malformed::Status)? as u16
        }
        _ => return Err(Malformed::Status),
    };
    Ok(Response {
        status,
        content_length: found.content_length.map(number).transpose()?,
    })
}

/// Checks a trailer section (RFC 9113 section 8.1).
///
/// # Errors
///
/// It is malformed.
pub fn check_trailers(list: &HeaderList) -> Result<(), Malformed> {
    let found = Found::in_list(list)?;
    // RFC 9113 section 8.3: pseudo-header fields stand in header sections alone.
    if found.has_of_request() || found.status.is_some() {
        return Err(Malformed::PseudoUnknown);
    }
    Ok(())
}

impl<'a> Found<'a> {
    fn in_list(list: &'a HeaderList) -> Result<Self, Malformed> {
        if list.is_too_large() {
            return Err(Malformed::TooLarge);
        }
        let mut found = Found::default();
        // One look at all names and values. What has to be named is found below.
        let are_usual = has_only_value_characters(list.all_bytes());
        for field in list.iter() {
            let is_value = are_usual || has_only_value_characters(field.value);
            let is_value = is_value && !has_white_end(field.value);
            match field.name.first() {
                Some(b':') => found.take_pseudo(field, is_value)?,
                _ => found.take_regular(field, is_value)?,
            }
        }
        Ok(found)
    }

    fn has_of_request(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.path.is_some()
            || self.authority.is_some()
    }

    fn take_pseudo(&mut self, field: Field<'a>, is_value: bool) -> Result<(), Malformed> {
        if self.has_regular {
            return Err(Malformed::PseudoOrder);
        }
        if !is_value {
            return Err(Malformed::FieldValue);
        }
        let place = match field.name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":path" => &mut self.path,
            b":authority" => &mut self.authority,
            b":status" => &mut self.status,
            _ => return Err(Malformed::PseudoUnknown),
        };
        match place.replace(field.value) {
            None => Ok(()),
            Some(_) => Err(Malformed::PseudoRepeated),
        }
    }

    fn take_regular(&mut self, field: Field<'a>, is_value: bool) -> Result<(), Malformed> {
        self.has_regular = true;
        if !is_name(field.name) {
            return Err(Malformed::FieldName);
        }
        if !is_value {
            return Err(Malformed::FieldValue);
        }
        match field.name {
            name if is_connection_specific(name) => return Err(Malformed::ConnectionSpecific),
            // RFC 9113 section 8.2.2: TE may say that trailers are welcome, and nothing else.
            b"te" if field.value != b"trailers" => return Err(Malformed::ConnectionSpecific),
            b"te" => self.accepts_trailers = true,
            b"content-type" => self.content_type = Some(field.value),
            b"host" if self.host.is_some() => return Err(Malformed::Host),
            b"host" => self.host = Some(field.value),
            // RFC 9110 section 8.6 would let equal ones pass as one: some hop may see another one.
            b"content-length" if self.content_length.is_some() => {
                return Err(Malformed::ContentLength);
            }
            b"content-length" => self.content_length = Some(field.value),
            _ => {}
        }
        Ok(())
    }
}

/// Whether a field speaks of one connection only (RFC 9113 section 8.2.2, RFC 9110 section 7.6.1). `te` has a rule of
/// its own.
pub fn is_connection_specific(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade"
    )
}

/// The host that a request is for (RFC 9113 section 8.3.1).
fn authority<'a>(
    authority: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
) -> Result<Option<&'a [u8]>, Malformed> {
    if let (Some(authority), Some(host)) = (authority, host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(Malformed::Host);
    }
    match authority.or(host) {
        Some(authority) if !is_authority(authority) => Err(Malformed::Authority),
        checked => Ok(checked),
    }
}

/// A number of decimal digits alone (RFC 9110 section 8.6), below 2^63.
///
/// # Errors
///
/// It is something else.
pub(in crate::http) fn number(digits: &[u8]) -> Result<u64, Malformed> {
    if digits.is_empty() {
        return Err(Malformed::ContentLength);
    }
    digits
        .iter()
        .try_fold(0_u64, |number, digit| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9);
            let longer = number.checked_mul(10)?.checked_add(digit?.into())?;
            (longer < 1 << 63).then_some(longer)
        })
        .ok_or(Malformed::ContentLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn list(fields: Fields<'_>) -> HeaderList {
        let mut list = HeaderList::new(usize::MAX);
        for (name, value) in fields {
            list.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        list
    }

    fn request(more: Fields<'_>) -> Result<(), Malformed> {
        let usual = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/v1/traces"),
            (":authority", "collector.example"),
        ];
        read_request(&list(&[&usual, more].concat())).map(|_| ())
    }

    fn response(fields: Fields<'_>) -> Result<u16, Malformed> {
        read_response(&list(fields)).map(|response| response.status)
    }

    #[test]
    fn a_usual_request_is_read() {
        let list = list(&[
            (":method", "POST"),
            (":scheme", "https"),
            (
                ":path",
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            ),
            (":authority", "collector.example:4317"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("content-length", "0526"),
        ]);
        let request = read_request(&list).unwrap();
        assert_eq!(request.method, b"POST");
        assert_eq!(request.authority, Some(&b"collector.example:4317"[..]));
        assert_eq!(request.content_type, Some(&b"application/grpc"[..]));
        assert_eq!(request.content_length, Some(526));
        assert!(request.accepts_trailers);
    }

    #[test]
    fn a_request_is_found_again_where_its_list_has_moved_to() {
        let list = list(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/a?b"),
            ("host", "collector.example"),
            ("content-type", "application/json"),
            ("content-length", "7"),
            ("te", "trailers"),
        ]);
        let parts = RequestParts::new(&read_request(&list).unwrap(), &list);
        let moved = Box::new(list);
        assert_eq!(parts.in_list(&moved), read_request(&moved).unwrap());
    }

    #[test]
    fn each_fault_of_a_request_has_its_name() {
        for (more, expected) in [
            (&[("A", "b")][..], Malformed::FieldName),
            (&[("", "b")], Malformed::FieldName),
            (&[("a b", "c")], Malformed::FieldName),
            (&[("a", "b\r\nc: d")], Malformed::FieldValue),
            (&[("a", " b")], Malformed::FieldValue),
            (&[("connection", "close")], Malformed::ConnectionSpecific),
            (&[("keep-alive", "1")], Malformed::ConnectionSpecific),
            (
                &[("proxy-connection", "close")],
                Malformed::ConnectionSpecific,
            ),
            (
                &[("transfer-encoding", "chunked")],
                Malformed::ConnectionSpecific,
            ),
            (&[("upgrade", "h2c")], Malformed::ConnectionSpecific),
            (&[("te", "gzip")], Malformed::ConnectionSpecific),
            (
                &[("te", "trailers, deflate")],
                Malformed::ConnectionSpecific,
            ),
            (&[("a", "b"), (":path", "/")], Malformed::PseudoOrder),
            (&[(":protocol", "websocket")], Malformed::PseudoUnknown),
            (&[(":", "x")], Malformed::PseudoUnknown),
            (&[(":status", "200")], Malformed::PseudoUnknown),
            (&[(":path", "/")], Malformed::PseudoRepeated),
            (
                &[(":authority", "collector.example")],
                Malformed::PseudoRepeated,
            ),
            (&[("host", "other.example")], Malformed::Host),
            (
                &[("host", "collector.example"), ("host", "collector.example")],
                Malformed::Host,
            ),
            (
                &[("content-length", "1"), ("content-length", "1")],
                Malformed::ContentLength,
            ),
            (&[("content-length", "+1")], Malformed::ContentLength),
            (&[("content-length", "1, 1")], Malformed::ContentLength),
            (&[("content-length", "0x1")], Malformed::ContentLength),
            (&[("content-length", "")], Malformed::ContentLength),
            (
                &[("content-length", "9223372036854775808")],
                Malformed::ContentLength,
            ),
            (
                &[("content-length", "99999999999999999999")],
                Malformed::ContentLength,
            ),
        ] {
            assert_eq!(request(more), Err(expected), "{more:?}");
        }
        for more in [
            &[][..],
            &[("host", "Collector.Example")],
            &[("te", "trailers"), ("te", "trailers")],
            &[("content-length", "9223372036854775807")],
        ] {
            assert_eq!(request(more), Ok(()), "{more:?}");
        }
    }

    #[test]
    fn each_pseudo_header_field_of_a_request_is_checked() {
        let usual = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/v1/traces"),
            (":authority", "collector.example"),
        ];
        for missing in [0, 1, 2] {
            let mut fields = usual.to_vec();
            fields.remove(missing);
            let read = read_request(&list(&fields)).map(|_| ());
            assert_eq!(read, Err(Malformed::PseudoMissing));
        }
        for (position, value, expected) in [
            (0, "", Malformed::Method),
            (0, "GE T", Malformed::Method),
            (0, "CONNECT", Malformed::Connect),
            (1, "ftp", Malformed::Scheme),
            (1, "", Malformed::Scheme),
            (2, "", Malformed::Path),
            (2, "*", Malformed::Path),
            (2, "v1/traces", Malformed::Path),
            (2, "https://collector.example/", Malformed::Path),
            (2, "/ HTTP/1.1", Malformed::Path),
            (2, "/#", Malformed::Path),
            (3, "", Malformed::Authority),
            (3, "user@collector.example", Malformed::Authority),
            (3, "collector.example/x", Malformed::Authority),
        ] {
            let mut fields = usual;
            fields[position].1 = value;
            let read = read_request(&list(&fields)).map(|_| ());
            assert_eq!(read, Err(expected), "{value:?}");
        }
        let mut options = usual;
        (options[0].1, options[2].1) = ("OPTIONS", "*");
        assert!(read_request(&list(&options)).is_ok());
    }

    #[test]
    fn host_stands_in_for_an_authority() {
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        let (without, with) = (
            list(&fields),
            list(&[&fields[..], &[("host", "a")]].concat()),
        );
        assert_eq!(read_request(&without).unwrap().authority, None);
        assert_eq!(read_request(&with).unwrap().authority, Some(&b"a"[..]));
        let bad = list(&[&fields[..], &[("host", "a/b")]].concat());
        assert_eq!(read_request(&bad), Err(Malformed::Authority));
    }

    #[test]
    fn a_response_has_a_status_and_no_other_pseudo_header_field() {
        assert_eq!(response(&[(":status", "200"), ("a", "b")]), Ok(200));
        assert_eq!(response(&[(":status", "999")]), Ok(999));
        for status in ["", "20", "2000", "099", "+20", "2 0", "abc", "101"] {
            assert_eq!(
                response(&[(":status", status)]),
                Err(Malformed::Status),
                "{status}"
            );
        }
        assert_eq!(response(&[("a", "b")]), Err(Malformed::PseudoMissing));
        for name in [":method", ":path", ":scheme", ":authority"] {
            let read = response(&[(":status", "200"), (name, "/")]);
            assert_eq!(read, Err(Malformed::PseudoUnknown));
        }
        let twice = response(&[(":status", "200"), (":status", "200")]);
        assert_eq!(twice, Err(Malformed::PseudoRepeated));
        let chunked = response(&[(":status", "200"), ("transfer-encoding", "chunked")]);
        assert_eq!(chunked, Err(Malformed::ConnectionSpecific));
    }

    #[test]
    fn trailers_have_no_pseudo_header_field() {
        assert_eq!(check_trailers(&list(&[("grpc-status", "0")])), Ok(()));
        assert_eq!(check_trailers(&list(&[])), Ok(()));
        for name in [":status", ":method", ":path", ":scheme", ":authority", ":x"] {
            let checked = check_trailers(&list(&[(name, "/")]));
            assert_eq!(checked, Err(Malformed::PseudoUnknown), "{name}");
        }
        let upper = check_trailers(&list(&[("Grpc-Status", "0")]));
        assert_eq!(upper, Err(Malformed::FieldName));
    }

    #[test]
    fn a_list_that_is_not_whole_is_no_message() {
        let mut list = HeaderList::new(100);
        for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/")] {
            list.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        assert_eq!(read_request(&list), Err(Malformed::TooLarge));
        assert_eq!(check_trailers(&list), Err(Malformed::TooLarge));
    }

    proptest! {
        /// Whatever is accepted has nothing in it that another parser could split.
        #[test]
        fn an_accepted_list_is_clean(
            fields in vec(("(:method|:path|:scheme|:authority|[a-zA-Z:_ -]{0,4})", "[ -~\r\n\0\t]{0,4}|GET|https|/"), 0..8),
        ) {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
            let list = list(&fields);
            if read_request(&list).is_ok() || read_response(&list).is_ok() || check_trailers(&list).is_ok() {
                for field in list.iter() {
                    prop_assert!(!field.name.is_empty());
                    prop_assert!(!field.name[1..].contains(&b':'));
                    prop_assert!(!field.name.iter().any(|byte| byte.is_ascii_uppercase() || *byte <= b' '));
                    prop_assert!(!field.value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
                }
            }
        }
    }
}
