//! A connection's way through the gateway: authenticated first, then served in its listener's mode.
//! In: an accepted connection. Out: events; bytes to a backend, never before the client is authenticated. One task a connection, on
//! the worker that accepted it.

use std::pin::Pin;

use super::authenticate::authenticate;
use super::context::WorkerContext;
use super::established::NewConnection;
use super::{http_mode, stream_mode};
use crate::config::Mode;

/// Serves an established connection to its end. Its size is what a connection costs while nothing moves on it.
type Serving<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Serves one connection to its end.
pub(super) async fn serve(context: &WorkerContext, new: Box<NewConnection>) {
    // Boxed: the memory that a handshake takes is released before the connection settles down.
    if let Some(serving) = Box::pin(prepare(context, new)).await {
        serving.await;
    }
}

/// Authenticates the client and gives the connection to its listener's mode. Returns `None` where the connection has ended.
async fn prepare(context: &WorkerContext, new: Box<NewConnection>) -> Option<Serving<'_>> {
    let (established, handshake) = authenticate(context, new).await?;
    let listener = handshake.state.listener(established.info.listener);
    match &listener.config.mode {
        Mode::Stream => {
            let connection = stream_mode::connect(context, established, handshake).await?;
            Some(Box::pin(stream_mode::serve(context, connection)))
        }
        Mode::Http(_) => {
            let version = http_mode::version(handshake.negotiated.protocol.as_deref());
            let established = Box::new(established);
            Some(Box::pin(http_mode::serve(context, established, version)))
        }
    }
}
