//! The property that no error of the program repeats bytes of a file, tried with damaged files that have a key in them.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway::blocks::BlockFile;
use gateway::config;
use gateway::crypto::load_ticket_keys;
use gateway_pki::{Authority, Profile, Request};
use gateway_x509::{crl, crl_ranks, file};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use super::explain::explain;
use super::guard::notes::Notes;

/// Damaged files.
const MUTATIONS: u32 = 10_000;
/// Threads that share them.
const PARTS: u64 = 4;
/// So many bytes of a key tell it from others.
const TELLING_BYTES: usize = 16;
/// So many characters of Base64 stand for as many bytes, wherever they begin.
const TELLING_CHARACTERS: usize = TELLING_BYTES * 4 / 3 - 1;

/// Texts of a file of which something else is made, and what.
const TEXTS: [(&str, &str); 14] = [
    ("PRIVATE KEY", "CERTIFICATE"),
    ("PRIVATE KEY", "RSA PRIVATE KEY"),
    ("PRIVATE KEY", "EC PRIVATE KEY"),
    ("PRIVATE KEY", "X509 CRL"),
    ("PRIVATE KEY", "CERTIFICATE REQUEST"),
    ("PRIVATE KEY", "SOMETHING ELSE"),
    ("-----BEGIN", "----BEGIN"),
    ("-----\n", "----\n"),
    ("-----BEGIN ", ""),
    ("-----\n-----", "----------"),
    ("-----", "\u{2014}"),
    ("-----", ""),
    ("\n", " = \""),
    ("+", ":"),
];

const BREAKS: [&str; 9] = [" ", "", "\r", "\r\n", "\n ", "\n\n", "\t", ",", "\0"];

const BEGINNINGS: [&str; 7] = [
    "\u{feff}",
    "0",
    "0\u{82}",
    "{\"blocked\": ",
    "key = \"",
    "[[listener]]\nkey = '''",
    "\0",
];

/// One thing that happens to a file between its author and its reader.
#[derive(Debug, Clone)]
enum Damage {
    /// Two characters stand for each line break, as in JSON.
    WrittenOut,
    /// Another text stands for each line break.
    Breaks(&'static str),
    /// The end is gone.
    Cut(Index),
    /// The beginning is gone.
    Behead(Index),
    /// A byte is another.
    Byte(Index, u8),
    /// A line is gone.
    Line(Index),
    /// A text is another, everywhere.
    Text((&'static str, &'static str)),
    /// Something stands before everything.
    Before(&'static str),
    /// The file is one quoted string.
    Quoted,
    /// The file is UTF-16.
    Utf16,
    /// All lines have another length.
    Lines(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::WrittenOut),
        select(BREAKS.to_vec()).prop_map(Damage::Breaks),
        any::<Index>().prop_map(Damage::Cut),
        any::<Index>().prop_map(Damage::Behead),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        any::<Index>().prop_map(Damage::Line),
        select(TEXTS.to_vec()).prop_map(Damage::Text),
        select(BEGINNINGS.to_vec()).prop_map(Damage::Before),
        Just(Damage::Quoted),
        Just(Damage::Utf16),
        (16_usize..100).prop_map(Damage::Lines),
    ]
}

impl Damage {
    fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match self {
            Damage::WrittenOut => text.replace('\n', "\\n").into(),
            Damage::Breaks(to) => text.replace('\n', to).into(),
            Damage::Cut(at) => bytes[..at.index(bytes.len() + 1)].to_vec(),
            Damage::Behead(at) => bytes[at.index(bytes.len() + 1)..].to_vec(),
            Damage::Byte(_, _) | Damage::Line(_) if bytes.is_empty() => bytes,
            Damage::Byte(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
                bytes
            }
            Damage::Line(at) => {
                let mut lines: Vec<_> = text.split('\n').collect();
                lines.remove(at.index(lines.len()));
                lines.join("\n").into()
            }
            Damage::Text((from, to)) => text.replace(from, to).into(),
            Damage::Before(start) => [start.as_bytes(), &bytes].concat(),
            Damage::Quoted => format!("{text:?}").into(),
            Damage::Utf16 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Damage::Lines(length) => {
                bytes.retain(|byte| *byte != b'\n');
                let lines: Vec<_> = bytes.chunks(*length).collect();
                lines.join(&b'\n')
            }
        }
    }
}

/// Every telling piece of a key, and of its text, in the notations that programs print bytes in.
struct Pieces {
    base64: HashSet<Vec<u8>>,
    hexadecimal: HashSet<Vec<u8>>,
    bytes: HashSet<Vec<u8>>,
}

impl Pieces {
    fn of(key: &[u8]) -> Self {
        let body = STANDARD.encode(key);
        let of_text = body.as_bytes().windows(TELLING_BYTES);
        let bytes: HashSet<_> = key
            .windows(TELLING_BYTES)
            .chain(of_text)
            .map(<[u8]>::to_vec)
            .collect();
        let hexadecimal = |window: &Vec<u8>| {
            let digits: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
            digits.into_bytes()
        };
        let base64 = body.as_bytes().windows(TELLING_CHARACTERS);
        Pieces {
            base64: base64.map(<[u8]>::to_vec).collect(),
            hexadecimal: bytes.iter().map(hexadecimal).collect(),
            bytes,
        }
    }

    /// All but those of what every reader may know.
    fn without(mut self, known: &Pieces) -> Self {
        self.base64.retain(|piece| !known.base64.contains(piece));
        self.hexadecimal
            .retain(|piece| !known.hexadecimal.contains(piece));
        self.bytes.retain(|piece| !known.bytes.contains(piece));
        self
    }

    fn are_in(&self, text: &str) -> bool {
        let plain: Vec<u8> = text
            .bytes()
            .filter(|byte| byte.is_ascii_graphic())
            .collect();
        let digits = text.bytes().filter(u8::is_ascii_hexdigit);
        let digits: Vec<u8> = digits.map(|digit| digit.to_ascii_lowercase()).collect();
        let numbers = text.split(|character: char| !character.is_ascii_digit());
        let numbers: Vec<u8> = numbers.filter_map(|number| number.parse().ok()).collect();
        let has = |pieces: &HashSet<Vec<u8>>, text: &[u8], length: usize| {
            text.windows(length).any(|window| pieces.contains(window))
        };
        has(&self.base64, &plain, TELLING_CHARACTERS)
            || has(&self.hexadecimal, &digits, TELLING_BYTES * 2)
            || has(&self.bytes, &numbers, TELLING_BYTES)
    }
}

const CONFIGURATION: &str = "\
# before
[[listener]]
name = 'edge'
address = '127.0.0.1:4317'
mode = 'stream'
certificate = 'server.pem'
key = 'server.key'
client_ca = ['ca.pem']
backend = 'collector'
# more
[[backend]]
name = 'collector'
servers = ['127.0.0.1:4320']
";

/// A folder with an authority, what it issued, and a configuration that works.
struct Workspace {
    folder: TempDir,
    authority: Authority,
    config: config::Config,
    /// A certificate and its key.
    text: String,
    pieces: Pieces,
}

impl Workspace {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lifetime = Duration::from_secs(60 * 24 * 60 * 60);
        let authority = Authority::init(folder.path(), "CA", lifetime).unwrap();
        let named = |name: &str| Request {
            name: name.to_owned(),
            profile: Profile::Server,
            uris: Vec::new(),
            dns_names: vec!["server.example".to_owned()],
            ip_addresses: Vec::new(),
            lifetime,
            not_before: None,
        };
        let issued = authority.issue(&named("server")).unwrap();
        fs::write(folder.path().join("portcullis.toml"), CONFIGURATION).unwrap();
        let whole = |path: &Path| fs::read_to_string(path).unwrap();
        let (certificate, key) = (whole(&issued.certificate), whole(&issued.key));
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        // The public key stands beside the private one.
        let known = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        // And what any key of this kind begins with is no secret.
        let other = authority.issue(&named("other")).unwrap().key;
        let other = PrivateKeyDer::from_pem_file(other).unwrap();
        let pieces = Pieces::of(der.secret_der())
            .without(&Pieces::of(&known))
            .without(&Pieces::of(other.secret_der()));
        assert!(pieces.are_in(&key) && !pieces.are_in(&certificate));
        let loaded = config::load(&folder.path().join("portcullis.toml")).unwrap();
        Workspace {
            folder,
            authority,
            config: loaded.config,
            text: certificate + &key,
            pieces,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `check` says of a configuration with a text changed.
    fn check(&self, from: &str, to: &str) -> String {
        let text = CONFIGURATION.replace(from, to);
        match config::check(&self.path("portcullis.toml"), &text, SystemTime::now()) {
            Ok(loaded) => loaded.warnings.join("\n"),
            Err(errors) => errors.to_string(),
        }
    }

    /// What the program says of a file, wherever it is named, of a value, and of a configuration with such text in its middle. A
    /// configuration takes longer than the others: of its keys each has its turn.
    fn said(&self, damaged: &[u8], turn: usize) -> [String; 11] {
        let path = self.path("damaged");
        fs::write(&path, damaged).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let state = self.path("state");
        fs::create_dir_all(&state).unwrap();
        fs::write(crl_ranks::file_in(&state), damaged).unwrap();
        let text = String::from_utf8_lossy(damaged).into_owned();
        // A key that is a value itself is known for certain by the line it begins with; short pieces of its middle, by chance.
        let value = Some(text.clone()).filter(|value| value.contains("-----BEGIN"));
        let quoted = toml::Value::String(value.unwrap_or_default()).to_string();
        let (from, to) = match turn % 11 {
            0 => ("server.pem", "damaged"),
            1 => ("server.key", "damaged"),
            2 => ("ca.pem", "damaged"),
            3 => ("# more", "crl = ['damaged']"),
            4 => ("'server.key'", quoted.as_str()),
            5 => ("'ca.pem'", quoted.as_str()),
            6 => ("'127.0.0.1:4317'", quoted.as_str()),
            7 => ("'edge'", quoted.as_str()),
            8 => ("['127.0.0.1:4320']", quoted.as_str()),
            9 => ("# more", text.as_str()),
            _ => ("# before", "include = ['damaged']"),
        };
        let Workspace {
            config, authority, ..
        } = self;
        let now = SystemTime::now();
        let explained = explain(config, &Default::default(), &path, &Default::default(), now);
        let hour = Duration::from_secs(60 * 60);
        [
            self.check(from, to),
            error_of(config::load(&path)),
            error_of(explained.map_err(|error| format!("{error:#}"))),
            error_of(authority.sign(&path, Profile::Client, Some("signed"), hour)),
            error_of(file::private_key(&path)),
            error_of(load_ticket_keys(&path)),
            error_of(BlockFile::load(&path)),
            error_of(Notes::load(&path)),
            error_of(config::locate(&path)),
            error_of(crl_ranks::KnownLists::read(&state)),
            error_of(crl::read_unverified(&path)),
        ]
    }
}

fn error_of<T>(result: Result<T, impl std::fmt::Display>) -> String {
    let error = result.err();
    error.map_or_else(String::new, |error| error.to_string())
}

#[test]
fn no_error_tells_a_key_whatever_happened_to_its_file() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let by_clock = since.unwrap().as_nanos() as u64;
    let seed = std::env::var("PORTCULLIS_SEED").map_or(by_clock, |seed| seed.parse().unwrap());
    println!("PORTCULLIS_SEED={seed}");
    std::thread::scope(|scope| {
        for part in 0..PARTS {
            scope.spawn(move || damage_files(seed.wrapping_add(part)));
        }
    });
}

fn damage_files(seed: u64) {
    let workspace = Workspace::new();
    let mut runner = TestRunner::new(Config {
        cases: MUTATIONS / PARTS as u32,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    });
    let damages = prop::collection::vec(damage(), 1..=3);
    let turns = Cell::new(0);
    let outcome = runner.run(&damages, |damages| {
        let whole = workspace.text.clone().into_bytes();
        let damaged = damages
            .iter()
            .fold(whole, |bytes, damage| damage.apply(bytes));
        let turn = turns.replace(turns.get() + 1);
        for (place, said) in workspace.said(&damaged, turn).iter().enumerate() {
            prop_assert!(!workspace.pieces.are_in(said), "{place}: {said}");
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn no_error_tells_a_key_in_hexadecimal_that_stands_as_a_value_or_an_option() {
    let workspace = Workspace::new();
    let key = PrivateKeyDer::from_pem_slice(workspace.text.as_bytes()).unwrap();
    let pairs = key.secret_der().iter().map(|byte| format!("{byte:02x}"));
    let pairs: Vec<_> = pairs.collect();
    for key in [
        pairs.concat(),
        pairs.concat().to_uppercase(),
        pairs.join(":"),
        pairs.join(" "),
    ] {
        let quoted = toml::Value::String(key.clone()).to_string();
        let values = [
            "'server.pem'",
            "'server.key'",
            "'ca.pem'",
            "'127.0.0.1:4317'",
            "'edge'",
            "'stream'",
            "['127.0.0.1:4320']",
        ];
        let keys = [
            format!("{quoted} = 1"),
            format!("[{quoted}]"),
            format!("include = [{quoted}]"),
            format!("observe = {quoted}"),
            format!("paths = {{ state = {quoted} }}"),
            format!("[[identity]]\nmatch = {{ fingerprint = {quoted} }}"),
        ];
        let of_values = values.map(|value| workspace.check(value, &quoted));
        let of_keys = keys.map(|text| workspace.check("# before", &format!("{text}\n")));
        let of_option = super::told(&anyhow::anyhow!("kind {key:?}: must be one of uri, dns"));
        let of_file = error_of(config::load(Path::new(&key)));
        let said = of_values.into_iter().chain(of_keys);
        for said in said.chain([of_option, of_file]) {
            assert!(
                !said.is_empty() && !workspace.pieces.are_in(&said),
                "{said}"
            );
        }
    }
}

#[test]
fn a_key_is_recognised_in_every_notation() {
    let key: Vec<u8> = (0..138_u32).map(|index| (index * 37 % 251) as u8).collect();
    let pieces = Pieces::of(&key);
    let body = STANDARD.encode(&key);
    let lines = body.as_bytes().chunks(8).map(<[u8]>::escape_ascii);
    for told in [
        body.clone(),
        lines.map(|line| format!("{line}\n")).collect(),
        format!("{:?}", body.as_bytes()),
        format!("{:?}", &key[7..]),
        format!("{:02x?}", &key[3..30]),
        format!("illegal: {:02X?}", body.as_bytes()).replace(", ", ":"),
    ] {
        assert!(pieces.are_in(&told), "{told}");
    }
    let numbers = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17";
    for plain in ["", "line 3: is not Base64", numbers] {
        assert!(!pieces.are_in(plain), "{plain}");
    }
}
