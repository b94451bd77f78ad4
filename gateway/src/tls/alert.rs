//! Our own alert in a handshake that rustls does: where rustls has none, or not the one of the standard, and where we end it.
//! In: the secret that it goes under, as soon as there are keys. Out: one record, in clear as long as there are none.
//! On the worker. Nothing follows it: it uses the first number of its key, which rustls' own alert would have used.

use gateway_core::alert::Alert;
use gateway_core::record::Sealer;
use gateway_rt::Buffer;
use rustls::SupportedCipherSuite;

use super::secrets::TrafficSecret;

/// The record of a fatal alert: encrypted if there are keys, which are for `suite`.
pub(super) fn record(
    alert: Alert,
    secret: Option<&TrafficSecret>,
    suite: Option<SupportedCipherSuite>,
) -> Buffer {
    const FATAL: u8 = 2;
    let Some(secret) = secret else {
        return Buffer::of(&[21, 3, 3, 0, 2, FATAL, alert.0]);
    };
    let key = suite.and_then(|suite| secret.first_key(suite));
    let sealed = key.and_then(|key| Sealer::new(key).alert(alert).ok());
    // Without a record the connection is reset.
    sealed.map_or_else(|| Buffer::with_capacity(0), |record| Buffer::of(&record))
}
