//! A look into a ClientHello before the TLS library reads it, for a choice that the library cannot make.
//! In: the first bytes of a connection. Out: whether the client would rather have ChaCha20-Poly1305 than AES. It is a hint:
//! types and lengths are not checked, which the library does, and a hello in several records is read as if it were in one. What
//! is wrong in it can only cost its own sender the choice.

use crate::record::HEADER_BYTES;

/// The suites of TLS 1.3 that there is something to choose between (RFC 8446 section B.4).
const AES_128_GCM_SHA256: u16 = 0x1301;
const AES_256_GCM_SHA384: u16 = 0x1302;
const CHACHA20_POLY1305_SHA256: u16 = 0x1303;

/// What is before the session identifier (RFC 8446 sections 4 and 4.1.2): type and length of the message, version, random.
const BEFORE_SESSION_ID_BYTES: usize = 1 + 3 + 2 + 32;

/// Whether a client names ChaCha20-Poly1305 before both AES suites, as clients do whose CPU has no instructions for AES.
/// A hello whose suites are not among the `first_bytes` says nothing.
pub fn prefers_chacha20(first_bytes: &[u8]) -> bool {
    let suites = cipher_suites(first_bytes).unwrap_or_default();
    let suites = suites.as_chunks().0.iter().copied();
    let known = |suite: &u16| {
        matches!(
            *suite,
            AES_128_GCM_SHA256 | AES_256_GCM_SHA384 | CHACHA20_POLY1305_SHA256
        )
    };
    suites.map(u16::from_be_bytes).find(known) == Some(CHACHA20_POLY1305_SHA256)
}

/// The list of suites, as far as it is there.
fn cipher_suites(first_bytes: &[u8]) -> Option<&[u8]> {
    let (_, message) = first_bytes.split_at_checked(HEADER_BYTES)?;
    let (_, rest) = message.split_at_checked(BEFORE_SESSION_ID_BYTES)?;
    let (length, rest) = rest.split_first()?;
    let (_, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GREASE: u16 = 0x3a3a;
    const TLS_1_2: u16 = 0xc02b;

    /// The beginning of a hello, with a session identifier of so many bytes.
    fn hello(session_id_bytes: u8, suites: &[u16]) -> Vec<u8> {
        let mut bytes = vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        bytes.extend([0x13; 32]);
        bytes.push(session_id_bytes);
        bytes.extend((0..session_id_bytes).map(|_| 0x03));
        bytes.extend(((suites.len() * 2) as u16).to_be_bytes());
        bytes.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
        bytes.extend([1, 0, 1, 100]);
        bytes
    }

    #[test]
    fn the_first_suite_of_tls_1_3_is_what_a_client_prefers() {
        let (aes_128, aes_256) = (AES_128_GCM_SHA256, AES_256_GCM_SHA384);
        let chacha20 = CHACHA20_POLY1305_SHA256;
        for (suites, expected) in [
            (&[chacha20, aes_256, aes_128][..], true),
            (&[GREASE, TLS_1_2, chacha20, aes_128], true),
            (&[chacha20], true),
            (&[aes_256, chacha20, aes_128], false),
            (&[aes_128, chacha20], false),
            (&[TLS_1_2], false),
            (&[], false),
        ] {
            for session_id_bytes in [0, 32] {
                let hello = hello(session_id_bytes, suites);
                assert_eq!(prefers_chacha20(&hello), expected, "{suites:04x?}");
            }
        }
    }

    #[test]
    fn a_part_of_a_hello_says_nothing() {
        let whole = hello(32, &[CHACHA20_POLY1305_SHA256, AES_128_GCM_SHA256]);
        let extensions = 4;
        for length in 0..whole.len() - extensions {
            assert!(!prefers_chacha20(&whole[..length]), "{length} bytes");
        }
        assert!(prefers_chacha20(&whole[..whole.len() - extensions]));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_into(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prefers_chacha20(&bytes);
        }
    }
}
