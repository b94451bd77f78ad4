//! How revocation names certificates: authorities by digests, certificates by issuer and serial number, distribution points.
//! In: digests and numbers that a caller made. Out: plain data for chains, lists and tickets. Pure.

use serde::{Deserialize, Serialize};

use super::Serial;

/// One certificate of a verified chain: who issued it, under which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The authority above.
    pub issuer: AuthorityId,
    /// The key of that authority.
    pub key: AuthorityKey,
    /// The certificate's number there.
    pub serial: Serial,
}

/// Names a certificate authority: a digest over its subject name and its public key, so that another authority of the
/// same name is another authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AuthorityId(pub [u8; 32]);

/// Names the key of a certificate authority: the beginning of a digest over it. Several certificates, under several names,
/// may be about one key (RFC 5280 section 3.2 calls them cross-certificates), and what is said of the key holds for them all.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct AuthorityKey(pub [u8; 16]);

/// Names a distribution point: the beginning of a digest over its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PointId(pub [u8; 8]);

/// A distribution point that a certificate of a chain names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkPoint {
    /// Position of the certificate in the chain; 0 is the end entity's.
    pub link: u8,
    /// The point.
    pub point: PointId,
}
