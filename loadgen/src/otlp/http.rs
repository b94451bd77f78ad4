//! OTLP over HTTP/1.1: hyper on a TLS stream of ours. In: requests. Out: the number of records the receiver rejected.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::watched::WatchedStream;
use super::{Request, TENANT_HEADER};
use crate::failure::{Failure, FailureKind};

/// The longest reply that is read; a real one has a few bytes.
const REPLY_MAX: usize = 64 * 1024;

/// An HTTP client that owns exactly one connection.
pub(super) struct HttpClient {
    requests: SendRequest<Full<Bytes>>,
    authority: String,
}

impl HttpClient {
    pub(super) async fn over(stream: WatchedStream, authority: &str) -> Result<Self, Failure> {
        let (requests, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its error reaches the caller that waits for a reply, and the stream beneath keeps it.
        tokio::spawn(async { drop(connection.await) });
        Ok(Self {
            requests,
            authority: authority.to_owned(),
        })
    }

    pub(super) async fn send(
        &mut self,
        request: &Request,
        tenant: Option<&'static str>,
    ) -> Result<i64, Failure> {
        let rejected = match request {
            Request::Traces(request) => {
                let reply = self
                    .post("/v1/traces", tenant, request.encode_to_vec())
                    .await?;
                decode::<ExportTraceServiceResponse>(reply)?
                    .partial_success
                    .map(|partial| partial.rejected_spans)
            }
            Request::Metrics(request) => {
                let reply = self
                    .post("/v1/metrics", tenant, request.encode_to_vec())
                    .await?;
                decode::<ExportMetricsServiceResponse>(reply)?
                    .partial_success
                    .map(|partial| partial.rejected_data_points)
            }
            Request::Logs(request) => {
                let reply = self
                    .post("/v1/logs", tenant, request.encode_to_vec())
                    .await?;
                decode::<ExportLogsServiceResponse>(reply)?
                    .partial_success
                    .map(|partial| partial.rejected_log_records)
            }
        };
        Ok(rejected.unwrap_or(0))
    }

    async fn post(
        &mut self,
        path: &str,
        tenant: Option<&'static str>,
        body: Vec<u8>,
    ) -> Result<Bytes, Failure> {
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/x-protobuf");
        let request = match tenant {
            Some(tenant) => request.header(TENANT_HEADER, tenant),
            None => request,
        };
        let request = request
            .body(Full::from(body))
            .map_err(|error| Failure::new(FailureKind::Protocol, error))?;
        self.requests.ready().await.map_err(broken)?;
        let reply = self.requests.send_request(request).await.map_err(broken)?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), REPLY_MAX)
            .collect()
            .await
            .map_err(|error| Failure::new(FailureKind::Protocol, error))?
            .to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        Err(Failure::new(
            FailureKind::HttpStatus(status.as_u16()),
            String::from_utf8_lossy(&body).trim(),
        ))
    }
}

fn decode<M: Message + Default>(reply: Bytes) -> Result<M, Failure> {
    M::decode(reply).map_err(|error| Failure::new(FailureKind::Protocol, error))
}

fn broken(error: hyper::Error) -> Failure {
    Failure::from(&error)
}
