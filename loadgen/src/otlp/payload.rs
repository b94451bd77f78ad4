//! OTLP requests with content as agents send it. In: a sender, a number of records. Out: protobuf messages.
//! Identifiers are derived from the sender and a counter, so that no two spans of a run are the same.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode,
};

use super::Signal;

/// One export request.
#[derive(Debug)]
pub(crate) enum Request {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// A sender: its resource attributes, and how many records it has sent.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    service_name: String,
    instance: String,
    seed: u64,
    sequence: u64,
}

impl Source {
    pub(crate) fn new(service_name: &str, instance: &str) -> Self {
        // FNV-1a: different instances get different identifiers.
        let seed = instance.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            service_name: service_name.to_owned(),
            instance: instance.to_owned(),
            seed,
            sequence: 0,
        }
    }

    /// A request with `records` spans, data points or log records.
    pub(crate) fn request(&mut self, signal: Signal, records: usize) -> Request {
        match signal {
            Signal::Traces => Request::Traces(self.traces(records)),
            Signal::Metrics => Request::Metrics(self.metrics(records)),
            Signal::Logs => Request::Logs(self.logs(records)),
        }
    }

    fn traces(&mut self, records: usize) -> ExportTraceServiceRequest {
        let now = unix_nanoseconds();
        let spans = (0..records)
            .map(|_| {
                let number = self.next();
                Span {
                    trace_id: self.trace_id(number / 4),
                    span_id: mix(self.seed ^ number).to_be_bytes().to_vec(),
                    name: "GET /orders".into(),
                    kind: SpanKind::Server as i32,
                    start_time_unix_nano: now - 1_000_000,
                    end_time_unix_nano: now,
                    attributes: vec![
                        text("http.request.method", "GET"),
                        integer("http.response.status_code", 200),
                        integer("loadgen.sequence", number),
                    ],
                    status: Some(Status {
                        code: StatusCode::Ok as i32,
                        message: String::new(),
                    }),
                    ..Span::default()
                }
            })
            .collect();
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope()),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
    }

    /// One counter with `records` data points.
    fn metrics(&mut self, records: usize) -> ExportMetricsServiceRequest {
        let now = unix_nanoseconds();
        let data_points = (0..records)
            .map(|_| {
                let number = self.next();
                NumberDataPoint {
                    attributes: vec![integer("queue", number % 16)],
                    start_time_unix_nano: now - 1_000_000_000,
                    time_unix_nano: now,
                    value: Some(number_data_point::Value::AsInt(number.cast_signed())),
                    ..NumberDataPoint::default()
                }
            })
            .collect();
        let counter = Metric {
            name: "orders.processed".into(),
            unit: "{order}".into(),
            data: Some(metric::Data::Sum(Sum {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
                is_monotonic: true,
            })),
            ..Metric::default()
        };
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope()),
                    metrics: vec![counter],
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        }
    }

    fn logs(&mut self, records: usize) -> ExportLogsServiceRequest {
        let now = unix_nanoseconds();
        let log_records = (0..records)
            .map(|_| {
                let number = self.next();
                LogRecord {
                    time_unix_nano: now,
                    observed_time_unix_nano: now,
                    severity_number: SeverityNumber::Info as i32,
                    severity_text: "INFO".into(),
                    body: Some(string("order accepted")),
                    attributes: vec![integer("loadgen.sequence", number)],
                    trace_id: self.trace_id(number / 4),
                    ..LogRecord::default()
                }
            })
            .collect();
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(scope()),
                    log_records,
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        }
    }

    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn trace_id(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.seed.to_be_bytes().to_vec();
        bytes.extend(mix(!self.seed ^ number).to_be_bytes());
        bytes
    }

    fn resource(&self) -> Resource {
        Resource {
            attributes: vec![
                text("service.name", &self.service_name),
                text("service.instance.id", &self.instance),
                text("telemetry.sdk.language", "rust"),
            ],
            ..Resource::default()
        }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, string(value))
}

fn integer(key: &str, value: u64) -> KeyValue {
    attribute(
        key,
        AnyValue {
            value: Some(Value::IntValue(value.cast_signed())),
        },
    )
}

fn string(value: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(value.into())),
    }
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(value),
        ..KeyValue::default()
    }
}

/// splitmix64: neighbouring numbers become identifiers that look random and never collide.
fn mix(number: u64) -> u64 {
    let mut state = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn unix_nanoseconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
        // Spans start a little before now; a clock at 1970 must not make that underflow.
        .max(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn spans_of_several_agents_never_share_an_identifier() {
        let mut seen = HashSet::new();
        for instance in ["agent-0", "agent-1", "agent-2"] {
            let mut source = Source::new("loadgen", instance);
            for _ in 0..10 {
                let request = source.traces(100);
                for span in &request.resource_spans[0].scope_spans[0].spans {
                    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
                    assert!(seen.insert((span.trace_id.clone(), span.span_id.clone())));
                }
            }
        }
        assert_eq!(seen.len(), 3000);
    }
}
