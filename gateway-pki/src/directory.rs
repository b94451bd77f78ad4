//! Files of an authority's directory: written whole or not at all, and never over another file, except for those whose
//! purpose is to be replaced: the database of revoked certificates, the list made from it, and what is renewed. Those keep
//! their owner. In: names and contents. Out: files, keys with mode 0600. A pair appears key first and is removed if it
//! cannot be completed.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use tempfile::NamedTempFile;

use super::{Issued, PkiError};

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// The two files that belong to a name.
pub(super) fn pair(directory: &Path, name: &str) -> Issued {
    Issued {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    }
}

/// Refuses early, before any work is done. `write_pair` refuses again, without a gap.
pub(super) fn refuse_existing(files: &Issued) -> Result<(), PkiError> {
    for path in [&files.certificate, &files.key] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(PkiError::Exists(path.clone()));
        }
    }
    Ok(())
}

/// Writes both files, or neither.
pub(super) fn write_pair(files: &Issued, certificate: &str, key: &str) -> Result<(), PkiError> {
    // Both are complete on disk before the first gets its name.
    let key_file = staged(&files.key, key, KEY_MODE)?;
    let certificate_file = staged(&files.certificate, certificate, CERTIFICATE_MODE)?;
    publish(key_file, &files.key)?;
    publish(certificate_file, &files.certificate).inspect_err(|_| {
        // The key was made here, an instant ago: nothing else can depend on it yet.
        let _ = fs::remove_file(&files.key);
    })
}

/// A complete file under a temporary name in the final directory, of the same owner as the one that it will replace.
fn staged(path: &Path, contents: &str, mode: u32) -> Result<NamedTempFile, PkiError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let stage = || -> io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new_in(directory)?;
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        // The gateway reads what root renews: it cannot read a key that comes to belong to another user.
        if let Ok(old) = fs::symlink_metadata(path) {
            let ours = file.as_file().metadata()?;
            if (old.uid(), old.gid()) != (ours.uid(), ours.gid()) {
                fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
            }
        }
        file.write_all(contents.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    stage().map_err(|source| PkiError::FileSystem {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file in the place of an older one; a reader gets one or the other, whole.
pub(super) fn replace(path: &Path, contents: &str) -> Result<(), PkiError> {
    let file = staged(path, contents, CERTIFICATE_MODE)?;
    match file.persist(path) {
        Ok(_) => Ok(()),
        Err(refused) => Err(PkiError::FileSystem {
            path: path.to_owned(),
            source: refused.error,
        }),
    }
}

/// Writes a certificate whose key is elsewhere.
pub(super) fn write_certificate(files: &Issued, certificate: &str) -> Result<(), PkiError> {
    publish(
        staged(&files.certificate, certificate, CERTIFICATE_MODE)?,
        &files.certificate,
    )
}

/// Puts a certificate, and a key if there is one, in the place of those before, and keeps the certificate before under
/// the name that is returned. Everything is complete on disk before the first file gets its name; then the key takes its
/// place, and the certificate an instant later. A reader in between has a pair that does not match, and reads again.
pub(super) fn replace_pair(
    files: &Issued,
    certificate: &str,
    key: Option<&str>,
    kept: &Path,
) -> Result<(), PkiError> {
    let failed = |path: &Path, source| PkiError::FileSystem {
        path: path.to_owned(),
        source,
    };
    let before = fs::read_to_string(&files.certificate)
        .map_err(|source| failed(&files.certificate, source))?;
    let key_file = key
        .map(|key| staged(&files.key, key, KEY_MODE))
        .transpose()?;
    let certificate_file = staged(&files.certificate, certificate, CERTIFICATE_MODE)?;
    match publish(staged(kept, &before, CERTIFICATE_MODE)?, kept) {
        // Left by a renewal that was cut off here.
        Err(PkiError::Exists(_)) if fs::read_to_string(kept).is_ok_and(|kept| kept == before) => {}
        other => other?,
    }
    if let Some(key_file) = key_file {
        let moved = key_file.persist(&files.key);
        moved.map_err(|refused| failed(&files.key, refused.error))?;
    }
    let moved = certificate_file.persist(&files.certificate);
    moved.map_err(|refused| failed(&files.certificate, refused.error))?;
    Ok(())
}

fn publish(file: NamedTempFile, path: &Path) -> Result<(), PkiError> {
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(PkiError::Exists(path.to_owned()))
        }
        Err(refused) => Err(PkiError::FileSystem {
            path: path.to_owned(),
            source: refused.error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pair_that_cannot_be_completed_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let files = pair(directory.path(), "agent");
        fs::write(&files.certificate, "in the way").unwrap();
        let refused = write_pair(&files, "certificate", "key").unwrap_err();
        assert!(matches!(refused, PkiError::Exists(path) if path == files.certificate));
        let left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert_eq!(left, std::slice::from_ref(&files.certificate));
        assert_eq!(
            fs::read_to_string(&files.certificate).unwrap(),
            "in the way"
        );
    }

    #[test]
    fn dangling_link_counts_as_existing() {
        let directory = tempfile::tempdir().unwrap();
        let files = pair(directory.path(), "agent");
        std::os::unix::fs::symlink("nowhere", &files.key).unwrap();
        assert!(
            matches!(refuse_existing(&files), Err(PkiError::Exists(path)) if path == files.key)
        );
        assert!(
            matches!(write_pair(&files, "c", "k"), Err(PkiError::Exists(path)) if path == files.key)
        );
    }
}
