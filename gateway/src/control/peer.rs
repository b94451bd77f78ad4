//! The process at the other end of the control socket, by the kernel's word. In: a connected socket. Out: an account, for
//! the record.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

/// The process at the other end of a Unix socket when it connected, unix(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub user: u32,
    /// Its process id; `None` where this process has no number for it, because it runs in another PID namespace,
    /// pid_namespaces(7).
    pub process: Option<u32>,
}

impl Peer {
    /// That of a connected socket.
    ///
    /// # Errors
    /// When the socket is no Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let (process, user) = gateway_rt::peer_of(socket)?;
        let process = u32::try_from(process).ok().filter(|process| *process != 0);
        Ok(Peer { user, process })
    }

    /// Whether it may do whatever the gateway's own process may.
    pub fn is_owner(self) -> bool {
        self.user == 0 || self.user == rustix::process::geteuid().as_raw()
    }

    /// Its account; in the words of root where root speaks for another one.
    pub fn account(self, claimed: &str) -> String {
        match self.user {
            0 => claimed.to_owned(),
            user => account_name(user),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = account_name(self.user);
        match self.process {
            Some(process) => write!(formatter, "{account}, process {process}"),
            None => write!(formatter, "{account}, a process of another PID namespace"),
        }
    }
}

/// An account by name and number, as `kim (uid 1000)`.
pub fn account_name(user: u32) -> String {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = user.to_string();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then_some(name)
    });
    format!("{} (uid {number})", name.unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_kernel_names_the_peer_and_root_alone_speaks_for_others() {
        let (here, _there) = UnixStream::pair().unwrap();
        let peer = Peer::of(&here).unwrap();
        assert_eq!(peer.process, Some(std::process::id()));
        assert!(peer.is_owner());
        let root = Peer { user: 0, ..peer };
        assert_eq!(root.account("kim as root (uid 0)"), "kim as root (uid 0)");
        let other = Peer {
            user: 4_000_000_000,
            ..peer
        };
        assert_eq!(other.account("root (uid 0)"), "unknown (uid 4000000000)");
        assert!(!other.is_owner());
    }

    /// Set in the process that looks at its standard input from within a PID namespace of its own.
    const INSIDE: &str = "PORTCULLIS_TEST_PEER_INSIDE";

    #[test]
    fn a_peer_of_another_pid_namespace_is_known_by_its_user() {
        if std::env::var_os(INSIDE).is_some() {
            let peer = Peer::of(std::io::stdin()).unwrap();
            assert_eq!(peer.process, None);
            assert!(peer.is_owner());
            let said = peer.to_string();
            assert!(said.contains("another PID namespace"), "{said}");
            return;
        }
        let (here, _there) = UnixStream::pair().unwrap();
        let mut command = std::process::Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--pid", "--fork", "--kill-child"]);
        command.arg(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "control::peer::tests::a_peer_of_another_pid_namespace_is_known_by_its_user",
        ]);
        command.env(INSIDE, "1");
        command.stdin(std::os::fd::OwnedFd::from(here));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
}
