//! One agent's exporter: a connection held over many exports, opened when needed, given up after a failure.
//! In: a dialer, a signal, a number of records. Out: `Acknowledged`, or the `Failure` the TLS layer saw first.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Acknowledged, Protocol, Signal, Source, grpc, http};
use crate::failure::Failure;
use crate::run::Worker;
use crate::target::{Dialer, Stream};

/// Sends telemetry as one agent.
pub(crate) struct Exporter {
    dialer: Dialer,
    protocol: Protocol,
    authority: String,
    source: Source,
    client: Option<Client>,
    witness: Witness,
    /// Resolves when the stream of the last connection is gone.
    gone: Option<oneshot::Receiver<()>>,
}

enum Client {
    Grpc(Box<grpc::Client>),
    Http(http::Client),
}

impl Exporter {
    /// An exporter that is not connected yet. `authority` is what requests name as their host.
    pub(crate) fn new(dialer: Dialer, protocol: Protocol, authority: &str, source: Source) -> Self {
        Self {
            dialer,
            protocol,
            authority: authority.to_owned(),
            source,
            client: None,
            witness: Witness::default(),
            gone: None,
        }
    }

    /// Opens the connection unless it is open.
    pub(crate) async fn connect(&mut self) -> Result<(), Failure> {
        self.client().await.map(|_| ())
    }

    /// Ends the connection when it is time for a new identity; the next export opens one as it.
    pub(crate) fn rotate(&mut self, worker: &mut Worker) {
        if worker.rotate(&mut self.dialer) {
            self.client = None;
        }
    }

    /// Sends one request with `records` records and waits for its acknowledgement.
    pub(crate) async fn export(
        &mut self,
        signal: Signal,
        records: usize,
    ) -> Result<Acknowledged, Failure> {
        let limit = self.dialer.timeout;
        let result = timeout(limit, self.export_unbounded(signal, records))
            .await
            .unwrap_or_else(|_| Err(Failure::timeout("waiting for the acknowledgement")));
        result.map_err(|failure| {
            self.client = None;
            // The layers above TLS lose its alert on the way; the witness beneath them has it.
            self.witness.take().unwrap_or(failure)
        })
    }

    /// Ends the connection with the protocol's goodbye, which HTTP's own tasks say after the client was dropped.
    pub(crate) async fn close(mut self) {
        drop(self.client.take());
        if let Some(gone) = self.gone.take() {
            // An end by dropping the sender is the end that is waited for; a late one is the peer's doing.
            let _ = timeout(Duration::from_secs(1), gone).await;
        }
    }

    async fn export_unbounded(
        &mut self,
        signal: Signal,
        records: usize,
    ) -> Result<Acknowledged, Failure> {
        let request = self.source.request(signal, records);
        let rejected = match self.client().await? {
            Client::Grpc(client) => client.send(request).await?,
            Client::Http(client) => client.send(&request).await?,
        };
        let rejected = u64::try_from(rejected).unwrap_or(0).min(records as u64);
        Ok(Acknowledged {
            accepted: records as u64 - rejected,
            rejected,
        })
    }

    async fn client(&mut self) -> Result<&mut Client, Failure> {
        match &mut self.client {
            Some(client) => Ok(client),
            empty => {
                // What an earlier connection saw explains nothing about this one.
                self.witness.take();
                let stream = self.dialer.connect().await?;
                let (stream, gone) = self.witness.watch(stream);
                self.gone = Some(gone);
                Ok(empty.insert(match self.protocol {
                    Protocol::Grpc => {
                        Client::Grpc(Box::new(grpc::Client::over(stream, &self.authority).await?))
                    }
                    Protocol::Http => {
                        Client::Http(http::Client::over(stream, &self.authority).await?)
                    }
                }))
            }
        }
    }
}

/// Remembers the first error of the TLS stream beneath HTTP.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Option<Failure>>>);

impl Witness {
    fn watch(&self, stream: Stream) -> (WatchedStream, oneshot::Receiver<()>) {
        let (alive, gone) = oneshot::channel();
        let stream = WatchedStream {
            stream,
            witness: self.clone(),
            failed_write: None,
            _alive: alive,
        };
        (stream, gone)
    }

    fn note(&self, error: &io::Error) {
        let mut seen = self.lock();
        // A write fails with a broken pipe before the read finds the alert that explains it.
        if !seen.as_ref().is_some_and(Failure::is_explained) {
            *seen = Some(Failure::from(error));
        }
    }

    fn take(&self) -> Option<Failure> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Failure>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the witness")
    }
}

/// A TLS stream whose errors are remembered.
pub(super) struct WatchedStream {
    stream: Stream,
    witness: Witness,
    failed_write: Option<io::Error>,
    _alive: oneshot::Sender<()>,
}

impl WatchedStream {
    /// A write fails as soon as the server has gone; why it went is still unread. Holds the error back until it was
    /// read, or HTTP would drop the stream unread. A socket that cannot be written has ended, so this never waits long.
    fn poll_write_with<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed_write.is_none() {
            match write(Pin::new(&mut self.stream), context) {
                Poll::Ready(Err(error)) => self.failed_write = Some(error),
                fine => return fine,
            }
        }
        let mut scratch = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) => break,
                Err(error) => {
                    self.witness.note(&error);
                    break;
                }
            }
        }
        let error = self
            .failed_write
            .take()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
        self.noting(Poll::Ready(Err(error)))
    }

    fn noting<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.witness.note(error);
        }
        result
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.noting(result)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_with(context, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_with(context, AsyncWrite::poll_shutdown)
    }
}
