//! A small certificate authority on disk, for the demo, tests and small fleets, and the reading of certificate files.
//! In: a directory and what to issue. Out: PEM files. On the main thread, never on a worker; never overwrites a file,
//! but the database of revoked certificates, the list made from it, and a certificate that is renewed, of which a copy is
//! kept.
#![forbid(unsafe_code)]

mod authority;
mod csr;
mod directory;
mod exact;
mod renew;
mod revocation_db;
mod sign;
mod template;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub use authority::Authority;
use gateway_x509::certificate::CertificateInfo;
use gateway_x509::file::ReadError;
pub use renew::{Renewed, RenewedKey};
pub use sign::Certified;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// A TLS server: extended key usage serverAuth.
    Server,
    /// A TLS client: extended key usage clientAuth.
    Client,
    /// Both at once, as the components of a cluster are to each other.
    Component,
    /// An intermediate authority that issues servers and clients.
    Authority,
}

/// A certificate to issue.
#[derive(Debug, Clone)]
pub struct Request {
    /// Name of the files and common name of the subject: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What the certificate is for.
    pub profile: Profile,
    /// Subject alternative names of type URI, such as a SPIFFE ID.
    pub uris: Vec<String>,
    /// Subject alternative names of type DNS, possibly with a leading `*.`.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP address.
    pub ip_addresses: Vec<IpAddr>,
    /// Time from `not_before`, or from now, to the end. It is cut to the end of the issuing authority.
    pub lifetime: Duration,
    /// Start of validity; `None` is a little before now, so that machines with lagging clocks accept it.
    pub not_before: Option<SystemTime>,
}

/// The files of a certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate and the intermediates up to the root, without the root.
    pub certificate: PathBuf,
    /// Its private key, mode 0600.
    pub key: PathBuf,
}

/// A certificate found in an authority's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file.
    pub file: PathBuf,
    /// What its first certificate says.
    pub info: CertificateInfo,
    /// When its authority, in the same directory, revoked it.
    pub revoked_at: Option<SystemTime>,
}

/// A certificate that has been revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The name of its files; `-` where it has none here.
    pub name: String,
    /// Its serial number in lower-case hexadecimal.
    pub serial: String,
    /// When it was revoked.
    pub at: SystemTime,
    /// Whether that was before this call.
    pub already: bool,
}

/// What lies in an authority's directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Everything that holds a certificate, by file name.
    pub entries: Vec<Entry>,
    /// Why other files with the name of a certificate could not be read.
    pub unreadable: Vec<PkiError>,
}

/// Why the authority did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file is in the way.
    #[error("{}: exists already, and nothing is ever overwritten", .0.display())]
    Exists(PathBuf),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    FileSystem {
        /// File or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate or key of the authority cannot be used.
    #[error("{}: {source}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadError,
    },
    /// The files in the directory are not those of an authority that may issue this.
    #[error("{}: {reason}", path.display())]
    NotAnAuthority {
        /// Certificate file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The certificate to revoke is not this authority's.
    #[error(
        "{}: was issued by {issuer}, not by {}: name its authority with --issuer",
        path.display(),
        authority.display()
    )]
    OtherIssuer {
        /// Certificate file.
        path: PathBuf,
        /// The name of its issuer.
        issuer: String,
        /// The authority that was asked.
        authority: PathBuf,
    },
    /// A request for a certificate asks for what is not given.
    #[error("{}: {reason}", path.display())]
    SigningRequest {
        /// The request's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate cannot be renewed, or not so.
    #[error("{}: {reason}", path.display())]
    NotRenewable {
        /// Certificate file.
        path: PathBuf,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// A line of the database of revoked certificates.
    #[error("{}:{line}: must be a serial number in lower-case hexadecimal, a time such as 2026-01-31T12:00:00Z and a name", path.display())]
    RevocationDb {
        /// The database.
        path: PathBuf,
        /// Which line.
        line: usize,
    },
    /// A revocation list would replace something else.
    #[error("{}: is in the way, and is no revocation list of this authority that could be replaced", .0.display())]
    NotOurList(PathBuf),
    /// A value of the request.
    #[error("{what} {value:?}: {expectation}")]
    Request {
        /// Which value.
        what: &'static str,
        /// As given.
        value: String,
        /// What was expected.
        expectation: &'static str,
    },
    /// The system's random number generator failed.
    #[error("no randomness for a serial number")]
    Random,
    /// What was made would not be accepted by others, so it was not written.
    #[error("what was made does not verify ({0}), so nothing was written")]
    NotVerified(&'static str),
    /// The certificate or list could not be made.
    #[error("could not be made: {0}")]
    Generation(#[from] rcgen::Error),
}
