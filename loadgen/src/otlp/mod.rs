//! Real OTLP from the sending side: requests as an SDK makes them, over gRPC or HTTP, each acknowledged or failed.
//! In: a dialer and a number of records. Out: what the receiver acknowledged and what it rejected.

mod exporter;
mod grpc;
mod http;
mod payload;
pub(crate) mod watched;

pub(crate) use exporter::Exporter;
pub(crate) use payload::{Request, Source};

/// The header, and the metadata of gRPC, that names a tenant.
pub(crate) const TENANT_HEADER: &str = "x-scope-orgid";

/// The two transports of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// gRPC over HTTP/2, usually port 4317.
    Grpc,
    /// Protobuf over HTTP/1.1, usually port 4318.
    Http,
}

/// The three kinds of telemetry.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metric data points.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// All signals, in the order they are sent in turn.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];
}

impl Protocol {
    /// The application protocol to offer for it.
    pub fn alpn(self) -> &'static str {
        match self {
            Self::Grpc => "h2",
            Self::Http => "http/1.1",
        }
    }
}

/// What the receiver said about the records of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Records taken.
    pub(crate) accepted: u64,
    /// Records refused in a request that was acknowledged (OTLP's partial success).
    pub(crate) rejected: u64,
}
