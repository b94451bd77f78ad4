//! User space's word on a flow. In: a client's socket and how its handshake came out. Out: a socket option that the
//! kernel program catches. On a worker, once per connection: one system call that never waits.
#![allow(
    unsafe_code,
    reason = "an option of our own is one that no library knows"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use gateway_common::{Reason, VERDICT_LEVEL};

/// Tells the kernel program how the handshake on `socket` came out. Works after the client is gone too, as long as the
/// socket is open; the first word on a flow is the one that counts.
///
/// # Errors
/// `ENOPROTOOPT` where the program does not know the flow: it is not attached, or the flow is older. `EBADF` and the
/// like for what is no socket.
pub fn send_verdict(socket: impl AsFd, reason: Reason) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    let name = libc::c_int::from(reason as u8);
    let value: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for the call, and the value is a local of the size that is said.
    let status = unsafe {
        libc::setsockopt(
            socket,
            VERDICT_LEVEL,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;

    #[test]
    fn without_the_program_the_kernel_does_not_know_the_option() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = send_verdict(&socket, Reason::Authenticated).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT), "{error}");
    }
}
