//! The gateways that run on this host, whatever their names. In: folders where control sockets may be, and the users to
//! believe. Out: those that answer, with what they say of themselves. In commands that do not find the gateway that is
//! meant, on their main thread. Bounded in number and time.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_core::limits;

use super::client::Client;
use super::protocol::Status;
use crate::config::Paths;

/// A gateway that has answered.
#[derive(Debug, Clone)]
pub struct RunningGateway {
    /// Its name and folders.
    pub paths: Paths,
    /// What it says of itself.
    pub status: Status,
}

/// The gateways whose run folders stand below one of `bases`, or that the kernel knows a control socket of, unix(7). Only
/// what a process of root, of this user or of one of `users` says is believed: a command would trust it with what it is
/// told. What any other user has put on this host is neither asked nor counted.
pub fn running(bases: &[PathBuf], users: &[u32]) -> Vec<RunningGateway> {
    let below = bases.iter().filter_map(|base| fs::read_dir(base).ok());
    let below = below.flatten().flatten().map(|entry| entry.path());
    // As they were bound: each has been put in its place since, with all its folder.
    let bound = procfs::net::unix().unwrap_or_default().into_iter();
    let bound = bound.filter_map(|socket| {
        let path = socket.path?;
        let is_ours = path.file_name().is_some_and(Paths::is_new_socket);
        is_ours.then(|| path.parent().map(Path::to_owned)).flatten()
    });
    let folders: BTreeSet<PathBuf> = below
        .chain(bound)
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .collect();
    let own = [0, rustix::process::geteuid().as_raw()];
    let believed = [users, &own].concat();
    let folders = folders.into_iter();
    let folders = folders.filter(|run| is_believed(run, &believed));
    let folders = folders.take(limits::RUNNING_GATEWAYS_MAX);
    folders.filter_map(|run| ask(run, &believed)).collect()
}

/// Whether a run folder and the control socket in it are of one of `users`, and no other user can put anything there.
fn is_believed(run: &Path, users: &[u32]) -> bool {
    let folder = fs::symlink_metadata(run);
    let is_folder = folder.is_ok_and(|found| {
        let is_private = found.mode() & 0o002 == 0;
        found.is_dir() && is_private && users.contains(&found.uid())
    });
    let socket = fs::symlink_metadata(run.join(Paths::CONTROL_SOCKET));
    is_folder
        && socket.is_ok_and(|found| found.file_type().is_socket() && users.contains(&found.uid()))
}

fn ask(run: PathBuf, users: &[u32]) -> Option<RunningGateway> {
    let (client, peer) = Client::at(run.join(Paths::CONTROL_SOCKET)).ok()?;
    // The file may be another one by now.
    if !users.contains(&peer.user) {
        return None;
    }
    let status = client.status().ok()?;
    let paths = Paths {
        name: Arc::from(status.name.as_str()),
        state: status.state_folder.clone(),
        run,
    };
    Some(RunningGateway { paths, status })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_folders_and_sockets_of_believed_users_are_asked() {
        const OWN: &[u32] = &[];
        let base = tempfile::tempdir().unwrap();
        let me = rustix::process::geteuid().as_raw();
        let make = |name: &str| {
            let run = base.path().join(name);
            fs::create_dir(&run).unwrap();
            let listener = UnixListener::bind(run.join(Paths::CONTROL_SOCKET)).unwrap();
            (run, listener)
        };
        let (own, _own) = make("own");
        assert!(is_believed(&own, &[me]));
        // Where every user may put a socket, whatever user made the folder.
        let (open, _open) = make("open");
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        assert!(!is_believed(&open, &[me]));
        // Of no user that is believed.
        assert!(!is_believed(&own, OWN));
        let (linked, _) = make("linked");
        let socket = linked.join(Paths::CONTROL_SOCKET);
        fs::remove_file(&socket).unwrap();
        assert!(!is_believed(&linked, &[me]), "there is none");
        symlink(own.join(Paths::CONTROL_SOCKET), &socket).unwrap();
        assert!(!is_believed(&linked, &[me]), "it is elsewhere");
        fs::remove_file(&socket).unwrap();
        fs::write(&socket, "").unwrap();
        assert!(!is_believed(&linked, &[me]), "it is no socket");
    }
}
