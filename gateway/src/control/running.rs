//! The gateways that run on this host, whatever they are called. In: folders where control sockets may be, and whom to believe.
//! Out: those that answer, with what they say of themselves. In commands that do not find the gateway that is meant, on their
//! main thread; bounded in number and time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::client::Client;
use super::protocol::Status;
use crate::config::Paths;
use crate::limits;

/// A gateway that has answered.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its name and folders.
    pub paths: Paths,
    /// What it says of itself.
    pub status: Status,
}

/// The gateways whose run folders stand below one of `bases`, or that the kernel knows a control socket of, unix(7). Only
/// what a process of root, of this user or of one of `users` says is believed: a command would trust it with what it is
/// told.
pub fn running(bases: &[PathBuf], users: &[u32]) -> Vec<Running> {
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
    let folders = folders.into_iter().take(limits::RUNNING_GATEWAYS_MAX);
    folders.filter_map(|run| ask(run, users)).collect()
}

fn ask(run: PathBuf, users: &[u32]) -> Option<Running> {
    let (client, peer) = Client::at(run.join(Paths::CONTROL_SOCKET)).ok()?;
    if !peer.is_owner() && !users.contains(&peer.user) {
        return None;
    }
    let status = client.status().ok()?;
    let paths = Paths {
        name: Arc::from(status.name.as_str()),
        state: status.state_folder.clone(),
        run,
    };
    Some(Running { paths, status })
}
