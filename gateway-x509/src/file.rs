//! Certificate and key files: opened with care, decoded, and forgotten with care.
//! In: a path. Out: DER, or a reason fit to stand behind the path. Key bytes are zeroed wherever they passed through.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway_core::limits;
use gateway_files::{note_error, reason};
use rustix::fs::OFlags;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, PrivateKeyDer,
    PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use zeroize::Zeroizing;

use super::Certificate;
use super::certificate::NotACertificate;
use super::pem::{self, Contents, KeyKind, Kind, PemError, Section};

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot be read: {}", reason(.0))]
    Open(io::Error),
    /// A directory, pipe or device.
    #[error("is not a regular file")]
    NotAFile,
    /// Longer than the limit in bytes.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// Neither PEM nor DER, or with something that cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A structure that is not what its label or place says.
    #[error(transparent)]
    NotACertificate(#[from] NotACertificate),
    /// Nothing of the kind in the file.
    #[error("holds no {wanted}{}", instead(*.found))]
    Nothing {
        /// What was looked for.
        wanted: &'static str,
        /// What the first section holds instead.
        found: Option<&'static str>,
    },
    /// More than one, and it is not said which one is meant.
    #[error("holds more than one {0}, in lines {1} and {2}: must hold one")]
    Several(&'static str, usize, usize),
    /// A key in DER, which may be any of three kinds.
    #[error("is DER: must be PEM, as `openssl pkey -in {0}` writes it")]
    KeyInDer(String),
    /// Trust settings that are not what OpenSSL writes.
    #[error("line {0}: has trust settings after the certificate that cannot be read")]
    TrustSettings(usize),
    /// A passphrase would be needed.
    #[error(
        "is encrypted, and the gateway cannot ask for a passphrase: decrypt it with `openssl pkey`"
    )]
    Encrypted,
    /// Others may read the key.
    #[error(
        "has mode {mode:04o}, so group or others can use the private key: run `chmod 600 {file}`"
    )]
    Exposed {
        /// Permission bits.
        mode: u32,
        /// File, for the command.
        file: String,
    },
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        // Here, where every reader passes: an error of the operating system may be over in a moment.
        note_error(&error);
        ReadError::Open(error)
    }
}

/// Reads a whole regular file. Never blocks on a pipe, and never asks the kernel for much at once: while the kernel copies,
/// it may let no other thread onto this CPU.
pub fn file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let (file, _mode) = open_regular(path)?;
    let expected_bytes = usize::try_from(file.metadata()?.len()).unwrap_or(bytes_max);
    // Room for one more, so that the end is found without growing.
    let mut bytes = Vec::with_capacity(expected_bytes.min(bytes_max) + 1);
    let mut file = file.take(bytes_max as u64 + 1);
    while (&mut file)
        .take(limits::READ_BYTES)
        .read_to_end(&mut bytes)?
        > 0
    {}
    if bytes.len() > bytes_max {
        return Err(ReadError::TooLong(bytes_max));
    }
    Ok(bytes)
}

/// Reads all certificates of a file in PEM, in their order, or the one of a file in DER; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ReadError> {
    let found = certificate_sections(path)?;
    Ok(found.into_iter().map(|found| found.der).collect())
}

/// As `certificates`, with what the file says about each.
pub fn certificate_sections(path: &Path) -> Result<Vec<Certificate>, ReadError> {
    let (_, mode) = open_regular(path)?;
    let bytes = Zeroizing::new(file(path, limits::CERTIFICATE_FILE_BYTES_MAX)?);
    // Wherever it stands: a damaged key is a key.
    const KEY: &[u8] = b"PRIVATE KEY-----";
    if mode & 0o077 != 0 && bytes.windows(KEY.len()).any(|window| window == KEY) {
        let file = path.display().to_string();
        return Err(ReadError::Exposed { mode, file });
    }
    let sections = match pem::contents(&bytes)? {
        Contents::Der(der) => return Ok(vec![Certificate::plain(der, 1)]),
        Contents::Pem(sections) => sections,
    };
    let wanted = apart(&sections, "certificate", |kind| match kind {
        Kind::Certificate | Kind::TrustedCertificate => SectionRole::Wanted,
        // A certificate and its key may share a file; OpenSSL writes parameters and public keys beside them.
        Kind::PrivateKey(_) | Kind::EncryptedKey | Kind::PublicKey | Kind::Parameters => {
            SectionRole::Beside
        }
        Kind::RevocationList
        | Kind::SigningRequest
        | Kind::OtherKey
        | Kind::Pkcs7
        | Kind::Unknown => SectionRole::Foreign,
    })?;
    let read = |section: &&Section<'_>| {
        let content = section.decode()?;
        match section.kind {
            Kind::TrustedCertificate => Certificate::trusted(&content, section.line)
                .ok_or(ReadError::TrustSettings(section.line)),
            _ => Ok(Certificate::plain(&content, section.line)),
        }
    };
    wanted.iter().map(read).collect()
}

/// Reads the revocation lists in the text of a file, in PEM or DER; at least one.
pub fn revocation_lists(bytes: Vec<u8>) -> Result<Vec<ListRead>, ReadError> {
    let sections = match pem::contents(&bytes)? {
        Contents::Der(_) => return Ok(vec![Ok(bytes.into())]),
        Contents::Pem(sections) => sections,
    };
    let wanted = apart(&sections, "revocation list", |kind| match kind {
        Kind::RevocationList => SectionRole::Wanted,
        // A CA and its list often share a file.
        Kind::Certificate | Kind::TrustedCertificate => SectionRole::Beside,
        Kind::SigningRequest
        | Kind::PrivateKey(_)
        | Kind::EncryptedKey
        | Kind::OtherKey
        | Kind::PublicKey
        | Kind::Parameters
        | Kind::Pkcs7
        | Kind::Unknown => SectionRole::Foreign,
    })?;
    let read = |section: &&Section<'_>| Ok(std::mem::take(&mut *section.decode()?).into());
    Ok(wanted.iter().map(read).collect())
}

/// A list of a file, or why it cannot be read.
pub type ListRead = Result<CertificateRevocationListDer<'static>, ReadError>;

/// Reads the one request for a certificate in the text of a file, in PEM or DER.
pub fn signing_request(bytes: Vec<u8>) -> Result<CertificateSigningRequestDer<'static>, ReadError> {
    let sections = match pem::contents(&bytes)? {
        Contents::Der(_) => return Ok(bytes.into()),
        Contents::Pem(sections) => sections,
    };
    let wanted = apart(&sections, "certificate request", |kind| match kind {
        Kind::SigningRequest => SectionRole::Wanted,
        // `openssl req -newkey` can write the key into the same file.
        Kind::PrivateKey(_) | Kind::EncryptedKey | Kind::PublicKey | Kind::Parameters => {
            SectionRole::Beside
        }
        Kind::Certificate
        | Kind::TrustedCertificate
        | Kind::RevocationList
        | Kind::OtherKey
        | Kind::Pkcs7
        | Kind::Unknown => SectionRole::Foreign,
    })?;
    let section = alone(&wanted, "certificate request")?;
    Ok(std::mem::take(&mut *section.decode()?).into())
}

/// How a section stands to what a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SectionRole {
    /// It is what is looked for.
    Wanted,
    /// It belongs beside that, and something else reads it.
    Beside,
    /// Nothing would read it, although its author wanted it read.
    Foreign,
}

/// The sections that are wanted; at least one. A section that nothing would read is an error.
fn apart<'s, 't>(
    sections: &'s [Section<'t>],
    wanted: &'static str,
    role: impl Fn(Kind) -> SectionRole,
) -> Result<Vec<&'s Section<'t>>, ReadError> {
    let (found, others): (Vec<&Section<'_>>, Vec<&Section<'_>>) = sections
        .iter()
        .partition(|section| role(section.kind) == SectionRole::Wanted);
    if found.is_empty() {
        let found = sections.first().map(|section| section.kind.name());
        return Err(ReadError::Nothing { wanted, found });
    }
    match others
        .iter()
        .find(|section| role(section.kind) == SectionRole::Foreign)
    {
        Some(foreign) => Err(foreign.not_read_here().into()),
        None => Ok(found),
    }
}

/// The only one of them.
fn alone<'s, 't>(
    sections: &[&'s Section<'t>],
    name: &'static str,
) -> Result<&'s Section<'t>, ReadError> {
    match sections {
        [section] => Ok(section),
        [] => Err(ReadError::Nothing {
            wanted: name,
            found: None,
        }),
        [first, second, ..] => Err(ReadError::Several(name, first.line, second.line)),
    }
}

fn instead(found: Option<&'static str>) -> String {
    found.map_or_else(String::new, |found| format!(", but a {found}"))
}

/// Reads the one private key of a PEM file that only its owner can read.
///
/// The caller hands the key to a provider at once; providers zero what they were handed.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ReadError> {
    decode_private_key(&secret(path)?, path)
}

/// Reads a whole file of secrets that only its owner can read, of at most `KEY_FILE_BYTES_MAX`.
pub fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let (mut file, mode) = open_regular(path)?;
    if mode & 0o077 != 0 {
        let file = path.display().to_string();
        return Err(ReadError::Exposed { mode, file });
    }
    // One buffer of full size: a growing one would leave copies behind on the heap.
    let mut bytes = Zeroizing::new(vec![0; limits::KEY_FILE_BYTES_MAX + 1]);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    if filled > limits::KEY_FILE_BYTES_MAX {
        return Err(ReadError::TooLong(limits::KEY_FILE_BYTES_MAX));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Writes a PKCS #8 key as PEM without leaving a copy behind.
pub fn encode_private_key(pkcs8: &[u8]) -> Zeroizing<String> {
    encode("PRIVATE KEY", pkcs8)
}

/// Writes a certificate as PEM.
pub fn encode_certificate(certificate: &[u8]) -> String {
    encode("CERTIFICATE", certificate).to_string()
}

/// Writes a revocation list as PEM.
pub fn encode_list(list: &[u8]) -> String {
    encode("X509 CRL", list).to_string()
}

fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    const LINE_BYTES: usize = 48; // 64 characters, RFC 7468 section 2
    // Enough for all of it: growing would leave a copy behind on the heap.
    let mut text = Zeroizing::new(String::with_capacity(128 + der.len() * 2));
    text.extend(["-----BEGIN ", label, "-----\n"]);
    for line in der.chunks(LINE_BYTES) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

/// Opens a regular file and tells its permission bits.
fn open_regular(path: &Path) -> Result<(File, u32), ReadError> {
    // Without O_NONBLOCK, opening a pipe waits for a writer for ever.
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile);
    }
    Ok((file, metadata.mode() & 0o7777))
}

/// Finds and decodes the one private key. Not `PemObject`: it leaves the key's text behind on the heap.
fn decode_private_key(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, ReadError> {
    let sections = match pem::contents(text)? {
        Contents::Der(_) => return Err(ReadError::KeyInDer(path.display().to_string())),
        Contents::Pem(sections) => sections,
    };
    let is_encrypted = |section: &Section<'_>| section.kind == Kind::EncryptedKey;
    if sections.iter().any(is_encrypted) {
        return Err(ReadError::Encrypted);
    }
    let unusable = sections
        .iter()
        .find(|section| section.kind == Kind::OtherKey);
    if let Some(section) = unusable {
        return Err(section.not_read_here().into());
    }
    let keys = apart(&sections, "private key", |kind| match kind {
        Kind::PrivateKey(_) => SectionRole::Wanted,
        // Whatever a key may be kept with is not lost by being passed over here.
        Kind::Certificate
        | Kind::TrustedCertificate
        | Kind::RevocationList
        | Kind::SigningRequest
        | Kind::EncryptedKey
        | Kind::OtherKey
        | Kind::PublicKey
        | Kind::Parameters
        | Kind::Pkcs7
        | Kind::Unknown => SectionRole::Beside,
    })?;
    let section = alone(&keys, "private key")?;
    let der = std::mem::take(&mut *section.decode()?);
    Ok(match section.kind {
        Kind::PrivateKey(KeyKind::Pkcs1) => PrivatePkcs1KeyDer::from(der).into(),
        Kind::PrivateKey(KeyKind::Sec1) => PrivateSec1KeyDer::from(der).into(),
        _ => PrivatePkcs8KeyDer::from(der).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn key_survives_encoding_and_decoding() {
        for length in [1, 47, 48, 49, 138, 5000] {
            let der: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let text = encode_private_key(&der);
            assert!(text.lines().all(|line| line.len() <= 64));
            let decoded = decode_private_key(text.as_bytes(), Path::new("key")).unwrap();
            assert_eq!(decoded.secret_der(), der, "length {length}");
            let reference = PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(reference.secret_der(), der, "length {length}");
        }
    }

    #[test]
    fn encoding_never_outgrows_its_first_allocation() {
        for length in [0, 1, 48, 138, 1000, 10_000] {
            let text = encode_private_key(&vec![7; length]);
            assert!(text.len() <= 128 + length * 2, "length {length}");
        }
    }

    #[test]
    fn what_is_not_one_plain_key_is_refused() {
        let key = encode_private_key(&[1, 2, 3]).to_string();
        let cases = [
            (String::new(), "holds no private key"),
            (
                key.replace("PRIVATE KEY", "PUBLIC KEY"),
                "holds no private key, but a public key",
            ),
            (
                key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
                "is encrypted",
            ),
            (
                key.replace("AQID", "Proc-Type: 4,ENCRYPTED\nAQID"),
                "is encrypted",
            ),
            (key.replace("AQID", "A*ID"), "line 2: is not Base64"),
            (
                key.replace("AQID", "AQI"),
                "line 1: begins a section whose Base64 is cut off",
            ),
            (
                key.replace("-----END PRIVATE KEY-----", ""),
                "line 1: begins a section that does not end: the END line is missing",
            ),
            (
                key.replace("-----END PRIVATE", "-----END RSA PRIVATE"),
                "line 3: does not end the section that line 1 begins",
            ),
            (
                format!("{key}{key}"),
                "more than one private key, in lines 1 and 4",
            ),
        ];
        for (text, expected) in cases {
            let error = decode_private_key(text.as_bytes(), Path::new("key"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn key_after_parameters_and_certificates_is_found() {
        let key = encode_private_key(&[1, 2, 3]).to_string();
        let text = format!(
            "-----BEGIN EC PARAMETERS-----\r\nBggqhkjOPQMBBw==\r\n-----END EC PARAMETERS-----\r\n{key}"
        );
        assert_eq!(
            decode_private_key(text.as_bytes(), Path::new("key"))
                .unwrap()
                .secret_der(),
            [1, 2, 3]
        );
    }

    #[test]
    fn pipe_is_refused_without_waiting_for_a_writer() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(certificates(&pipe), Err(ReadError::NotAFile)));
    }
}
