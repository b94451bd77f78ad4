//! Process and user at the other end of a Unix socket, in plain numbers.
//! In: a connected socket. Out: the numbers of process and user, as the kernel has them. On any thread.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Process and user of the peer of a Unix socket when it connected (SO_PEERCRED, unix(7)). The process is 0 where it has no
/// number in the PID namespace of this one, which the types of `rustix` cannot say.
///
/// # Errors
/// When the socket is no Unix socket.
pub fn peer_of(socket: impl AsFd) -> io::Result<(i32, u32)> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed. The kernel writes at most `length` bytes, the size
    // of `credentials`, and how many they were to `length`; both outlive the call, and nothing else refers to them. Three
    // integers are valid whatever the bytes are.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    match outcome {
        0 if length as usize == size_of::<libc::ucred>() => Ok((credentials.pid, credentials.uid)),
        0 => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
