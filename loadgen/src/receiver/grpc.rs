//! The receiver's gRPC side: the three collector services of OTLP on tonic.
//! In: HTTP/2 connections. Out: counted requests, each acknowledged in full.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, async_trait};

use super::counters::Counters;
use crate::limits::RECEIVER_BODY_MAX;
use crate::otlp::{Protocol, TENANT_HEADER};

/// The services, one for all signals.
#[derive(Clone)]
struct Services(Arc<Counters>);

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TcpListener, counters: Arc<Counters>) {
    let services = Services(counters);
    // Collectors compress with gzip by default; SDKs do not.
    let served = Server::builder()
        .add_service(
            TraceServiceServer::new(services.clone())
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(RECEIVER_BODY_MAX),
        )
        .add_service(
            MetricsServiceServer::new(services.clone())
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(RECEIVER_BODY_MAX),
        )
        .add_service(
            LogsServiceServer::new(services)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(RECEIVER_BODY_MAX),
        )
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await;
    if let Err(error) = served {
        eprintln!("receiver: gRPC: {error}");
    }
}

#[async_trait]
impl TraceService for Services {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0
            .traces(Protocol::Grpc, tenant(&request), request.get_ref());
        Ok(Response::new(Default::default()))
    }
}

#[async_trait]
impl MetricsService for Services {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0
            .metrics(Protocol::Grpc, tenant(&request), request.get_ref());
        Ok(Response::new(Default::default()))
    }
}

#[async_trait]
impl LogsService for Services {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0
            .logs(Protocol::Grpc, tenant(&request), request.get_ref());
        Ok(Response::new(Default::default()))
    }
}

/// The tenant that a request came with; empty if it has none.
fn tenant<T>(request: &Request<T>) -> &str {
    let value = request.metadata().get(TENANT_HEADER);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
