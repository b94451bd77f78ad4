//! Connections to sockets that stand in files. In: a path. Out: a connection, or at once why there is none. On the threads of
//! commands, and at the start of a process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// Connects without waiting for room in the other side's queue, which may never come: any process may listen there, and may
/// accept nothing.
///
/// # Errors
/// As connect(2) says; `WouldBlock` where the queue is full.
pub fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(OwnedFd::from(socket).into())
}
