//! Traffic secrets (RFC 8446 section 7.1) of connections whose handshakes rustls does and whose records it does not.
//! In: what rustls tells its key log. Out: the key of our own alert, and the next key of either direction. On the worker. rustls would
//! keep them too, but the peer's certificates with them, for as long as the connection lasts.

use std::fmt;

use gateway_core::record::TrafficKey;
use rustls::crypto::tls13::OkmBlock;
use rustls::{KeyLog, SupportedCipherSuite};

use super::handshake_context::{self, HandshakeContext};
use crate::crypto::{Cipher, key_of_secret, next_secret};

const CLIENT_HANDSHAKE: &str = "CLIENT_HANDSHAKE_TRAFFIC_SECRET";
const CLIENT_DATA: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_DATA: &str = "SERVER_TRAFFIC_SECRET_0";

/// A secret. It is zeroed when it is dropped.
pub(super) struct TrafficSecret(Box<OkmBlock>);

impl TrafficSecret {
    /// The first key under it. `None` for suites of older versions.
    pub(super) fn first_key(&self, suite: SupportedCipherSuite) -> Option<TrafficKey<Cipher>> {
        key_of_secret(suite, &self.0)
    }

    /// Becomes the secret that follows it, and gives its first key.
    fn advance(&mut self, suite: SupportedCipherSuite) -> Option<TrafficKey<Cipher>> {
        *self.0 = next_secret(suite, &self.0)?;
        self.first_key(suite)
    }
}

impl fmt::Debug for TrafficSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TrafficSecret")
    }
}

/// Notes the secrets of a connection in the context of its handshake, by our role in it. The labels are those of NSS' key log,
/// which rustls speaks.
#[derive(Debug)]
pub(super) enum SecretLog {
    /// We are the server.
    Server,
    /// We are the client.
    Client,
}

impl KeyLog for SecretLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let secret = || TrafficSecret(Box::new(OkmBlock::new(secret)));
        handshake_context::note_secrets(|secrets| match (self, label) {
            (SecretLog::Client, CLIENT_HANDSHAKE) => secrets.client_handshake = Some(secret()),
            (SecretLog::Client, CLIENT_DATA) | (SecretLog::Server, SERVER_DATA) => {
                secrets.sent = Some(secret());
            }
            (SecretLog::Client, SERVER_DATA) | (SecretLog::Server, CLIENT_DATA) => {
                secrets.received = Some(secret());
            }
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        match self {
            SecretLog::Server => matches!(label, CLIENT_DATA | SERVER_DATA),
            SecretLog::Client => matches!(label, CLIENT_HANDSHAKE | CLIENT_DATA | SERVER_DATA),
        }
    }
}

/// What the key log has told of a connection so far.
#[derive(Debug, Default)]
pub(super) struct LoggedSecrets {
    /// Ours as a client, from the ServerHello to our Finished.
    client_handshake: Option<TrafficSecret>,
    /// Ours for data.
    sent: Option<TrafficSecret>,
    /// The peer's for data.
    received: Option<TrafficSecret>,
}

impl LoggedSecrets {
    /// What seals our alert, once there are keys. From our Finished on, which goes out with our ServerHello, a server sends under
    /// its first key for data (RFC 8446 section 2). A client sends under its key for the handshake until its own Finished. Nothing
    /// has gone out under either as long as the handshake can fail: tickets follow it, and the client's flight ends it.
    pub(super) fn of_alert(&self) -> Option<&TrafficSecret> {
        self.client_handshake.as_ref().or(self.sent.as_ref())
    }
}

/// What the next keys of an established connection are derived from.
pub(super) struct DataSecrets {
    suite: SupportedCipherSuite,
    sent: TrafficSecret,
    received: TrafficSecret,
}

impl DataSecrets {
    /// Takes those of a handshake that is done. `None` if one is missing.
    pub(super) fn take(
        suite: SupportedCipherSuite,
        context: &mut HandshakeContext,
    ) -> Option<Self> {
        Some(DataSecrets {
            suite,
            sent: context.secrets.sent.take()?,
            received: context.secrets.received.take()?,
        })
    }

    /// What keys are for.
    pub(super) fn suite(&self) -> SupportedCipherSuite {
        self.suite
    }

    /// Our next key.
    pub(super) fn next_sent(&mut self) -> Option<TrafficKey<Cipher>> {
        self.sent.advance(self.suite)
    }

    /// The peer's next key.
    pub(super) fn next_received(&mut self) -> Option<TrafficKey<Cipher>> {
        self.received.advance(self.suite)
    }
}
