//! One agent's exporter: a connection held over many exports, opened when needed, given up after a failure.
//! In: a dialer, a signal, a number of records. Out: `Acknowledged`, or the `Failure` the TLS layer saw first.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::watched::FirstError;
use super::{Acknowledged, Protocol, Signal, Source, grpc, http};
use crate::client::Dialer;
use crate::failure::Failure;
use crate::run::Worker;

/// Sends telemetry as one agent.
pub(crate) struct Exporter {
    dialer: Dialer,
    protocol: Protocol,
    authority: String,
    source: Source,
    /// The tenant that its requests claim.
    claimed_tenant: Option<&'static str>,
    client: Option<OtlpClient>,
    first_error: FirstError,
    /// Resolves when the stream of the last connection is gone.
    gone: Option<oneshot::Receiver<()>>,
}

enum OtlpClient {
    Grpc(Box<grpc::GrpcClient>),
    Http(http::HttpClient),
}

impl Exporter {
    /// An exporter that is not connected yet. `authority` is what requests name as their host.
    pub(crate) fn new(dialer: Dialer, protocol: Protocol, authority: &str, source: Source) -> Self {
        Self {
            dialer,
            protocol,
            authority: authority.to_owned(),
            source,
            claimed_tenant: None,
            client: None,
            first_error: FirstError::default(),
            gone: None,
        }
    }

    /// The same, with requests that claim a tenant.
    pub(crate) fn claiming(self, claimed_tenant: Option<&'static str>) -> Self {
        Self {
            claimed_tenant,
            ..self
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
            // HTTP loses the alert on its way up; the stream beneath has kept it.
            self.first_error.take().unwrap_or(failure)
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
        let claimed = self.claimed_tenant;
        let rejected = match self.client().await? {
            OtlpClient::Grpc(client) => client.send(request, claimed).await?,
            OtlpClient::Http(client) => client.send(&request, claimed).await?,
        };
        let rejected = u64::try_from(rejected).unwrap_or(0).min(records as u64);
        Ok(Acknowledged {
            accepted: records as u64 - rejected,
            rejected,
        })
    }

    async fn client(&mut self) -> Result<&mut OtlpClient, Failure> {
        match &mut self.client {
            Some(client) => Ok(client),
            empty => {
                // What an earlier connection saw explains nothing about this one.
                self.first_error.take();
                let stream = self.dialer.connect().await?;
                let (stream, gone) = self.first_error.watch(stream);
                self.gone = Some(gone);
                Ok(empty.insert(match self.protocol {
                    Protocol::Grpc => OtlpClient::Grpc(Box::new(
                        grpc::GrpcClient::over(stream, &self.authority).await?,
                    )),
                    Protocol::Http => {
                        OtlpClient::Http(http::HttpClient::over(stream, &self.authority).await?)
                    }
                }))
            }
        }
    }
}
