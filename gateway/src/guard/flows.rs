//! The life of flows: the programs on the gateway's cgroup that open, judge and close them, and what the kernel then
//! holds against their sources. In: a cgroup. Out: attached programs; accounts and bans. On the control thread.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;

use aya::maps::{HashMap, MapData};
use aya::programs::{CgroupAttachMode, CgroupSockopt, ProgramError, SockOps};
use gateway_common::{ACCOUNTS_MAP, Account, BANS_MAP, Ban, LIFE_PROGRAM, Source, VERDICT_PROGRAM};

use super::layout::Plain;
use super::{Guard, GuardError};

/// What the kernel holds against a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Its debt and open flows.
    pub account: Account,
    /// Its last ban, in force or past.
    pub ban: Option<Ban>,
}

impl Guard {
    /// Follows the flows of every socket made by processes in `cgroup` from now on, as long as the guard lives: opened,
    /// judged by [`super::say`], ended. A listener that exists already is followed if it was made there.
    ///
    /// # Errors
    /// What the kernel refused. Nothing is attached then.
    pub fn follow_flows(&mut self, cgroup: impl AsFd) -> Result<(), GuardError> {
        // Verdicts first: a flow that is open must be one that can be judged.
        let verdicts: &mut CgroupSockopt = program(&mut self.loaded, VERDICT_PROGRAM)?;
        verdicts.load().map_err(|error| GuardError::load(&error))?;
        let link = verdicts
            .attach(cgroup.as_fd(), CgroupAttachMode::Single)
            .map_err(|error| GuardError::load(&error))?;
        let attached = self.attach_life(cgroup);
        if attached.is_err() {
            let verdicts: &mut CgroupSockopt = program(&mut self.loaded, VERDICT_PROGRAM)?;
            verdicts
                .detach(link)
                .map_err(|error| GuardError::load(&error))?;
        }
        attached
    }

    fn attach_life(&mut self, cgroup: impl AsFd) -> Result<(), GuardError> {
        let life: &mut SockOps = program(&mut self.loaded, LIFE_PROGRAM)?;
        life.load().map_err(|error| GuardError::load(&error))?;
        life.attach(cgroup, CgroupAttachMode::Single)
            .map_err(|error| GuardError::load(&error))?;
        Ok(())
    }

    /// What the kernel holds against each source it knows, by address; of an IPv6 /64, its first address.
    ///
    /// # Errors
    /// When the kernel does not lend its maps.
    pub fn sources(&self) -> Result<BTreeMap<IpAddr, SourceState>, GuardError> {
        let mut sources: BTreeMap<IpAddr, SourceState> = BTreeMap::new();
        for (source, account) in self.entries::<Account>(ACCOUNTS_MAP)? {
            sources.entry(source).or_default().account = account;
        }
        for (source, ban) in self.entries::<Ban>(BANS_MAP)? {
            sources.entry(source).or_default().ban = Some(ban);
        }
        Ok(sources)
    }

    /// Entries of a map of sources. One that is pushed out or made while they are read may be missing.
    fn entries<T>(&self, name: &str) -> Result<Vec<(IpAddr, T)>, GuardError>
    where
        Plain<T>: aya::Pod,
    {
        let map = self.loaded.map(name).ok_or(GuardError::foreign(name))?;
        let map: HashMap<&MapData, Plain<Source>, Plain<T>> = map
            .try_into()
            .map_err(|error| GuardError::counters(&error))?;
        map.iter()
            .map(|entry| {
                let (Plain(Source(address)), Plain(value)) =
                    entry.map_err(|error| GuardError::counters(&error))?;
                Ok((Ipv6Addr::from(address).to_canonical(), value))
            })
            .collect()
    }
}

/// A program of the object, as what it must be.
fn program<'a, T>(loaded: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut T, GuardError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    loaded
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(GuardError::foreign(name))
}
