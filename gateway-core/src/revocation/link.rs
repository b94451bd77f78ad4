//! How chains and revocation lists name certificates: authorities by digests, certificates by issuer and serial
//! number, distribution points by digests.
//! In: digests and numbers of a caller. Out: plain data for chains, lists and tickets. Pure.

use serde::{Deserialize, Serialize};

use super::Serial;

/// One certificate of a verified chain, by its issuer and serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The issuer.
    pub issuer: AuthorityId,
    /// The issuer's key.
    pub key: AuthorityKey,
    /// The certificate's serial number.
    pub serial: Serial,
}

/// Identifies a certificate authority: a digest over its subject name and its public key, so that two authorities of
/// one name differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AuthorityId(pub [u8; 32]);

/// Identifies the key of a certificate authority: the beginning of a digest over it. Several certificates, under
/// several names, may have one key (cross-certificates, RFC 5280 section 3.2); what holds for the key holds for all
/// of them.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct AuthorityKey(pub [u8; 16]);

/// Identifies a distribution point: the beginning of a digest over its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PointId(pub [u8; 8]);

/// A distribution point of a certificate in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkPoint {
    /// Position of the certificate in the chain; 0 is the end entity's.
    pub link: u8,
    /// The point.
    pub point: PointId,
}
