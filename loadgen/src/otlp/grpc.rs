//! OTLP over gRPC: tonic on a TLS stream of ours. In: requests. Out: the number of records the receiver rejected.

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::watched::WatchedStream;
use super::{Request, TENANT_HEADER};
use crate::failure::{Failure, FailureKind};

/// A gRPC client that owns exactly one connection.
pub(super) struct GrpcClient {
    traces: TraceServiceClient<Channel>,
    metrics: MetricsServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
}

impl GrpcClient {
    pub(super) async fn over(stream: WatchedStream, authority: &str) -> Result<Self, Failure> {
        // `https` is the scheme requests carry; TLS itself is already in place.
        let origin: Uri = format!("https://{authority}")
            .parse()
            .map_err(|error| Failure::new(FailureKind::Protocol, error))?;
        let channel = Endpoint::from(origin.clone())
            .origin(origin)
            .connect_with_connector(OneConnection(Some(stream)))
            .await
            .map_err(|error| Failure::new(FailureKind::Protocol, chain(&error)))?;
        Ok(Self {
            traces: TraceServiceClient::new(channel.clone()),
            metrics: MetricsServiceClient::new(channel.clone()),
            logs: LogsServiceClient::new(channel),
        })
    }

    pub(super) async fn send(
        &mut self,
        request: Request,
        claimed_tenant: Option<&'static str>,
    ) -> Result<i64, Failure> {
        let rejected = match request {
            Request::Traces(request) => {
                let reply = self
                    .traces
                    .export(claiming(request, claimed_tenant))
                    .await
                    .map_err(refused)?;
                reply
                    .into_inner()
                    .partial_success
                    .map(|partial| partial.rejected_spans)
            }
            Request::Metrics(request) => {
                let reply = self
                    .metrics
                    .export(claiming(request, claimed_tenant))
                    .await
                    .map_err(refused)?;
                reply
                    .into_inner()
                    .partial_success
                    .map(|partial| partial.rejected_data_points)
            }
            Request::Logs(request) => {
                let reply = self
                    .logs
                    .export(claiming(request, claimed_tenant))
                    .await
                    .map_err(refused)?;
                reply
                    .into_inner()
                    .partial_success
                    .map(|partial| partial.rejected_log_records)
            }
        };
        Ok(rejected.unwrap_or(0))
    }
}

/// A request with the tenant that it claims.
fn claiming<T>(message: T, tenant: Option<&'static str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(tenant) = tenant {
        let value = MetadataValue::from_static(tenant);
        request.metadata_mut().insert(TENANT_HEADER, value);
    }
    request
}

/// Hands the one connection to tonic. The exporter opens the next one, so that the tally counts every connection.
struct OneConnection(Option<WatchedStream>);

impl Service<Uri> for OneConnection {
    type Response = TokioIo<WatchedStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        Box::pin(async { stream.ok_or_else(|| std::io::ErrorKind::NotConnected.into()) })
    }
}

fn refused(status: tonic::Status) -> Failure {
    let detail = match status.source() {
        Some(source) => format!("{}: {}", status.message(), chain(source)),
        None => status.message().to_owned(),
    };
    Failure::new(FailureKind::GrpcStatus(status.code()), detail)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
