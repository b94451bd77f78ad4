//! The protocols of telemetry that clients speak over HTTP. In: a request. Out: its protocol. Pure.

use crate::http::message::{HeaderList, Request};

/// How a client reads a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC: by trailers.
    Grpc,
    /// OTLP over HTTP with protobuf: by the status, and a `google.rpc.Status`.
    OtlpProtobuf,
    /// OTLP over HTTP with JSON: as above, in JSON.
    OtlpJson,
    /// Prometheus' remote write: by the status. By default it drops what gets 429.
    RemoteWrite,
    /// Any other: by the status.
    Other,
}

/// What the media types of gRPC begin with.
const GRPC: &[u8] = b"application/grpc";

/// Paths of OTLP over HTTP, wherever they are mounted.
const OTLP_PATHS: [&[u8]; 4] = [
    b"/v1/traces",
    b"/v1/metrics",
    b"/v1/logs",
    b"/v1development/profiles",
];

impl Protocol {
    /// The protocol of a request.
    pub fn of(request: &Request<'_>, list: &HeaderList) -> Self {
        let media_type = request.content_type.unwrap_or_default();
        let media_type = media_type
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        let media_type = media_type.trim_ascii_end();
        // `application/grpc` and its formats, `application/grpc+proto`; not gRPC-Web, which has no trailers.
        if let Some((begin, format)) = media_type.split_at_checked(GRPC.len())
            && begin.eq_ignore_ascii_case(GRPC)
            && matches!(format.first(), None | Some(b'+'))
        {
            return Protocol::Grpc;
        }
        let is_remote_write = list
            .iter()
            .any(|field| field.name == b"x-prometheus-remote-write-version");
        if is_remote_write {
            return Protocol::RemoteWrite;
        }
        let path = request
            .path
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default();
        let is_otlp = OTLP_PATHS.iter().any(|end| path.ends_with(end));
        let is = |name: &[u8]| media_type.eq_ignore_ascii_case(name);
        match is_otlp {
            true if is(b"application/x-protobuf") => Protocol::OtlpProtobuf,
            true if is(b"application/json") => Protocol::OtlpJson,
            _ => Protocol::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{Field, read_request};

    fn protocol(path: &str, fields: &[(&str, &str)]) -> Protocol {
        let mut list = HeaderList::new(10_000);
        for (name, value) in [(":method", "POST"), (":scheme", "https"), (":path", path)]
            .iter()
            .chain(fields)
        {
            list.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        Protocol::of(&read_request(&list).unwrap(), &list)
    }

    #[test]
    fn a_request_is_known_by_its_type_and_path() {
        for (path, content_type, expected) in [
            ("/a.B/C", "application/grpc", Protocol::Grpc),
            ("/a.B/C", "application/grpc+proto", Protocol::Grpc),
            ("/a.B/C", "Application/gRPC; charset=utf-8", Protocol::Grpc),
            ("/a.B/C", "application/grpc-web", Protocol::Other),
            (
                "/v1/traces",
                "application/x-protobuf",
                Protocol::OtlpProtobuf,
            ),
            (
                "/otlp/v1/metrics?a=b",
                "application/json;charset=utf-8",
                Protocol::OtlpJson,
            ),
            ("/v1/logs", "text/plain", Protocol::Other),
            ("/v3/segments", "application/json", Protocol::Other),
            ("/?/v1/logs", "application/json", Protocol::Other),
        ] {
            let found = protocol(path, &[("content-type", content_type)]);
            assert_eq!(found, expected, "{path} {content_type}");
        }
        assert_eq!(protocol("/v1/traces", &[]), Protocol::Other);
    }

    #[test]
    fn remote_write_is_known_by_its_version() {
        let fields = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        assert_eq!(protocol("/api/v1/push", &fields), Protocol::RemoteWrite);
    }
}
