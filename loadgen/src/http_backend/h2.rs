//! The backend's side of HTTP/2, on the h2 crate. In: a connection. Out: an answer to each request, gRPC's with
//! trailers; counts.

use std::sync::Arc;
use std::time::Duration;

use ::h2::RecvStream;
use ::h2::server::{Builder, SendResponse};
use anyhow::Result;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::behaviour::Behaviour;
use super::counters::HttpCounters;
use super::{EMPTY_MESSAGE, Leaving, Received, ReceivedContent};
use crate::limits::{CLIENT_CONNECTION_WINDOW, CLIENT_STREAM_WINDOW};
use crate::request::{Outgoing, send};

/// Serves one connection.
pub(super) async fn serve<S>(
    (stream, mut leaving): (S, Leaving),
    streams_max: u32,
    counters: Arc<HttpCounters>,
    connection: usize,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut served = Builder::new()
        .initial_window_size(CLIENT_STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW)
        .max_concurrent_streams(streams_max)
        .handshake::<_, Bytes>(stream)
        .await?;
    let mut is_leaving = *leaving.borrow();
    if is_leaving {
        served.graceful_shutdown();
    }
    loop {
        let request = tokio::select! {
            request = served.accept() => request,
            // After it GOAWAY stands last, and `accept` comes to its end when all requests have theirs.
            _ = leaving.changed(), if !is_leaving => {
                is_leaving = true;
                served.graceful_shutdown();
                continue;
            }
        };
        let Some(request) = request else {
            return Ok(());
        };
        let (request, respond) = request?;
        counters.request(connection, request.headers());
        let counters = counters.clone();
        tokio::spawn(async move {
            // The client has gone, or reset the stream: there is no request to answer any more.
            let _ = answer(request, respond, &counters).await;
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    counters: &HttpCounters,
) -> Result<()> {
    let behaviour = Behaviour::of(request.uri().path());
    let (head, mut body) = request.into_parts();
    if behaviour.stalls {
        // Until the client gives up: its content stays where it is.
        std::future::poll_fn(|context| respond.poll_reset(context)).await?;
        return Ok(());
    }
    if let Some(reason) = behaviour.reset {
        respond.send_reset(reason);
        return Ok(());
    }
    if !behaviour.is_early {
        let content = receive(&mut body, counters, behaviour.pause).await?;
        counters.whole(&Received {
            fields: &head.headers,
            content: &content,
        })?;
    }
    if !behaviour.delay.is_zero() {
        tokio::time::sleep(behaviour.delay).await;
    }
    let content_type = head.headers.get(CONTENT_TYPE);
    let is_grpc =
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    match is_grpc && behaviour.status == 200 {
        true => answer_grpc(&mut respond, behaviour).await?,
        false => answer_plain(&mut respond, behaviour, content_type).await?,
    }
    // After an early answer the rest of the request is not wanted: h2 says so by NO_ERROR once `body` is dropped.
    Ok(())
}

/// The content of a request; all of it is taken.
async fn receive(
    body: &mut RecvStream,
    counters: &HttpCounters,
    mut pause: Duration,
) -> Result<ReceivedContent> {
    let mut content = ReceivedContent::default();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        content.take(&piece, counters);
        content.pause(&mut pause).await;
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok(content)
}

async fn answer_grpc(respond: &mut SendResponse<Bytes>, behaviour: Behaviour) -> Result<()> {
    let mut response = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    let status = HeaderValue::from(u16::from(behaviour.grpc_status));
    if behaviour.grpc_status != 0 {
        // Servers say an error without content in one header section.
        response.headers_mut().insert("grpc-status", status);
        respond.send_response(response, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(response, false)?;
    let mut content = match behaviour.bytes {
        0 => Outgoing::new(EMPTY_MESSAGE, 0),
        bytes => Outgoing::new(message_prefix(bytes), bytes),
    };
    send(&mut stream, &mut content, false).await?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", status);
    stream.send_trailers(trailers)?;
    Ok(())
}

async fn answer_plain(
    respond: &mut SendResponse<Bytes>,
    behaviour: Behaviour,
    content_type: Option<&HeaderValue>,
) -> Result<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(behaviour.status).unwrap_or_default();
    if let Some(content_type) = content_type {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    let mut stream = respond.send_response(response, behaviour.bytes == 0)?;
    if behaviour.bytes > 0 {
        let mut content = Outgoing::new(Bytes::new(), behaviour.bytes);
        send(&mut stream, &mut content, true).await?;
    }
    Ok(())
}

/// What stands before a message of gRPC.
fn message_prefix(bytes: u64) -> Bytes {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut prefix = vec![0];
    prefix.extend(length);
    prefix.into()
}
