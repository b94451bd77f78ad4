//! An authority on disk: `ca.pem` and `ca.key` in a directory, and beside them what it issued.
//! In: requests. Out: certificate and key files, revocation lists. Serial numbers are random and the files are the list of
//! what was issued; a database lists what was revoked.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gateway_core::limits;
use gateway_core::revocation::Serial;
use gateway_x509::certificate::CertificateInfo;
use gateway_x509::der;
use gateway_x509::file::{self, ReadError};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PublicKeyData, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use zeroize::{Zeroize, Zeroizing};

use super::revocation_db::{self, Record, RevocationDb};
use super::template::{self, Validity};
use super::{Entry, Issued, Listing, PkiError, Profile, Request, Revoked, directory, exact};

/// Name of the root's files.
const ROOT_NAME: &str = "ca";

/// A root or intermediate authority, ready to issue.
pub struct Authority {
    pub(super) directory: PathBuf,
    pub(super) certificate_file: PathBuf,
    pub(super) info: CertificateInfo,
    key: Zeroizing<KeyPair>,
    /// What follows an issued certificate in its file: this authority, if it is not the root.
    chain: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Authority")
            .field("certificate_file", &self.certificate_file)
            .field("subject", &self.info.subject)
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
        let key_text = file::encode_private_key(key.serialized_der());
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
        let certificates = file::certificates(&path).map_err(|e| unreadable(&path, e))?;
        let info = info_of(&path, &certificates[0])?;
        let refused = |reason| PkiError::NotAnAuthority {
            path: path.clone(),
            reason,
        };
        if !info.is_authority || info.cannot_sign_certificates {
            return Err(refused("is not the certificate of an authority"));
        }
        let der = file::private_key(&files.key).map_err(|e| unreadable(&files.key, e))?;
        let key = key_pair(der, &info).ok_or_else(|| {
            refused(
                "has a key beside it that `portcullis pki` cannot sign with: must be P-256, P-384, Ed25519 or RSA of 2048 \
                 bits or more",
            )
        })?;
        if key.subject_public_key_info() != info.public_key_der {
            return Err(refused("does not belong to the key beside it"));
        }
        let chain = match intermediate {
            true => certificates
                .iter()
                .map(|certificate| file::encode_certificate(certificate))
                .collect(),
            false => String::new(),
        };
        let directory = directory.to_owned();
        Ok(Authority {
            directory,
            certificate_file: path,
            info,
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
        let files = self.files_of(request)?;
        directory::refuse_existing(&files)?;
        let parameters = template::requested(request, self.validity_of(request)?)?;
        let key = Zeroizing::new(KeyPair::generate()?);
        let certificate = self.certify(&parameters, &*key)?;
        let key = file::encode_private_key(key.serialized_der());
        directory::write_pair(&files, &certificate, &key)?;
        Ok(files)
    }

    /// The files of a certificate that this authority may issue.
    pub(super) fn files_of(&self, request: &Request) -> Result<Issued, PkiError> {
        let files = directory::pair(&self.directory, checked_name(&request.name)?);
        if request.profile == Profile::Authority && self.info.path_length == Some(0) {
            return Err(PkiError::NotAnAuthority {
                path: self.certificate_file.clone(),
                reason: "may issue servers and clients, but no further authority",
            });
        }
        // Names of files are too plain to need escapes: the text is the name.
        if self.info.subject == format!("CN={}", request.name) {
            return Err(PkiError::Request {
                what: "name",
                value: request.name.clone(),
                expectation: "is the authority's own: the certificate would look self-signed",
            });
        }
        Ok(files)
    }

    /// Revokes NAME.pem: its serial number goes into the database, and with that into every list from now on. A certificate
    /// that was renewed has the name NAME.SERIAL.
    pub fn revoke(&self, name: &str) -> Result<Revoked, PkiError> {
        let path = directory::pair(&self.directory, safe_name(name)?).certificate;
        let certificates = file::certificates(&path).map_err(|source| PkiError::Read {
            path: path.clone(),
            source,
        })?;
        let info = info_of(&path, &certificates[0])?;
        if info.subject_der == info.issuer_der {
            return Err(PkiError::NotAnAuthority {
                path,
                reason: "is a root, and a root cannot revoke itself: remove it from every `client_ca` instead",
            });
        }
        if !info.is_of(&self.info) {
            return Err(PkiError::OtherIssuer {
                path,
                issuer: info.issuer,
                authority: self.certificate_file.clone(),
            });
        }
        self.record_revocation(info.serial, name.to_owned())
    }

    /// Revokes the certificate with this serial number, whether or not its file is here.
    pub fn revoke_serial(&self, serial: Serial) -> Result<Revoked, PkiError> {
        let wanted = serial.to_string();
        let found = self
            .list()?
            .entries
            .into_iter()
            .find(|entry| entry.info.is_of(&self.info) && entry.info.serial == wanted);
        let Some(entry) = found else {
            return self.record_revocation(wanted, "-".to_owned());
        };
        let name = entry.file.file_stem().unwrap_or_default();
        self.record_revocation(entry.info.serial, name.to_string_lossy().into_owned())
    }

    fn record_revocation(&self, serial: String, name: String) -> Result<Revoked, PkiError> {
        let _lock = revocation_db::lock(&self.directory)?;
        let mut database = RevocationDb::read(&self.certificate_file)?;
        if let Some(record) = database.find(&serial) {
            return Ok(Revoked {
                name,
                at: record.at,
                already: true,
                serial,
            });
        }
        let at = SystemTime::now();
        database.add(Record {
            serial: serial.clone(),
            at,
            name: name.clone(),
        })?;
        Ok(Revoked {
            name,
            serial,
            at,
            already: false,
        })
    }

    /// Writes the list of everything revoked, in the place of the one before: `ca.crl.pem` for `ca.pem`. It is good for
    /// `lifetime` from now.
    pub fn write_crl(&self, lifetime: Duration) -> Result<PathBuf, PkiError> {
        if self.info.cannot_sign_lists {
            return Err(PkiError::NotAnAuthority {
                path: self.certificate_file.clone(),
                reason: "may not sign revocation lists (key usage without cRLSign), so no verifier would accept one",
            });
        }
        let path = self.certificate_file.with_extension("crl.pem");
        let _lock = revocation_db::lock(&self.directory)?;
        let database = RevocationDb::read(&self.certificate_file)?;
        let number = self.next_list_number(&path)?;
        let times = validity(None, lifetime)?;
        let revoked = database.records().iter().map(|record| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(record.serial_bytes()),
                revocation_time: template::date(record.at)?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let list = CertificateRevocationListParams {
            this_update: template::date(times.not_before)?,
            next_update: template::date(times.not_after)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_, PkiError>>()?,
            key_identifier_method: self.key_identifier(),
        };
        let made = list.signed_by(&self.issuer())?;
        let list = exact::finished(made.der(), &self.info, &self.key)?;
        let count = CertificateRevocationList::from_der(&list)
            .map(|(_, list)| list.iter_revoked_certificates().count());
        if count.ok() != Some(database.records().len()) {
            return Err(PkiError::NotVerified("it lacks what was revoked"));
        }
        directory::replace(&path, &file::encode_list(&list))?;
        Ok(path)
    }

    /// A number above that of the list in `path` (RFC 5280 section 5.2.3). The clock keeps it rising where that list has
    /// been removed.
    fn next_list_number(&self, path: &Path) -> Result<u64, PkiError> {
        let clock = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if fs::symlink_metadata(path).is_err() {
            return Ok(clock);
        }
        let bytes =
            file::file(path, limits::CRL_FILE_BYTES_MAX).map_err(|source| PkiError::Read {
                path: path.to_owned(),
                source,
            })?;
        self.number_of(bytes)
            .and_then(|number| number.checked_add(1))
            .map(|next| next.max(clock))
            .ok_or_else(|| PkiError::NotOurList(path.to_owned()))
    }

    /// The number of a list of this authority.
    fn number_of(&self, text: Vec<u8>) -> Option<u64> {
        let lists = file::revocation_lists(text).ok()?;
        let [Ok(der)] = lists.as_slice() else {
            return None;
        };
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        let ours = list.issuer().as_raw() == self.info.subject_der;
        list.crl_number()
            .filter(|_| ours)
            .and_then(|number| u64::try_from(number).ok())
    }

    /// Everything in the directory that holds a certificate, by file name, and what cannot be read.
    pub fn list(&self) -> Result<Listing, PkiError> {
        let failed = |source| PkiError::FileSystem {
            path: self.directory.clone(),
            source,
        };
        let Listing {
            mut entries,
            mut unreadable,
        } = Listing::default();
        for found in fs::read_dir(&self.directory).map_err(failed)? {
            let file = found.map_err(failed)?.path();
            if file.extension().is_none_or(|extension| extension != "pem") {
                continue;
            }
            match file::certificates(&file) {
                Ok(certificates) => match info_of(&file, &certificates[0]) {
                    Ok(info) => entries.push(Entry {
                        file,
                        info,
                        revoked_at: None,
                    }),
                    Err(error) => unreadable.push(error),
                },
                // A PEM file of another kind, such as a public key.
                Err(ReadError::Nothing { .. }) => {}
                Err(source) => unreadable.push(PkiError::Read { path: file, source }),
            }
        }
        entries.sort_by(|left, right| left.file.cmp(&right.file));
        mark_revoked(&mut entries)?;
        Ok(Listing {
            entries,
            unreadable,
        })
    }

    /// The time a request asks for, cut to the authority's own: a chain is worth no more than its shortest part.
    pub(super) fn validity_of(&self, request: &Request) -> Result<Validity, PkiError> {
        let mut validity = validity(request.not_before, request.lifetime)?;
        validity.not_after = validity.not_after.min(self.info.not_after);
        if validity.not_after <= validity.not_before {
            return Err(PkiError::NotAnAuthority {
                path: self.certificate_file.clone(),
                reason: "ends before the certificate would begin",
            });
        }
        Ok(validity)
    }

    /// The text of a certificate file: a certificate for the key, and what leads from it to the root.
    pub(super) fn certify(
        &self,
        parameters: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<String, PkiError> {
        let made = parameters.signed_by(key, &self.issuer())?;
        let certificate = exact::finished(made.der(), &self.info, &self.key)?;
        info_of(&self.certificate_file, &certificate)?;
        Ok(file::encode_certificate(&certificate) + &self.chain)
    }

    /// The authority as the generator knows it, but for its name: see `exact`.
    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        let mut parameters = CertificateParams::default();
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        if !self.info.cannot_sign_lists {
            parameters.key_usages.push(KeyUsagePurpose::CrlSign);
        }
        parameters.key_identifier_method = self.key_identifier();
        Issuer::new(parameters, &*self.key)
    }

    /// As the authority's certificate says it, which may be another program's: verifiers compare the two.
    fn key_identifier(&self) -> KeyIdMethod {
        match &self.info.key_id {
            Some(id) => KeyIdMethod::PreSpecified(id.clone()),
            None => KeyIdMethod::Sha256,
        }
    }
}

/// A key that signs. Of those in the older formats the algorithm stands in the certificate (RFC 5208 section 5).
pub(super) fn key_pair(
    mut der: PrivateKeyDer<'static>,
    info: &CertificateInfo,
) -> Option<Zeroizing<KeyPair>> {
    let key = match &der {
        PrivateKeyDer::Pkcs1(key) => pkcs8(key.secret_pkcs1_der(), info),
        PrivateKeyDer::Sec1(key) => pkcs8(key.secret_sec1_der(), info),
        PrivateKeyDer::Pkcs8(key) => Some(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
        _ => None,
    };
    der.zeroize();
    let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key?.as_slice()));
    key.ok().map(Zeroizing::new)
}

fn pkcs8(key: &[u8], info: &CertificateInfo) -> Option<Zeroizing<Vec<u8>>> {
    const VERSION: [u8; 3] = [2, 1, 0];
    let (_, public_key) = Any::from_der(&info.public_key_der).ok()?;
    let (bits, _) = Any::from_der(public_key.data).ok()?;
    let algorithm = &public_key.data[..public_key.data.len() - bits.len()];
    let wrapper = der::header(der::OCTET_STRING, key.len());
    let length = VERSION.len() + algorithm.len() + wrapper.len() + key.len();
    let header = der::header(der::SEQUENCE, length);
    // Of full size from the beginning: a growing one would leave copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(header.len() + length));
    for part in [&header, &VERSION[..], algorithm, &wrapper, key] {
        whole.extend_from_slice(part);
    }
    Some(whole)
}

/// Notes in each entry what its authority's database says, where that authority is among the entries.
fn mark_revoked(entries: &mut [Entry]) -> Result<(), PkiError> {
    let mut databases = Vec::new();
    for authority in entries.iter().filter(|entry| entry.info.is_authority) {
        databases.push((authority.info.clone(), RevocationDb::read(&authority.file)?));
    }
    for entry in entries {
        let mut found = databases
            .iter()
            .filter(|(authority, _)| entry.info.is_of(authority))
            .filter_map(|(_, database)| database.find(&entry.info.serial));
        entry.revoked_at = found.next().map(|record| record.at);
    }
    Ok(())
}

pub(super) fn info_of(path: &Path, certificate: &[u8]) -> Result<CertificateInfo, PkiError> {
    CertificateInfo::parse(certificate).map_err(|error| PkiError::Read {
        path: path.to_owned(),
        source: ReadError::NotACertificate(error),
    })
}

/// A name that is safe as a file name and recognisable as a common name.
pub(super) fn checked_name(name: &str) -> Result<&str, PkiError> {
    checked(name, limits::NAME_BYTES_MAX)
}

/// The name of a file that is here already, which may have a serial number in it.
fn safe_name(name: &str) -> Result<&str, PkiError> {
    checked(name, limits::NAME_BYTES_MAX + 1 + 2 * limits::SERIAL_BYTES)
}

fn checked(name: &str, bytes_max: usize) -> Result<&str, PkiError> {
    let good = (1..=bytes_max).contains(&name.len())
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
