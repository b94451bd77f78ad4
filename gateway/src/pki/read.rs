//! Certificate and key files: opened with care, decoded, and forgotten with care.
//! In: a path. Out: DER, or a reason fit to stand behind the path. Key bytes are zeroed wherever they passed through.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use zeroize::Zeroizing;

use crate::limits;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Open(#[from] io::Error),
    /// A directory, pipe or device.
    #[error("is not a regular file")]
    NotAFile,
    /// Longer than the limit in bytes.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// The PEM framing is broken.
    #[error("is damaged: {0}")]
    Pem(String),
    /// Nothing of the kind in the file.
    #[error("holds no {0} in PEM form")]
    Nothing(&'static str),
    /// More than one key: which one is meant?
    #[error("holds more than one private key")]
    SeveralKeys,
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

/// Reads a whole regular file. Never blocks on a pipe, and never asks the kernel for much at once: while it copies, it may let
/// nobody else onto this CPU.
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

/// Reads all certificates of a PEM file, in their order; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ReadError> {
    let (_, mode) = open_regular(path)?;
    let bytes = Zeroizing::new(file(path, limits::CERTIFICATE_FILE_BYTES_MAX)?);
    const KEY: &[u8] = b"PRIVATE KEY-----";
    if mode & 0o077 != 0 && bytes.windows(KEY.len()).any(|window| window == KEY) {
        let file = path.display().to_string();
        return Err(ReadError::Exposed { mode, file });
    }
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| ReadError::Pem(error.to_string()))?;
    if found.is_empty() {
        return Err(ReadError::Nothing("certificate"));
    }
    Ok(found)
}

/// Reads the one private key of a PEM file that nobody but its owner can read.
///
/// The caller hands the key to a provider at once; providers zero what they were handed.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ReadError> {
    decode_private_key(&secret(path)?)
}

/// Reads a whole file of secrets that nobody but its owner can read, of at most `KEY_FILE_BYTES_MAX`.
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
pub fn encode_certificate(certificate: &CertificateDer<'_>) -> String {
    encode("CERTIFICATE", certificate).to_string()
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

/// The kinds of PEM section that hold a private key.
#[derive(Clone, Copy)]
enum KeyKind {
    Pkcs8,
    Pkcs1,
    Sec1,
}

impl KeyKind {
    fn from_label(label: &[u8]) -> Option<Self> {
        match label {
            b"PRIVATE KEY" => Some(KeyKind::Pkcs8),
            b"RSA PRIVATE KEY" => Some(KeyKind::Pkcs1),
            b"EC PRIVATE KEY" => Some(KeyKind::Sec1),
            _ => None,
        }
    }

    fn wrap(self, der: Vec<u8>) -> PrivateKeyDer<'static> {
        match self {
            KeyKind::Pkcs8 => PrivatePkcs8KeyDer::from(der).into(),
            KeyKind::Pkcs1 => PrivatePkcs1KeyDer::from(der).into(),
            KeyKind::Sec1 => PrivateSec1KeyDer::from(der).into(),
        }
    }
}

/// Finds and decodes the one private key. Not `PemObject`: it leaves the key's text behind on the heap.
fn decode_private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, ReadError> {
    let mut body = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut key: Option<(KeyKind, Zeroizing<Vec<u8>>)> = None;
    let mut section: Option<&[u8]> = None;
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if let Some(label) = marker(line, b"-----BEGIN ") {
            if label == b"ENCRYPTED PRIVATE KEY" {
                return Err(ReadError::Encrypted);
            }
            section = Some(label);
            body.clear();
        } else if let Some(label) = marker(line, b"-----END ") {
            if section.take() != Some(label) {
                return Err(ReadError::Pem(
                    "its BEGIN and END lines do not match".to_owned(),
                ));
            }
            if let Some(kind) = KeyKind::from_label(label)
                && key.replace((kind, decode_body(&body)?)).is_some()
            {
                return Err(ReadError::SeveralKeys);
            }
        } else if section.is_some() {
            if line.starts_with(b"Proc-Type:") {
                // RFC 1421: the old way to say that the body is encrypted.
                return Err(ReadError::Encrypted);
            }
            body.extend_from_slice(line);
        }
    }
    if section.is_some() {
        return Err(ReadError::Pem("an END line is missing".to_owned()));
    }
    let (kind, mut der) = key.ok_or(ReadError::Nothing("private key"))?;
    Ok(kind.wrap(std::mem::take(&mut *der)))
}

/// The label of a BEGIN or END line.
fn marker<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(start)?.strip_suffix(b"-----")
}

fn decode_body(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let mut der = Zeroizing::new(vec![0; base64::decoded_len_estimate(body.len())]);
    let length = STANDARD
        .decode_slice(body, &mut der)
        .map_err(|error| ReadError::Pem(error.to_string()))?;
    der.truncate(length);
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_survives_encoding_and_decoding() {
        for length in [1, 47, 48, 49, 138, 5000] {
            let der: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let text = encode_private_key(&der);
            assert!(text.lines().all(|line| line.len() <= 64));
            let decoded = decode_private_key(text.as_bytes()).unwrap();
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
                "holds no private key",
            ),
            (
                key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
                "is encrypted",
            ),
            (
                key.replace("AQID", "Proc-Type: 4,ENCRYPTED\nAQID"),
                "is encrypted",
            ),
            (key.replace("AQID", "A*ID"), "is damaged"),
            (
                key.replace("-----END PRIVATE KEY-----", ""),
                "END line is missing",
            ),
            (
                key.replace("-----END PRIVATE", "-----END RSA PRIVATE"),
                "do not match",
            ),
            (format!("{key}{key}"), "more than one private key"),
        ];
        for (text, expected) in cases {
            let error = decode_private_key(text.as_bytes()).unwrap_err().to_string();
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
            decode_private_key(text.as_bytes()).unwrap().secret_der(),
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
