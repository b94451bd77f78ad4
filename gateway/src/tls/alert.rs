//! Our own alert in a handshake that rustls does: where rustls has none, or not the one of the standard, and where we end it.
//! In: the secret that rustls' key log gets as soon as there are keys. Out: one record, in clear as long as there are none.
//! On the worker. Nothing follows it: it uses the first number of its key, which rustls' own alert would have used.

use std::fmt;

use gateway_core::alert::Alert;
use gateway_core::record::Sealer;
use gateway_rt::Buffer;
use rustls::crypto::tls13::OkmBlock;
use rustls::{KeyLog, SupportedCipherSuite};

use super::handshake_context;
use crate::crypto::key_of_secret;

/// The traffic secret under which our first alert goes. It is zeroed when the handshake is over.
pub(super) struct AlertSecret(Box<OkmBlock>);

impl fmt::Debug for AlertSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AlertSecret")
    }
}

/// Whose alerts are sealed: which secret rustls is asked for.
#[derive(Debug)]
pub(super) enum AlertKey {
    /// Ours towards a client: from our Finished on, which goes out with our ServerHello, a server sends under its first key for
    /// data (RFC 8446 section 2). Tickets go out under it too, when the handshake is over.
    Server,
    /// Ours towards a backend: from the ServerHello on, a client sends under its key for the handshake; its Certificate to
    /// Finished go out under it too, when the handshake is over.
    Client,
}

impl AlertKey {
    /// As NSS' key log calls it, which rustls speaks.
    const fn label(&self) -> &'static str {
        match self {
            AlertKey::Server => "SERVER_TRAFFIC_SECRET_0",
            AlertKey::Client => "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        }
    }
}

impl KeyLog for AlertKey {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if self.will_log(label) {
            handshake_context::keep_alert_secret(AlertSecret(Box::new(OkmBlock::new(secret))));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == self.label()
    }
}

/// The record of a fatal alert: encrypted if there are keys, which are for `suite`.
pub(super) fn record(
    alert: Alert,
    secret: Option<&AlertSecret>,
    suite: Option<SupportedCipherSuite>,
) -> Buffer {
    const FATAL: u8 = 2;
    let Some(AlertSecret(secret)) = secret else {
        return Buffer::of(&[21, 3, 3, 0, 2, FATAL, alert.0]);
    };
    let key = suite.and_then(|suite| key_of_secret(suite, secret));
    let sealed = key.and_then(|key| Sealer::new(key).alert(alert).ok());
    // Without a record the connection is reset.
    sealed.map_or_else(|| Buffer::with_capacity(0), |record| Buffer::of(&record))
}
