//! Messages of `grpc.health.v1`, as the gateway answers it for its clients (GRPC Health Checking Protocol). In: a path,
//! content, a status. Out: the method, the service's name, fields, content.

use gateway_common::closed_list;

use crate::http::message::Field;
use crate::http::protobuf::{Value, put_number, take_field};

/// The path of a check.
pub(super) const CHECK_PATH: &[u8] = b"/grpc.health.v1.Health/Check";
const WATCH_PATH: &[u8] = b"/grpc.health.v1.Health/Watch";

/// What a client wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthMethod {
    /// The status now.
    Check,
    /// The status now, and whenever it changes, until the client leaves.
    Watch,
}

closed_list! {
    /// What a client is told. Labels are the names in the protocol.
    pub enum ServingStatus: u8 {
        /// A server takes requests.
        Serving = "SERVING", 1;
        /// None does.
        NotServing = "NOT_SERVING", 2;
        /// No route leads to a service of this name.
        ServiceUnknown = "SERVICE_UNKNOWN", 3;
    }
}

impl ServingStatus {
    /// Its number in the protocol.
    pub const fn number(self) -> u8 {
        self.row()
    }
}

/// Whether a request of gRPC for this path asks for health.
pub fn is_health_path(path: &[u8]) -> bool {
    path.starts_with(b"/grpc.health.v1.Health/")
}

/// The method of a request for health, if it is one of ours.
pub(super) fn health_method(path: &[u8]) -> Option<HealthMethod> {
    match path {
        CHECK_PATH => Some(HealthMethod::Check),
        WATCH_PATH => Some(HealthMethod::Watch),
        _ => None,
    }
}

/// The service that a client asks for, by the whole content of its request: `HealthCheckRequest { service = 1 }`. An
/// empty name stands for the gateway as a whole. `None`: it is no such message, or a compressed one.
pub(super) fn requested_service(content: &[u8]) -> Option<&[u8]> {
    let (prefix, mut message) = content.split_first_chunk::<5>()?;
    let [is_compressed, length @ ..] = *prefix;
    if is_compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    let mut service = &b""[..];
    while !message.is_empty() {
        if let (1, Value::Bytes(name)) = take_field(&mut message).ok()? {
            service = name;
        }
    }
    Some(service)
}

/// The header section of every reply.
pub(super) const REPLY_FIELDS: [Field<'static>; 2] = [
    Field::new(b":status", b"200"),
    Field::new(b"content-type", b"application/grpc"),
];

/// A message: `HealthCheckResponse { status = 1 }`.
pub(super) fn health_reply(status: ServingStatus) -> Vec<u8> {
    let mut message = Vec::new();
    put_number(&mut message, 1, status.number().into());
    let mut content = Vec::new();
    put_message(&mut content, &message);
    content
}

/// Appends a message as gRPC frames it: not compressed, its length, itself.
pub(super) fn put_message(content: &mut Vec<u8>, message: &[u8]) {
    content.push(0);
    content.extend_from_slice(&(message.len() as u32).to_be_bytes());
    content.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use super::super::grpc_health_request_content;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn its_methods_are_known_by_their_paths() {
        let method = |text: &str| health_method(text.as_bytes());
        assert_eq!(
            method("/grpc.health.v1.Health/Check"),
            Some(HealthMethod::Check)
        );
        assert_eq!(
            method("/grpc.health.v1.Health/Watch"),
            Some(HealthMethod::Watch)
        );
        assert_eq!(method("/grpc.health.v1.Health/List"), None);
        assert_eq!(method("/grpc.health.v1.Health/Check/"), None);
    }

    #[test]
    fn what_is_no_request_for_health_is_refused() {
        for content in [
            &b""[..],
            b"\0\0\0\0",
            b"\x01\0\0\0\0",
            b"\0\0\0\0\x01",
            b"\0\0\0\0\x03\x0a\x02a",
            b"\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert_eq!(requested_service(content), None, "{content:?}");
        }
        assert_eq!(requested_service(b"\0\0\0\0\0"), Some(&b""[..]));
    }

    proptest! {
        #[test]
        fn the_service_of_a_request_is_read(service in "[a-zA-Z.]{0,300}") {
            let content = grpc_health_request_content(&service);
            prop_assert_eq!(requested_service(&content), Some(service.as_bytes()));
        }
    }
}
