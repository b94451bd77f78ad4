//! The file that hosts and restarts share ticket keys by: `portcullis keys rotate` writes it, the gateway reads it.
//! In: a path. Out: a ring, or what is wrong with the file. A user that reads the file can make tickets for any client, so
//! it must belong to its user alone; it is replaced whole, under a lock.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway_core::limits;
use gateway_files::{open_lock, reason};
use gateway_x509::file::{self, ReadError};
use rustix::fs::FlockOperation;
use rustls::crypto::{GetRandomFailed, SecureRandom};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use zeroize::{Zeroize, Zeroizing};

use super::ticket_keys::{KeyId, KeyRing, MasterKey, SECRET_BYTES};

const ABOUT: &str = "\
# Session ticket keys of Portcullis, written by `portcullis keys rotate`. A reader of this file can resume as any
# client: keep it from every user but the gateway's. The first key seals, the others open.
";

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read, or others can.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not what `portcullis keys rotate` writes.
    #[error("is not a file of ticket keys: {0}; `portcullis keys rotate` writes one")]
    Format(String),
}

/// Why keys were not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// What is there cannot be used.
    #[error("{}: {error}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyFileError,
    },
    /// The new file cannot be written.
    #[error("{}: cannot be written: {error}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The lock beside it cannot be made or taken.
    #[error(
        "{}: cannot be opened: {}{}",
        .path.display(), reason(.error), advice(.path, .error)
    )]
    Lock {
        /// The lock.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No randomness.
    #[error("the operating system has no randomness")]
    Random,
}

/// What helps against a lock that cannot be opened.
fn advice(lock: &Path, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            ": its folder is missing: make it, for the user that the gateway runs as"
        }
        io::ErrorKind::PermissionDenied if lock.exists() => {
            ": it belongs to the user that rotated first; remove it while no rotation runs, and the next one makes it for \
             the owner of the folder"
        }
        _ => "",
    }
}

/// What a rotation has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// There had been no file.
    pub is_new: bool,
    /// Keys in the file, the new one included.
    pub keys: usize,
    /// The policy epoch.
    pub epoch: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTicketKeys {
    epoch: u64,
    #[serde(default)]
    distrusted: Vec<String>,
    key: Vec<WrittenKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    id: String,
    made_at: String,
    made_by: String,
    secret: String,
}

impl Drop for WrittenKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Reads a key file.
pub fn load(path: &Path) -> Result<KeyRing, KeyFileError> {
    let bytes = file::secret(path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| KeyFileError::Format("it is not UTF-8".to_owned()))?;
    let written: RawTicketKeys = toml::from_str(text).map_err(|error| unreadable(text, &error))?;
    parse(&written).map_err(KeyFileError::Format)
}

/// Says where the file is wrong and not how: what the parser says may repeat what stands there, and that may be a secret.
fn unreadable(text: &str, error: &toml::de::Error) -> KeyFileError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.split('\n').count());
    KeyFileError::Format(format!("line {line} is wrong"))
}

/// Makes a new key the one that seals, and the file if there is none. With `distrust` nothing sealed before opens any
/// more; otherwise keys stay for as long as a ticket of theirs can be worth anything.
pub fn rotate(
    path: &Path,
    distrust: bool,
    (account, now): (&str, SystemTime),
    random: &dyn SecureRandom,
) -> Result<Rotated, RotateError> {
    let failed = |error: io::Error| RotateError::Write {
        path: path.to_owned(),
        error,
    };
    let no_random = |_: GetRandomFailed| RotateError::Random;
    // A file that is reached through a link stays where it is, and its other readers get the new key too.
    let whole = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let path = &whole.map_err(failed)?;
    let _lock = lock(path)?;
    let known = match load(path) {
        Ok(ring) => Some(ring),
        Err(KeyFileError::Read(ReadError::Open(error)))
            if error.kind() == io::ErrorKind::NotFound =>
        {
            None
        }
        Err(error) => {
            let path = path.to_owned();
            return Err(RotateError::Unusable { path, error });
        }
    };
    let is_new = known.is_none();
    let keep: Duration = *limits::AUTHENTICATION_AGE.end();
    let ring = match known {
        None => KeyRing::generate(now, random),
        Some(ring) if distrust => ring.distrusted(now, random),
        Some(ring) => ring.rotated(now, keep, random),
    };
    let ring = ring.map_err(no_random)?.made_by(account);
    replace(path, &show(&ring)).map_err(failed)?;
    Ok(Rotated {
        is_new,
        keys: ring.len(),
        epoch: ring.epoch(),
    })
}

/// Two rotations at once must not lose a key.
fn lock(path: &Path) -> Result<File, RotateError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let path = path.with_file_name(name);
    let take = || {
        let lock = open_lock(&path, 0o600)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    };
    take().map_err(|error| RotateError::Lock {
        path: path.clone(),
        error,
    })
}

/// Puts a new file in the place of the old one, for the same owner and no other user.
fn replace(path: &Path, contents: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = NamedTempFile::new_in(directory)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o600))?;
    // The gateway may run as another user than the one that rotates.
    if let Ok(old) = std::fs::metadata(path).or_else(|_| std::fs::metadata(directory)) {
        let ours = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (ours.uid(), ours.gid()) {
            std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.write_all(contents.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|refused| refused.error)?;
    File::open(directory)?.sync_all()
}

fn show(ring: &KeyRing) -> Zeroizing<String> {
    let keys = ring.keys.iter().map(|key| WrittenKey {
        id: hexadecimal(key.id),
        made_at: humantime::format_rfc3339_seconds(key.made_at).to_string(),
        made_by: key.made_by.clone(),
        secret: STANDARD.encode(*key.secret),
    });
    let written = RawTicketKeys {
        epoch: ring.epoch,
        distrusted: ring.distrusted.iter().copied().map(hexadecimal).collect(),
        key: keys.collect(),
    };
    let text = Zeroizing::new(toml::to_string(&written).expect("texts and a number are TOML"));
    Zeroizing::new(format!("{ABOUT}{}", *text))
}

fn hexadecimal(id: KeyId) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(written: &RawTicketKeys) -> Result<KeyRing, String> {
    let count = written.key.len();
    if !(1..=limits::TICKET_KEYS_MAX).contains(&count) {
        let most = limits::TICKET_KEYS_MAX;
        return Err(format!("it has {count} keys, and may have 1 to {most}"));
    }
    let keys = written.key.iter().map(parse_key);
    let distrusted = written.distrusted.iter().map(|id| parse_id(id));
    let ring = KeyRing {
        epoch: written.epoch,
        keys: keys.collect::<Result<_, _>>()?,
        distrusted: distrusted.collect::<Result<_, _>>()?,
    };
    let ids: Vec<_> = ring.keys.iter().map(|key| key.id).collect();
    if (1..ids.len()).any(|position| ids[..position].contains(&ids[position])) {
        return Err("an id stands twice".to_owned());
    }
    Ok(ring)
}

fn parse_key(written: &WrittenKey) -> Result<MasterKey, String> {
    let id = parse_id(&written.id)?;
    let made_at = humantime::parse_rfc3339(&written.made_at)
        .map_err(|_| format!("made_at of key {} is no time of RFC 3339", written.id))?;
    let decoded = Zeroizing::new(STANDARD.decode(&written.secret).unwrap_or_default());
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    if decoded.len() != SECRET_BYTES {
        let id = &written.id;
        return Err(format!(
            "the secret of key {id} is not {SECRET_BYTES} bytes in base64"
        ));
    }
    secret.copy_from_slice(&decoded);
    Ok(MasterKey {
        id,
        made_at,
        made_by: written.made_by.clone(),
        secret,
    })
}

fn parse_id(text: &str) -> Result<KeyId, String> {
    let wrong = || format!("an id is not {} hexadecimal digits", 2 * KeyId::BYTES);
    if text.len() != 2 * KeyId::BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let number = u64::from_str_radix(text, 16).map_err(|_| wrong())?;
    Ok(KeyId(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn random() -> &'static dyn SecureRandom {
        rustls::crypto::ring::default_provider().secure_random
    }

    #[test]
    fn what_is_rotated_can_be_loaded_and_keeps_the_keys_it_had() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tickets.toml");
        let now = SystemTime::now();
        let rotate = |distrust| rotate(&path, distrust, ("a test", now), random()).unwrap();
        let first = rotate(false);
        assert!(first.is_new);
        assert_eq!((first.keys, first.epoch), (1, 0));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let before = load(&path).unwrap();
        assert_eq!(before.newest_made_by(), "a test");
        assert_eq!(rotate(false).keys, 2);
        let after = load(&path).unwrap();
        assert_eq!(after.keys[1].id, before.keys[0].id);
        assert_eq!(after.keys[1].secret, before.keys[0].secret);
        let distrusted = rotate(true);
        assert_eq!((distrusted.keys, distrusted.epoch), (1, 1));
        let last = load(&path).unwrap();
        assert_eq!(last.distrusted, [after.keys[0].id, after.keys[1].id]);
        // However often an operator rotates, the file stays one that can be read.
        let mut keys = 0;
        for _ in 0..=limits::TICKET_KEYS_MAX {
            keys = rotate(false).keys;
        }
        assert_eq!(keys, limits::TICKET_KEYS_MAX);
        assert_eq!(load(&path).unwrap().len(), limits::TICKET_KEYS_MAX);
    }

    #[test]
    fn what_keeps_a_rotation_from_its_lock_gets_the_advice_that_helps() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            let rotated = rotate(path, false, ("a test", SystemTime::now()), random());
            rotated.unwrap_err().to_string()
        };
        let said = refused(&directory.path().join("missing/tickets.toml"));
        assert!(said.contains("its folder is missing: make it"), "{said}");
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let said = refused(&file.join("tickets.toml"));
        assert!(!said.contains("remove it"), "{said}");
    }

    #[test]
    fn a_file_behind_a_link_is_rotated_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["tickets.toml", "link.toml"].map(|name| directory.path().join(name));
        let rotate = |path| rotate(path, false, ("a test", SystemTime::now()), random()).unwrap();
        rotate(&path);
        std::os::unix::fs::symlink("tickets.toml", &link).unwrap();
        assert_eq!(rotate(&link).keys, 2);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(load(&path).unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_broken_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tickets.toml");
        rotate(&path, false, ("a test", SystemTime::now()), random()).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let set_mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        set_mode(0o640);
        assert!(matches!(
            load(&path),
            Err(KeyFileError::Read(ReadError::Exposed { .. }))
        ));
        set_mode(0o600);
        let secret = good.split("secret = \"").nth(1).unwrap();
        let secret = secret.split('"').next().unwrap();
        let broken = [
            good.replace("epoch = 0", "epoch = -1"),
            good.replace(secret, "c2hvcnQ="),
            good.replace("id = \"", "id = \"x"),
            good.replace("made_at = \"", "made_at = \"x"),
            good.replace("secret = \"", ""),
            good.replace("secret = \"", "")
                .replace(secret, &format!("{secret}\" = 1 #")),
            good.replace("epoch = 0", &format!("epoch = \"{secret}\"")),
            good.replace(
                "epoch = 0",
                &format!("{} = 0", secret.trim_end_matches('=')),
            ),
            format!("{good}{}", good.split("\n\n").nth(1).unwrap()),
            good.split("\n\n").next().unwrap().to_owned(),
            String::new(),
        ];
        for text in broken {
            fs::write(&path, &text).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(!error.contains(&secret[..20]), "{error}");
            assert!(rotate(&path, false, ("a test", SystemTime::now()), random()).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
