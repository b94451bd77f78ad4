//! Notes on bans by hand: why, by which account and when, which the kernel's map has no room for. In: a file in the gateway's
//! state folder. Out: the note on a ban. The bans themselves stand in the kernel alone: without the file, or with a broken
//! one, they hold all the same.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gateway::config::Paths;
use gateway_common::Ban;
use gateway_core::limits;
use gateway_files::{JsonFault, LockError, lock, make_private, reason, replace};
use gateway_x509::file;
use serde::{Deserialize, Serialize};

use super::shown::source_name;

/// Why there are no notes, or none were made.
#[derive(Debug, thiserror::Error)]
pub enum NotesError {
    /// The file cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Read(PathBuf, file::ReadError),
    /// It holds something else.
    #[error("{}: holds no notes: {}; move it away to begin anew", .0.display(), .1)]
    Broken(PathBuf, JsonFault),
    /// It cannot be written.
    #[error("{}: cannot be written: {}", .0.display(), reason(.1))]
    Write(PathBuf, io::Error),
    /// Another process writes it.
    #[error("{}: {}", .0.display(), .1)]
    Locked(PathBuf, LockError),
}

/// What stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    bans: Vec<BanNote>,
}

/// On one ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanNote {
    source: String,
    /// When the ban ends by the kernel's clock. That tells it from every other ban of the source, and from those before
    /// the host was started anew.
    until_ns: u64,
    /// In the operator's words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The operator's account.
    pub by: String,
    /// When, to the second.
    at: String,
}

impl BanNote {
    /// A note on a ban that was made just now.
    pub fn new(source: &IpAddr, ban: &Ban, by: String, reason: Option<String>) -> Self {
        Self {
            source: source_name(source),
            until_ns: ban.until_ns,
            reason,
            by,
            at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }

    fn is_on(&self, source: &IpAddr, ban: &Ban) -> bool {
        self.until_ns == ban.until_ns && self.source == source_name(source)
    }
}

impl Notes {
    /// Reads the notes. No file is no notes.
    pub fn load(path: &Path) -> Result<Self, NotesError> {
        let bytes = match file::file(path, limits::GUARD_NOTES_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(file::ReadError::Open(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(NotesError::Read(path.to_owned(), error)),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| NotesError::Broken(path.to_owned(), error.into()))
    }

    /// The note on a ban, if there is one.
    pub fn find(&self, source: &IpAddr, ban: &Ban) -> Option<&BanNote> {
        self.bans.iter().find(|note| note.is_on(source, ban))
    }

    /// Adds a note while no other process does, and drops those on bans that are not there any more.
    pub fn add<'a>(
        paths: &Paths,
        note: BanNote,
        bans: impl Iterator<Item = (&'a IpAddr, &'a Ban)> + Clone,
    ) -> Result<(), NotesError> {
        let path = paths.ban_notes();
        make_private(&paths.state).map_err(|error| NotesError::Write(path.clone(), error))?;
        // A file that is reached through a link stays where it is.
        let path = fs::canonicalize(&path)
            .or_else(|_| std::path::absolute(&path))
            .map_err(|error| NotesError::Write(path.clone(), error))?;
        let _lock = lock(&path).map_err(|error| NotesError::Locked(path.clone(), error))?;
        let mut notes = Self::load(&path)?;
        notes
            .bans
            .retain(|note| bans.clone().any(|(source, ban)| note.is_on(source, ban)));
        notes.bans.push(note);
        let failed = |error| NotesError::Write(path.clone(), error);
        let text = serde_json::to_string_pretty(&notes).map_err(|error| failed(error.into()))?;
        replace(&path, &paths.state, &(text + "\n")).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn note(source: &IpAddr, ban: &Ban) -> BanNote {
        BanNote::new(source, ban, "tester".to_owned(), Some("a test".to_owned()))
    }

    #[test]
    fn a_note_is_found_by_its_ban_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below("test", folder.path(), folder.path()).unwrap();
        let path = paths.ban_notes();
        assert_eq!(Notes::load(&path).unwrap(), Notes::default());

        let (one, other) = (ip("192.0.2.1"), ip("2001:db8::"));
        let ban = Ban::by_operator(0, 1000, 500);
        let longer = Ban::by_operator(0, 1000, 5000);
        Notes::add(&paths, note(&one, &ban), [].into_iter()).unwrap();
        let bans = [(&one, &ban)];
        Notes::add(&paths, note(&other, &ban), bans.into_iter()).unwrap();
        let notes = Notes::load(&path).unwrap();
        let found = notes.find(&one, &ban).unwrap();
        assert_eq!(found.reason.as_deref(), Some("a test"));
        assert!(notes.find(&other, &ban).is_some());
        assert_eq!(notes.find(&one, &longer), None, "of another ban");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(
            mode & 0o137,
            0,
            "no other user reads it, and nobody runs it"
        );

        Notes::add(&paths, note(&one, &longer), [].into_iter()).unwrap();
        let notes = Notes::load(&path).unwrap();
        assert_eq!(notes.bans, [note(&one, &longer)]);
    }

    #[test]
    fn what_is_broken_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below("test", folder.path(), folder.path()).unwrap();
        let path = paths.ban_notes();
        fs::create_dir_all(&paths.state).unwrap();
        fs::write(&path, "{").unwrap();
        let ban = Ban::by_operator(0, 1000, 500);
        let source = ip("192.0.2.1");
        let refused = Notes::add(&paths, note(&source, &ban), [].into_iter());
        assert!(
            matches!(refused, Err(NotesError::Broken(..))),
            "{refused:?}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }
}
