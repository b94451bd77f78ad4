//! A check by `grpc.health.v1.Health/Check`: the request, and its reply in pieces as HTTP/2 brings it (GRPC Health
//! Checking Protocol). In: authority and service; sections and content. Out: fields, a message, a verdict.

use super::check::HealthFailure;
use super::service::{CHECK_PATH, ServingStatus, put_message};
use crate::http::deadline::{GRPC_TIMEOUT, GrpcTimeout};
use crate::http::limits;
use crate::http::message::{Field, HeaderList, read_response};
use crate::http::protobuf::{Value, put_bytes, take_field};

/// The header section of a check, without its timeout.
const FIELDS: [Field<'static>; 5] = [
    Field::new(b":method", b"POST"),
    Field::new(b":path", CHECK_PATH),
    Field::new(b"te", b"trailers"),
    Field::new(b"content-type", b"application/grpc"),
    Field::new(b"user-agent", b"portcullis"),
];

/// The header section of a check: over TLS or not, to this authority, which may take so long.
pub fn grpc_health_request<'a>(
    is_tls: bool,
    authority: &'a [u8],
    timeout: &'a GrpcTimeout,
) -> impl Iterator<Item = Field<'a>> {
    let scheme: &[u8] = if is_tls { b"https" } else { b"http" };
    let [method, path, regular @ ..] = FIELDS;
    [
        method,
        Field::new(b":scheme", scheme),
        Field::new(b":authority", authority),
        path,
    ]
    .into_iter()
    .chain(regular)
    .chain([Field::new(GRPC_TIMEOUT, timeout.as_bytes())])
}

/// The content of a check: `HealthCheckRequest { service = 1 }`. An empty name asks for the server as a whole.
pub fn grpc_health_request_content(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        put_bytes(&mut message, 1, service.as_bytes());
    }
    let mut content = Vec::new();
    put_message(&mut content, &message);
    content
}

/// The reply to a check, as much of it as has come.
#[derive(Debug, Default)]
pub struct GrpcHealthReply {
    has_response: bool,
    content: Vec<u8>,
    failure: Option<HealthFailure>,
    /// What `grpc-status` says.
    status: Option<u32>,
}

impl GrpcHealthReply {
    /// Takes a header or trailer section.
    pub fn section(&mut self, list: &HeaderList) {
        let is_trailers = self.has_response;
        if !is_trailers {
            match read_response(list) {
                Ok(response) if response.is_interim() => return,
                Ok(response) => {
                    self.has_response = true;
                    if response.status != 200 {
                        self.fail(HealthFailure::Status);
                    }
                }
                Err(_) => self.fail(HealthFailure::Malformed),
            }
        }
        // In trailers, or in the only section where there is no content.
        let status = list.iter().find(|field| field.name == b"grpc-status");
        if let Some(status) = status {
            let text = std::str::from_utf8(status.value).ok();
            self.status = text.and_then(|text| text.parse().ok());
        }
    }

    /// Takes content.
    pub fn data(&mut self, bytes: &[u8]) {
        if self.content.len() + bytes.len() > limits::HEALTH_REPLY_BYTES_MAX {
            return self.fail(HealthFailure::Malformed);
        }
        self.content.extend_from_slice(bytes);
    }

    /// The verdict, once the reply has ended.
    ///
    /// # Errors
    ///
    /// Why the check failed.
    pub fn verdict(&self) -> Result<(), HealthFailure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match self.status {
            Some(0) => {}
            // NOT_FOUND, UNIMPLEMENTED.
            Some(5 | 12) => return Err(HealthFailure::Unknown),
            Some(_) => return Err(HealthFailure::Status),
            None => return Err(HealthFailure::Malformed),
        }
        let status = serving_status(&self.content).ok_or(HealthFailure::Malformed)?;
        match status == u64::from(ServingStatus::Serving.number()) {
            true => Ok(()),
            false => Err(HealthFailure::NotServing),
        }
    }

    fn fail(&mut self, failure: HealthFailure) {
        self.failure.get_or_insert(failure);
    }
}

/// What `HealthCheckResponse { status = 1 }` says; it must be the only message.
fn serving_status(content: &[u8]) -> Option<u64> {
    let (prefix, mut message) = content.split_first_chunk::<5>()?;
    let [is_compressed, length @ ..] = *prefix;
    if is_compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        // The last one counts, as everywhere in protobuf.
        if let (1, Value::Number(number)) = take_field(&mut message).ok()? {
            status = number;
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const OK: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

    fn list(fields: &[(&str, &str)]) -> HeaderList {
        let mut list = HeaderList::new(10_000);
        for (name, value) in fields {
            list.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        list
    }

    fn reply(sections: &[&[(&str, &str)]], content: &[u8]) -> Result<(), HealthFailure> {
        let mut reply = GrpcHealthReply::default();
        let (head, tail) = sections.split_first().unwrap();
        reply.section(&list(head));
        for byte in content {
            reply.data(&[*byte]);
        }
        for section in tail {
            reply.section(&list(section));
        }
        reply.verdict()
    }

    #[test]
    fn a_request_asks_for_one_service() {
        let timeout = GrpcTimeout::of(Duration::from_secs(2));
        let fields = grpc_health_request(true, b"backend:4317", &timeout);
        let fields: Vec<_> = fields.map(|field| (field.name, field.value)).collect();
        let expected: [(&[u8], &[u8]); 8] = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"backend:4317"),
            (b":path", b"/grpc.health.v1.Health/Check"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"portcullis"),
            (b"grpc-timeout", b"2000000u"),
        ];
        assert_eq!(fields, expected);
        assert_eq!(
            grpc_health_request_content("a.B"),
            b"\0\0\0\0\x05\x0a\x03a.B"
        );
        assert_eq!(grpc_health_request_content(""), b"\0\0\0\0\0");
    }

    #[test]
    fn only_a_server_that_says_that_it_serves_passes() {
        const END: &[(&str, &str)] = &[("grpc-status", "0")];
        assert_eq!(reply(&[&OK, END], SERVING), Ok(()));
        // A field that is unknown, and the status twice.
        assert_eq!(
            reply(&[&OK, END], b"\0\0\0\0\x07\x08\x02\x12\x01a\x08\x01"),
            Ok(())
        );
        for (content, failure) in [
            (&b"\0\0\0\0\x02\x08\x02"[..], HealthFailure::NotServing),
            (b"\0\0\0\0\x02\x08\x03", HealthFailure::NotServing),
            (b"\0\0\0\0\0", HealthFailure::NotServing),
            (b"", HealthFailure::Malformed),
            (b"\0\0\0\0\x03\x08\x01", HealthFailure::Malformed),
            (b"\x01\0\0\0\x02\x08\x01", HealthFailure::Malformed),
            (
                b"\0\0\0\0\x02\x08\x01\0\0\0\0\x02\x08\x01",
                HealthFailure::Malformed,
            ),
            (b"\0\0\0\0\x02\x08\x81", HealthFailure::Malformed),
            (&[0; 10_000], HealthFailure::Malformed),
        ] {
            assert_eq!(reply(&[&OK, END], content), Err(failure), "{content:?}");
        }
    }

    #[test]
    fn a_status_tells_why_there_is_no_message() {
        let only = |status| [OK[0], OK[1], ("grpc-status", status)];
        for (status, failure) in [
            ("5", HealthFailure::Unknown),
            ("12", HealthFailure::Unknown),
            ("14", HealthFailure::Status),
            ("x", HealthFailure::Malformed),
        ] {
            assert_eq!(reply(&[&only(status)], b""), Err(failure), "{status}");
        }
        assert_eq!(reply(&[&OK], SERVING), Err(HealthFailure::Malformed));
        assert_eq!(
            reply(&[&[(":status", "503")]], b""),
            Err(HealthFailure::Status)
        );
        assert_eq!(
            reply(&[&[("status", "200")]], b""),
            Err(HealthFailure::Malformed)
        );
        let interim = [(":status", "103")];
        assert_eq!(
            reply(&[&interim, &OK, &[("grpc-status", "0")]], b""),
            Err(HealthFailure::Malformed)
        );
    }

    #[test]
    fn a_server_that_answers_without_end_is_not_held_in_memory() {
        let mut reply = GrpcHealthReply::default();
        reply.section(&list(&OK));
        for _ in 0..1000 {
            reply.data(&[0; 1000]);
        }
        assert!(reply.content.len() <= limits::HEALTH_REPLY_BYTES_MAX);
        assert_eq!(reply.verdict(), Err(HealthFailure::Malformed));
    }

    proptest! {
        #[test]
        fn no_content_does_any_harm(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let verdict = reply(&[&OK, &[("grpc-status", "0")]], &content);
            prop_assert!(verdict.is_err() || content.contains(&1));
        }
    }
}
