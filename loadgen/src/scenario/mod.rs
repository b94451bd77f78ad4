//! The scenarios: what one connection does, between the phases that `run` leads it through.
//! In: a `Target`, a `Plan` and the scenario's options. Out: a `Report`.

pub mod adverse;
pub mod echo;
pub mod flood;
pub mod handshake;
pub mod hold;
pub mod idle;
pub mod otlp;
pub(crate) mod refusal;
pub mod request;
pub mod stream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client::{Dialer, Stream, explain};
use crate::failure::{Failure, FailureKind};
use crate::limits::RECONNECT_PAUSE;
use crate::pattern;
use crate::run::Worker;

/// A connection that is held over many units of work and opened again when it broke.
struct HeldConnection {
    dialer: Dialer,
    stream: Option<Stream>,
}

impl HeldConnection {
    /// Opens the connection while the run prepares. A failure is counted; the first unit of work tries again.
    async fn open(dialer: Dialer, worker: &Worker) -> Self {
        let mut held = Self {
            dialer,
            stream: None,
        };
        let _permit = worker.connecting().await;
        match held.dialer.connect().await {
            Ok(stream) => held.stream = Some(stream),
            Err(failure) => worker.fail(&failure),
        }
        held
    }

    /// The open connection, or a new one: at once when it is time for a new identity, later when it broke.
    async fn stream(&mut self, worker: &mut Worker) -> Result<&mut Stream, Failure> {
        if worker.rotate(&mut self.dialer) {
            self.say_goodbye().await;
            self.stream = Some(self.dialer.connect().await?);
        }
        match &mut self.stream {
            Some(stream) => Ok(stream),
            empty => {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                Ok(empty.insert(self.dialer.connect().await?))
            }
        }
    }

    /// Takes what a unit of work said; after a failure the connection is not used again.
    fn settle(&mut self, result: Result<(), Failure>) -> Result<(), Failure> {
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    /// Ends the connection cleanly, as far as the peer plays along.
    async fn close(mut self) {
        self.say_goodbye().await;
    }

    async fn say_goodbye(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            // The work is done and counted: how the goodbye goes changes nothing.
            let _ = timeout(self.dialer.timeout, stream.shutdown()).await;
        }
    }
}

/// Sends `buffer.len()` bytes of the pattern from `offset` and requires exactly them back.
async fn echo_once(stream: &mut Stream, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
    pattern::fill(offset, buffer);
    let sent = async {
        stream.write_all(buffer).await?;
        stream.flush().await
    };
    if let Err(error) = sent.await {
        return Err(explain(stream, Failure::from(error)).await);
    }
    let mut received = 0;
    while received < buffer.len() {
        match stream.read(&mut buffer[received..]).await? {
            0 => return Err(closed_early("the peer closed before the echo was complete")),
            count => received += count,
        }
    }
    if pattern::matches(offset, buffer) {
        Ok(())
    } else {
        Err(Failure::new(
            FailureKind::Mismatch,
            "the echo is not what was sent",
        ))
    }
}

fn closed_early(detail: &str) -> Failure {
    Failure::new(FailureKind::ClosedEarly, detail)
}
