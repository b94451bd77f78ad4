//! What the receiver counts. In: decoded requests. Out: `Stats`.
//! Keys come from the senders, so their number is bounded: beyond it everything is counted under one entry.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde::{Deserialize, Serialize};

use crate::limits::RECEIVER_KEYS_MAX;
use crate::otlp::Protocol;

/// Everything that has arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests decoded and acknowledged over gRPC.
    pub grpc_requests: u64,
    /// Requests decoded and acknowledged over HTTP.
    pub http_requests: u64,
    /// HTTP requests refused: wrong path, method, content or size. (gRPC refuses before we see a request.)
    pub refused_requests: u64,
    /// Records of all senders.
    pub records: Records,
    /// Records by sender.
    pub sources: Vec<SourceStats>,
    /// Spans by their name.
    pub span_names: BTreeMap<String, u64>,
    /// Data points by the name of their metric.
    pub metric_names: BTreeMap<String, u64>,
    /// Log records by their body, where that is text.
    pub log_bodies: BTreeMap<String, u64>,
}

/// Records by signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Spans.
    pub spans: u64,
    /// Metric data points.
    pub data_points: u64,
    /// Log records.
    pub log_records: u64,
}

/// Records of one sender, which its resource attributes name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStats {
    /// Resource attribute `service.name`, or empty.
    pub service_name: String,
    /// Resource attribute `service.instance.id`, or empty.
    pub instance_id: String,
    /// The tenant that its requests came with (`X-Scope-OrgID`), or empty.
    pub tenant: String,
    /// Its records.
    pub records: Records,
}

impl Records {
    /// Spans, data points and log records together.
    pub fn total(&self) -> u64 {
        self.spans + self.data_points + self.log_records
    }

    fn add(&mut self, other: Self) {
        self.spans += other.spans;
        self.data_points += other.data_points;
        self.log_records += other.log_records;
    }
}

impl Stats {
    /// Records of the senders with this `service.instance.id` and a tenant that `counts`.
    pub fn records_of(&self, instance_id: &str, counts: impl Fn(&str) -> bool) -> Records {
        let mut sum = Records::default();
        for source in &self.sources {
            if source.instance_id == instance_id && counts(&source.tenant) {
                sum.add(source.records);
            }
        }
        sum
    }
}

/// The live counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    grpc_requests: u64,
    http_requests: u64,
    refused_requests: u64,
    records: Records,
    sources: BTreeMap<(String, String, String), Records>,
    span_names: BTreeMap<String, u64>,
    metric_names: BTreeMap<String, u64>,
    log_bodies: BTreeMap<String, u64>,
}

/// Longest text of a sender that is kept, in bytes.
const TEXT_MAX: usize = 200;

impl Counters {
    pub(super) fn traces(
        &self,
        protocol: Protocol,
        tenant: &str,
        request: &ExportTraceServiceRequest,
    ) {
        let mut inner = self.lock();
        inner.count_request(protocol);
        for group in &request.resource_spans {
            let spans = group.scope_spans.iter().flat_map(|scope| &scope.spans);
            let mut records = Records::default();
            for span in spans {
                records.spans += 1;
                count(&mut inner.span_names, &span.name, 1);
            }
            inner.count_records(group.resource.as_ref(), tenant, records);
        }
    }

    pub(super) fn metrics(
        &self,
        protocol: Protocol,
        tenant: &str,
        request: &ExportMetricsServiceRequest,
    ) {
        let mut inner = self.lock();
        inner.count_request(protocol);
        for group in &request.resource_metrics {
            let metrics = group.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            let mut records = Records::default();
            for metric in metrics {
                let points = data_points(metric) as u64;
                records.data_points += points;
                count(&mut inner.metric_names, &metric.name, points);
            }
            inner.count_records(group.resource.as_ref(), tenant, records);
        }
    }

    pub(super) fn logs(
        &self,
        protocol: Protocol,
        tenant: &str,
        request: &ExportLogsServiceRequest,
    ) {
        let mut inner = self.lock();
        inner.count_request(protocol);
        for group in &request.resource_logs {
            let logs = group.scope_logs.iter().flat_map(|scope| &scope.log_records);
            let mut records = Records::default();
            for log in logs {
                records.log_records += 1;
                count(&mut inner.log_bodies, text(log.body.as_ref()), 1);
            }
            inner.count_records(group.resource.as_ref(), tenant, records);
        }
    }

    pub(super) fn refused(&self) {
        self.lock().refused_requests += 1;
    }

    pub(super) fn stats(&self) -> Stats {
        let inner = self.lock();
        let sources = inner
            .sources
            .iter()
            .map(
                |((service_name, instance_id, tenant), records)| SourceStats {
                    service_name: service_name.clone(),
                    instance_id: instance_id.clone(),
                    tenant: tenant.clone(),
                    records: *records,
                },
            )
            .collect();
        Stats {
            grpc_requests: inner.grpc_requests,
            http_requests: inner.http_requests,
            refused_requests: inner.refused_requests,
            records: inner.records,
            sources,
            span_names: inner.span_names.clone(),
            metric_names: inner.metric_names.clone(),
            log_bodies: inner.log_bodies.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nothing panics while it holds the counters")
    }
}

impl Inner {
    fn count_request(&mut self, protocol: Protocol) {
        match protocol {
            Protocol::Grpc => self.grpc_requests += 1,
            Protocol::Http => self.http_requests += 1,
        }
    }

    fn count_records(&mut self, resource: Option<&Resource>, tenant: &str, records: Records) {
        self.records.add(records);
        let key = (
            clip(attribute(resource, "service.name")),
            clip(attribute(resource, "service.instance.id")),
            clip(tenant),
        );
        let full = self.sources.len() >= RECEIVER_KEYS_MAX && !self.sources.contains_key(&key);
        let key = if full { overflow_source() } else { key };
        self.sources.entry(key).or_default().add(records);
    }
}

fn overflow_source() -> (String, String, String) {
    ("(more)".into(), String::new(), String::new())
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str, amount: u64) {
    let name = clip(name);
    let full = counts.len() >= RECEIVER_KEYS_MAX && !counts.contains_key(&name);
    let name = if full { "(more)".into() } else { name };
    *counts.entry(name).or_default() += amount;
}

fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}

fn attribute<'a>(resource: Option<&'a Resource>, key: &str) -> &'a str {
    let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
    attributes
        .iter()
        .find(|attribute| attribute.key == key)
        .map_or("", |attribute| text(attribute.value.as_ref()))
}

fn text(value: Option<&AnyValue>) -> &str {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

fn data_points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_beyond_the_bound_share_one_entry() {
        let mut inner = Inner::default();
        for number in 0..RECEIVER_KEYS_MAX + 10 {
            count(&mut inner.span_names, &format!("span-{number}"), 1);
        }
        assert_eq!(inner.span_names.len(), RECEIVER_KEYS_MAX + 1);
        assert_eq!(inner.span_names["(more)"], 10);
    }

    #[test]
    fn long_names_are_clipped_between_characters() {
        let name = "é".repeat(150);
        assert_eq!(clip(&name), "é".repeat(100));
    }
}
