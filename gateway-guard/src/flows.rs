//! The life of flows: the programs on the gateway's cgroup that open them, take verdicts on them and close them. In: a
//! cgroup. Out: attached programs, pinned where there is a place for it. Before the workers start, on the thread that has
//! the privileges.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::PoisonError;

use aya::programs::{CgroupSockopt, ProgramError, SockOps};
use gateway_common::{LIFE_PROGRAM, VERDICT_PROGRAM};
use gateway_core::sources::SourceState;

use super::link::{CgroupHook, attach, pin};
use super::{Guard, GuardError};

impl Guard {
    /// Follows the flows of every socket that processes in `cgroup` make from now on: their begin, their verdict by
    /// [`super::send_verdict`], their end. Follows an earlier listener if it was made there.
    ///
    /// # Errors
    /// What the kernel refused. Nothing is attached then.
    pub fn follow_flows(&mut self, cgroup: impl AsFd) -> Result<(), GuardError> {
        let loaded = self
            .loaded
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // Verdicts first: an open flow must be able to get one.
        let verdicts: &mut CgroupSockopt = program(loaded, VERDICT_PROGRAM)?;
        verdicts.load().map_err(|error| GuardError::load(&error))?;
        let descriptor = verdicts.fd().map_err(|error| GuardError::load(&error))?;
        let verdict_link = attach(descriptor, &cgroup, CgroupHook::SetSockOpt)
            .map_err(|error| GuardError::load(&error))?;
        let life: &mut SockOps = program(loaded, LIFE_PROGRAM)?;
        life.load().map_err(|error| GuardError::load(&error))?;
        let descriptor = life.fd().map_err(|error| GuardError::load(&error))?;
        let life_link = attach(descriptor, &cgroup, CgroupHook::SockOps)
            .map_err(|error| GuardError::load(&error))?;
        match &self.pins {
            Some(pins) => {
                take_over(verdict_link, &pins.path(VERDICT_PROGRAM))?;
                take_over(life_link, &pins.path(LIFE_PROGRAM))?;
            }
            None => self.links.extend([verdict_link, life_link]),
        }
        Ok(())
    }

    /// Has the kernel verify the programs of `follow_flows`, and attaches none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn load_flows(&mut self) -> Result<(), GuardError> {
        let loaded = self
            .loaded
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let verdicts: &mut CgroupSockopt = program(loaded, VERDICT_PROGRAM)?;
        verdicts.load().map_err(|error| GuardError::load(&error))?;
        let life: &mut SockOps = program(loaded, LIFE_PROGRAM)?;
        life.load().map_err(|error| GuardError::load(&error))
    }

    /// What the kernel holds against each source it knows.
    ///
    /// # Errors
    /// When the kernel does not lend its maps.
    pub fn sources(&self) -> Result<BTreeMap<IpAddr, SourceState>, GuardError> {
        self.lock().sources()
    }
}

/// Pins an attachment in the place of an earlier process's, which ends with that. For a moment both are attached: the
/// program does nothing twice.
fn take_over(link: OwnedFd, path: &Path) -> Result<(), GuardError> {
    let unpinned = match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    // The descriptor is closed again: the pin alone holds it, so that removing the pin detaches.
    unpinned
        .and_then(|()| pin(link, path))
        .map_err(|error| GuardError::pins(path, &error))
}

/// A program of the object, as what it must be.
pub(super) fn program<'a, T>(loaded: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut T, GuardError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    loaded
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(GuardError::foreign(name))
}
