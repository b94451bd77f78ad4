//! Issues what a measurement needs in numbers: an identity for each connection, and revocation lists of any length.
//! In: a CA's certificate and key from the command line. Out: identities in memory, a list in DER. Once, before a load.
//!
//! Identity N is always `agent-N` with serial number N, so that a list can name the first thousand of them without
//! having seen one.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::thread::{self, available_parallelism};

use anyhow::{Context, Result, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::credentials::Identity;

/// How long identities and lists count. They serve one measurement, and no list may end in the middle of it.
const LIFETIME: Duration = Duration::days(1);

/// How far back they are dated, for the clocks of other machines.
const BACKDATE: Duration = Duration::minutes(5);

/// A CA in use.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// Which certificate of an identity it is. Each edition has serial numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// With the identity's own number as its serial number.
    First,
    /// The one that follows it, with another key.
    Renewed,
    /// One that has ended.
    Expired,
}

/// What a revocation list names.
#[derive(Debug, Clone, Copy)]
pub struct Entries {
    /// Identities 1 up to this one.
    pub identities: u64,
    /// Serial numbers of 16 bytes that no identity has.
    pub others: u64,
}

impl Authority {
    /// Reads a CA's certificate and key, PEM.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))
        };
        let pair = KeyPair::from_pem(&read(key)?)
            .with_context(|| format!("{}: not a PEM private key", key.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&read(certificate)?, pair)
            .with_context(|| format!("{}: not a PEM certificate", certificate.display()))?;
        Ok(Self { issuer })
    }

    /// A CA that no server trusts. Its key ends with the process.
    pub fn ephemeral() -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "foreign authority of a load test");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = Issuer::new(parameters, KeyPair::generate()?);
        Ok(Self { issuer })
    }

    /// Issues these identities, each with a key of its own and `spiffe://example.org/agent/N` as its name. On all CPUs.
    pub fn identities(
        &self,
        numbers: RangeInclusive<u64>,
        edition: Edition,
    ) -> Result<Vec<Identity>> {
        let numbers: Vec<u64> = numbers.collect();
        let threads = available_parallelism().map_or(1, usize::from);
        let share = numbers.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            let parts: Vec<_> = numbers
                .chunks(share)
                .map(|part| {
                    scope.spawn(move || -> Result<Vec<Identity>> {
                        part.iter()
                            .map(|number| self.identity(*number, edition))
                            .collect()
                    })
                })
                .collect();
            let mut identities = Vec::with_capacity(numbers.len());
            for part in parts {
                identities.extend(part.join().map_err(|_| anyhow!("issuing panicked"))??);
            }
            Ok(identities)
        })
    }

    fn identity(&self, number: u64, edition: Edition) -> Result<Identity> {
        let name = format!("agent-{number}");
        let now = OffsetDateTime::now_utc();
        let (first_serial, not_before, not_after) = match edition {
            Edition::First => (0, now - BACKDATE, now + LIFETIME),
            Edition::Renewed => (1 << 32, now - BACKDATE, now + LIFETIME),
            Edition::Expired => (1 << 33, now - LIFETIME, now - BACKDATE),
        };
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(SerialNumber::from(first_serial + number));
        parameters.not_before = not_before;
        parameters.not_after = not_after;
        parameters
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        let uri = format!("spiffe://example.org/agent/{number}");
        parameters.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("issuing {name}"))?;
        let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Identity::new(&name, vec![certificate.der().clone()], private_key)
    }

    /// Makes a list in DER (RFC 5280 section 5).
    pub fn revocation_list(&self, entries: Entries) -> Result<Vec<u8>> {
        let now = OffsetDateTime::now_utc();
        let serials = (1..=entries.identities)
            .map(SerialNumber::from)
            .chain((0..entries.others).map(foreign_serial));
        let parameters = CertificateRevocationListParams {
            this_update: now - BACKDATE,
            next_update: now + LIFETIME,
            crl_number: SerialNumber::from(now.unix_timestamp().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: serials
                .map(|serial_number| RevokedCertParams {
                    serial_number,
                    revocation_time: now - BACKDATE,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = parameters
            .signed_by(&self.issuer)
            .context("signing the revocation list")?;
        Ok(list.der().to_vec())
    }
}

/// As long and as scattered as the random ones of common CAs, positive, and never the same for two numbers.
fn foreign_serial(number: u64) -> SerialNumber {
    // Multiplication by an odd number permutes the 64-bit numbers.
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&scattered.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn foreign_serials_are_distinct_positive_and_sixteen_bytes_long() {
        let serials: HashSet<Vec<u8>> = (0..100_000)
            .map(|number| foreign_serial(number).as_ref().to_vec())
            .collect();
        assert_eq!(serials.len(), 100_000);
        assert!(
            serials
                .iter()
                .all(|serial| serial.len() == 16 && (0x40..0x80).contains(&serial[0]))
        );
    }
}
