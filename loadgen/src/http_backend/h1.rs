//! The backend's side of HTTP/1.1, on hyper, and the page with what it has seen.
//! In: a connection. Out: an answer to each request, counts.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::behaviour::Behaviour;
use super::counters::HttpCounters;
use super::{Leaving, Received, ReceivedContent, accept};
use crate::request::Outgoing;

/// Serves one connection.
pub(super) async fn serve<S>(
    (stream, mut leaving): (S, Leaving),
    counters: Arc<HttpCounters>,
    connection: usize,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, counters.clone(), connection));
    let served = http1::Builder::new()
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    if !*leaving.borrow() {
        tokio::select! {
            ended = served.as_mut() => return Ok(ended?),
            _ = leaving.changed() => {}
        }
    }
    served.as_mut().graceful_shutdown();
    Ok(served.await?)
}

async fn answer(
    request: Request<Incoming>,
    counters: Arc<HttpCounters>,
    connection: usize,
) -> io::Result<Response<Outgoing>> {
    let behaviour = Behaviour::of(request.uri().path());
    let (head, mut body) = request.into_parts();
    counters.request(connection, &head.headers);
    if behaviour.stalls {
        std::future::pending::<()>().await;
    }
    if behaviour.reset.is_some() {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let (mut content, mut pause) = (ReceivedContent::default(), behaviour.pause);
    while !behaviour.is_early
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(io::Error::other)?;
        let piece = frame.data_ref().map_or(&[][..], |piece| piece);
        content.take(piece, &counters);
        content.pause(&mut pause).await;
    }
    if !behaviour.delay.is_zero() {
        tokio::time::sleep(behaviour.delay).await;
    }
    if !behaviour.is_early {
        counters.whole(&Received {
            fields: &head.headers,
            content: &content,
        })?;
    }
    let mut response = Response::new(Outgoing::new(Bytes::new(), behaviour.bytes));
    *response.status_mut() = StatusCode::from_u16(behaviour.status).unwrap_or_default();
    // Collectors answer in the type of the request.
    let content_type = head.headers.get(CONTENT_TYPE).cloned();
    response.headers_mut().insert(
        CONTENT_TYPE,
        content_type.unwrap_or(HeaderValue::from_static("text/plain")),
    );
    Ok(response)
}

/// Answers `GET /stats` until the runtime ends.
pub(super) async fn serve_stats(listener: TcpListener, counters: Arc<HttpCounters>) {
    loop {
        let stream = accept(&listener).await;
        let counters = counters.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let page = stats(request.uri().path(), &counters);
                async { Ok::<_, io::Error>(page) }
            });
            // A reader that leaves early has what it wanted.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn stats(path: &str, counters: &HttpCounters) -> Response<Outgoing> {
    let page = serde_json::to_vec_pretty(&counters.stats());
    let (status, page) = match page {
        Ok(page) if path == "/stats" => (StatusCode::OK, page),
        Ok(_) => (StatusCode::NOT_FOUND, Vec::new()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into()),
    };
    let mut response = Response::new(Outgoing::new(page.into(), 0));
    *response.status_mut() = status;
    response
}
