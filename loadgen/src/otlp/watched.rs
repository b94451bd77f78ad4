//! A TLS stream that remembers the first error beneath HTTP, which would lose it.
//! In: a stream. Out: the same bytes; afterwards the `Failure` that explains the end. On the load's threads.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::client::Stream;
use crate::failure::Failure;

/// Remembers the first error of the TLS stream beneath HTTP.
#[derive(Clone, Default)]
pub(crate) struct FirstError(Arc<Mutex<Option<Failure>>>);

impl FirstError {
    pub(crate) fn watch(&self, stream: Stream) -> (WatchedStream, oneshot::Receiver<()>) {
        let (alive, gone) = oneshot::channel();
        let stream = WatchedStream {
            stream,
            first_error: self.clone(),
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

    pub(crate) fn take(&self) -> Option<Failure> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Failure>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the error")
    }
}

/// A TLS stream whose errors are remembered.
pub(crate) struct WatchedStream {
    stream: Stream,
    first_error: FirstError,
    failed_write: Option<io::Error>,
    _alive: oneshot::Sender<()>,
}

impl WatchedStream {
    /// Holds the error of a write back until everything is read. A write fails as soon as the server has gone, and the
    /// alert that says why is still unread: HTTP would drop the stream with it. A socket that cannot be written has
    /// ended, so this never waits long.
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
                    self.first_error.note(&error);
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
            self.first_error.note(error);
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
