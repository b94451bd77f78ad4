//! Tells PEM (RFC 7468) from DER and takes PEM apart.
//! In: the bytes of a file. Out: its sections, each decoded only when its kind is wanted, or an error with a line. On the
//! thread that reads the file, never on a worker. An error never repeats a byte of the file, which may be a private key:
//! `PemError` has room for numbers and our own words alone. What looks like a section and cannot be read is an error, for
//! a CA, a list or a key that is passed over in silence is missed only when it is needed.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// What is wrong with a file, and where. Holds nothing of the file itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A line of PEM.
    #[error("line {0}: {1}")]
    Line(usize, Fault),
    /// DER that ends too early.
    #[error("is cut off: DER of {expected} bytes of which {found} are there")]
    CutOff {
        /// Length by its own account.
        expected: usize,
        /// Length of the file.
        found: usize,
    },
    /// DER with something behind it.
    #[error(
        "holds one DER structure of {0} bytes and more after it: must hold one alone, or several as PEM"
    )]
    Trailing(usize),
    /// BER of indefinite length, or a length beyond any file.
    #[error(
        "begins like DER, with a length that DER does not have: convert it to PEM with `openssl`"
    )]
    NotDer,
    /// UTF-16, as some Windows tools write it.
    #[error("is UTF-16 text: save it as ASCII or UTF-8")]
    Utf16,
}

/// What is wrong with a line of PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Line breaks became a backslash and an n, as in JSON or an environment variable.
    #[error(
        "holds a BEGIN or END marker and `\\n` as two characters: must have line breaks in their place"
    )]
    WrittenOutBreaks,
    /// Two lines became one.
    #[error(
        "holds a BEGIN or END marker and something else: a line break is missing before or after the marker"
    )]
    Glued,
    /// Close to a marker, but not one.
    #[error(
        "looks like a BEGIN or END line and is none: must be `-----BEGIN LABEL-----`, in capitals, with five hyphens at both ends"
    )]
    NoMarker,
    /// A section begins inside another.
    #[error("begins a section before the one of line {0} has ended: an END line is missing")]
    Nested(usize),
    /// The text ends inside a section.
    #[error("begins a section that does not end: the END line is missing")]
    NoEnd,
    /// An END line of another label.
    #[error("does not end the section that line {0} begins: their labels differ")]
    OtherEnd(usize),
    /// An END line on its own.
    #[error("ends a section that has not begun: the BEGIN line is missing")]
    NoBegin,
    /// Base64 between sections.
    #[error("holds Base64 outside of any section: its BEGIN line is missing")]
    Unframed,
    /// Not Base64.
    #[error("is not Base64")]
    NotBase64,
    /// Base64 that breaks off, or goes on after its end.
    #[error("begins a section whose Base64 is cut off or has something after its end")]
    Incomplete,
    /// A section without content.
    #[error("begins an empty section")]
    Empty,
    /// Of a kind that is not read here.
    #[error("begins a section that is not read here ({}): {}", .0.name(), .0.cure())]
    NotReadHere(Kind),
}

/// The kinds of private key that a provider can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// PKCS #8, RFC 5958.
    Pkcs8,
    /// RSA alone, RFC 8017.
    Pkcs1,
    /// Elliptic curves alone, RFC 5915.
    Sec1,
}

/// What a section holds, by its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A certificate.
    Certificate,
    /// A certificate with the trust settings of OpenSSL after it.
    TrustedCertificate,
    /// A certificate revocation list.
    RevocationList,
    /// A request for a certificate, PKCS #10.
    SigningRequest,
    /// A private key.
    PrivateKey(KeyKind),
    /// A private key under a passphrase.
    EncryptedKey,
    /// A private key that no provider loads.
    OtherKey,
    /// A public key.
    PublicKey,
    /// Parameters of a group or curve, which go with keys.
    Parameters,
    /// A bundle of certificates and lists in another format.
    Pkcs7,
    /// Any other label.
    Unknown,
}

impl Kind {
    fn from_label(label: &[u8]) -> Self {
        match label {
            // The first is RFC 7468's; the others are what OpenSSL and SSLeay write or wrote.
            b"CERTIFICATE" | b"X509 CERTIFICATE" => Kind::Certificate,
            b"TRUSTED CERTIFICATE" => Kind::TrustedCertificate,
            b"X509 CRL" => Kind::RevocationList,
            // The second by keytool, certtool and certreq.
            b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST" => Kind::SigningRequest,
            b"PRIVATE KEY" => Kind::PrivateKey(KeyKind::Pkcs8),
            b"RSA PRIVATE KEY" => Kind::PrivateKey(KeyKind::Pkcs1),
            b"EC PRIVATE KEY" => Kind::PrivateKey(KeyKind::Sec1),
            b"ENCRYPTED PRIVATE KEY" => Kind::EncryptedKey,
            b"PUBLIC KEY" | b"RSA PUBLIC KEY" => Kind::PublicKey,
            b"PKCS7" | b"PKCS #7 SIGNED DATA" | b"CMS" => Kind::Pkcs7,
            other if other.ends_with(b"PRIVATE KEY") => Kind::OtherKey,
            other if other.ends_with(b"PARAMETERS") => Kind::Parameters,
            _ => Kind::Unknown,
        }
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Certificate | Kind::TrustedCertificate => "certificate",
            Kind::RevocationList => "revocation list",
            Kind::SigningRequest => "certificate request",
            Kind::PrivateKey(_) => "private key",
            Kind::EncryptedKey => "encrypted private key",
            Kind::OtherKey => "private key of another format",
            Kind::PublicKey => "public key",
            Kind::Parameters => "parameters",
            Kind::Pkcs7 => "PKCS #7 bundle",
            Kind::Unknown => "label unknown",
        }
    }

    fn cure(self) -> &'static str {
        match self {
            Kind::RevocationList => "name the file of revocation lists under `crl`",
            Kind::Pkcs7 => "take its certificates out with `openssl pkcs7 -print_certs`",
            Kind::OtherKey => "convert it with `openssl pkey`, or with `ssh-keygen -p -m PKCS8`",
            Kind::Certificate
            | Kind::TrustedCertificate
            | Kind::SigningRequest
            | Kind::PrivateKey(_)
            | Kind::EncryptedKey
            | Kind::PublicKey
            | Kind::Parameters
            | Kind::Unknown => "take it out of the file",
        }
    }

    fn is_key(self) -> bool {
        matches!(
            self,
            Kind::PrivateKey(_) | Kind::EncryptedKey | Kind::OtherKey
        )
    }
}

/// One section of a text.
#[derive(Debug, Clone, Copy)]
pub struct Section<'t> {
    /// What its label says.
    pub kind: Kind,
    /// Line of its BEGIN, counted from one.
    pub line: usize,
    body: &'t [u8],
}

/// A file, by its format.
#[derive(Debug)]
pub enum Contents<'t> {
    /// One structure, whole.
    Der(&'t [u8]),
    /// Any number of sections.
    Pem(Vec<Section<'t>>),
}

/// Tells what a file holds.
pub fn contents(bytes: &[u8]) -> Result<Contents<'_>, PemError> {
    match der_length(bytes)? {
        None => sections(bytes).map(Contents::Pem),
        Some(length) if length > bytes.len() => Err(PemError::CutOff {
            expected: length,
            found: bytes.len(),
        }),
        Some(length) if length < bytes.len() => Err(PemError::Trailing(length)),
        Some(_) => Ok(Contents::Der(bytes)),
    }
}

/// How long a DER sequence says it is, header included; `None` for text. A text may begin with "0", which is the tag of a
/// sequence: the byte after it is ASCII in a text, and in everything we read at least 0x80, the mark of a long length.
fn der_length(bytes: &[u8]) -> Result<Option<usize>, PemError> {
    let [0x30, size @ 0x80..=0xff, rest @ ..] = bytes else {
        return Ok(None);
    };
    let size = usize::from(size & 0x7f);
    let digits = match size {
        1..=4 => rest.get(..size).unwrap_or(rest),
        _ => return Err(PemError::NotDer),
    };
    let length = digits
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    Ok(Some(2 + size + length))
}

/// The sections of a PEM text, in their order.
pub fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, PemError> {
    if matches!(
        text,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'-', 0, ..] | [0, b'-', ..]
    ) {
        return Err(PemError::Utf16);
    }
    let mut sections = Vec::new();
    // Label, line and beginning of the body of the section that has begun.
    let mut open: Option<(&[u8], usize, usize)> = None;
    for line in Lines::of(text) {
        let at = |fault| PemError::Line(line.number, fault);
        match (marker(line.text).map_err(at)?, open) {
            (None, None) if is_unframed(line.text) => return Err(at(Fault::Unframed)),
            (None, _) => {}
            (Some(Marker::Begin(_)), Some((_, begin, _))) => return Err(at(Fault::Nested(begin))),
            (Some(Marker::Begin(label)), None) => open = Some((label, line.number, line.span.end)),
            (Some(Marker::End(_)), None) => return Err(at(Fault::NoBegin)),
            (Some(Marker::End(label)), Some((begun, number, body))) => {
                if label != begun {
                    return Err(at(Fault::OtherEnd(number)));
                }
                sections.push(Section::new(label, number, &text[body..line.span.start]));
                open = None;
            }
        }
    }
    match open {
        Some((_, line, _)) => Err(PemError::Line(line, Fault::NoEnd)),
        None => Ok(sections),
    }
}

impl<'t> Section<'t> {
    fn new(label: &[u8], line: usize, body: &'t [u8]) -> Self {
        // RFC 1421 section 4.6.1.1: the old way to say that the body of a key is encrypted.
        let is_encrypted = |line: Line<'_>| line.text.starts_with(b"Proc-Type:");
        let kind = match Kind::from_label(label) {
            kind if kind.is_key() && Lines::of(body).any(is_encrypted) => Kind::EncryptedKey,
            kind => kind,
        };
        Section { kind, line, body }
    }

    /// Says that it is not read where it stands.
    pub fn not_read_here(&self) -> PemError {
        PemError::Line(self.line, Fault::NotReadHere(self.kind))
    }

    /// Its content. Whatever is on the heap meanwhile is zeroed: it may be a key under any label.
    pub fn decode(&self) -> Result<Zeroizing<Vec<u8>>, PemError> {
        /// Base64 that is decoded at a time, a multiple of four.
        const PIECE_BYTES: usize = 4096;
        // Of full size from the beginning: a growing one would leave copies behind.
        let mut der = Zeroizing::new(vec![0; base64::decoded_len_estimate(self.body.len())]);
        let mut piece = Zeroizing::new(Vec::with_capacity(PIECE_BYTES));
        let mut filled = 0;
        let incomplete = PemError::Line(self.line, Fault::Incomplete);
        let mut flush = |piece: &mut Zeroizing<Vec<u8>>| {
            let decoded = STANDARD.decode_slice(piece.as_slice(), &mut der[filled..]);
            filled += decoded.map_err(|_| incomplete)?;
            piece.clear();
            Ok(())
        };
        for line in Lines::of(self.body) {
            // The body begins after the BEGIN line.
            let fault = PemError::Line(self.line + line.number, Fault::NotBase64);
            for mut word in line.text.split(u8::is_ascii_whitespace) {
                if !word.iter().all(|byte| is_base64(*byte) || *byte == b'=') {
                    return Err(fault);
                }
                while !word.is_empty() {
                    if piece.len() == PIECE_BYTES {
                        // Padding in the middle: decoded by itself, the piece would pass for the end.
                        if piece.ends_with(b"=") {
                            return Err(incomplete);
                        }
                        flush(&mut piece)?;
                    }
                    let (now, later) = word.split_at(word.len().min(PIECE_BYTES - piece.len()));
                    piece.extend_from_slice(now);
                    word = later;
                }
            }
        }
        flush(&mut piece)?;
        if filled == 0 {
            return Err(PemError::Line(self.line, Fault::Empty));
        }
        der.truncate(filled);
        Ok(der)
    }
}

enum Marker<'t> {
    Begin(&'t [u8]),
    End(&'t [u8]),
}

/// Reads a BEGIN or END line; an error for what was meant to be one.
fn marker(line: &[u8]) -> Result<Option<Marker<'_>>, Fault> {
    let label = |start: &[u8]| {
        let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
        let is_label = !label.is_empty() && label.iter().all(|byte| matches!(byte, b' '..=b'~'));
        (is_label && !label.windows(2).any(|pair| pair == b"--")).then_some(label)
    };
    if let Some(label) = label(b"-----BEGIN ") {
        return Ok(Some(Marker::Begin(label)));
    }
    if let Some(label) = label(b"-----END ") {
        return Ok(Some(Marker::End(label)));
    }
    // Of the few lines that have a hyphen or a dash at all.
    let meant = match line.iter().any(|byte| matches!(byte, b'-' | 0xe2)) {
        true => count_meant(line),
        false => 0,
    };
    match meant {
        0 => Ok(None),
        _ if line.windows(2).any(|pair| pair == b"\\n" || pair == b"\\r") => {
            Err(Fault::WrittenOutBreaks)
        }
        1 if line.len() <= MARKER_BYTES_MAX => Err(Fault::NoMarker),
        _ => Err(Fault::Glued),
    }
}

/// A line longer than this holds more than a marker.
const MARKER_BYTES_MAX: usize = 48;

/// How often a line has what was meant to be a marker: hyphens or dashes, BEGIN or END, and a word that labels begin with.
fn count_meant(line: &[u8]) -> usize {
    ["BEGIN", "END"]
        .into_iter()
        .flat_map(|word| {
            let word = word.as_bytes();
            let windows = line.windows(word.len()).enumerate();
            windows
                .filter(move |(_, window)| window.eq_ignore_ascii_case(word))
                .filter(move |(at, window)| {
                    let after = &line[at + word.len()..];
                    is_meant(&line[..*at], *window == word, after)
                })
        })
        .count()
}

fn is_meant(before: &[u8], in_capitals: bool, after: &[u8]) -> bool {
    /// The first words of the labels in use. A comment such as `-- end of the list --` has none of them.
    const FIRST_WORDS: [&str; 18] = [
        "ANY",
        "ATTRIBUTE",
        "CERTIFICATE",
        "CMS",
        "CRL",
        "DH",
        "DSA",
        "EC",
        "ENCRYPTED",
        "NEW",
        "OPENSSH",
        "PKCS",
        "PKCS7",
        "PRIVATE",
        "PUBLIC",
        "RSA",
        "TRUSTED",
        "X509",
    ];
    let before = before.trim_ascii_end();
    let hyphens = before
        .iter()
        .rev()
        .take_while(|byte| **byte == b'-')
        .count();
    // U+2010 to U+2015 and U+2212, which word processors make of hyphens.
    let dash = matches!(
        before,
        [.., 0xe2, 0x80, 0x90..=0x95] | [.., 0xe2, 0x88, 0x92]
    );
    let word = after.trim_ascii_start();
    let end = word.iter().position(|byte| !byte.is_ascii_alphanumeric());
    let word = &word[..end.unwrap_or(word.len())];
    let is_label = FIRST_WORDS
        .iter()
        .any(|first| word.eq_ignore_ascii_case(first.as_bytes()));
    let is_apart = after
        .first()
        .is_some_and(|byte| !byte.is_ascii_alphanumeric());
    is_apart && (hyphens > 0 || dash) && (is_label || in_capitals && hyphens >= 4)
}

/// Whether a line outside of any section is one of a certificate, a list or a key: DER of more than 127 bytes begins with
/// 0x30 0x82, or 0x30 0x81.
fn is_unframed(line: &[u8]) -> bool {
    const LINE_BYTES_MIN: usize = 40;
    (line.starts_with(b"MII") || line.starts_with(b"MIG") || line.starts_with(b"MIH"))
        && line.len() >= LINE_BYTES_MIN
        && line.iter().all(|byte| is_base64(*byte) || *byte == b'=')
}

pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// A line without the white space around it and without a byte order mark, which stays in the middle of a text when files
/// are joined.
struct Line<'t> {
    number: usize,
    text: &'t [u8],
    span: Range<usize>,
}

/// Lines that end in LF, CR LF or CR (RFC 7468 section 3).
struct Lines<'t> {
    text: &'t [u8],
    position: usize,
    number: usize,
}

impl<'t> Lines<'t> {
    fn of(text: &'t [u8]) -> Self {
        Lines {
            text,
            position: 0,
            number: 0,
        }
    }
}

impl<'t> Iterator for Lines<'t> {
    type Item = Line<'t>;

    fn next(&mut self) -> Option<Line<'t>> {
        let rest = self
            .text
            .get(self.position..)
            .filter(|rest| !rest.is_empty())?;
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let length = length.unwrap_or(rest.len());
        let breaks = match &rest[length..] {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        let start = self.position;
        self.position += length + breaks;
        self.number += 1;
        let text = rest[..length].trim_ascii();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Some(Line {
            number: self.number,
            text: text.trim_ascii_start(),
            span: start..start + length + breaks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str, content: &[u8]) -> String {
        let body = STANDARD.encode(content);
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(<[u8]>::escape_ascii)
            .collect();
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
    }

    fn read(text: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, PemError> {
        let read = |section: Section<'_>| Ok((section.kind, section.decode()?.to_vec()));
        sections(text)?.into_iter().map(read).collect()
    }

    /// Two certificates, of bytes that are 0x30 0x82 to begin with, as all are.
    fn two() -> (Vec<u8>, Vec<u8>, String) {
        let content = |byte| [&[0x30, 0x82, 1, 0x2c][..], &[byte; 300]].concat();
        let (one, other) = (content(0x55), content(0xaa));
        let text = pem("CERTIFICATE", &one) + &pem("CERTIFICATE", &other);
        (one, other, text)
    }

    #[test]
    fn what_does_not_hide_a_section_does_not_hide_it() {
        let (one, other, text) = two();
        let expected = vec![(Kind::Certificate, one), (Kind::Certificate, other)];
        let indented: String = text.lines().map(|line| format!("  \t{line} \n")).collect();
        let cases = [
            ("as it is", text.clone()),
            ("CR LF", text.replace('\n', "\r\n")),
            ("CR", text.replace('\n', "\r")),
            ("no last line break", text.trim_end().to_owned()),
            ("byte order mark", format!("\u{feff}{text}")),
            (
                "byte order marks of joined files",
                text.replace("-----BEGIN", "\u{feff}-----BEGIN"),
            ),
            ("indented", indented),
            (
                "text around",
                format!("subject: CN=a -- end of it\n\n{text}\n# -- begin of nothing --\n--\n"),
            ),
            ("one line of Base64", text.replace("V\n", "V")),
            (
                "old label",
                text.replace(" CERTIFICATE", " X509 CERTIFICATE"),
            ),
        ];
        for (name, text) in cases {
            assert_eq!(read(text.as_bytes()).as_ref(), Ok(&expected), "{name}");
        }
    }

    /// Asserts which fault is found in which line of the two certificates, once a text in the second is another.
    fn assert_faults<'c>(cases: impl IntoIterator<Item = (&'c str, &'c str, usize, Fault)>) {
        let (_, _, text) = two();
        let (first, second) = text.split_at(text.rfind(BEGIN).unwrap());
        for (from, to, line, fault) in cases {
            let text = format!("{first}{}", second.replacen(from, to, 1));
            let found = read(text.as_bytes());
            assert_eq!(found, Err(PemError::Line(line, fault)), "{to}:\n{text}");
        }
    }

    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    /// Line in which the second certificate begins, and in which it ends.
    const LINES: (usize, usize) = (10, 18);

    #[test]
    fn what_looks_like_a_section_and_is_none_is_an_error_with_its_line() {
        let (begin, end) = LINES;
        let without = format!("{BEGIN}\n");
        assert_faults([
            (BEGIN, "----BEGIN CERTIFICATE-----", begin, Fault::NoMarker),
            (BEGIN, "-----BEGIN CERTIFICATE----", begin, Fault::NoMarker),
            (
                BEGIN,
                "------BEGIN CERTIFICATE------",
                begin,
                Fault::NoMarker,
            ),
            (BEGIN, "-----begin certificate-----", begin, Fault::NoMarker),
            (
                BEGIN,
                "\u{2014}-BEGIN CERTIFICATE\u{2014}-",
                begin,
                Fault::NoMarker,
            ),
            (
                BEGIN,
                "----- BEGIN CERTIFICATE-----",
                begin,
                Fault::NoMarker,
            ),
            (
                BEGIN,
                "> -----BEGIN CERTIFICATE-----",
                begin,
                Fault::NoMarker,
            ),
            (&without, "", begin, Fault::Unframed),
            (END, "", begin, Fault::NoEnd),
            (END, "-----END X509 CRL-----", end, Fault::OtherEnd(begin)),
            (END, &format!("{END}\n{END}"), end + 1, Fault::NoBegin),
            ("q", ",", begin + 1, Fault::NotBase64),
        ]);
    }

    #[test]
    fn lines_that_were_joined_are_an_error() {
        let (_, _, text) = two();
        let cases = [
            (
                text.replace(&format!("{END}\n{BEGIN}"), &format!("{END}{BEGIN}")),
                9,
                Fault::Glued,
            ),
            (text.replace('\n', "\\n"), 1, Fault::WrittenOutBreaks),
            (text.replace('\n', " "), 1, Fault::Glued),
            (text.replace('\n', ""), 1, Fault::Glued),
            (text.replacen(END, "", 1), 10, Fault::Nested(1)),
        ];
        for (text, line, fault) in cases {
            assert_eq!(
                read(text.as_bytes()),
                Err(PemError::Line(line, fault)),
                "{text}"
            );
        }
        let utf16 =
            |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<_>>();
        for text in [utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
            assert_eq!(read(&text), Err(PemError::Utf16));
        }
    }

    #[test]
    fn base64_is_whole_or_an_error() {
        for length in [1, 2, 3, 47, 48, 3071, 3072, 3073, 9999] {
            let content: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let text = pem("X509 CRL", &content);
            assert_eq!(
                read(text.as_bytes()),
                Ok(vec![(Kind::RevocationList, content)]),
                "{length}"
            );
            let end = text.rfind("-----END").unwrap();
            let incomplete = Err(PemError::Line(1, Fault::Incomplete));
            let longer = format!("{}AQ==\n{}", &text[..end], &text[end..]);
            let expected = match length % 3 {
                0 => length + 1,
                _ => 0,
            };
            match (read(longer.as_bytes()), expected) {
                (Ok(found), expected) => assert_eq!(found[0].1.len(), expected),
                (error, _) => assert_eq!(error, incomplete),
            }
            let shorter = format!("{}{}", &text[..end - 2], &text[end - 1..]);
            assert_eq!(read(shorter.as_bytes()), incomplete, "{length}");
        }
        let empty = "-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n";
        assert_eq!(read(empty.as_bytes()), Err(PemError::Line(1, Fault::Empty)));
    }

    #[test]
    fn der_is_told_from_text_that_begins_with_its_tag() {
        let (der, _, text) = two();
        assert!(matches!(contents(&der), Ok(Contents::Der(found)) if found == der));
        let numbered = format!("0 first of two\n{text}");
        assert!(
            matches!(contents(numbered.as_bytes()), Ok(Contents::Pem(found)) if found.len() == 2)
        );
        let cut = PemError::CutOff {
            expected: 304,
            found: 300,
        };
        assert_eq!(contents(&der[..300]).unwrap_err(), cut);
        let twice = [&der[..], &der].concat();
        assert_eq!(contents(&twice).unwrap_err(), PemError::Trailing(304));
        for not_der in [&[0x30, 0x80, 1][..], &[0x30, 0xff, 1, 2]] {
            assert_eq!(contents(not_der).unwrap_err(), PemError::NotDer);
        }
    }

    #[test]
    fn an_error_has_room_for_numbers_alone() {
        fn holds_no_text<T: Copy + 'static>() -> usize {
            size_of::<T>()
        }
        assert!(holds_no_text::<PemError>() <= 3 * size_of::<usize>());
    }
}
