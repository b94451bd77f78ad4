//! Requests over HTTP as agents send them: what is sent, over which version, and what became of it.
//! In: a dialer, a kind of request. Out: an `Answer` for each request, or the failure of the connection beneath. On the
//! load's threads. What arrived at the other end is compared by sequence numbers, see `arrivals`.

mod answer;
pub mod arrivals;
mod content;
mod link;
mod outgoing;

pub(crate) use answer::{Answer, Fate, grpc_label};
pub(crate) use content::{Content, ContentCounter, read_content};
pub(crate) use link::{Asked, Link, RequestPlan, send};
pub(crate) use outgoing::Outgoing;

/// What a request carries, and so how its answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RequestKind {
    /// One span by OTLP over gRPC.
    Grpc,
    /// Segments of SkyWalking on one stream of gRPC, which its client ends.
    GrpcStream,
    /// One span by OTLP over HTTP, as protobuf.
    Otlp,
    /// One sample by Prometheus' remote write 1.0, compressed with snappy.
    RemoteWrite,
    /// Bytes.
    Post,
}

/// The versions of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HttpVersion {
    /// HTTP/2 (RFC 9113).
    #[value(name = "h2")]
    H2,
    /// HTTP/1.1 (RFC 9112).
    #[value(name = "http/1.1")]
    H1,
}

impl HttpVersion {
    /// Its name in ALPN (RFC 7301).
    pub fn alpn(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::H1 => "http/1.1",
        }
    }
}

impl RequestKind {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcStream => "grpc-stream",
            Self::Otlp => "otlp",
            Self::RemoteWrite => "remote-write",
            Self::Post => "post",
        }
    }

    /// Whether it needs HTTP/2, and says its status in trailers.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcStream)
    }

    /// Where servers expect it.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::GrpcStream => "/skywalking.v3.TraceSegmentReportService/collect",
            Self::Otlp => "/v1/traces",
            Self::RemoteWrite => "/api/v1/push",
            Self::Post => "/",
        }
    }

    /// Its own header fields, beside those that all requests have.
    fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Grpc | Self::GrpcStream => {
                &[("te", "trailers"), ("content-type", "application/grpc")]
            }
            Self::Otlp => &[("content-type", "application/x-protobuf")],
            Self::RemoteWrite => &[
                ("content-type", "application/x-protobuf"),
                ("content-encoding", "snappy"),
                ("x-prometheus-remote-write-version", "0.1.0"),
            ],
            Self::Post => &[("content-type", "application/octet-stream")],
        }
    }
}
