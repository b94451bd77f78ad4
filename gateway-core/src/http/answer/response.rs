//! Responses of the gateway itself. In: a refusal, the client's protocol, a time to wait. Out: a header section and
//! content, or trailers behind a response that has begun. Never a success.

use std::time::Duration;

use super::status::{base64, status};
use super::{Again, Protocol, RequestRefusal};
use crate::http::message::{Field, HeaderList};

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The status of gRPC, if that is the protocol.
    pub grpc_status: Option<u16>,
    /// Its header section.
    pub fields: HeaderList,
    /// Its content; if there is none, the header section ends the stream.
    pub content: Vec<u8>,
}

/// The response to a request that is refused. `wait` is when to send it again, if that can help.
pub fn answer(refusal: RequestRefusal, protocol: Protocol, wait: Duration) -> Answer {
    let wait = (refusal.again() == Again::Later).then_some(wait);
    let code = refusal.grpc_status().number();
    let words = refusal.message();
    let mut fields = Fields::default();
    let http_status = match (protocol, refusal.http_status()) {
        (Protocol::Grpc, _) => 200,
        // Prometheus sends again what gets 5xx, and drops what gets 429 unless it is told not to.
        (Protocol::RemoteWrite, 429) => 503,
        (_, status) => status,
    };
    let content = match protocol {
        Protocol::Grpc => {
            fields.put(":status", "200");
            fields.put("content-type", "application/grpc");
            fields.put_grpc_status(refusal, wait);
            Vec::new()
        }
        Protocol::OtlpProtobuf => {
            fields.put_status(http_status, wait);
            fields.put("content-type", "application/x-protobuf");
            status(code, words, wait)
        }
        Protocol::OtlpJson => {
            fields.put_status(http_status, wait);
            fields.put("content-type", "application/json");
            format!("{{\"code\":{code},\"message\":\"{words}\"}}").into_bytes()
        }
        Protocol::RemoteWrite | Protocol::Other => {
            fields.put_status(http_status, wait);
            fields.put_text(words)
        }
    };
    if !content.is_empty() {
        fields.put("content-length", &content.len().to_string());
    }
    Answer {
        status: http_status,
        grpc_status: (protocol == Protocol::Grpc).then_some(code.into()),
        fields: fields.0,
        content,
    }
}

/// What ends a response that has begun: trailers, in gRPC. In any other protocol only a reset says that a response is
/// not complete.
pub fn trailers(refusal: RequestRefusal, protocol: Protocol, wait: Duration) -> Option<HeaderList> {
    if protocol != Protocol::Grpc {
        return None;
    }
    let wait = (refusal.again() == Again::Later).then_some(wait);
    let mut fields = Fields::default();
    fields.put_grpc_status(refusal, wait);
    Some(fields.0)
}

struct Fields(HeaderList);

impl Default for Fields {
    fn default() -> Self {
        Fields(HeaderList::new(usize::MAX))
    }
}

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        self.0.push(Field::new(name.as_bytes(), value.as_bytes()));
    }

    /// The status of HTTP, and when to send the request again (RFC 9110 section 10.2.3): in whole seconds, not less.
    fn put_status(&mut self, status: u16, wait: Option<Duration>) {
        self.put(":status", &status.to_string());
        if let Some(wait) = wait {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            self.put("retry-after", &seconds.to_string());
        }
    }

    fn put_text(&mut self, words: &str) -> Vec<u8> {
        self.put("content-type", "text/plain");
        format!("{words}\n").into_bytes()
    }

    /// Clients of OTLP send again what gets RESOURCE_EXHAUSTED only with a RetryInfo.
    fn put_grpc_status(&mut self, refusal: RequestRefusal, wait: Option<Duration>) {
        let code = refusal.grpc_status().number();
        self.put("grpc-status", &code.to_string());
        self.put("grpc-message", refusal.message());
        if wait.is_some() {
            let details = base64(&status(code, refusal.message(), wait));
            self.put("grpc-status-details-bin", &details);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{check_trailers, read_response};

    const WAIT: Duration = Duration::from_millis(1_200);

    const PROTOCOLS: [Protocol; 5] = [
        Protocol::Grpc,
        Protocol::OtlpProtobuf,
        Protocol::OtlpJson,
        Protocol::RemoteWrite,
        Protocol::Other,
    ];

    fn value(list: &HeaderList, name: &str) -> Option<String> {
        let mut found = list.iter().filter(|field| field.name == name.as_bytes());
        let value = found
            .next()
            .map(|field| String::from_utf8(field.value.to_vec()).unwrap());
        assert_eq!(found.next(), None);
        value
    }

    #[test]
    fn every_answer_is_well_formed_and_none_is_a_success() {
        for refusal in RequestRefusal::ALL {
            for protocol in PROTOCOLS {
                let answer = answer(refusal, protocol, WAIT);
                let response = read_response(&answer.fields).unwrap();
                let content_length =
                    (!answer.content.is_empty()).then_some(answer.content.len() as u64);
                assert_eq!(response.content_length, content_length);
                match value(&answer.fields, "grpc-status") {
                    Some(status) => assert!(status != "0" && response.status == 200),
                    None => assert!(response.status >= 400),
                }
                let trailers = trailers(refusal, protocol, WAIT);
                assert_eq!(trailers.is_some(), protocol == Protocol::Grpc);
                assert!(trailers.is_none_or(|list| check_trailers(&list).is_ok()));
            }
        }
    }

    #[test]
    fn words_need_no_escape_in_any_protocol() {
        for refusal in RequestRefusal::ALL {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || b" -".contains(&byte);
            assert!(refusal.message().bytes().all(is_plain));
        }
    }

    #[test]
    fn remote_write_is_never_told_429_and_others_are() {
        for refusal in RequestRefusal::ALL {
            let status = value(
                &answer(refusal, Protocol::RemoteWrite, WAIT).fields,
                ":status",
            );
            assert_ne!(status.as_deref(), Some("429"));
        }
        let over = answer(RequestRefusal::OverLimit, Protocol::OtlpJson, WAIT);
        assert_eq!(value(&over.fields, ":status").as_deref(), Some("429"));
        assert_eq!(value(&over.fields, "retry-after").as_deref(), Some("2"));
        assert_eq!(over.content, b"{\"code\":8,\"message\":\"over the limit\"}");
        let remote_write = answer(RequestRefusal::OverLimit, Protocol::RemoteWrite, WAIT);
        assert_eq!(
            value(&remote_write.fields, ":status").as_deref(),
            Some("503")
        );
    }

    #[test]
    fn a_time_to_wait_stands_where_it_can_help_and_nowhere_else() {
        for refusal in RequestRefusal::ALL {
            let is_later = refusal.again() == Again::Later;
            let grpc = answer(refusal, Protocol::Grpc, WAIT).fields;
            assert_eq!(value(&grpc, "grpc-status-details-bin").is_some(), is_later);
            let http = answer(refusal, Protocol::Other, WAIT).fields;
            assert_eq!(value(&http, "retry-after").is_some(), is_later);
        }
    }
}
