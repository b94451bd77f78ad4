//! Folders of the gateway's own. In: a path. Out: a folder that its user and group can enter and no other user can.
//! On the main thread, at the start of a process and in commands.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Access, Gid, Mode, OFlags, Uid, access, fchown, open};

/// The user does all, the group speaks to sockets and reads, other users get nothing.
const MODE: u32 = 0o750;

/// Makes a folder where there is none, and those above it. One that root makes belongs to the owner of the folder it stands
/// in, who may be the gateway's user. Says whether it was made.
///
/// # Errors
/// When it cannot be made, or when every user may write to the one that is there: then any of them could replace what is
/// in it.
pub fn make_private(folder: &Path) -> io::Result<bool> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    match DirBuilder::new().mode(MODE).create(folder) {
        Ok(()) => {
            give_away(folder, &fs::metadata(parent)?)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            ensure_private(folder)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Gives the folder that was made just now to the owner of the one above it, who could have put a link in its place since: a
/// link is not followed.
fn give_away(folder: &Path, owner: &Metadata) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = open(folder, flags, Mode::empty())?;
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    // A user other than root owns what it makes, and cannot give it away.
    let _ = fchown(made, Some(user), Some(group));
    Ok(())
}

fn ensure_private(folder: &Path) -> io::Result<()> {
    let found = fs::metadata(folder)?;
    match (found.is_dir(), found.mode() & 0o002) {
        (true, 0) => Ok(()),
        (true, _) => Err(io::Error::other("every user may write to it: chmod o-w")),
        (false, _) => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// What `make_private` would come to, and whether this user can then make files there. Makes nothing.
///
/// # Errors
/// As `make_private`, and when no file can be made there.
pub fn look_private(folder: &Path) -> io::Result<()> {
    // A link that leads nowhere is in the way of a folder.
    if fs::symlink_metadata(folder).is_ok() {
        ensure_private(folder)?;
        return look_writable(folder);
    }
    for above in folder.ancestors().skip(1) {
        match fs::symlink_metadata(above) {
            Ok(_) => return look_writable(above),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Whether this user can make files in a folder. Makes nothing.
///
/// # Errors
/// When it is no folder, or does not let this user.
pub fn look_writable(folder: &Path) -> io::Result<()> {
    if !fs::metadata(folder)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_is_made_once_and_refused_where_every_user_may_write() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("run/edge");
        assert!(make_private(&own).unwrap());
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, MODE & !umask());
        assert!(!make_private(&own).unwrap());
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(
            make_private(&own)
                .unwrap_err()
                .to_string()
                .contains("chmod")
        );
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(make_private(&folder.path().join("file")).is_err());
    }

    /// As root, in a folder of the gateway's user, who puts a link in the place of what root makes there.
    #[test]
    fn a_folder_is_given_to_the_owner_of_the_one_above_and_no_link_is_followed() {
        const OWNER: u32 = 54_321;
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(OWNER), Some(OWNER)).unwrap();
        let own = folder.path().join("edge");
        assert!(make_private(&own).unwrap());
        assert_eq!(fs::metadata(&own).unwrap().uid(), OWNER);

        let wanted = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(wanted.path(), &link).unwrap();
        assert!(give_away(&link, &fs::metadata(folder.path()).unwrap()).is_err());
        assert_eq!(fs::metadata(wanted.path()).unwrap().uid(), 0);
    }

    /// That of this process, as a file shows it.
    fn umask() -> u32 {
        let folder = tempfile::tempdir().unwrap();
        let probe = folder.path().join("probe");
        DirBuilder::new().mode(0o777).create(&probe).unwrap();
        !fs::metadata(&probe).unwrap().mode() & 0o777
    }
}
