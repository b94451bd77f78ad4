//! Plain TCP in, mTLS out: for testers of HTTP/2 that cannot present a certificate.
//! In: connections on loopback. Out: the same bytes to the gateway and back, with the ends of both directions.

use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use rustls::pki_types::ServerName;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::client::ClientBuilder;

/// A listening sidecar. Stops when dropped.
pub struct Sidecar {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sidecar {
    /// Listens on a free port of 127.0.0.1, and connects to `gateway` as the client would.
    pub fn start(client: &ClientBuilder, gateway: SocketAddr) -> Sidecar {
        let (config, name) = client.tls();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, TlsConnector::from(config), name, gateway) => {}
                    _ = stopped => {}
                }
            });
        });
        Sidecar {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: TcpListener,
    connector: TlsConnector,
    name: ServerName<'static>,
    gateway: SocketAddr,
) {
    listener
        .set_nonblocking(true)
        .expect("a socket can be told not to block");
    let listener =
        tokio::net::TcpListener::from_std(listener).expect("the runtime takes a listener");
    loop {
        let Ok((mut near, _)) = listener.accept().await else {
            continue;
        };
        let (connector, name) = (connector.clone(), name.clone());
        tokio::spawn(async move {
            // Each tester judges by itself what an end means.
            let Ok(far) = tokio::net::TcpStream::connect(gateway).await else {
                return;
            };
            if let Ok(mut far) = connector.connect(name, far).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
