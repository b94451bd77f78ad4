//! Requests for certificates that were made elsewhere (PKCS #10, RFC 2986), by OpenSSL or cert-manager for instance.
//! In: a file in PEM or DER. Out: the names and the public key it asks for, once its own signature has shown that its maker
//! holds the private key. Takes nothing else of it: usages and lifetime are the profile's.

use std::net::IpAddr;
use std::path::Path;

use gateway_core::limits;
use gateway_x509::certificate;
use gateway_x509::file;
use gateway_x509::signed::Signed;
use rcgen::SubjectPublicKeyInfo;
use rustls::crypto::ring;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedKey;

use super::{PkiError, Profile};

/// What a request asks for.
#[derive(Debug)]
pub(super) struct SigningRequest {
    /// Its common name, if it has exactly one.
    pub common_name: Option<String>,
    /// Subject alternative names of type URI.
    pub uris: Vec<String>,
    /// Subject alternative names of type DNS.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP address.
    pub ip_addresses: Vec<IpAddr>,
    /// The key to certify.
    pub public_key: SubjectPublicKeyInfo,
}

/// Reads a request, proves possession of the key, and refuses what `profile` does not give.
pub(super) fn read(path: &Path, profile: Profile) -> Result<SigningRequest, PkiError> {
    let unreadable = |source| PkiError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = file::file(path, limits::SIGNING_REQUEST_FILE_BYTES_MAX).map_err(unreadable)?;
    let der = file::signing_request(bytes).map_err(unreadable)?;
    parse(&der, profile).map_err(|reason| PkiError::SigningRequest {
        path: path.to_owned(),
        reason,
    })
}

fn parse(der: &[u8], profile: Profile) -> Result<SigningRequest, String> {
    let broken = || "is not a readable certificate request".to_owned();
    let (_, parsed) = X509CertificationRequest::from_der(der).map_err(|_| broken())?;
    let signed = Signed::parse(der).ok_or_else(broken)?;
    let info = &parsed.certification_request_info;
    let public_key = examined_key(&info.subject_pki)?;
    let (_, key_info) = Any::from_der(info.subject_pki.raw).map_err(|_| broken())?;
    let algorithms = ring::default_provider().signature_verification_algorithms;
    if !signed.is_signed_by(key_info.data, &algorithms) {
        return Err(
            "is not signed by the key it asks a certificate for, or by an algorithm that is not accepted: \
             its maker has not proven possession of the key"
                .to_owned(),
        );
    }
    let mut common_names = info.subject.iter_common_name();
    let common_name = match (common_names.next(), common_names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    };
    let mut request = SigningRequest {
        common_name,
        uris: Vec::new(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        public_key,
    };
    let mut has_extensions = false;
    for attribute in parsed.certification_request_info.iter_attributes() {
        if let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() {
            if std::mem::replace(&mut has_extensions, true) {
                return Err("asks for extensions twice: which ones are meant?".to_owned());
            }
            for extension in &asked.extensions {
                request.take(extension.parsed_extension(), profile)?;
            }
        }
    }
    Ok(request)
}

/// The key, if it is of a kind and length that may be certified.
fn examined_key(key: &ParsedKey<'_>) -> Result<SubjectPublicKeyInfo, String> {
    if let Ok(PublicKey::RSA(rsa)) = key.parsed() {
        let bits = rsa.key_size();
        if bits < limits::RSA_BITS_MIN {
            let least = limits::RSA_BITS_MIN;
            return Err(format!(
                "has an RSA key of {bits} bits: must have {least} or more"
            ));
        }
    }
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| {
        "has a key of a kind that is not accepted: must be P-256, P-384, Ed25519 or RSA".to_owned()
    })
}

impl SigningRequest {
    fn take(&mut self, extension: &ParsedExtension<'_>, profile: Profile) -> Result<(), String> {
        match extension {
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                Err("asks for a CA: make one with `portcullis pki issue ca`".to_owned())
            }
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => Err(
                "asks for a key that signs certificates or lists: no profile gives it".to_owned(),
            ),
            ParsedExtension::ExtendedKeyUsage(usage) => refuse_purposes(usage, profile),
            ParsedExtension::SubjectAlternativeName(names) => names
                .general_names
                .iter()
                .try_for_each(|name| self.take_name(name, profile)),
            ParsedExtension::ParseError { .. } => {
                Err("asks for an extension that cannot be read".to_owned())
            }
            // Identifiers of keys, and wishes that no profile grants: what is not taken is not issued.
            _ => Ok(()),
        }
    }

    fn take_name(&mut self, name: &GeneralName<'_>, profile: Profile) -> Result<(), String> {
        match name {
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) if name.starts_with('*') && profile == Profile::Client => {
                let name = name.escape_debug();
                return Err(format!(
                    "asks for {name}: an agent is one, not a pattern of many"
                ));
            }
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address = certificate::ip_address(bytes)
                    .ok_or("asks for an IP address of neither 4 nor 16 bytes")?;
                self.ip_addresses.push(address);
            }
            _ => {
                return Err(
                    "asks for a name that is neither a URI, nor a DNS name, nor an IP address: it would not be in the certificate"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// Refuses a request for a purpose that the profile does not give: a certificate without it would not do its work.
fn refuse_purposes(usage: &ExtendedKeyUsage<'_>, profile: Profile) -> Result<(), String> {
    let server = matches!(profile, Profile::Server | Profile::Component);
    let client = matches!(profile, Profile::Client | Profile::Component);
    let other = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    match (usage.server_auth, usage.client_auth) {
        (true, _) if !server => Err(
            "asks for the usage serverAuth, which an agent does not get: is it a gateway or a component?"
                .to_owned(),
        ),
        (_, true) if !client => Err(
            "asks for the usage clientAuth, which a gateway's listener does not get: is it an agent or a component?"
                .to_owned(),
        ),
        _ if other => {
            Err("asks for an extended key usage beyond serverAuth and clientAuth".to_owned())
        }
        _ => Ok(()),
    }
}
