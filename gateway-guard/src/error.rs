//! What can keep the kernel program from doing its work: the kernel's error numbers, translated once, at the edge.
//! In: errors of aya. Out: a `GuardError` that says what happened, where, and what to do. Pure.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::ProgramError;
use gateway_common::PORT_COUNTS_PORTS_MAX;
use rustix::io::Errno;

/// Why there is no guard, or no answer from it. Each text says what to do; the kernel's own words are part of it.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The process may not load or attach kernel programs.
    #[error(
        "not allowed to use the kernel program ({reason}): run as root, give the service both capabilities (systemd: \
         AmbientCapabilities=CAP_BPF CAP_NET_ADMIN), or do without the guard"
    )]
    MissingCapability {
        /// What the kernel refused.
        reason: String,
    },

    /// There is no interface to attach to.
    #[error("no interface to attach the kernel program to: name at least one")]
    NoInterface,

    /// An interface does not exist in this network namespace.
    #[error("interface {interface:?} does not exist: `ip link` lists those that do")]
    NoSuchInterface {
        /// Name that was asked for.
        interface: String,
    },

    /// Another XDP program is attached already.
    #[error(
        "interface {interface:?} has another XDP program ({reason}): `ip link show dev {interface}` names it, \
         `ip link set dev {interface} xdp off` removes one that was attached without a link; another portcullis \
         detaches when it ends"
    )]
    InterfaceBusy {
        /// Name of the interface.
        interface: String,
        /// What the kernel refused.
        reason: String,
    },

    /// Neither the driver nor the network stack takes the program.
    #[error(
        "the kernel program cannot be attached to interface {interface:?} (native: {native}; generic: {generic}): \
         leave this interface out"
    )]
    NotAttachable {
        /// Name of the interface.
        interface: String,
        /// What the driver said.
        native: String,
        /// What the network stack said.
        generic: String,
    },

    /// The kernel's verifier refuses the program.
    #[error(
        "the kernel refuses the program ({reason}): Linux 6.5 or later is needed, or do without the guard"
    )]
    Rejected {
        /// Error and the verifier's last lines.
        reason: String,
    },

    /// The object is not one of this gateway.
    #[error(
        "the kernel program's object is not usable ({reason}): rebuild it with `cargo xtask ebpf`"
    )]
    Object {
        /// What is wrong with it.
        reason: String,
    },

    /// More ports than the kernel program has room for.
    #[error("{count} ports to protect: the kernel program has room for {PORT_COUNTS_PORTS_MAX}")]
    TooManyPorts {
        /// Ports that were asked for.
        count: usize,
    },

    /// The maps can be used with a capability only, which the gateway does not keep.
    #[error(
        "the kernel asks for CAP_BPF whenever a map is used ({reason}): Linux 6.5 or later is needed, or do without the \
         guard"
    )]
    NeedsCapabilityLater {
        /// What the kernel refused.
        reason: String,
    },

    /// The kernel could not be asked about interfaces, which says nothing about them.
    #[error("the host's network interfaces cannot be looked up ({reason})")]
    Interfaces {
        /// What the kernel refused.
        reason: String,
    },

    /// The flows of the gateway's sockets cannot be followed.
    #[error(
        "the gateway's flows cannot be followed ({reason}): start it as a service of its own (systemd gives each a \
         cgroup), or do without the guard"
    )]
    Cgroup {
        /// What is missing.
        reason: String,
    },

    /// The programs are attached, and see nothing.
    #[error(
        "the kernel programs do not see the listeners ({reason}): is the gateway in the cgroup that /proc/self/cgroup \
         says it is in?"
    )]
    Unseen {
        /// What was tried.
        reason: String,
    },

    /// Maps or attachments cannot be pinned, or what is pinned cannot be used.
    #[error(
        "{}: {reason}: a bpffs is needed that the gateway's user may write to (`mount -t bpf bpf /sys/fs/bpf`)",
        path.display()
    )]
    Pins {
        /// Where.
        path: PathBuf,
        /// What the kernel refused.
        reason: String,
    },

    /// Nothing is pinned for a gateway.
    #[error(
        "no guard of a gateway with the name {name:?} has been pinned on this host{}: it does not run with [guard] mode = \
         \"monitor\" or \"enforce\", or cannot pin (its log says why), or was made by a version with another layout, \
         or has another name (--name). Bans of a gateway that runs without the kernel programs are in its own memory: put the \
         address on [guard] `allow` and `portcullis reload` to let it in",
        if *mounted { "" } else { " (there is no bpffs)" }
    )]
    NothingPinned {
        /// The gateway's name.
        name: String,
        /// Whether there is a bpffs at all.
        mounted: bool,
    },

    /// The counters could not be made or read.
    #[error("the kernel program's counters cannot be used ({reason})")]
    Counters {
        /// What the kernel refused.
        reason: String,
    },
}

impl GuardError {
    /// The object lacks a part that every object of ours has.
    pub(super) fn foreign(part: &str) -> Self {
        Self::Object {
            reason: format!("it has no {part:?}"),
        }
    }

    /// `interface` is not there.
    pub(super) fn no_such_interface(interface: &str) -> Self {
        Self::NoSuchInterface {
            interface: interface.to_owned(),
        }
    }

    /// Interfaces cannot be looked up.
    pub(super) fn interfaces(error: &io::Error) -> Self {
        Self::Interfaces {
            reason: explain(error),
        }
    }

    /// Something below `path` cannot be pinned or used.
    pub(super) fn pins(path: &Path, error: &io::Error) -> Self {
        Self::Pins {
            path: path.to_owned(),
            reason: explain(error),
        }
    }

    /// What is pinned at `path` is not for this process to see.
    pub(super) fn closed(path: &Path, error: &(dyn Error + 'static)) -> Self {
        Self::MissingCapability {
            reason: format!("{}: {}", path.display(), explain(error)),
        }
    }

    /// Maps could not be filled or read.
    pub(super) fn counters(error: &(dyn Error + 'static)) -> Self {
        Self::Counters {
            reason: explain(error),
        }
    }

    /// The object could not be parsed, its maps not created, or its program was not accepted.
    pub(super) fn load(error: &(dyn Error + 'static)) -> Self {
        let reason = explain(error);
        if refusal_of(error) == Refusal::Capability {
            Self::MissingCapability { reason }
        } else if errno_of(error).is_some() {
            Self::Rejected { reason }
        } else {
            Self::Object { reason }
        }
    }
}

/// What a refusal of the kernel means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A capability is missing.
    Capability,
    /// Something else is attached.
    Busy,
    /// The interface is not there, or is gone by now.
    NoDevice,
    /// Anything else: the mode may be to blame.
    Other,
}

/// What `error` says about why the kernel refused.
pub(super) fn refusal_of(error: &(dyn Error + 'static)) -> Refusal {
    if let Some(ProgramError::UnknownInterface { .. }) = error.downcast_ref() {
        return Refusal::NoDevice;
    }
    match errno_of(error) {
        // Not EACCES: the verifier says that of programs it does not believe.
        Some(Errno::PERM) => Refusal::Capability,
        Some(Errno::BUSY | Errno::EXIST) => Refusal::Busy,
        Some(Errno::NODEV) => Refusal::NoDevice,
        _ => Refusal::Other,
    }
}

fn errno_of(error: &(dyn Error + 'static)) -> Option<Errno> {
    chain(error)
        .find_map(|error| error.downcast_ref::<io::Error>())
        .and_then(Errno::from_io_error)
}

/// An error and its causes in one line, none twice; of the verifier's output, which fills pages, its last lines.
pub(super) fn explain(error: &(dyn Error + 'static)) -> String {
    if let Some(ProgramError::LoadError {
        io_error,
        verifier_log,
    }) = error.downcast_ref()
    {
        return format!("{io_error}; {}", last_lines(&verifier_log.to_string()));
    }
    let mut text = String::new();
    for part in chain(error).map(ToString::to_string) {
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    text
}

/// Where the verifier says what it did not like; the statistics behind that are of no use.
fn last_lines(verifier_output: &str) -> String {
    const LINES: usize = 3;
    let lines: Vec<&str> = verifier_output
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !is_statistics(line))
        .collect();
    if lines.is_empty() {
        return "the verifier says nothing".to_owned();
    }
    lines[lines.len().saturating_sub(LINES)..].join(" / ")
}

fn is_statistics(line: &str) -> bool {
    ["verification time", "stack depth", "processed "]
        .iter()
        .any(|start| line.starts_with(start))
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    use aya::EbpfError;
    use aya::sys::SyscallError;

    fn refused(number: i32) -> ProgramError {
        ProgramError::SyscallError(SyscallError {
            call: "bpf_link_create",
            io_error: io::Error::from_raw_os_error(number),
        })
    }

    #[test]
    fn error_numbers_become_what_they_mean_for_an_interface() {
        let table = [
            (Errno::PERM, Refusal::Capability),
            (Errno::BUSY, Refusal::Busy),
            (Errno::EXIST, Refusal::Busy),
            (Errno::NODEV, Refusal::NoDevice),
            (Errno::OPNOTSUPP, Refusal::Other),
            (Errno::RANGE, Refusal::Other),
            (Errno::ACCESS, Refusal::Other),
        ];
        for (number, refusal) in table {
            assert_eq!(
                refusal_of(&refused(number.raw_os_error())),
                refusal,
                "{number}"
            );
        }
    }

    #[test]
    fn the_kernels_own_words_are_part_of_the_explanation() {
        let text = explain(&refused(Errno::BUSY.raw_os_error()));
        assert_eq!(
            text,
            "`bpf_link_create` failed: Device or resource busy (os error 16)"
        );
    }

    #[test]
    fn causes_are_found_behind_any_number_of_layers() {
        let error = EbpfError::ProgramError(refused(Errno::PERM.raw_os_error()));
        assert_eq!(refusal_of(&error), Refusal::Capability);
        assert_eq!(
            explain(&error).matches("bpf_link_create").count(),
            1,
            "{}",
            explain(&error)
        );
    }

    #[test]
    fn a_missing_capability_at_load_says_how_to_give_it() {
        let error = GuardError::load(&refused(Errno::PERM.raw_os_error()));
        assert!(
            matches!(error, GuardError::MissingCapability { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("AmbientCapabilities"), "{error}");
    }

    #[test]
    fn of_a_verifier_log_only_the_end_is_told() {
        let log = "0: R1=ctx()\n1: call unknown#9999\ninvalid func unknown#9999\n\
                   verification time 3 usec\nstack depth 0\nprocessed 1 insns\n\n";
        assert_eq!(
            last_lines(log),
            "0: R1=ctx() / 1: call unknown#9999 / invalid func unknown#9999"
        );
        assert_eq!(last_lines(" \n"), "the verifier says nothing");
    }
}
