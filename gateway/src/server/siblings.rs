//! The processes of one gateway that run at once: one serves, others drain after it took over from them, or one is about to take
//! over. In: a change of the block list that one of them has made. Out: the others' answers, when all of their workers act by it.
//! Each process has a socket of its own in the run folder, from before it reads the list until it ends. On the thread that
//! changes the list; bounded in number and time.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gateway_core::limits;

use super::Matching;
use super::{ChangeError, Changed};
use crate::blocks::News;
use crate::config::Paths;
use crate::control::ClaimError;
use crate::control::protocol::{self, Acted};
use crate::control::{AskError, Client};

/// The other processes of the gateway, and the socket by which they reach this one. Dropping it removes the socket.
#[derive(Debug)]
pub struct Siblings {
    folder: PathBuf,
    own: PathBuf,
    /// Held while a change is made and told to the others, so that they get all changes in order.
    turn: Mutex<()>,
}

/// The other processes' answers to a change.
#[derive(Debug, Default)]
pub struct SiblingAnswers {
    /// Their clients that it matches.
    pub matching: Matching,
    /// Their connections that were closed for it.
    pub closed: usize,
    /// Those that have not confirmed it, and why.
    pub unreached: Vec<String>,
}

impl Siblings {
    /// Receives changes from now on. They wait in the socket's queue until it is served, so this process acts by every change that
    /// comes after it has read the list.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(paths: &Paths) -> Result<(Self, UnixListener), ClaimError> {
        let new = paths.run.join(Paths::new_socket());
        let own = paths.run.join(Paths::sibling_socket());
        let bind = || {
            let _ = std::fs::remove_file(&new);
            let listener = UnixListener::bind(&new)?;
            std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            // A socket gets its name only when it listens: one that refuses was left by a process that has ended.
            std::fs::rename(&new, &own)?;
            Ok(listener)
        };
        let listener = bind().map_err(|error| ClaimError::File(new.clone(), error))?;
        let siblings = Siblings {
            folder: paths.run.clone(),
            own,
            turn: Mutex::new(()),
        };
        Ok((siblings, listener))
    }

    /// Makes a change, and waits until the other processes act by it too.
    ///
    /// # Errors
    /// When it cannot be made; the others do not hear of it then.
    pub fn change_and_tell(
        &self,
        change: impl FnOnce() -> Result<Changed, ChangeError>,
    ) -> Result<(Changed, SiblingAnswers), ChangeError> {
        // Acting by another process's change does not take this lock: no two processes wait for each other.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change()?;
        let answers = self.tell(&changed.news);
        Ok((changed, answers))
    }

    fn tell(&self, news: &News) -> SiblingAnswers {
        let mut all = SiblingAnswers::default();
        let others = match self.others() {
            Ok(others) => others,
            Err(error) => {
                let folder = self.folder.display();
                all.unreached.push(format!("{folder}: {error}"));
                return all;
            }
        };
        let (asked, beyond) = others.split_at(others.len().min(limits::RUNNING_GATEWAYS_MAX));
        let unasked = beyond.iter().map(|path| path.display());
        all.unreached
            .extend(unasked.map(|path| format!("{path}: there are too many to ask")));
        // All at once: a stuck process does not delay the others.
        let answers: Vec<_> = std::thread::scope(|scope| {
            let asking = asked.iter().map(|path| {
                let ask = move || ask(path, news);
                (path, std::thread::Builder::new().spawn_scoped(scope, ask))
            });
            // Begun before the first is waited for.
            let asking: Vec<_> = asking.collect();
            let wait =
                |(path, asking): (&PathBuf, io::Result<std::thread::ScopedJoinHandle<_>>)| {
                    let failed = |error: &str| Err(format!("{}: {error}", path.display()));
                    match asking.map(|thread| thread.join()) {
                        Ok(Ok(answer)) => answer,
                        Ok(Err(_)) => failed("the request to it failed: the log says why"),
                        Err(error) => failed(&error.to_string()),
                    }
                };
            asking.into_iter().map(wait).collect()
        });
        for answer in answers {
            match answer {
                Ok(None) => {}
                Ok(Some(acted)) => {
                    all.matching.extend(Matching::from_text(&acted.clients));
                    all.closed += acted.closed;
                }
                Err(why) => {
                    tracing::error!("a change of the block list: {why}");
                    all.unreached.push(why);
                }
            }
        }
        all
    }

    /// The sockets of the others.
    fn others(&self) -> io::Result<Vec<PathBuf>> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(Paths::is_sibling_socket) && path != self.own {
                others.push(path);
            }
        }
        Ok(others)
    }

    /// Hides this process from the others.
    pub fn leave(&self) {
        // Gone in the meantime is as good.
        let _ = std::fs::remove_file(&self.own);
    }
}

impl Drop for Siblings {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Tells one of them. Returns `None` where it has ended.
fn ask(path: &Path, news: &News) -> Result<Option<Acted>, String> {
    let asked = Client::at(path.to_owned()).and_then(|(client, peer)| {
        let client = client.patient(limits::SIBLING_ANSWER_TIMEOUT)?;
        Ok((client, peer))
    });
    let (client, peer) = match asked {
        Ok(asked) => asked,
        Err(AskError::NotRunning(_)) => {
            // Left by a process that was killed, or that has just ended.
            let _ = std::fs::remove_file(path);
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    if !peer.is_owner() {
        return Err(format!("{peer} is not of this gateway's user"));
    }
    match client.post(protocol::HEED, news) {
        Ok(acted) => Ok(Some(acted)),
        Err(_) if has_ended(path) => Ok(None),
        Err(error) => Err(format!("{peer}: {error}")),
    }
}

fn has_ended(path: &Path) -> bool {
    matches!(Client::at(path.to_owned()), Err(AskError::NotRunning(_)))
}
