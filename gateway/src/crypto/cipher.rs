//! The ciphers of the configured provider, as the record layer asks for them.
//! In: traffic secrets from rustls and the suite they are for. Out: a key. Whose cipher it is follows from whose suite was
//! negotiated: one library does a connection's handshake and its records.

use aws_lc_rs::aead as aws;
use gateway_core::record::{Aead, Forged, Header, IV_BYTES, Suite, TAG_BYTES, TrafficKey};
use ring::aead as ring_aead;
use rustls::crypto::aws_lc_rs as aws_provider;
use rustls::crypto::tls13::{HkdfExpander, OkmBlock};
use rustls::{CipherSuite, ConnectionTrafficSecrets, Error, SupportedCipherSuite};
use zeroize::Zeroizing;

/// The longest key of a suite.
const KEY_BYTES_MAX: usize = 32;

/// The longest secret: a hash of SHA-384.
const SECRET_BYTES_MAX: usize = 48;

/// One key of one library.
#[expect(
    clippy::large_enum_variant,
    reason = "a session is one allocation, and holds what the default library needs"
)]
pub enum Cipher {
    /// Of ring.
    Ring(ring_aead::LessSafeKey),
    /// Of AWS-LC.
    AwsLc(aws::LessSafeKey),
}

/// The three algorithms by their names in each library.
#[derive(Clone, Copy)]
enum Algorithm {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

/// The key for `secrets` of a connection that negotiated `suite`.
pub fn traffic_key(
    suite: SupportedCipherSuite,
    (sequence, secrets): (u64, ConnectionTrafficSecrets),
) -> Result<TrafficKey<Cipher>, Error> {
    let (algorithm, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Algorithm::ChaCha20Poly1305, key, iv)
        }
        _ => return Err(unusable()),
    };
    let cipher = Cipher::of(suite, algorithm, key.as_ref());
    let iv = iv.as_ref().try_into().map_err(|_| unusable())?;
    let cipher = cipher.ok_or_else(unusable)?;
    Ok(TrafficKey::new(cipher, iv, sequence, algorithm.suite()))
}

/// The cipher of `suite` in the library that it is of, with a key from anywhere: for measuring the record layer without a
/// handshake. `None` for a key of the wrong length, and for suites of older versions.
pub fn record_cipher(suite: SupportedCipherSuite, key: &[u8]) -> Option<impl Aead + use<>> {
    Cipher::of(suite, Algorithm::of(suite)?, key)
}

/// The first key that RFC 8446 section 7.3 derives from a traffic secret. `None` for suites of older versions.
pub fn key_of_secret(suite: SupportedCipherSuite, secret: &OkmBlock) -> Option<TrafficKey<Cipher>> {
    let algorithm = Algorithm::of(suite)?;
    let expander = suite.tls13()?.hkdf_provider.expander_for_okm(secret);
    let mut key = Zeroizing::new([0; KEY_BYTES_MAX]);
    let key = &mut key[..algorithm.key_bytes()];
    expand_label(&*expander, b"tls13 key", key)?;
    let mut iv = [0; IV_BYTES];
    expand_label(&*expander, b"tls13 iv", &mut iv)?;
    let cipher = Cipher::of(suite, algorithm, key)?;
    Some(TrafficKey::new(cipher, iv, 0, algorithm.suite()))
}

/// The traffic secret that follows another one when its peer changes its key (RFC 8446 section 7.2). `None` for suites of older
/// versions.
pub fn next_secret(suite: SupportedCipherSuite, secret: &OkmBlock) -> Option<OkmBlock> {
    let expander = suite.tls13()?.hkdf_provider.expander_for_okm(secret);
    let mut next = Zeroizing::new([0; SECRET_BYTES_MAX]);
    let next = next.get_mut(..expander.hash_len())?;
    expand_label(&*expander, b"tls13 traffic upd", next)?;
    Some(OkmBlock::new(next))
}

/// HKDF-Expand-Label of RFC 8446 section 7.1 without a context.
fn expand_label(expander: &dyn HkdfExpander, label: &[u8], output: &mut [u8]) -> Option<()> {
    let length = u16::try_from(output.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(label.len()).ok()?];
    let no_context = [0];
    let info = [&length[..], &label_length, label, &no_context];
    expander.expand_slice(&info, output).ok()
}

fn unusable() -> Error {
    Error::General("traffic secrets that no suite of TLS 1.3 has".to_owned())
}

/// rustls compares suites by their names; which library's one is tells only where it stands in memory.
fn is_of_aws_lc(suite: SupportedCipherSuite) -> bool {
    let Some(suite) = suite.tls13() else {
        return false;
    };
    aws_provider::ALL_CIPHER_SUITES
        .iter()
        .filter_map(SupportedCipherSuite::tls13)
        .any(|known| std::ptr::eq(known, suite))
}

impl Algorithm {
    fn of(suite: SupportedCipherSuite) -> Option<Self> {
        match suite.suite() {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(Algorithm::Aes128Gcm),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(Algorithm::Aes256Gcm),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(Algorithm::ChaCha20Poly1305),
            _ => None,
        }
    }

    const fn key_bytes(self) -> usize {
        match self {
            Algorithm::Aes128Gcm => 16,
            Algorithm::Aes256Gcm | Algorithm::ChaCha20Poly1305 => KEY_BYTES_MAX,
        }
    }

    fn suite(self) -> Suite {
        match self {
            Algorithm::Aes128Gcm | Algorithm::Aes256Gcm => Suite::AesGcm,
            Algorithm::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
        }
    }
}

impl Cipher {
    fn of(suite: SupportedCipherSuite, algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        match is_of_aws_lc(suite) {
            true => Cipher::aws_lc(algorithm, key),
            false => Cipher::ring(algorithm, key),
        }
    }

    fn ring(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let algorithm = match algorithm {
            Algorithm::Aes128Gcm => &ring_aead::AES_128_GCM,
            Algorithm::Aes256Gcm => &ring_aead::AES_256_GCM,
            Algorithm::ChaCha20Poly1305 => &ring_aead::CHACHA20_POLY1305,
        };
        let key = ring_aead::UnboundKey::new(algorithm, key).ok()?;
        Some(Cipher::Ring(ring_aead::LessSafeKey::new(key)))
    }

    fn aws_lc(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let algorithm = match algorithm {
            Algorithm::Aes128Gcm => &aws::AES_128_GCM,
            Algorithm::Aes256Gcm => &aws::AES_256_GCM,
            Algorithm::ChaCha20Poly1305 => &aws::CHACHA20_POLY1305,
        };
        let key = aws::UnboundKey::new(algorithm, key).ok()?;
        Some(Cipher::AwsLc(aws::LessSafeKey::new(key)))
    }
}

// `Sealer` and `Opener` use no number twice under one key, which is what the libraries' names warn of.
impl Aead for Cipher {
    fn open(
        &self,
        nonce: [u8; IV_BYTES],
        header: &Header,
        bytes: &mut [u8],
        from: usize,
    ) -> Result<(), Forged> {
        let is_authentic = match self {
            Cipher::Ring(key) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                let header = ring_aead::Aad::from(header);
                key.open_within(nonce, header, bytes, from..).is_ok()
            }
            Cipher::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                let header = aws::Aad::from(header);
                key.open_within(nonce, header, bytes, from..).is_ok()
            }
        };
        is_authentic.then_some(()).ok_or(Forged)
    }

    fn seal(
        &self,
        nonce: [u8; IV_BYTES],
        header: &Header,
        bytes: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        match self {
            Cipher::Ring(key) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                let header = ring_aead::Aad::from(header);
                let tag = key.seal_in_place_separate_tag(nonce, header, bytes);
                tag.ok()?.as_ref().try_into().ok()
            }
            Cipher::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                let header = aws::Aad::from(header);
                let tag = key.seal_in_place_separate_tag(nonce, header, bytes);
                tag.ok()?.as_ref().try_into().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::ring as ring_provider;

    #[test]
    fn each_librarys_suites_are_told_apart_although_they_compare_as_equal() {
        let of_ring = ring_provider::ALL_CIPHER_SUITES;
        let of_aws_lc = aws_provider::ALL_CIPHER_SUITES;
        assert_eq!(of_ring.len(), 3);
        assert_eq!(of_aws_lc.len(), 3);
        assert!(of_ring.iter().all(|suite| of_aws_lc.contains(suite)));
        assert!(of_ring.iter().all(|suite| !is_of_aws_lc(*suite)));
        assert!(of_aws_lc.iter().all(|suite| is_of_aws_lc(*suite)));
    }

    #[test]
    fn both_libraries_make_the_same_records_and_open_each_others() {
        let algorithms = [
            (Algorithm::Aes128Gcm, 16),
            (Algorithm::Aes256Gcm, 32),
            (Algorithm::ChaCha20Poly1305, 32),
        ];
        for (algorithm, key_bytes) in algorithms {
            let key = vec![7; key_bytes];
            let ciphers = [
                Cipher::ring(algorithm, &key).unwrap(),
                Cipher::aws_lc(algorithm, &key).unwrap(),
            ];
            let header = [23, 3, 3, 4, 17];
            let plaintext: Vec<u8> = (0..1025).map(|at| at as u8).collect();
            let sealed = ciphers.each_ref().map(|cipher| {
                let mut bytes = plaintext.clone();
                let tag = cipher.seal([1; 12], &header, &mut bytes).unwrap();
                [&bytes[..], &tag].concat()
            });
            assert_eq!(sealed[0], sealed[1]);
            for cipher in &ciphers {
                let mut bytes = [&[9; 27], &sealed[0][..]].concat();
                cipher.open([1; 12], &header, &mut bytes, 27).unwrap();
                assert_eq!(bytes[..1025], plaintext);
                bytes[27..].copy_from_slice(&sealed[0]);
                bytes[40] ^= 1;
                let opened = cipher.open([1; 12], &header, &mut bytes, 27);
                assert_eq!(opened, Err(Forged));
            }
            assert!(Cipher::ring(algorithm, &key[1..]).is_none());
            assert!(Cipher::aws_lc(algorithm, &key[1..]).is_none());
        }
    }
}
