//! Signs a request that was made elsewhere: the key never leaves the machine that made it.
//! In: the request's file and a profile. Out: NAME.pem, and no key beside it. Names come from the request, usages and
//! lifetime from the profile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::template;
use super::{Authority, PkiError, Profile, Request, csr, directory};

/// A certificate for a key that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The certificate and the intermediates up to the root, without the root.
    pub certificate: PathBuf,
    /// Its alternative names, for people.
    pub names: Vec<String>,
}

impl Authority {
    /// Signs the request in `file`. Without a `name` its common name names the file.
    pub fn sign(
        &self,
        file: &Path,
        profile: Profile,
        name: Option<&str>,
        lifetime: Duration,
    ) -> Result<Certified, PkiError> {
        let asked = csr::read(file, profile)?;
        let is_named = name.is_some();
        let name = name.map(str::to_owned).or(asked.common_name);
        let name = name.ok_or_else(|| PkiError::SigningRequest {
            path: file.to_owned(),
            reason:
                "has no single common name that the certificate could bear: give it with --name"
                    .to_owned(),
        })?;
        let request = Request {
            name,
            profile,
            uris: asked.uris,
            dns_names: asked.dns_names,
            ip_addresses: asked.ip_addresses,
            lifetime,
            not_before: None,
        };
        let files = self.files_of(&request);
        let files = files.map_err(|error| match is_named {
            true => error,
            false => said_by(file, error),
        })?;
        directory::refuse_existing(&files)?;
        let parameters = template::requested(&request, self.validity_of(&request)?);
        let parameters = parameters.map_err(|error| said_by(file, error))?;
        let certificate = self.certify(&parameters, &asked.public_key)?;
        directory::write_certificate(&files, &certificate)?;
        let addresses = request.ip_addresses.iter().map(ToString::to_string);
        let names = request.uris.into_iter().chain(request.dns_names);
        Ok(Certified {
            certificate: files.certificate,
            names: names.chain(addresses).collect(),
        })
    }
}

/// What is wrong with a value that the request's file has, and no argument.
fn said_by(file: &Path, error: PkiError) -> PkiError {
    match error {
        PkiError::Request { .. } => PkiError::SigningRequest {
            path: file.to_owned(),
            reason: error.to_string(),
        },
        other => other,
    }
}
