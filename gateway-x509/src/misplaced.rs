//! Finds PEM, or the Base64 or hexadecimal digits of a key, in texts that no file of keys is meant to be.
//! In: a value of the configuration, or the text of an error. Out: the same up to where such digits begin. Pure. Never
//! decodes them: what looks like a key is not shown.

use super::pem::is_base64;

/// A text up to PEM in it: where a key stands in the place of its path, an error must not tell it to the log.
pub fn without_pem(mut text: String) -> String {
    if let Some(begin) = misplaced(&text) {
        text.truncate(begin);
        text.push_str("(PEM, Base64 or hexadecimal, not shown: name a file that holds it)");
    }
    text
}

/// Where PEM, or the Base64 or hexadecimal digits of a key or certificate, begin in a text that was meant to be something else: a value of the
/// configuration, for instance, in which a key stands instead of its path, or a piece from the middle of one.
fn misplaced(text: &str) -> Option<usize> {
    const RUN_BYTES_MIN: usize = 40;
    // The last is PKCS #8 of Ed25519, which is short enough for a length of one byte.
    const BEGINNINGS: [&str; 4] = ["MII", "MIG", "MIH", "MC4CAQ"];
    let bodies = BEGINNINGS
        .into_iter()
        .flat_map(|beginning| text.match_indices(beginning));
    let is_run = |at: &usize| {
        let run = text[*at..].bytes().take_while(|byte| is_base64(*byte));
        run.count() >= RUN_BYTES_MIN
    };
    let body = bodies.map(|(at, _)| at).filter(is_run).min();
    // What stands before the end of a section is of it.
    let end = text.find("-----END").map(|at| {
        let is_of_section =
            |byte: &u8| is_base64(*byte) || *byte == b'=' || byte.is_ascii_whitespace();
        let mut before = text.as_bytes()[..at].iter();
        before
            .rposition(|byte| !is_of_section(byte))
            .map_or(0, |at| at + 1)
    });
    let begin = text.find("-----BEGIN");
    let found = [begin, end, body, random_looking(text), many_digits(text)].into_iter();
    found.flatten().min()
}

/// Where more hexadecimal digits begin than a fingerprint, or anything else of a configuration, has; with single colons or white space between.
fn many_digits(text: &str) -> Option<usize> {
    const FINGERPRINT_DIGITS: usize = 64;
    let (mut begin, mut count) = (0, 0);
    let mut is_apart = true;
    for (at, byte) in text.bytes().enumerate() {
        if byte.is_ascii_hexdigit() {
            if count == 0 {
                begin = at;
            }
            count += 1;
            is_apart = false;
        } else if is_apart || byte != b':' && !byte.is_ascii_whitespace() {
            count = 0;
        } else {
            is_apart = true;
        }
        if count > FINGERPRINT_DIGITS {
            return Some(begin);
        }
    }
    None
}

/// Where a word begins that looks like Base64 of random bytes and like no word, path or digest: within so many characters,
/// capitals, small letters and digits take turns so often, which one of ten such pieces of random Base64 does not do, and no piece
/// of two lines fails to do somewhere. Hexadecimal digits have no capitals beside small letters. White space is nothing, as in PEM.
fn random_looking(text: &str) -> Option<usize> {
    const WINDOW: usize = 20;
    const TURNS_MIN: usize = 9;
    const OF_EACH_CASE_MIN: usize = 2;
    let bytes = text.as_bytes();
    // Where the characters of Base64 stand that came without anything else between.
    let mut run: Vec<usize> = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        if is_base64(*byte) {
            run.push(at);
        } else if !byte.is_ascii_whitespace() {
            run.clear();
        }
        let Some(start) = run.len().checked_sub(WINDOW) else {
            continue;
        };
        let window = || run[start..].iter().map(|at| (*at, bytes[*at]));
        let count = |is: fn(&u8) -> bool| window().filter(|(_, byte)| is(byte)).count();
        let kind = |byte: u8| (byte.is_ascii_uppercase(), byte.is_ascii_digit());
        let letters: Vec<_> = window()
            .filter(|(_, byte)| byte.is_ascii_alphanumeric())
            .collect();
        let mut turns = letters
            .windows(2)
            .filter(|pair| kind(pair[0].1) != kind(pair[1].1));
        let Some(first) = turns.next() else {
            continue;
        };
        if 1 + turns.count() >= TURNS_MIN
            && count(u8::is_ascii_uppercase) >= OF_EACH_CASE_MIN
            && count(u8::is_ascii_lowercase) >= OF_EACH_CASE_MIN
        {
            // What reads like words before it is none of it.
            let mut before = bytes[..first[1].0].iter();
            let word = before.rposition(|byte| !is_base64(*byte));
            return Some(word.map_or(0, |at| at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_place_of_a_path_is_found() {
        let key = format!("MC4CAQAwBQYDK2VwBCIEI{}", "x".repeat(43));
        for text in [
            format!("before {key}"),
            "before -----BEGIN PRIVATE KEY-----\nMC4".to_owned(),
            format!("before MIIEvQ{}", "w".repeat(40)),
        ] {
            assert_eq!(misplaced(&text), Some("before ".len()), "{text}");
        }
        // From the middle, where nothing says what it is; folded; and the last line alone.
        let middle = "pwWh0ErPplY5BSAmuC5TzJa4x9oT7nK2";
        for (text, begins) in [
            (format!("before \"{middle}\""), 8),
            (
                format!("'{} {} {}'", &middle[..11], &middle[11..22], &middle[22..]),
                1,
            ),
            ("'Zq==\n-----END PRIVATE KEY-----".to_owned(), 1),
        ] {
            assert_eq!(misplaced(&text), Some(begins), "{text}");
        }
        // In hexadecimal, as it is and as tools print it.
        let digits = "3081870201003013060a".repeat(4);
        let pairs: Vec<_> = digits
            .as_bytes()
            .chunks(2)
            .map(<[u8]>::escape_ascii)
            .collect();
        let apart = |between: &str| {
            let pairs = pairs.iter().map(ToString::to_string);
            pairs.collect::<Vec<_>>().join(between)
        };
        for text in [
            digits.to_uppercase(),
            apart(":"),
            apart(" "),
            digits.clone(),
        ] {
            assert_eq!(misplaced(&format!("before \"{text}\"")), Some(8), "{text}");
        }
        let fingerprint = &apart(":")[..32 * 3 - 1];
        for text in [
            fingerprint,
            "2001:db8:0:1:2:3:4:5 2001:db8:0:1:2:3:4:6 2001:db8:0:1:2:3:4:7",
            "/etc/portcullis/MII.pem",
            "/etc/MIIabcdefghijklmnopqrstuvwxyz.key",
            "/srv/Gateways/Berlin2/Certificates/EdgeNorth",
            "spiffe://example.org/ns/Telemetry/sa/CollectorA1/pod/0",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08",
            "must be TLS13 AES128 GCM SHA256 or TLS13 CHACHA20 POLY1305 SHA256",
            "",
        ] {
            assert_eq!(misplaced(text), None, "{text}");
        }
    }
}
