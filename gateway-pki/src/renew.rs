//! Renews a certificate: the same names, usages and issuer under a new serial number, until a later day.
//! In: the name of a certificate in the directory. Out: NAME.pem anew, its key as well unless that is kept, and the
//! certificate before as NAME.SERIAL.pem: it stays good until its end, so it has to stay revocable.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gateway_core::limits;
use gateway_x509::certificate::{CertificateInfo, Purposes};
use gateway_x509::file;
use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::authority::{checked_name, info_of, key_pair};
use super::revocation_db::{self, RevocationDb};
use super::{Authority, Issued, PkiError, Profile, Request, csr, directory, template};

/// Where the key of a renewed certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewedKey {
    /// Made here, in the place of the one before.
    New,
    /// The one before: nothing but the certificate changes.
    Kept,
    /// Held by the program that made the request in this file.
    Requested(PathBuf),
}

/// A certificate that was renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The new one.
    pub certificate: PathBuf,
    /// Its key, if that was made here.
    pub key: Option<PathBuf>,
    /// The one before, under its new name.
    pub replaced: PathBuf,
    /// When the new one ends.
    pub not_after: SystemTime,
}

impl Authority {
    /// Renews NAME.pem for `lifetime`, or for as long as the one before was made for. Any authority of the directory may
    /// have issued it: that one issues it again.
    pub fn renew(
        &self,
        name: &str,
        key: &RenewedKey,
        lifetime: Option<Duration>,
    ) -> Result<Renewed, PkiError> {
        let files = directory::pair(&self.directory, checked_name(name)?);
        let _lock = revocation_db::lock(&self.directory)?;
        let before = Before::read(&files, name)?;
        before.refuse_key(key)?;
        let issuer = self.issuer_of(&before)?;
        before.refuse_revoked(&issuer, key)?;
        let request = before.request(lifetime);
        let validity = issuer.validity_of(&request)?;
        let parameters = template::requested(&request, validity)?;
        let made = matches!(key, RenewedKey::New)
            .then(KeyPair::generate)
            .transpose()?
            .map(Zeroizing::new);
        let certificate = match (&made, key) {
            (Some(key), _) => issuer.certify(&parameters, &**key)?,
            (None, RenewedKey::Requested(file)) => {
                issuer.certify(&parameters, &csr::read(file, request.profile)?.public_key)?
            }
            (None, _) => {
                let key = SubjectPublicKeyInfo::from_der(&before.info.public_key_der)?;
                issuer.certify(&parameters, &key)?
            }
        };
        let text = made
            .as_ref()
            .map(|key| file::encode_private_key(key.serialized_der()));
        let replaced = replaced_path(&files.certificate, &before.info.serial);
        let key_text = text.as_ref().map(|text| text.as_str());
        directory::replace_pair(&files, &certificate, key_text, &replaced)?;
        Ok(Renewed {
            certificate: files.certificate,
            key: text.is_some().then_some(files.key),
            replaced,
            not_after: validity.not_after,
        })
    }

    /// The authority of this directory that issued a certificate.
    fn issuer_of(&self, before: &Before) -> Result<Authority, PkiError> {
        if before.info.is_of(&self.info) {
            return Authority::open(&self.directory);
        }
        for entry in self.list()?.entries {
            let stem = entry.file.file_stem().and_then(|stem| stem.to_str());
            // Those that were renewed themselves lie there as well, without a key.
            let holds_key = entry.file.with_extension("key").exists();
            if let Some(stem) = stem
                && holds_key
                && entry.info.is_authority
                && before.info.is_of(&entry.info)
            {
                return self.open_intermediate(stem);
            }
        }
        Err(before.refused("was issued by none of the authorities here"))
    }
}

/// The certificate to renew.
struct Before {
    files: Issued,
    info: CertificateInfo,
    name: String,
    profile: Profile,
}

impl Before {
    /// Reads it, and refuses what could not be made again as it is.
    fn read(files: &Issued, name: &str) -> Result<Self, PkiError> {
        let path = &files.certificate;
        let certificates = file::certificates(path).map_err(|source| PkiError::Read {
            path: path.clone(),
            source,
        })?;
        let info = info_of(path, &certificates[0])?;
        let profile = profile_of(&info);
        let before = Before {
            files: files.clone(),
            name: name.to_owned(),
            profile: profile.unwrap_or(Profile::Client),
            info,
        };
        if before.info.subject_der == before.info.issuer_der {
            return Err(before.refused(
                "is a root: make another with `portcullis pki init`, and trust both until no certificate needs this \
                 one",
            ));
        }
        let names = all_names(&certificates[0]).unwrap_or(usize::MAX);
        let known = before.info.names().len();
        if profile.is_none() || before.info.subject != format!("CN={name}") || names != known {
            return Err(before.refused(
                "was not made by `portcullis pki`, and says things that would be lost: issue another under a new name",
            ));
        }
        Ok(before)
    }

    fn refused(&self, reason: &'static str) -> PkiError {
        PkiError::NotRenewable {
            path: self.files.certificate.clone(),
            reason,
        }
    }

    fn refuse_key(&self, key: &RenewedKey) -> Result<(), PkiError> {
        let here = fs::symlink_metadata(&self.files.key).is_ok();
        match (key, self.profile, here) {
            (RenewedKey::New | RenewedKey::Requested(_), Profile::Authority, _) => {
                Err(self.refused(
                    "is an authority, and everything it issued hangs on its key: renew it with --keep-key",
                ))
            }
            (RenewedKey::New, _, false) => Err(self.refused(
                "has its key elsewhere: renew it with --request FILE, or with --keep-key",
            )),
            (RenewedKey::Requested(_), _, true) => Err(self.refused(
                "has its key beside it, which would no longer belong to it: renew it without --request",
            )),
            // A renewal that was cut off between its two files leaves this.
            (RenewedKey::Kept, _, true) if !self.key_is_beside()? => Err(self.refused(
                "does not belong to the key beside it: renew it without --keep-key",
            )),
            _ => Ok(()),
        }
    }

    fn key_is_beside(&self) -> Result<bool, PkiError> {
        let path = &self.files.key;
        let der = file::private_key(path).map_err(|source| PkiError::Read {
            path: path.clone(),
            source,
        })?;
        let key = key_pair(der, &self.info);
        Ok(key.is_some_and(|key| key.subject_public_key_info() == self.info.public_key_der))
    }

    /// A revoked name may come back, its key may not.
    fn refuse_revoked(&self, issuer: &Authority, key: &RenewedKey) -> Result<(), PkiError> {
        let database = RevocationDb::read(&issuer.certificate_file)?;
        match (database.find(&self.info.serial), key) {
            (Some(_), RenewedKey::Kept) => Err(self.refused(
                "was revoked, and its key would be admitted again: renew it without --keep-key",
            )),
            _ => Ok(()),
        }
    }

    fn request(&self, lifetime: Option<Duration>) -> Request {
        let made_for = || {
            let whole = self.info.not_after.duration_since(self.info.not_before);
            whole
                .unwrap_or_default()
                .saturating_sub(limits::CERTIFICATE_BACKDATE)
        };
        Request {
            name: self.name.clone(),
            profile: self.profile,
            uris: self.info.uris.clone(),
            dns_names: self.info.dns_names.clone(),
            ip_addresses: self.info.ip_addresses.clone(),
            lifetime: lifetime.unwrap_or_else(made_for),
            not_before: None,
        }
    }
}

fn profile_of(info: &CertificateInfo) -> Option<Profile> {
    match (info.is_authority, info.purposes) {
        (true, _) => Some(Profile::Authority),
        (
            false,
            Some(Purposes {
                server: true,
                client: true,
            }),
        ) => Some(Profile::Component),
        (false, Some(Purposes { server: true, .. })) => Some(Profile::Server),
        (false, Some(Purposes { client: true, .. })) => Some(Profile::Client),
        (false, Some(_) | None) => None,
    }
}

/// Subject alternative names of all kinds.
fn all_names(der: &[u8]) -> Option<usize> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    Some(names.map_or(0, |names| names.value.general_names.len()))
}

/// The name that a replaced certificate lies under: NAME.SERIAL.pem for NAME.pem.
fn replaced_path(certificate: &Path, serial: &str) -> PathBuf {
    certificate.with_extension(format!("{serial}.pem"))
}
