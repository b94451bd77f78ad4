//! `google.rpc.Status` as protobuf, with a `RetryInfo` or without, and base64, in which gRPC's metadata carries it. In:
//! status, words, time to wait. Out: bytes. Pure.

use std::time::Duration;

use crate::http::protobuf::{put_bytes, put_number};

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `Status { code = 1, message = 2, details = 3 }`, whose detail is a `RetryInfo { retry_delay = 1 }`.
pub(super) fn status(code: u8, words: &str, retry_after: Option<Duration>) -> Vec<u8> {
    let mut status = Vec::new();
    put_number(&mut status, 1, code.into());
    put_bytes(&mut status, 2, words.as_bytes());
    if let Some(delay) = retry_after {
        let mut duration = Vec::new();
        put_number(&mut duration, 1, delay.as_secs());
        put_number(&mut duration, 2, delay.subsec_nanos().into());
        let mut retry_info = Vec::new();
        put_bytes(&mut retry_info, 1, &duration);
        let mut any = Vec::new();
        put_bytes(&mut any, 1, RETRY_INFO.as_bytes());
        put_bytes(&mut any, 2, &retry_info);
        put_bytes(&mut status, 3, &any);
    }
    status
}

/// Base64 without padding (RFC 4648 section 4), as gRPC has binary metadata.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_as_protobuf_has_it() {
        assert_eq!(status(14, "no", None), b"\x08\x0e\x12\x02no");
        let with_delay = status(8, "no", Some(Duration::from_millis(1_500)));
        // The detail: its type, and a duration of 1 s and 500,000,000 ns.
        let any = [
            b"\x0a\x28",
            RETRY_INFO.as_bytes(),
            b"\x12\x0a\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01",
        ]
        .concat();
        let expected = [b"\x08\x08\x12\x02no\x1a", &[any.len() as u8][..], &any].concat();
        assert_eq!(with_delay, expected);
    }

    // RFC 4648 section 10.
    #[test]
    fn base64_is_that_of_the_standard_without_padding() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
