//! An authority on disk: `ca.pem` and `ca.key` in a directory, and beside them what it issued.
//! In: requests. Out: certificate and key files. Keeps no register: serial numbers are random, the files are the list.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use zeroize::{Zeroize, Zeroizing};

use super::facts::Facts;
use super::read::{self, ReadError};
use super::template::{self, Validity};
use super::{Entry, Issued, PkiError, Profile, Request, directory};
use crate::limits;

/// Name of the root's files.
const ROOT_NAME: &str = "ca";

/// A root or intermediate authority, ready to issue.
pub struct Authority {
    directory: PathBuf,
    certificate_file: PathBuf,
    certificate: CertificateDer<'static>,
    facts: Facts,
    key: Zeroizing<KeyPair>,
    /// What follows an issued certificate in its file: this authority, if it is not the root.
    chain: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Authority")
            .field("certificate_file", &self.certificate_file)
            .field("subject", &self.facts.subject)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a root in `directory`, which is made if it does not exist.
    pub fn init(directory: &Path, common_name: &str, lifetime: Duration) -> Result<Self, PkiError> {
        let files = directory::pair(directory, ROOT_NAME);
        directory::refuse_existing(&files)?;
        let validity = validity(None, lifetime)?;
        let parameters = template::root(common_name, validity)?;
        fs::create_dir_all(directory).map_err(|source| PkiError::FileSystem {
            path: directory.to_owned(),
            source,
        })?;
        let key = Zeroizing::new(KeyPair::generate()?);
        let certificate = parameters.self_signed(&*key)?;
        let key_text = read::encode_private_key(key.serialized_der());
        directory::write_pair(&files, &certificate.pem(), &key_text)?;
        Self::open(directory)
    }

    /// Opens the root in `directory`.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        Self::open_pair(directory, ROOT_NAME, false)
    }

    /// Opens an intermediate authority that was issued into the same directory.
    pub fn open_intermediate(&self, name: &str) -> Result<Self, PkiError> {
        Self::open_pair(&self.directory, checked_name(name)?, true)
    }

    fn open_pair(directory: &Path, name: &str, intermediate: bool) -> Result<Self, PkiError> {
        let files = directory::pair(directory, name);
        let path = files.certificate;
        let unreadable = |path: &Path, source| PkiError::Read {
            path: path.to_owned(),
            source,
        };
        let certificates = read::certificates(&path).map_err(|e| unreadable(&path, e))?;
        let certificate = certificates[0].clone();
        let facts = facts_of(&path, &certificate)?;
        let refused = |reason| PkiError::NotAnAuthority {
            path: path.clone(),
            reason,
        };
        if !facts.is_authority || facts.cannot_sign_certificates {
            return Err(refused("is not the certificate of an authority"));
        }
        let mut der = read::private_key(&files.key).map_err(|e| unreadable(&files.key, e))?;
        let key = KeyPair::try_from(&der).map(Zeroizing::new);
        der.zeroize();
        let key = key.map_err(|_| refused("has a key of a kind that cannot sign here"))?;
        if key.subject_public_key_info() != facts.public_key_der {
            return Err(refused("does not belong to the key beside it"));
        }
        let chain = match intermediate {
            true => certificates.iter().map(read::encode_certificate).collect(),
            false => String::new(),
        };
        let directory = directory.to_owned();
        Ok(Authority {
            directory,
            certificate_file: path,
            certificate,
            facts,
            key,
            chain,
        })
    }

    /// The authority's own certificate file: what others have to trust, when this is the root.
    pub fn certificate_file(&self) -> &Path {
        &self.certificate_file
    }

    /// Makes a key and a certificate for it. Refuses if either file exists.
    pub fn issue(&self, request: &Request) -> Result<Issued, PkiError> {
        let files = directory::pair(&self.directory, checked_name(&request.name)?);
        if request.profile == Profile::Authority && self.facts.path_length == Some(0) {
            return Err(PkiError::NotAnAuthority {
                path: self.certificate_file.clone(),
                reason: "may issue servers and clients, but no further authority",
            });
        }
        // Names of files are too plain to need escapes: the text is the name.
        if self.facts.subject == format!("CN={}", request.name) {
            return Err(PkiError::Request {
                what: "name",
                value: request.name.clone(),
                expectation: "is the authority's own: the certificate would look self-signed",
            });
        }
        directory::refuse_existing(&files)?;
        let parameters = template::requested(request, self.validity_of(request)?)?;
        let (certificate, key) = self.sign(&parameters)?;
        directory::write_pair(&files, &certificate, &key)?;
        Ok(files)
    }

    /// Everything in the directory that holds a certificate, by file name.
    pub fn list(&self) -> Result<Vec<Entry>, PkiError> {
        let failed = |source| PkiError::FileSystem {
            path: self.directory.clone(),
            source,
        };
        let mut entries = Vec::new();
        for found in fs::read_dir(&self.directory).map_err(failed)? {
            let file = found.map_err(failed)?.path();
            if file.extension().is_none_or(|extension| extension != "pem") {
                continue;
            }
            match read::certificates(&file) {
                Ok(certificates) => {
                    let facts = facts_of(&file, &certificates[0])?;
                    entries.push(Entry { file, facts });
                }
                // A PEM file of another kind, such as a public key.
                Err(ReadError::Nothing(_)) => {}
                Err(source) => return Err(PkiError::Read { path: file, source }),
            }
        }
        entries.sort_by(|left, right| left.file.cmp(&right.file));
        Ok(entries)
    }

    /// The time a request asks for, cut to the authority's own: a chain is worth no more than its shortest part.
    fn validity_of(&self, request: &Request) -> Result<Validity, PkiError> {
        let mut validity = validity(request.not_before, request.lifetime)?;
        validity.not_after = validity.not_after.min(self.facts.not_after);
        if validity.not_after <= validity.not_before {
            return Err(PkiError::NotAnAuthority {
                path: self.certificate_file.clone(),
                reason: "ends before the certificate would begin",
            });
        }
        Ok(validity)
    }

    /// Certificate file and key file as text.
    fn sign(
        &self,
        parameters: &CertificateParams,
    ) -> Result<(String, Zeroizing<String>), PkiError> {
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &*self.key)?;
        let key = Zeroizing::new(KeyPair::generate()?);
        let certificate = parameters.signed_by(&*key, &issuer)?;
        let text = certificate.pem() + &self.chain;
        Ok((text, read::encode_private_key(key.serialized_der())))
    }
}

fn facts_of(path: &Path, certificate: &CertificateDer<'_>) -> Result<Facts, PkiError> {
    Facts::parse(certificate).map_err(|error| PkiError::Read {
        path: path.to_owned(),
        source: ReadError::Pem(error.to_string()),
    })
}

/// A name that is safe as a file name and recognisable as a common name.
fn checked_name(name: &str) -> Result<&str, PkiError> {
    let good = (1..=limits::NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if good {
        return Ok(name);
    }
    Err(PkiError::Request {
        what: "name",
        value: name.to_owned(),
        expectation: "must be 1 to 64 letters, digits, `.`, `_` or `-`, and start with a letter, digit or `_`",
    })
}

fn validity(not_before: Option<SystemTime>, lifetime: Duration) -> Result<Validity, PkiError> {
    let now = SystemTime::now();
    let too_long = || PkiError::Request {
        what: "lifetime",
        value: format!("{lifetime:?}"),
        expectation: "must end before the year 10000",
    };
    let not_after = not_before
        .unwrap_or(now)
        .checked_add(lifetime)
        .ok_or_else(too_long)?;
    Ok(Validity {
        not_before: not_before.unwrap_or(now - limits::CERTIFICATE_BACKDATE),
        not_after,
    })
}
