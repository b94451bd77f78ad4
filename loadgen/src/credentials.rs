//! Client identities and trusted roots, read from PEM files.
//! In: paths from the command line or the demo. Out: `Identity` and `RootCertStore`. Once, before any load.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// A client certificate with its key, under the name it is reported by.
#[derive(Debug, Clone)]
pub struct Identity {
    /// File name without its ending, or the name given.
    pub name: String,
    /// What rustls presents; it ignores the server's list of acceptable CAs, so an impostor presents its own.
    pub(crate) resolver: Arc<SingleCertAndKey>,
}

impl Identity {
    /// Reads a certificate chain and its key, and tries the key against the certificate.
    pub fn load(name: &str, certificate: &Path, key: &Path) -> Result<Self> {
        let chain = certificates(certificate)?;
        let private_key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("{}: not a PEM private key", key.display()))?;
        Self::new(name, chain, private_key)
            .with_context(|| format!("{} with {}", certificate.display(), key.display()))
    }

    /// An identity from a chain and its key, which is tried against the certificate.
    pub fn new(
        name: &str,
        chain: Vec<CertificateDer<'static>>,
        private_key: PrivateKeyDer<'static>,
    ) -> Result<Self> {
        let certified = CertifiedKey::from_der(chain, private_key, &provider())
            .context("certificate and key do not belong together")?;
        Ok(Self {
            name: name.to_owned(),
            resolver: Arc::new(SingleCertAndKey::from(certified)),
        })
    }

    /// Reads every pair NAME.pem and NAME.key of a folder, in the order of their names. Certificates without a key
    /// beside them, such as CAs, are left out.
    pub fn load_folder(folder: &Path) -> Result<Vec<Self>> {
        let mut certificates: Vec<PathBuf> = fs::read_dir(folder)
            .with_context(|| format!("{}: cannot be listed", folder.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        certificates.retain(|path| {
            path.extension().is_some_and(|ending| ending == "pem")
                && path.with_extension("key").exists()
        });
        certificates.sort();
        ensure!(
            !certificates.is_empty(),
            "{}: holds no pair NAME.pem and NAME.key",
            folder.display()
        );
        certificates
            .iter()
            .map(|certificate| {
                Self::load(
                    &stem(certificate),
                    certificate,
                    &certificate.with_extension("key"),
                )
            })
            .collect()
    }

    /// Reads certificates and keys given as two lists of the same length.
    pub fn load_pairs(certificates: &[PathBuf], keys: &[PathBuf]) -> Result<Vec<Self>> {
        if certificates.len() != keys.len() {
            bail!(
                "{} --certificate and {} --key: each certificate needs its key, in the same order",
                certificates.len(),
                keys.len()
            );
        }
        certificates
            .iter()
            .zip(keys)
            .map(|(certificate, key)| Self::load(&stem(certificate), certificate, key))
            .collect()
    }
}

/// Reads the roots a server's certificate must chain to.
pub fn roots(files: &[PathBuf]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for file in files {
        for certificate in certificates(file)? {
            store
                .add(certificate)
                .with_context(|| format!("{}: not usable as a root", file.display()))?;
        }
    }
    Ok(store)
}

/// The cryptography of the load generator. Named here because rustls has no default when two providers are built in.
pub(crate) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Reads a chain of certificates.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .with_context(|| format!("{}: cannot be read", file.display()))?
        .collect::<Result<_, _>>()
        .with_context(|| format!("{}: not PEM", file.display()))?;
    ensure!(
        !chain.is_empty(),
        "{}: holds no certificate",
        file.display()
    );
    Ok(chain)
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}
