//! The content of requests: real protobuf of OTLP, SkyWalking and remote write, each with a sequence number where the
//! format has a place for one. In: a kind, a sender, a size. Out: content with the next number; at the other end, sender
//! and numbers of it again. Pure.
//!
//! A request is a copy of one made beforehand with another number in it: the generator's own cost stays small.

use std::ops::Range;

use anyhow::{Result, ensure};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::{Outgoing, RequestKind};
use crate::limits::{CONTENT_WHOLE_MAX, GRPC_STREAM_MESSAGES_MAX};

/// Length of what stands before each message of gRPC.
const GRPC_PREFIX: usize = 5;

/// A number whose bytes occur in no other place of a request.
const MARK: u64 = 1_234_567_890_123_456;

/// Makes the content of one sender's requests.
#[derive(Debug)]
pub(crate) struct Content {
    kind: RequestKind,
    /// A message with `MARK` in the place of its number.
    template: Vec<u8>,
    place: Range<usize>,
    /// Bytes of the pattern behind it.
    pattern_bytes: u64,
    /// Messages of one request.
    messages: u32,
    compressor: snap::raw::Encoder,
}

/// Hands out sequence numbers from 1 on.
#[derive(Debug, Default)]
pub(crate) struct ContentCounter(u64);

impl ContentCounter {
    /// So many numbers that no other request of this sender has.
    pub(crate) fn next(&mut self, count: u32) -> Range<u64> {
        let first = self.0 + 1;
        self.0 += u64::from(count);
        first..first + u64::from(count)
    }
}

impl Content {
    /// Of requests of this size, which is that of a message where a request has several.
    pub(crate) fn new(kind: RequestKind, sender: &str, size: u64, messages: u32) -> Result<Self> {
        ensure!(
            size <= CONTENT_WHOLE_MAX || kind == RequestKind::Post,
            "--size {size}: must be at most {CONTENT_WHOLE_MAX} B; only `post` has more"
        );
        ensure!(
            (1..=GRPC_STREAM_MESSAGES_MAX).contains(&messages),
            "--messages {messages}: must be 1 to {GRPC_STREAM_MESSAGES_MAX}"
        );
        let whole = usize::try_from(size.min(CONTENT_WHOLE_MAX))?;
        let template = match kind {
            RequestKind::Grpc => framed(&padded(whole.saturating_sub(GRPC_PREFIX), |padding| {
                export(sender, padding).encode_to_vec()
            })?),
            RequestKind::GrpcStream => {
                framed(&padded(whole.saturating_sub(GRPC_PREFIX), |padding| {
                    SegmentObject::new(sender, padding).encode_to_vec()
                })?)
            }
            RequestKind::Otlp => padded(whole, |padding| export(sender, padding).encode_to_vec())?,
            RequestKind::RemoteWrite => padded(whole, |padding| {
                WriteRequest::new(sender, padding).encode_to_vec()
            })?,
            RequestKind::Post => padded(whole, |padding| posted(sender, padding))?,
        };
        let mark = number(kind, MARK);
        let place = template
            .windows(mark.len())
            .position(|window| window == mark)
            .expect("each kind of content has its number in it");
        Ok(Self {
            kind,
            place: place..place + mark.len(),
            template,
            pattern_bytes: size.saturating_sub(CONTENT_WHOLE_MAX),
            messages,
            compressor: snap::raw::Encoder::new(),
        })
    }

    /// Messages of one request, each with a number of its own.
    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// A request, or a message of one, with this number.
    pub(crate) fn numbered(&mut self, sequence: u64) -> Outgoing {
        self.template[self.place.clone()].copy_from_slice(&number(self.kind, sequence));
        let whole = match self.kind {
            RequestKind::RemoteWrite => self
                .compressor
                .compress_vec(&self.template)
                .expect("content is far below the 4 GiB that snappy compresses"),
            _ => self.template.clone(),
        };
        Outgoing::new(Bytes::from(whole), self.pattern_bytes)
    }
}

/// A number as it stands in a kind's content, always of the same length.
fn number(kind: RequestKind, sequence: u64) -> Vec<u8> {
    match kind {
        // The identifier of the span.
        RequestKind::Grpc | RequestKind::Otlp => sequence.to_be_bytes().to_vec(),
        // The sample's value, which is exact up to 2^53.
        RequestKind::RemoteWrite => (sequence as f64).to_le_bytes().to_vec(),
        RequestKind::GrpcStream | RequestKind::Post => format!("{sequence:020}").into_bytes(),
    }
}

/// The sender of a request and the numbers in it, read from its content as a real receiver reads it.
pub(crate) fn read_content(content_type: &[u8], content: &[u8]) -> Option<(String, Vec<u64>)> {
    if content_type.starts_with(b"application/grpc") {
        return read_messages(content);
    }
    if content_type != b"application/x-protobuf" {
        return read_posted(content);
    }
    if let Ok(plain) = snap::raw::Decoder::new().decompress_vec(content)
        && let Ok(write) = WriteRequest::decode(plain.as_slice())
    {
        return write.read();
    }
    read_export(content)
}

fn read_messages(mut content: &[u8]) -> Option<(String, Vec<u64>)> {
    let (mut sender, mut numbers) = (String::new(), Vec::new());
    while let Some((prefix, rest)) = content.split_first_chunk::<GRPC_PREFIX>() {
        let [_, length @ ..] = *prefix;
        let (message, rest) = rest.split_at_checked(u32::from_be_bytes(length) as usize)?;
        let read = read_export(message).or_else(|| SegmentObject::decode(message).ok()?.read())?;
        sender = read.0;
        numbers.extend(read.1);
        content = rest;
    }
    content.is_empty().then_some((sender, numbers))
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("content is bounded far below that");
    let mut framed = Vec::with_capacity(GRPC_PREFIX + message.len());
    framed.push(0);
    framed.extend(length.to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// Content of exactly `size` bytes, by the padding that brings it there.
fn padded(size: usize, make: impl Fn(&str) -> Vec<u8>) -> Result<Vec<u8>> {
    let least = make("").len();
    let mut padding = size.saturating_sub(least);
    // Each length of protobuf has a length too, which grows with it.
    for _ in 0..8 {
        let content = make(&"x".repeat(padding));
        if content.len() == size {
            return Ok(content);
        }
        padding = (padding + size).saturating_sub(content.len());
    }
    anyhow::bail!(
        "--size {size}: no such content; the least is about {least} B, and one byte more or less may do"
    )
}

fn export(sender: &str, padding: &str) -> ExportTraceServiceRequest {
    let text = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    };
    let span = Span {
        trace_id: vec![7; 16],
        span_id: number(RequestKind::Otlp, MARK),
        name: "GET /orders".into(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_001_000_000,
        attributes: vec![text("padding", padding)],
        ..Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", "loadgen"),
                    text("service.instance.id", sender),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn read_export(content: &[u8]) -> Option<(String, Vec<u64>)> {
    let request = ExportTraceServiceRequest::decode(content).ok()?;
    let spans = request.resource_spans.first()?;
    let attributes = &spans.resource.as_ref()?.attributes;
    let instance = attributes
        .iter()
        .find(|attribute| attribute.key == "service.instance.id")?;
    let Some(Value::StringValue(sender)) = &instance.value.as_ref()?.value else {
        return None;
    };
    let numbers = spans
        .scope_spans
        .iter()
        .flat_map(|scope| &scope.spans)
        .map(|span| span.span_id.as_slice().try_into().map(u64::from_be_bytes));
    Some((sender.clone(), numbers.collect::<Result<_, _>>().ok()?))
}

/// `prometheus.WriteRequest` of remote write 1.0, as far as it is sent here.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp_ms: i64,
}

impl WriteRequest {
    /// One sample. Labels are in the order of their names, which receivers check.
    fn new(sender: &str, padding: &str) -> Self {
        let label = |name: &str, value: &str| Label {
            name: name.into(),
            value: value.into(),
        };
        Self {
            timeseries: vec![TimeSeries {
                labels: vec![
                    label("__name__", "loadgen_sequence"),
                    label("instance", sender),
                    label("padding", padding),
                ],
                samples: vec![Sample {
                    value: MARK as f64,
                    timestamp_ms: 1_700_000_000_000,
                }],
            }],
        }
    }

    fn read(&self) -> Option<(String, Vec<u64>)> {
        let series = self.timeseries.first()?;
        let instance = series
            .labels
            .iter()
            .find(|label| label.name == "instance")?;
        let numbers = series.samples.iter().map(|sample| sample.value as u64);
        Some((instance.value.clone(), numbers.collect()))
    }
}

/// `skywalking.v3.SegmentObject`, as far as it is sent here.
#[derive(Clone, PartialEq, Message)]
struct SegmentObject {
    #[prost(string, tag = "1")]
    trace_id: String,
    #[prost(string, tag = "2")]
    segment_id: String,
    #[prost(message, repeated, tag = "3")]
    spans: Vec<SegmentSpan>,
    #[prost(string, tag = "4")]
    service: String,
    #[prost(string, tag = "5")]
    instance: String,
}

#[derive(Clone, PartialEq, Message)]
struct SegmentSpan {
    #[prost(int64, tag = "3")]
    start_ms: i64,
    #[prost(int64, tag = "4")]
    end_ms: i64,
    #[prost(string, tag = "6")]
    operation_name: String,
}

impl SegmentObject {
    fn new(sender: &str, padding: &str) -> Self {
        Self {
            trace_id: "loadgen".into(),
            segment_id: format!("{MARK:020}"),
            spans: vec![SegmentSpan {
                start_ms: 1_700_000_000_000,
                end_ms: 1_700_000_000_001,
                operation_name: padding.into(),
            }],
            service: "loadgen".into(),
            instance: sender.into(),
        }
    }

    fn read(&self) -> Option<(String, Vec<u64>)> {
        Some((self.instance.clone(), vec![self.segment_id.parse().ok()?]))
    }
}

fn posted(sender: &str, padding: &str) -> Vec<u8> {
    format!("{MARK:020} {sender}\n{padding}").into_bytes()
}

fn read_posted(content: &[u8]) -> Option<(String, Vec<u64>)> {
    let line = content.split(|&byte| byte == b'\n').next()?;
    let (number, sender) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((sender.to_owned(), vec![number.parse().ok()?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [RequestKind; 5] = [
        RequestKind::Grpc,
        RequestKind::GrpcStream,
        RequestKind::Otlp,
        RequestKind::RemoteWrite,
        RequestKind::Post,
    ];

    fn content_type(kind: RequestKind) -> &'static [u8] {
        let fields = kind.fields();
        let field = fields.iter().find(|(name, _)| *name == "content-type");
        field.unwrap().1.as_bytes()
    }

    #[test]
    fn each_kind_carries_sender_and_number_in_exactly_its_size() {
        for kind in KINDS {
            for size in [300, 526, 65_536] {
                let mut content = Content::new(kind, "agent-1/5", size, 1).unwrap();
                for sequence in [1, 2, 1 << 40] {
                    let mut sent = content.numbered(sequence);
                    let bytes = sent.take(usize::MAX);
                    assert_eq!(sent.left(), 0);
                    if kind != RequestKind::RemoteWrite {
                        assert_eq!(bytes.len() as u64, size, "{kind:?}");
                    }
                    let read = read_content(content_type(kind), &bytes);
                    assert_eq!(read, Some(("agent-1/5".into(), vec![sequence])), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn messages_of_a_stream_are_read_one_by_one_and_half_a_message_is_none() {
        let mut content = Content::new(RequestKind::GrpcStream, "agent", 200, 3).unwrap();
        let mut stream = Vec::new();
        for sequence in ContentCounter::default().next(content.messages()) {
            stream.extend_from_slice(&content.numbered(sequence).take(usize::MAX));
        }
        let read = read_content(b"application/grpc", &stream);
        assert_eq!(read, Some(("agent".into(), vec![1, 2, 3])));
        assert_eq!(read_content(b"application/grpc", &stream[..399]), None);
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        for (kind, size, messages) in [
            (RequestKind::Grpc, 10, 1),
            (RequestKind::Grpc, CONTENT_WHOLE_MAX + 1, 1),
            (RequestKind::Otlp, 526, 0),
        ] {
            assert!(Content::new(kind, "agent", size, messages).is_err());
        }
        let large = Content::new(RequestKind::Post, "agent", 1 << 32, 1).unwrap();
        assert_eq!(large.pattern_bytes + CONTENT_WHOLE_MAX, 1 << 32);
    }
}
