//! The side of the commands: one request over the control socket, and its answer. In: the folders of a gateway, a message.
//! Out: the answer. On the main thread of a command, which waits; bounded in time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gateway_core::limits;
use gateway_files::connect_at_once;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::peer::Peer;
use super::protocol::{self, Failed, Status};
use crate::config::Paths;

/// How often a command looks whether the next process of a gateway has put its socket there.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No gateway of that name runs.
    #[error("no gateway of this name runs: nothing answers at {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error("{}: {}: run this as root, as the gateway's user, or in its group", .0.display(), .1)]
    NotAllowed(PathBuf, io::Error),
    /// There was no answer, or none that makes sense.
    #[error("the gateway does not answer at {}: {}", .0.display(), .1)]
    Silent(PathBuf, io::Error),
    /// The gateway has said no.
    #[error("{0}")]
    Refused(String),
}

/// A connection for one request.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
}

impl Client {
    /// Connects to the gateway.
    ///
    /// # Errors
    /// When there is none, or it is not for this user.
    pub fn connect(paths: &Paths) -> Result<Self, AskError> {
        let path = paths.control_socket();
        Self::of(path, connect(paths), limits::CONTROL_ANSWER_TIMEOUT)
    }

    /// Connects to the process that listens at this path, of which an answer is expected at once. Returns it too.
    ///
    /// # Errors
    /// As `connect`.
    pub fn at(path: PathBuf) -> Result<(Self, Peer), AskError> {
        let stream = connect_at_once(&path);
        let client = Self::of(path, stream, limits::RUNNING_ANSWER_TIMEOUT)?;
        let peer = Peer::of(&client.stream);
        match peer {
            Ok(peer) => Ok((client, peer)),
            Err(error) => Err(AskError::Silent(client.path, error)),
        }
    }

    /// Waits so long for each part of an answer from now on.
    ///
    /// # Errors
    /// When the socket does not take that.
    pub fn patient(self, timeout: Duration) -> Result<Self, AskError> {
        let Client { stream, path } = self;
        Self::of(path, Ok(stream), timeout)
    }

    fn of(
        path: PathBuf,
        stream: io::Result<UnixStream>,
        timeout: Duration,
    ) -> Result<Self, AskError> {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        AskError::NotRunning(path)
                    }
                    io::ErrorKind::PermissionDenied => AskError::NotAllowed(path, error),
                    io::ErrorKind::WouldBlock => {
                        let full = "its queue of connections is full";
                        AskError::Silent(path, io::Error::new(error.kind(), full))
                    }
                    _ => AskError::Silent(path, error),
                });
            }
        };
        let timeout = Some(timeout);
        let bounded = stream
            .set_read_timeout(timeout)
            .and_then(|()| stream.set_write_timeout(timeout));
        match bounded {
            Ok(()) => Ok(Client { stream, path }),
            Err(error) => Err(AskError::Silent(path, error)),
        }
    }

    /// Asks the gateway what it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(self) -> Result<Status, AskError> {
        self.get(protocol::STATUS)
    }

    /// GET.
    ///
    /// # Errors
    /// When the gateway refuses or does not answer.
    pub fn get<T: DeserializeOwned>(self, path: &str) -> Result<T, AskError> {
        self.exchange("GET", path, ("", None))
    }

    /// POST.
    ///
    /// # Errors
    /// When the gateway refuses or does not answer.
    pub fn post<T: DeserializeOwned>(
        self,
        path: &str,
        message: &impl Serialize,
    ) -> Result<T, AskError> {
        let body = serde_json::to_string(message);
        let body = body.map_err(|error| AskError::Silent(self.path.clone(), error.into()))?;
        self.exchange("POST", path, (&body, None))
    }

    /// As `post`, for what may take long: tells `still_waiting` now and then, and waits until the gateway has answered or gone.
    ///
    /// # Errors
    /// When the gateway refuses or ends.
    pub fn post_and_wait<T: DeserializeOwned>(
        self,
        path: &str,
        still_waiting: fn(),
    ) -> Result<T, AskError> {
        self.exchange("POST", path, ("null", Some(still_waiting)))
    }

    fn exchange<T: DeserializeOwned>(
        mut self,
        method: &str,
        path: &str,
        (body, still_waiting): (&str, Option<fn()>),
    ) -> Result<T, AskError> {
        // HTTP/1.0: the answer comes in one piece, and then the end.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let silent = |error| AskError::Silent(self.path.clone(), error);
        self.stream.write_all(request.as_bytes()).map_err(silent)?;
        let mut answer = Vec::new();
        let most = limits::CONTROL_ANSWER_BYTES_MAX as u64;
        loop {
            let left = most - answer.len() as u64;
            match (
                (&mut self.stream).take(left).read_to_end(&mut answer),
                still_waiting,
            ) {
                (Ok(_), _) => break,
                // What was read is kept.
                (Err(error), Some(still_waiting)) if error.kind() == io::ErrorKind::WouldBlock => {
                    still_waiting();
                }
                (Err(error), _) => return Err(silent(error)),
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        match head.split(' ').nth(1) {
            Some("200") => serde_json::from_str(body).map_err(|error| silent(error.into())),
            Some(_) => Err(AskError::Refused(
                serde_json::from_str(body)
                    .map_or(body.trim().to_owned(), |failed: Failed| failed.error),
            )),
            None => Err(silent(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Connects, and waits for the moment between two processes of one gateway: one has let the name go, the other has not put
/// its socket there yet. Waits as well for that in which many commands come at once.
fn connect(paths: &Paths) -> io::Result<UnixStream> {
    let until = Instant::now() + limits::CONTROL_CONNECT_PATIENCE;
    loop {
        let outcome = connect_at_once(&paths.control_socket());
        let may_pass = outcome.as_ref().is_err_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
            )
        });
        if !may_pass || Instant::now() >= until {
            return outcome;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    use std::sync::mpsc::channel;

    #[test]
    fn a_socket_whose_queue_is_full_is_silent_and_keeps_no_command_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        std::fs::create_dir_all(&paths.run).unwrap();
        let path = paths.control_socket();
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        // Of which the queue has room for one.
        let _waits = UnixStream::connect(&path).unwrap();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let answers = [
                Client::at(path).map(|_| ()),
                Client::connect(&paths).map(|_| ()),
            ];
            tell.send(answers).unwrap();
        });
        let answers = told.recv_timeout(Duration::from_secs(30));
        for answer in answers.expect("neither waits without end") {
            assert!(matches!(answer, Err(AskError::Silent(..))), "{answer:?}");
        }
    }
}
