//! The name of a gateway belongs to one process. In: the folders that follow from the name. Out: a lock that is held until
//! the process ends or hands the name to the next one; or its present holder. On the main thread at the start.

use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gateway_core::limits;
use gateway_files::{connect_at_once, look_private, make_private, reason};
use rustix::fs::{Access, OFlags, access};
use rustix::io::Errno;

use super::client::{AskError, Client};
use super::protocol::{self, Status, Successor};
use crate::blocks::{BlockFile, BlockFileError};
use crate::config::Paths;

/// How often a process that waits for the lock looks.
const PAUSE: Duration = Duration::from_millis(5);
/// How often a process that takes over compares the block lists.
const LISTS_PAUSE: Duration = Duration::from_millis(100);

/// Why a process cannot have the name.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The folder for sockets cannot be made or used.
    #[error(
        "{}: cannot make or use the gateway's run folder: {}: make it, owned by the gateway's user, or move it with \
         `[paths] run`",
        .0.display(), reason(.1)
    )]
    Folder(PathBuf, io::Error),
    /// The lock or the socket in it cannot be made.
    #[error("{}: {}", .0.display(), reason(.1))]
    File(PathBuf, io::Error),
    /// Another process has it.
    #[error(
        "a gateway with the name \"{name}\" runs already{}: stop that one first, take over from it with \
         `portcullis run --takeover`, or give this one a `name` of its own",
        holder.map_or(String::new(), |id| format!(" (process {id})"))
    )]
    Taken {
        /// The name.
        name: String,
        /// Its process id, as far as it could be read.
        holder: Option<u32>,
    },
    /// Another process has it and does not answer.
    #[error("cannot take over from process {}: {error}: end it first", holder.map_or("(unknown)".to_owned(), |id| id.to_string()))]
    Silent {
        /// Its process id, as far as it could be read.
        holder: Option<u32>,
        /// What asking it came to.
        error: AskError,
    },
    /// It keeps its block list elsewhere.
    #[error(
        "the running process keeps its block list in {}: clients that are blocked there would get in here. Give this \
         one the same `[paths] state`",
        .0.display()
    )]
    OtherState(PathBuf),
    /// The file does not say what it acts by.
    #[error(
        "{}: is missing, or differs from the list of {entries} entries that process {process} acts by: clients that \
         are blocked there would get in here. `portcullis block` and `unblock` write the file anew from that list; do \
         so, and start again",
        list.display()
    )]
    OtherList {
        /// The file.
        list: PathBuf,
        /// How many it keeps out.
        entries: usize,
        /// Its process id.
        process: u32,
    },
    /// The list cannot be read.
    #[error(transparent)]
    List(#[from] BlockFileError),
    /// It does not give the name up, and says why.
    #[error("process {process} keeps the name: {why}")]
    Refused {
        /// Its process id.
        process: u32,
        /// What it said.
        why: String,
    },
    /// It did not give the name up.
    #[error("process {0} has not released the name: end it, and start again")]
    Kept(u32),
}

/// The name, held.
#[derive(Debug)]
pub struct Claim {
    lock: File,
    paths: Paths,
}

/// The process that holds the name until the next one is ready.
#[derive(Debug)]
pub struct Predecessor {
    lock: File,
    paths: Paths,
    status: Status,
}

impl Claim {
    /// Takes the name for this process; or, where another process holds it and is to be replaced, finds that.
    ///
    /// # Errors
    /// When another process holds it and is to stay, or does not answer; or there is no place for lock and socket.
    pub fn take(paths: &Paths, takes_over: bool) -> Result<Result<Claim, Predecessor>, ClaimError> {
        make_private(&paths.run).map_err(|error| ClaimError::Folder(paths.run.clone(), error))?;
        let failed = |error| ClaimError::File(paths.lock(), error);
        let mut lock = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o640)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(paths.lock())
            .map_err(failed)?;
        let paths = paths.clone();
        match lock.try_lock() {
            Ok(()) => Claim { lock, paths }.sign().map(Ok),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let holder = holder_of(&mut lock);
                if !takes_over {
                    let name = paths.name.to_string();
                    return Err(ClaimError::Taken { name, holder });
                }
                let status = status_of_holder(&paths);
                let status = status.map_err(|error| ClaimError::Silent { holder, error })?;
                Ok(Err(Predecessor {
                    lock,
                    paths,
                    status,
                }))
            }
        }
    }

    /// Whether there is a place for lock and socket, whatever process holds the name. Makes nothing.
    ///
    /// # Errors
    /// As `take`, when there is none.
    pub fn look(paths: &Paths) -> Result<(), ClaimError> {
        look_private(&paths.run).map_err(|error| ClaimError::Folder(paths.run.clone(), error))?;
        let (lock, failed) = (paths.lock(), |error| ClaimError::File(paths.lock(), error));
        match std::fs::symlink_metadata(&lock) {
            Err(_) => Ok(()),
            // As it is opened: links are not followed.
            Ok(found) if found.is_symlink() => Err(failed(Errno::LOOP.into())),
            Ok(_) => access(&lock, Access::READ_OK | Access::WRITE_OK)
                .map_err(|error| failed(error.into())),
        }
    }

    /// Leaves the process id in the lock, for the error of the next one.
    fn sign(mut self) -> Result<Self, ClaimError> {
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            lock.write_all(std::process::id().to_string().as_bytes())
        };
        write(&mut self.lock).map_err(|error| ClaimError::File(self.paths.lock(), error))?;
        Ok(self)
    }

    /// Puts the control socket where commands look for it, in the place of one that a process before this one has left. From then on
    /// that one knows that it has been taken over from.
    ///
    /// # Errors
    /// When it cannot be put there.
    pub fn publish(&self, socket: &mut BoundSocket) -> Result<(), ClaimError> {
        let path = self.paths.control_socket();
        // In one step: a command finds the old socket or this one.
        std::fs::rename(&socket.file, &path)
            .map_err(|error| ClaimError::File(path.clone(), error))?;
        socket.file = path;
        socket.is_published = true;
        Ok(())
    }

    /// The folders of the name.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }
}

/// A control socket that is bound and that no command finds yet. What is left of it goes with it, unless it was published.
#[derive(Debug)]
pub struct BoundSocket {
    file: PathBuf,
    /// Device and number of the file.
    identity: (u64, u64),
    is_published: bool,
}

impl BoundSocket {
    /// Binds it, beside the one that another process may have.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn bind(paths: &Paths) -> Result<(UnixListener, Self), ClaimError> {
        remove_left_sockets(paths);
        let file = paths.run.join(Paths::new_socket());
        let bind = || {
            let _ = std::fs::remove_file(&file);
            let listener = UnixListener::bind(&file)?;
            std::fs::set_permissions(&file, Permissions::from_mode(0o660))?;
            listener.set_nonblocking(true)?;
            let identity = identity_of(&file)?;
            Ok((listener, identity))
        };
        let (listener, identity) = bind().map_err(|error| ClaimError::File(file.clone(), error))?;
        let bound = BoundSocket {
            file,
            identity,
            is_published: false,
        };
        Ok((listener, bound))
    }

    /// Whether the file is still this socket's. Its number is given to no other file for as long as the socket is open.
    pub fn is_in_place(&self) -> bool {
        // Where it is gone, no other one is there.
        identity_of(&self.file).is_ok_and(|identity| identity == self.identity)
            || !self.file.exists()
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if !self.is_published {
            // Gone in the meantime is as good.
            let _ = std::fs::remove_file(&self.file);
        }
    }
}

fn identity_of(file: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(file)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes sockets of processes that were killed before they had published theirs.
fn remove_left_sockets(paths: &Paths) {
    let files = std::fs::read_dir(&paths.run)
        .into_iter()
        .flatten()
        .flatten();
    for file in files.map(|entry| entry.path()) {
        let is_unpublished = file.file_name().is_some_and(Paths::is_new_socket);
        let is_left = || {
            let refused = connect_at_once(&file);
            refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if is_unpublished && is_left() {
            let _ = std::fs::remove_file(&file);
        }
    }
}

impl Predecessor {
    /// What it said of itself.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Refuses to go on where the block list is not what it acts by: kept elsewhere, gone, or another one. This process would
    /// admit the clients that it has blocked.
    ///
    /// # Errors
    /// When it does.
    pub fn ensure_same_lists(&self, paths: &Paths) -> Result<(), ClaimError> {
        let theirs = &self.status.state_folder;
        if *theirs != paths.state {
            return Err(ClaimError::OtherState(theirs.clone()));
        }
        let holder = Some(self.status.process);
        let until = Instant::now() + limits::TAKEOVER_LISTS_TIMEOUT;
        let mut blocks = self.status.blocks.clone();
        let list = paths.block_list();
        loop {
            let is_written = blocks.unwritten.is_none();
            let is_same = || Ok::<_, ClaimError>(BlockFile::load(&list)?.digest == blocks.digest);
            if is_written && (blocks.entries == 0 || is_same()?) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(ClaimError::OtherList {
                    list,
                    entries: blocks.entries,
                    process: self.status.process,
                });
            }
            // A block may have come in between, and what is edited by hand is taken in a moment.
            std::thread::sleep(LISTS_PAUSE);
            let asked = Client::connect(paths).and_then(Client::status);
            blocks = asked
                .map_err(|error| ClaimError::Silent { holder, error })?
                .blocks;
        }
    }

    /// Makes it give the name up, now that this process serves by the configuration in `file`. It drains when the socket of this one is
    /// published, and takes the name back if it never is.
    ///
    /// # Errors
    /// When it does not.
    pub fn replace(self, file: &Path) -> Result<Claim, ClaimError> {
        let Predecessor {
            lock,
            paths,
            status,
        } = self;
        let successor = Successor {
            // The process before this one may run in another folder.
            configuration: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
        };
        let asked =
            Client::connect(&paths).and_then(|client| client.post(protocol::TAKE_OVER, &successor));
        match asked {
            Ok::<(), _>(()) => {}
            Err(AskError::Refused(why)) => {
                let process = status.process;
                return Err(ClaimError::Refused { process, why });
            }
            // It may have ended by itself: the lock says.
            Err(error) => {
                tracing::warn!(process = status.process, %error, "the previous process does not answer");
            }
        }
        let until = Instant::now() + limits::TAKEOVER_TIMEOUT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Claim { lock, paths }.sign(),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                }
                Err(_) => return Err(ClaimError::Kept(status.process)),
            }
        }
    }
}

/// What the process says that has the lock. One that has just started has no socket yet.
fn status_of_holder(paths: &Paths) -> Result<Status, AskError> {
    let until = Instant::now() + limits::TAKEOVER_LISTS_TIMEOUT;
    loop {
        match Client::connect(paths).and_then(Client::status) {
            Err(AskError::NotRunning(_)) if Instant::now() < until => std::thread::sleep(PAUSE),
            asked => return asked,
        }
    }
}

fn holder_of(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    (&*lock).take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_process_and_the_next_one_is_told_which() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let claim = Claim::take(&paths, false).unwrap().unwrap();
        let refused = Claim::take(&paths, false).unwrap_err().to_string();
        let own = format!("process {}", std::process::id());
        assert!(
            refused.contains(&own) && refused.contains("--takeover"),
            "{refused}"
        );
        // No process answers there.
        let refused = Claim::take(&paths, true).unwrap_err();
        assert!(matches!(refused, ClaimError::Silent { .. }), "{refused}");
        drop(claim);
        let claim = Claim::take(&paths, true).unwrap().unwrap();
        let (listener, mut socket) = BoundSocket::bind(&paths).unwrap();
        claim.publish(&mut socket).unwrap();
        assert!(socket.is_in_place());
        // The next process's, in its place.
        let (_next_listener, mut next) = BoundSocket::bind(&paths).unwrap();
        assert!(socket.is_in_place());
        claim.publish(&mut next).unwrap();
        assert!(next.is_in_place() && !socket.is_in_place());
        drop((listener, socket));
        assert!(next.is_in_place());
        // What was never published goes with its process.
        let (_listener, unpublished) = BoundSocket::bind(&paths).unwrap();
        drop(unpublished);
        let left = std::fs::read_dir(&paths.run).unwrap().count();
        assert_eq!(left, 2, "the lock and the socket");
    }

    #[test]
    fn a_process_that_refuses_to_give_the_name_up_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let claim = Claim::take(&paths, false).unwrap().unwrap();
        let (listener, mut socket) = BoundSocket::bind(&paths).unwrap();
        listener.set_nonblocking(false).unwrap();
        claim.publish(&mut socket).unwrap();
        std::thread::spawn(move || {
            for (code, body) in [
                (200, STATUS),
                (409, r#"{"error": "a block is in the way"}"#),
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).unwrap();
                write!(stream, "HTTP/1.0 {code} \r\n\r\n{body}").unwrap();
            }
        });
        let predecessor = Claim::take(&paths, true).unwrap().unwrap_err();
        let refused = predecessor.replace(Path::new("edge.toml")).unwrap_err();
        let said = refused.to_string();
        assert!(
            said.contains("a block is in the way") && said.contains("process 7"),
            "{said}"
        );
    }

    /// Of a process that has just started.
    const STATUS: &str = r#"{"name": "edge", "state": "serving", "version": "1", "process": 7, "started_at": "",
        "configuration": "/edge.toml", "state_folder": "/edge", "workers": [], "listeners": [], "guard": "off",
        "blocks": {"digest": null, "entries": 0, "closed": 0, "refused": null},
        "reloads": {"taken_at": null, "refused_at": null, "refused_because": null}}"#;
}
