//! The database of an authority's revoked certificates: a text file beside its certificate, `ca.revoked` for `ca.pem`.
//! In: serial numbers and names. Out: the same, after any number of runs. One line each, `SERIAL TIME NAME`: the serial
//! number in lower-case hexadecimal as `pki list` shows it, the time in RFC 3339, the name it was revoked by. Lines that
//! begin with `#` are comments. Replaced as a whole, under a lock on the directory; a line that cannot be read stops
//! everything, because without it the certificate would be admitted again.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gateway_core::limits;
use gateway_x509::file;
use rustix::fs::OFlags;

use super::PkiError;
use super::directory;

/// One revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Lower-case hexadecimal, two digits a byte.
    pub serial: String,
    /// When it was revoked, in whole seconds.
    pub at: SystemTime,
    /// The name of its file then.
    pub name: String,
}

impl Record {
    /// The serial number's bytes.
    pub fn serial_bytes(&self) -> Vec<u8> {
        let digits = |index| self.serial.get(index..index + 2);
        (0..self.serial.len())
            .step_by(2)
            .filter_map(|index| u8::from_str_radix(digits(index)?, 16).ok())
            .collect()
    }
}

/// The database of one authority.
#[derive(Debug)]
pub(super) struct RevocationDb {
    path: PathBuf,
    records: Vec<Record>,
}

/// Holds a directory for one process at a time, until dropped.
pub(super) fn lock(directory: &Path) -> Result<File, PkiError> {
    let flags = OFlags::DIRECTORY.bits().cast_signed();
    let opened = File::options()
        .read(true)
        .custom_flags(flags)
        .open(directory);
    let locked = opened.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| PkiError::FileSystem {
        path: directory.to_owned(),
        source,
    })
}

impl RevocationDb {
    /// Reads the database of the authority whose certificate is in `certificate_file`; none yet is an empty one.
    pub fn read(certificate_file: &Path) -> Result<Self, PkiError> {
        let path = certificate_file.with_extension("revoked");
        let absent = path
            .symlink_metadata()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let records = if absent {
            Vec::new()
        } else {
            let bytes = file::file(&path, limits::REVOCATION_DB_BYTES_MAX).map_err(|source| {
                PkiError::Read {
                    path: path.clone(),
                    source,
                }
            })?;
            parse(&bytes).map_err(|line| PkiError::RevocationDb {
                path: path.clone(),
                line,
            })?
        };
        Ok(RevocationDb { path, records })
    }

    /// Everything in it, in the order in which it was revoked.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What it says of a serial number.
    pub fn find(&self, serial: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.serial == serial)
    }

    /// Adds a record, on disk as well. The caller holds the lock since before it read the database.
    pub fn add(&mut self, record: Record) -> Result<(), PkiError> {
        self.records.push(record);
        directory::replace(&self.path, &text(&self.records))
    }
}

fn text(records: &[Record]) -> String {
    let mut text =
        "# Revoked certificates: serial number, time, name. `portcullis pki crl` makes the list of them.\n"
            .to_owned();
    for Record { serial, at, name } in records {
        let at = humantime::format_rfc3339_seconds(*at);
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{serial} {at} {name}");
    }
    text
}

/// The records, or the number of the first line that is none.
fn parse(bytes: &[u8]) -> Result<Vec<Record>, usize> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let mut records = Vec::new();
    for (index, line) in lines {
        let line = std::str::from_utf8(line).map_err(|_| index + 1)?.trim();
        if !line.is_empty() && !line.starts_with('#') {
            records.push(record(line).ok_or(index + 1)?);
        }
    }
    Ok(records)
}

fn record(line: &str) -> Option<Record> {
    let mut words = line.split_whitespace();
    let (serial, at, name) = (words.next()?, words.next()?, words.next()?);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    // 20 bytes at most (RFC 5280 section 4.1.2.2), and one more for the sign in DER.
    let good = serial.len().is_multiple_of(2) && serial.len() <= 42 && serial.bytes().all(is_digit);
    let at = humantime::parse_rfc3339(at).ok()?;
    // An older version wrote the zero that DER puts before a first bit of one.
    let significant = serial.trim_start_matches("00");
    let serial = if significant.is_empty() {
        "00"
    } else {
        significant
    };
    (good && words.next().is_none()).then(|| Record {
        serial: serial.to_owned(),
        at,
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    fn record_of(serial: &str, seconds: u64) -> Record {
        Record {
            serial: serial.to_owned(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            name: "agent-1".to_owned(),
        }
    }

    #[test]
    fn what_was_added_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = directory.path().join("ca.pem");
        let records = [record_of("5f00ff", 1_800_000_000), record_of("e1", 1)];
        for record in &records {
            let mut database = RevocationDb::read(&certificate).unwrap();
            assert_eq!(database.find(&record.serial), None);
            database.add(record.clone()).unwrap();
        }
        let database = RevocationDb::read(&certificate).unwrap();
        assert_eq!(database.records(), records);
        assert_eq!(database.find("e1"), Some(&records[1]));
        fs::write(
            directory.path().join("ca.revoked"),
            "00e1 1970-01-01T00:00:01Z agent-1\n",
        )
        .unwrap();
        let older = RevocationDb::read(&certificate).unwrap();
        assert_eq!(older.find("e1"), Some(&records[1]));
        assert_eq!(records[0].serial_bytes(), [0x5f, 0, 0xff]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = directory.path().join("ca.pem");
        for bad in [
            "5f",
            "5f 2026-01-01T00:00:00Z",
            "5f 2026-01-01T00:00:00Z agent more",
            "5f yesterday agent",
            "5 2026-01-01T00:00:00Z agent",
            "5F 2026-01-01T00:00:00Z agent",
            "\u{fffd}f 2026-01-01T00:00:00Z agent",
            "- \0",
        ] {
            let text = format!("# comment\n\n01 2026-01-01T00:00:00Z good\n{bad}\n");
            fs::write(directory.path().join("ca.revoked"), text).unwrap();
            let error = RevocationDb::read(&certificate).unwrap_err();
            assert!(
                matches!(error, PkiError::RevocationDb { line: 4, .. }),
                "{bad:?}: {error}"
            );
        }
    }

    #[test]
    fn revoking_at_the_same_time_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = directory.path().join("ca.pem");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let certificate = &certificate;
                let directory = directory.path();
                scope.spawn(move || {
                    let _lock = lock(directory).unwrap();
                    let mut database = RevocationDb::read(certificate).unwrap();
                    database
                        .add(record_of(&format!("{number:02x}"), 1))
                        .unwrap();
                });
            }
        });
        let database = RevocationDb::read(&certificate).unwrap();
        assert_eq!(database.records().len(), 16);
    }
}
