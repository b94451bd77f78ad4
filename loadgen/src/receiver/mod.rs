//! An OTLP receiver that decodes real protobuf and counts what arrives, over gRPC and HTTP/1.1.
//! In: exports of any OTLP client, in plain text from this host. Out: `Stats`, live. On one thread of its own.
//! It stores nothing and acknowledges only what it has decoded.

mod counters;
mod grpc;
mod http;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::backend::listen;
use crate::background::Background;
use counters::Counters;

pub use counters::{Records, SourceStats, Stats};

/// A running receiver; dropping it ends it with all its connections.
#[derive(Debug)]
pub struct Receiver {
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    counters: Arc<Counters>,
    _service: Background,
}

impl Receiver {
    /// Listens on both addresses and serves until dropped. Port 0 chooses a free one.
    pub fn start(grpc: SocketAddr, http: SocketAddr) -> io::Result<Self> {
        let (grpc_listener, http_listener) = (listen(grpc)?, listen(http)?);
        let (grpc_address, http_address) =
            (grpc_listener.local_addr()?, http_listener.local_addr()?);
        let counters = Arc::new(Counters::default());
        let service_counters = counters.clone();
        let service = Background::spawn("receiver", move || async move {
            let listeners = TcpListener::from_std(grpc_listener)
                .and_then(|grpc| Ok((grpc, TcpListener::from_std(http_listener)?)));
            let (grpc, http) = match listeners {
                Ok(listeners) => listeners,
                Err(error) => {
                    eprintln!("receiver: the listeners cannot be watched: {error}");
                    return;
                }
            };
            tokio::join!(
                grpc::serve(grpc, service_counters.clone()),
                http::serve(http, service_counters)
            );
        })?;
        Ok(Self {
            grpc_address,
            http_address,
            counters,
            _service: service,
        })
    }

    /// Where it takes gRPC.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where it takes HTTP; `GET /stats` answers there with the counts as JSON.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// What has arrived so far.
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }
}
