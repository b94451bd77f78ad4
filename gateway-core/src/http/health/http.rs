//! A check by a GET. In: authority and path; a status. Out: fields, a verdict.

use super::check::HealthFailure;
use crate::http::message::Field;

/// The header section of a check: over TLS or not, to this authority and path.
pub fn http_health_request<'a>(
    is_tls: bool,
    authority: &'a [u8],
    path: &'a [u8],
) -> [Field<'a>; 5] {
    [
        Field::new(b":method", b"GET"),
        Field::new(b":scheme", if is_tls { b"https" } else { b"http" }),
        Field::new(b":authority", authority),
        Field::new(b":path", path),
        Field::new(b"user-agent", b"portcullis"),
    ]
}

/// The verdict of a status. Only success is one: a redirection says that health is elsewhere.
///
/// # Errors
///
/// The check failed.
pub fn http_health_verdict(status: u16) -> Result<(), HealthFailure> {
    match (200..=299).contains(&status) {
        true => Ok(()),
        false => Err(HealthFailure::Status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{HeaderList, read_request};

    #[test]
    fn a_request_is_well_formed() {
        let mut list = HeaderList::new(1000);
        for field in http_health_request(false, b"127.0.0.1:9009", b"/ready") {
            list.push(field);
        }
        let request = read_request(&list).unwrap();
        assert_eq!(
            (request.method, request.path),
            (&b"GET"[..], &b"/ready"[..])
        );
        assert_eq!(request.authority, Some(&b"127.0.0.1:9009"[..]));
    }

    #[test]
    fn only_success_passes() {
        for status in [200, 204, 299] {
            assert_eq!(http_health_verdict(status), Ok(()));
        }
        for status in [100, 199, 300, 302, 404, 500, 503] {
            assert_eq!(http_health_verdict(status), Err(HealthFailure::Status));
        }
    }
}
