//! The receiver's HTTP side: OTLP/HTTP with protobuf, and `GET /stats`.
//! In: HTTP/1.1 connections. Out: counted requests, each acknowledged in full, or an error status that says why not.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::net::TcpListener;

use super::counters::Counters;
use crate::limits::RECEIVER_BODY_MAX;
use crate::otlp::{Protocol, TENANT_HEADER};

type Reply = Response<Full<Bytes>>;

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TcpListener, counters: Arc<Counters>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: they come back when connections end.
                eprintln!("receiver: accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let counters = counters.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let counters = counters.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(&counters, request).await) }
            });
            // A connection that breaks was counted up to there; its client knows better than we what it lost.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(counters: &Counters, request: Request<Incoming>) -> Reply {
    if request.method() == Method::GET && request.uri().path() == "/stats" {
        return stats(counters);
    }
    match export(counters, request).await {
        Ok(body) => reply(StatusCode::OK, "application/x-protobuf", body),
        Err((status, reason)) => {
            counters.refused();
            reply(status, "text/plain", reason.into_bytes())
        }
    }
}

fn stats(counters: &Counters) -> Reply {
    match serde_json::to_vec_pretty(&counters.stats()) {
        Ok(body) => reply(StatusCode::OK, "application/json", body),
        Err(error) => reply(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain",
            error.to_string().into_bytes(),
        ),
    }
}

type Refusal = (StatusCode, String);

async fn export(counters: &Counters, request: Request<Incoming>) -> Result<Vec<u8>, Refusal> {
    let path = request.uri().path().to_owned();
    if !matches!(path.as_str(), "/v1/traces" | "/v1/metrics" | "/v1/logs") {
        return Err((StatusCode::NOT_FOUND, format!("no such path: {path}\n")));
    }
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "POST only\n".into()));
    }
    let compressed = check_headers(&request)?;
    let tenant = request.headers().get(TENANT_HEADER);
    let tenant = tenant.and_then(|value| value.to_str().ok());
    let tenant = tenant.unwrap_or_default().to_owned();
    let body = Limited::new(request.into_body(), RECEIVER_BODY_MAX)
        .collect()
        .await
        .map_err(|error| (StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")))?
        .to_bytes();
    let body = if compressed { decompress(&body)? } else { body };
    match path.as_str() {
        "/v1/traces" => {
            counters.traces(Protocol::Http, &tenant, &decode(body)?);
            Ok(ExportTraceServiceResponse::default().encode_to_vec())
        }
        "/v1/metrics" => {
            counters.metrics(Protocol::Http, &tenant, &decode(body)?);
            Ok(ExportMetricsServiceResponse::default().encode_to_vec())
        }
        _ => {
            counters.logs(Protocol::Http, &tenant, &decode(body)?);
            Ok(ExportLogsServiceResponse::default().encode_to_vec())
        }
    }
}

/// Whether the body is compressed; an error for any encoding that is not read here.
fn check_headers(request: &Request<Incoming>) -> Result<bool, Refusal> {
    let header = |name| {
        request
            .headers()
            .get(name)
            .map_or(&b""[..], |value| value.as_bytes())
    };
    let content_type = header(CONTENT_TYPE);
    let media_type = content_type.split(|&byte| byte == b';').next();
    if media_type.map(<[u8]>::trim_ascii) != Some(b"application/x-protobuf") {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-type must be application/x-protobuf\n".into(),
        ));
    }
    match header(CONTENT_ENCODING) {
        b"" | b"identity" => Ok(false),
        b"gzip" => Ok(true),
        _ => Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-encoding must be gzip or absent\n".into(),
        )),
    }
}

fn decompress(body: &[u8]) -> Result<Bytes, Refusal> {
    let mut plain = Vec::new();
    // One byte more than allowed tells a body that is too large from one that just fits.
    GzDecoder::new(body)
        .take(RECEIVER_BODY_MAX as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("gzip: {error}\n")))?;
    if plain.len() > RECEIVER_BODY_MAX {
        return Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            "too large after decompression\n".into(),
        ));
    }
    Ok(plain.into())
}

fn decode<M: Message + Default>(body: Bytes) -> Result<M, Refusal> {
    M::decode(body).map_err(|error| (StatusCode::BAD_REQUEST, format!("protobuf: {error}\n")))
}

fn reply(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::from(body));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    reply
}
