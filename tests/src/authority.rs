//! Certificates for the tests, made by rcgen and written as PEM files; not by the gateway's own `pki`.
//! In: what a certificate shall say. Out: files that programs can be given.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

/// A certification authority with its own folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Certificates between what is issued and the root, as PEM; none for a root.
    chain: String,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key, readable by the owner only.
    pub key: PathBuf,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// clientAuth.
    Client,
    /// serverAuth.
    Server,
    /// No extended key usage at all.
    Unstated,
}

/// What a certificate shall say.
#[derive(Debug, Clone)]
pub struct Request {
    common_name: String,
    organizational_unit: Option<String>,
    names: Vec<SanType>,
    usage: Usage,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    serial: Option<SerialNumber>,
}

impl Request {
    /// A client's certificate with a SPIFFE-like URI.
    pub fn client(uri: &str) -> Request {
        Request::new(uri.rsplit('/').next().unwrap_or(uri), Usage::Client).uri(uri)
    }

    /// A server's certificate.
    pub fn server(common_name: &str) -> Request {
        Request::new(common_name, Usage::Server)
    }

    fn new(common_name: &str, usage: Usage) -> Request {
        let now = OffsetDateTime::now_utc();
        Request {
            common_name: common_name.to_owned(),
            organizational_unit: None,
            names: Vec::new(),
            usage,
            not_before: now - Duration::hours(1),
            not_after: now + Duration::days(30),
            serial: None,
        }
    }

    /// Adds a URI.
    pub fn uri(mut self, uri: &str) -> Request {
        self.names.push(SanType::URI(text(uri)));
        self
    }

    /// Adds a DNS name.
    pub fn dns(mut self, name: &str) -> Request {
        self.names.push(SanType::DnsName(text(name)));
        self
    }

    /// Adds an IP address.
    pub fn ip(mut self, address: IpAddr) -> Request {
        self.names.push(SanType::IpAddress(address));
        self
    }

    /// Changes the common name.
    pub fn common_name(mut self, name: &str) -> Request {
        name.clone_into(&mut self.common_name);
        self
    }

    /// Adds an organizational unit.
    pub fn organizational_unit(mut self, unit: &str) -> Request {
        self.organizational_unit = Some(unit.to_owned());
        self
    }

    /// Changes the usage.
    pub fn usage(mut self, usage: Usage) -> Request {
        self.usage = usage;
        self
    }

    /// Valid until an hour ago.
    pub fn expired(mut self) -> Request {
        let now = OffsetDateTime::now_utc();
        self.not_before = now - Duration::days(2);
        self.not_after = now - Duration::hours(1);
        self
    }

    /// Valid in an hour.
    pub fn not_yet_valid(mut self) -> Request {
        let now = OffsetDateTime::now_utc();
        self.not_before = now + Duration::hours(1);
        self.not_after = now + Duration::days(2);
        self
    }

    /// Valid from so many seconds from now on.
    pub fn begins(mut self, seconds: i64) -> Request {
        self.not_before = OffsetDateTime::now_utc() + Duration::seconds(seconds);
        self
    }

    /// Valid for so many seconds from now.
    pub fn seconds(mut self, seconds: i64) -> Request {
        self.not_after = OffsetDateTime::now_utc() + Duration::seconds(seconds);
        self
    }

    /// With this serial number, whose bytes are those of an integer without a sign.
    pub fn serial(mut self, bytes: &[u8]) -> Request {
        self.serial = Some(SerialNumber::from_slice(bytes));
        self
    }

    fn parameters(self) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = name(&self.common_name);
        if let Some(unit) = self.organizational_unit {
            let kind = DnType::OrganizationalUnitName;
            parameters.distinguished_name.push(kind, unit);
        }
        parameters.subject_alt_names = self.names;
        parameters.not_before = self.not_before;
        parameters.not_after = self.not_after;
        parameters.serial_number = self.serial;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match self.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Unstated => Vec::new(),
        };
        parameters.use_authority_key_identifier_extension = true;
        parameters
    }
}

/// What an authority's certificate says that it must not issue for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded<'n> {
    /// A DNS name and all below it.
    Dns(&'n str),
    /// A subject of nothing but a common name.
    CommonName(&'n str),
}

/// What a revocation list shall say.
#[derive(Debug, Clone)]
pub struct RevocationList {
    revoked: Vec<SerialNumber>,
    this_update: OffsetDateTime,
    next_update: OffsetDateTime,
    number: u64,
}

impl RevocationList {
    /// Names the first certificate in each of these files, and is good for another day.
    pub fn of(certificates: &[&Path]) -> RevocationList {
        let now = OffsetDateTime::now_utc();
        RevocationList {
            revoked: certificates.iter().map(|file| serial(file)).collect(),
            this_update: now - Duration::days(2),
            next_update: now + Duration::days(1),
            number: 1,
        }
    }

    /// With this CRL number.
    pub fn numbered(mut self, number: u64) -> RevocationList {
        self.number = number;
        self
    }

    /// Made so many seconds from now, by a CA whose clock is ahead.
    pub fn ahead(mut self, seconds: i64) -> RevocationList {
        self.this_update = OffsetDateTime::now_utc() + Duration::seconds(seconds);
        self
    }

    /// Is good for so many seconds more.
    pub fn seconds(mut self, seconds: i64) -> RevocationList {
        self.next_update = OffsetDateTime::now_utc() + Duration::seconds(seconds);
        self
    }

    /// Was good until an hour ago.
    pub fn ended(mut self) -> RevocationList {
        self.next_update = OffsetDateTime::now_utc() - Duration::hours(1);
        self
    }
}

fn serial(certificate: &Path) -> SerialNumber {
    let der = CertificateDer::from_pem_file(certificate).expect("the certificate is PEM");
    let certificate = webpki::EndEntityCert::try_from(&der).expect("it is a certificate");
    SerialNumber::from_slice(certificate.serial())
}

impl Authority {
    /// Makes a root in a folder of its own below `parent`.
    pub fn create(parent: &Path, folder_name: &str, common_name: &str) -> Authority {
        let parameters = authority_parameters(common_name);
        Authority::self_signed(parent, folder_name, parameters)
    }

    /// A root that is valid between these seconds from now.
    pub fn create_for(
        parent: &Path,
        common_name: &str,
        seconds: std::ops::Range<i64>,
    ) -> Authority {
        Authority::named_for(parent, common_name, common_name, seconds)
    }

    /// An authority as a SPIRE server makes them, one after another: named by its trust domain, with a serial number in its name, valid
    /// between these seconds from now.
    pub fn of_spire(
        parent: &Path,
        folder_name: &str,
        trust_domain: &str,
        seconds: std::ops::Range<i64>,
    ) -> Authority {
        let mut parameters = authority_parameters("");
        let mut name = DistinguishedName::new();
        name.push(DnType::CountryName, "US");
        name.push(DnType::OrganizationName, "SPIFFE");
        let serial_number = DnType::CustomDnType(vec![2, 5, 4, 5]);
        name.push(serial_number, folder_name);
        parameters.distinguished_name = name;
        let uri = format!("spiffe://{trust_domain}");
        parameters.subject_alt_names = vec![SanType::URI(text(&uri))];
        Authority::between(parent, folder_name, parameters, seconds)
    }

    /// A root of this name that is valid between these seconds from now.
    pub fn named_for(
        parent: &Path,
        folder_name: &str,
        common_name: &str,
        seconds: std::ops::Range<i64>,
    ) -> Authority {
        Authority::between(
            parent,
            folder_name,
            authority_parameters(common_name),
            seconds,
        )
    }

    fn between(
        parent: &Path,
        folder_name: &str,
        mut parameters: CertificateParams,
        seconds: std::ops::Range<i64>,
    ) -> Authority {
        let now = OffsetDateTime::now_utc();
        parameters.not_before = now + Duration::seconds(seconds.start);
        parameters.not_after = now + Duration::seconds(seconds.end);
        Authority::self_signed(parent, folder_name, parameters)
    }

    /// Another certificate of this authority's key, by its name `common_name`, valid between these seconds from now.
    pub fn renewed(&self, common_name: &str, seconds: std::ops::Range<i64>) -> String {
        let mut parameters = authority_parameters(common_name);
        let now = OffsetDateTime::now_utc();
        parameters.not_before = now + Duration::seconds(seconds.start);
        parameters.not_after = now + Duration::seconds(seconds.end);
        let renewed = parameters.self_signed(self.issuer.key());
        renewed.expect("a root can sign itself").pem()
    }

    /// Another certificate of this authority's key, by its name `common_name`, with name constraints that exclude this.
    pub fn renewed_excluding(&self, common_name: &str, excluded: Excluded<'_>) -> String {
        let excluded = match excluded {
            Excluded::Dns(domain) => GeneralSubtree::DnsName(domain.to_owned()),
            Excluded::CommonName(excluded) => GeneralSubtree::DirectoryName(name(excluded)),
        };
        let mut parameters = authority_parameters(common_name);
        parameters.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: vec![excluded],
        });
        let renewed = parameters.self_signed(self.issuer.key());
        renewed.expect("a root can sign itself").pem()
    }

    fn self_signed(parent: &Path, folder_name: &str, parameters: CertificateParams) -> Authority {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = parameters
            .self_signed(&key)
            .expect("a root can sign itself");
        Authority::write(
            parent.join(folder_name),
            parameters,
            key,
            &certificate.pem(),
            String::new(),
        )
    }

    /// The same, which ends after so many seconds.
    pub fn ending_in(parent: &Path, folder_name: &str, seconds: i64) -> Authority {
        let key = KeyPair::generate().expect("a key can be made");
        let mut parameters = authority_parameters(folder_name);
        parameters.not_after = OffsetDateTime::now_utc() + Duration::seconds(seconds);
        let certificate = parameters
            .self_signed(&key)
            .expect("a root can sign itself");
        let pem = certificate.pem();
        Authority::write(
            parent.join(folder_name),
            parameters,
            key,
            &pem,
            String::new(),
        )
    }

    /// Makes an authority below this one. What it issues comes with its own certificate, as servers and clients send it.
    pub fn subordinate(&self, folder_name: &str, common_name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key can be made");
        self.certify(key, folder_name, common_name)
    }

    /// Certifies the key of another authority under a new name. What the result issues comes with that certificate.
    pub fn cross_certify(
        &self,
        other: &Authority,
        folder_name: &str,
        common_name: &str,
    ) -> Authority {
        let key = KeyPair::from_pem(&other.issuer.key().serialize_pem())
            .expect("the tests make keys that they can read");
        self.certify(key, folder_name, common_name)
    }

    fn certify(&self, key: KeyPair, folder_name: &str, common_name: &str) -> Authority {
        let mut parameters = authority_parameters(common_name);
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("the authority can sign");
        let pem = certificate.pem();
        let chain = format!("{pem}{}", self.chain);
        Authority::write(self.folder.join(folder_name), parameters, key, &pem, chain)
    }

    fn write(
        folder: PathBuf,
        parameters: CertificateParams,
        key: KeyPair,
        pem: &str,
        chain: String,
    ) -> Authority {
        fs::create_dir(&folder).expect("the folder of a new authority can be made");
        fs::write(folder.join("ca.pem"), pem).expect("the folder can be written");
        Authority {
            folder,
            issuer: Issuer::new(parameters, key),
            chain,
        }
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Signs a revocation list and writes it as PEM into the authority's folder.
    pub fn revoke(&self, file_name: &str, list: &RevocationList) -> PathBuf {
        let revoked = |serial: &SerialNumber| RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: list.this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let signed = CertificateRevocationListParams {
            this_update: list.this_update,
            next_update: list.next_update,
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: None,
            revoked_certs: list.revoked.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .expect("the authority can sign lists");
        let path = self.folder.join(file_name);
        let pem = signed.pem().expect("a list can be written as PEM");
        fs::write(&path, pem).expect("the folder can be written");
        path
    }

    /// Issues a certificate under a file name.
    pub fn issue(&self, file_name: &str, request: Request) -> Credentials {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = request
            .parameters()
            .signed_by(&key, &self.issuer)
            .expect("the authority can sign");
        let credentials = Credentials {
            certificate: self.folder.join(format!("{file_name}.pem")),
            key: self.folder.join(format!("{file_name}.key")),
        };
        let pem = format!("{}{}", certificate.pem(), self.chain);
        fs::write(&credentials.certificate, pem).expect("the folder can be written");
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&credentials.key)
            .and_then(|mut file| file.write_all(key.serialize_pem().as_bytes()))
            .expect("a key is written once");
        credentials
    }
}

impl Authority {
    /// Issues a certificate for a key that is there already, under another file name: where it stands.
    pub fn issue_again(&self, file_name: &str, key: &Path, request: Request) -> PathBuf {
        let pem = fs::read_to_string(key).expect("the key can be read");
        let key = KeyPair::from_pem(&pem).expect("the tests write keys that they can read");
        let certificate = request
            .parameters()
            .signed_by(&key, &self.issuer)
            .expect("the authority can sign");
        let path = self.folder.join(format!("{file_name}.pem"));
        let pem = format!("{}{}", certificate.pem(), self.chain);
        fs::write(&path, pem).expect("the folder can be written");
        path
    }
}

fn authority_parameters(common_name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name(common_name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = OffsetDateTime::now_utc() - Duration::days(3);
    parameters.not_after = OffsetDateTime::now_utc() + Duration::days(30);
    parameters
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn text<T: TryFrom<String>>(value: &str) -> T {
    T::try_from(value.to_owned())
        .ok()
        .expect("names of the tests are plain ASCII")
}
