//! Attaching the XDP program to interfaces: natively where the driver can, else generically. In: a loaded program, names
//! of interfaces, and where attachments are pinned. Out: how it is attached to each. What an earlier process of this
//! gateway has attached is replaced in one step, so that there is no packet between the two.

use std::os::unix::net::UnixDatagram;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp, XdpMode};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use super::error::{GuardError, Refusal, explain, refusal_of};
use super::pins::Pins;

/// Longest interface name the kernel knows (IFNAMSIZ without the final zero).
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Where the program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// How the kernel calls the program there.
    pub mode: AttachMode,
}

/// How the kernel calls the program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before a packet buffer is even allocated.
    Native,
    /// In the network stack, for drivers without XDP: every packet pays for a buffer first.
    Generic,
}

impl AttachMode {
    /// The word for logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// An attachment to the interface that had this index then.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) index: u32,
    pub(super) mode: AttachMode,
    /// Where the attachment is not pinned: it ends with this.
    _link: Option<XdpLink>,
}

/// Attaches to one interface, and pins the attachment where there is a place for it.
pub(super) fn attach_to(
    program: &mut Xdp,
    interface: &str,
    pins: Option<&Pins>,
) -> Result<Attached, GuardError> {
    let index = index_of(interface)?;
    let (link, mode) = match pins.and_then(|pins| take_over(program, index, pins)) {
        Some(taken_over) => taken_over,
        None => attach_anew(program, interface)?,
    };
    let link = program
        .take_link(link)
        .map_err(|error| GuardError::load(&error))?;
    let Some(pins) = pins else {
        return Ok(Attached {
            index,
            mode,
            _link: Some(link),
        });
    };
    let path = pins.interface_path(index, mode);
    let link: FdLink = link.try_into().map_err(|error| GuardError::load(&error))?;
    // The descriptor is closed again: the pin alone holds it, so that removing the pin detaches.
    link.pin(&path)
        .map_err(|error| GuardError::pins(&path, &std::io::Error::other(error)))?;
    Ok(Attached {
        index,
        mode,
        _link: None,
    })
}

/// Detaches from every interface that is not to be guarded any more.
pub(super) fn leave_others(pins: &Pins, interfaces: &[String]) -> Result<(), GuardError> {
    let mut wanted = Vec::new();
    for interface in interfaces {
        wanted.extend(index_if_there(interface)?);
    }
    for (index, mode) in pins.interfaces()? {
        if !wanted.contains(&index) {
            let path = pins.interface_path(index, mode);
            std::fs::remove_file(&path).map_err(|error| GuardError::pins(&path, &error))?;
        }
    }
    Ok(())
}

pub(super) fn index_of(interface: &str) -> Result<u32, GuardError> {
    index_if_there(interface)?.ok_or_else(|| GuardError::no_such_interface(interface))
}

/// The index of an interface; `None` where there is none of that name. An error says nothing about the interface: where no
/// descriptor is left to ask with, it is there as it was.
pub(super) fn index_if_there(interface: &str) -> Result<Option<u32>, GuardError> {
    let length = interface.len();
    // Names that no interface can have would not all survive the way to the kernel.
    if length == 0 || length > INTERFACE_NAME_BYTES_MAX || interface.contains('\0') {
        return Ok(None);
    }
    // Any socket will do: the kernel is asked about the network namespace that it is in.
    let socket = UnixDatagram::unbound().map_err(|error| GuardError::interfaces(&error))?;
    match name_to_index(&socket, interface) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(error) => Err(GuardError::interfaces(&error.into())),
    }
}

/// Puts this program in the place of the one that an earlier process has attached. `None` where there is none, or where
/// its attachment died with its interface.
fn take_over(program: &mut Xdp, index: u32, pins: &Pins) -> Option<(XdpLinkId, AttachMode)> {
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let Ok(pinned) = PinnedLink::from_pin(pins.interface_path(index, mode)) else {
            continue;
        };
        let link = pinned.unpin().ok()?;
        let link = XdpLink::try_from(link).ok()?;
        match program.attach_to_link(link) {
            Ok(link) => return Some((link, mode)),
            Err(error) => {
                let reason = explain(&error);
                tracing::info!(interface = index, reason, "an old attachment is dead");
                return None;
            }
        }
    }
    None
}

fn attach_anew(program: &mut Xdp, interface: &str) -> Result<(XdpLinkId, AttachMode), GuardError> {
    let native = match program.attach(interface, XdpMode::Driver) {
        Ok(link) => {
            tracing::info!(interface, mode = "native", "kernel program attached");
            return Ok((link, AttachMode::Native));
        }
        Err(error) => worth_another_try(interface, error)?,
    };
    match program.attach(interface, XdpMode::Skb) {
        Ok(link) => {
            let reason = explain(&native);
            tracing::warn!(
                interface,
                mode = "generic",
                reason,
                "kernel program attached in generic mode, without the driver's help"
            );
            Ok((link, AttachMode::Generic))
        }
        Err(error) => Err(GuardError::NotAttachable {
            interface: interface.to_owned(),
            native: explain(&native),
            generic: explain(&worth_another_try(interface, error)?),
        }),
    }
}

/// Gives the error back if another mode of attachment could still work.
fn worth_another_try(interface: &str, error: ProgramError) -> Result<ProgramError, GuardError> {
    match refusal_of(&error) {
        Refusal::Capability => Err(GuardError::MissingCapability {
            reason: format!("{interface}: {}", explain(&error)),
        }),
        Refusal::Busy => Err(GuardError::InterfaceBusy {
            interface: interface.to_owned(),
            reason: explain(&error),
        }),
        Refusal::NoDevice => Err(GuardError::no_such_interface(interface)),
        Refusal::Other => Ok(error),
    }
}
