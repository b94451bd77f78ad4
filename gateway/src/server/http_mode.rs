//! Mode "http": serves the requests of an established connection.
//! In: an established connection. Out: requests to servers; events about bytes and the end. On the worker that accepted the
//! connection.

use std::rc::Rc;

use gateway_core::alpn;
use gateway_core::http::forward::HttpVersion;

use super::context::WorkerContext;
use super::established::{Established, Transferred};
use crate::connection::Direction;
use crate::http::{HttpClient, Serving};
use crate::telemetry::Event;

/// Serves to the end.
pub(super) async fn serve(
    context: &WorkerContext,
    established: Box<Established>,
    version: HttpVersion,
) {
    let Established {
        info,
        peer,
        client,
        timer,
        rate_limiter,
        ..
    } = &*established;
    let transferred = Transferred::default();
    let report = |direction, bytes| {
        transferred.add(direction, bytes);
        context
            .observer
            .emit(info.listener, &Event::Moved { direction, bytes });
    };
    let client = HttpClient {
        id: info.id,
        listener: info.listener,
        address: info.address,
        peer: peer.clone(),
        stream: Rc::clone(client),
        version,
        limiter: rate_limiter.clone(),
    };
    let slowed = || {
        context.usage.note_slowed(peer);
        let slowed = Event::Slowed {
            address: info.address,
            peer,
        };
        context.observer.emit(info.listener, &slowed);
    };
    let serving = Serving::begin(&context.http, client, timer, (report, slowed));
    let (end, sent_bytes) = serving.run().await;
    transferred.add(Direction::Sent, sent_bytes as usize);
    established.report_end(context, end, &transferred);
}

/// The version of HTTP that a client speaks: as ALPN has chosen, or else the older one.
pub(super) fn version(protocol: Option<&[u8]>) -> HttpVersion {
    match protocol {
        Some(alpn::HTTP_2) => HttpVersion::Http2,
        Some(_) | None => HttpVersion::Http1,
    }
}
