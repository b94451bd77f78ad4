//! The kernel program's maps: what is counted, what is held against sources, what operators say, the settings.
//! In: maps that were just made, or pinned ones of a gateway that may not run any more. Out: their contents, and
//! changes to them. On the control thread or in a command; workers have handles of their own, see `source_admission`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use gateway_common::{
    ACCOUNTS_MAP, Account, BANS_MAP, Ban, FLOWS_MAP, Flow, FlowKey, LISTS_MAP, LOST_MAP, Listed,
    Overflow, PortCounter, SETTINGS_MAP, Settings, Source,
};
use gateway_core::sources::{Lists, SourceState};

use super::GuardError;
use super::layout::PodValue;
use super::ports::Ports;

/// What arrived for one protected port, over all CPUs and interfaces, since its maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCount {
    /// TCP destination port.
    pub port: u16,
    /// TCP packets as they arrived. Where the host itself is the sender, or the network card merges segments, one
    /// packet may be many on the wire.
    pub packets: u64,
    /// Bytes of those packets from the Ethernet header on.
    pub bytes: u64,
    /// The same packets by what became of them, and the port's flows by how they came out.
    pub counter: PortCounter,
}

/// The map of bans.
pub(super) type Bans = HashMap<MapData, PodValue<Source>, PodValue<Ban>>;
/// The map of flows.
pub(super) type Flows = HashMap<MapData, PodValue<FlowKey>, PodValue<Flow>>;
/// The map of operators' lists.
pub(super) type ListMap = LpmTrie<MapData, [u8; 16], u8>;

/// All maps that user space reads or writes.
pub struct Maps {
    ports: Ports,
    accounts: HashMap<MapData, PodValue<Source>, PodValue<Account>>,
    bans: Bans,
    flows: Flows,
    lists: ListMap,
    settings: Array<MapData, PodValue<Settings>>,
    lost: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// Takes each map from `open`, by its name.
    pub(super) fn open(
        open: impl Fn(&'static str) -> Result<Map, GuardError>,
    ) -> Result<Self, GuardError> {
        Ok(Self {
            ports: Ports::open(&open)?,
            accounts: typed(open(ACCOUNTS_MAP)?)?,
            bans: typed(open(BANS_MAP)?)?,
            flows: typed(open(FLOWS_MAP)?)?,
            lists: typed(open(LISTS_MAP)?)?,
            settings: typed(open(SETTINGS_MAP)?)?,
            lost: typed(open(LOST_MAP)?)?,
        })
    }

    /// The maps of an object that has been loaded.
    pub(super) fn of(loaded: &Ebpf) -> Result<Self, GuardError> {
        Self::open(|name| map_of(loaded, name))
    }

    /// Counters of every protected port, by port.
    ///
    /// # Errors
    /// When the kernel does not lend its counters.
    pub fn counts(&self) -> Result<Vec<PortCount>, GuardError> {
        self.ports.counts()
    }

    /// The protected ports: the kernel looks at packets to these and at no others.
    pub(super) fn ports(&mut self) -> &mut Ports {
        &mut self.ports
    }

    /// What the kernel holds against each source it knows, by address; of an IPv6 /64, its first address. An entry that
    /// is pushed out or made while they are read may be missing.
    ///
    /// # Errors
    /// When the kernel does not lend its maps.
    pub fn sources(&self) -> Result<BTreeMap<IpAddr, SourceState>, GuardError> {
        let mut sources: BTreeMap<IpAddr, SourceState> = BTreeMap::new();
        for entry in self.accounts.iter() {
            let (source, PodValue(account)) = known(entry)?;
            sources.entry(address_of(source)).or_default().account = account;
        }
        for (source, ban) in self.bans()? {
            sources.entry(address_of(source)).or_default().ban = Some(ban);
        }
        Ok(sources)
    }

    /// The last ban of each source that ever had one and was not forgotten, in force or past.
    ///
    /// # Errors
    /// When the kernel does not lend its map.
    pub fn bans(&self) -> Result<Vec<(Source, Ban)>, GuardError> {
        self.bans
            .iter()
            .map(|entry| known(entry).map(|(source, PodValue(ban))| (source, ban)))
            .collect()
    }

    /// Bans a source from now on.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn ban(&mut self, source: Source, ban: Ban) -> Result<(), GuardError> {
        self.bans
            .insert(PodValue(source), PodValue(ban), 0)
            .map_err(|error| GuardError::counters(&error))
    }

    /// Lifts and forgets a ban, and what the source owed. Says whether there was one.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn unban(&mut self, source: Source) -> Result<bool, GuardError> {
        if let Ok(PodValue(account)) = self.accounts.get(&PodValue(source), 0) {
            let forgiven = Account {
                clear_at_ns: 0,
                ..account
            };
            self.accounts
                .insert(PodValue(source), PodValue(forgiven), 0)
                .map_err(|error| GuardError::counters(&error))?;
        }
        removed(self.bans.remove(&PodValue(source)))
    }

    /// Lifts and forgets every ban. Returns how many there were.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn unban_all(&mut self) -> Result<usize, GuardError> {
        let mut lifted = 0;
        for (source, _) in self.bans()? {
            lifted += usize::from(removed(self.bans.remove(&PodValue(source)))?);
        }
        Ok(lifted)
    }

    /// The settings in force.
    ///
    /// # Errors
    /// When the kernel does not lend its map.
    pub fn settings(&self) -> Result<Settings, GuardError> {
        let PodValue(settings) = self
            .settings
            .get(&0, 0)
            .map_err(|error| GuardError::counters(&error))?;
        Ok(settings)
    }

    /// Puts other settings in force.
    pub(super) fn set(&mut self, settings: Settings) -> Result<(), GuardError> {
        self.settings
            .set(0, PodValue(settings), 0)
            .map_err(|error| GuardError::counters(&error))
    }

    /// Puts other lists in force: first adds what is new, then removes what is gone, so that a source on both lists is never
    /// off them.
    pub(super) fn set_lists(&mut self, lists: &Lists) -> Result<(), GuardError> {
        let entry = |(network, listed): (ipnet::Ipv6Net, Listed)| {
            let bits = u32::from(network.prefix_len());
            ((bits, network.addr().octets()), listed.byte())
        };
        let wanted: BTreeMap<_, _> = lists.networks().map(entry).collect();
        for ((bits, address), byte) in &wanted {
            self.lists
                .insert(&Key::new(*bits, *address), byte, 0)
                .map_err(|error| GuardError::counters(&error))?;
        }
        let gone: Vec<Key<[u8; 16]>> = self
            .lists
            .keys()
            .filter_map(Result::ok)
            .filter(|key| !wanted.contains_key(&(key.prefix_len(), key.data())))
            .collect();
        for key in gone {
            self.lists
                .remove(&key)
                .map_err(|error| GuardError::counters(&error))?;
        }
        Ok(())
    }

    /// Forgets every open flow: those of a process that has ended without seeing its sockets to their end.
    pub(super) fn forget_flows(&mut self) -> Result<usize, GuardError> {
        let stale: Vec<_> = self.flows.keys().filter_map(Result::ok).collect();
        for key in &stale {
            // It may have ended meanwhile.
            let _ = self.flows.remove(key);
        }
        let accounts: Vec<_> = self.accounts.iter().filter_map(Result::ok).collect();
        for (source, PodValue(account)) in accounts {
            if account.pending > 0 {
                let none = Account {
                    pending: 0,
                    ..account
                };
                self.accounts
                    .insert(source, PodValue(none), 0)
                    .map_err(|error| GuardError::counters(&error))?;
            }
        }
        Ok(stale.len())
    }

    /// What the kernel had no room for, by what it was.
    ///
    /// # Errors
    /// When the kernel does not lend its map.
    pub fn overflows(&self) -> Result<Vec<(Overflow, u64)>, GuardError> {
        let count = |overflow: Overflow| {
            let values = self
                .lost
                .get(&overflow.key(), 0)
                .map_err(|error| GuardError::counters(&error))?;
            Ok((overflow, values.iter().sum()))
        };
        Overflow::ALL.into_iter().map(count).collect()
    }

    /// Flows that are open now.
    ///
    /// # Errors
    /// When the kernel does not lend its map.
    pub fn open_flows(&self) -> Result<usize, GuardError> {
        let mut open = 0;
        for key in self.flows.keys() {
            key.map_err(|error| GuardError::counters(&error))?;
            open += 1;
        }
        Ok(open)
    }
}

/// A map of an object that has been loaded: another descriptor for it, so that several can hold it.
pub(super) fn map_of(loaded: &Ebpf, name: &str) -> Result<Map, GuardError> {
    let map = loaded.map(name).ok_or(GuardError::foreign(name))?;
    let data = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuArray(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data) => data,
        _ => return Err(GuardError::foreign(name)),
    };
    let descriptor = data
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| GuardError::counters(&error))?;
    MapData::from_fd(descriptor)
        .and_then(Map::from_map_data)
        .map_err(|error| GuardError::counters(&error))
}

/// Whether there was something to remove: of a key that is not there aya says so only when it is looked up.
fn removed(outcome: Result<(), MapError>) -> Result<bool, GuardError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(false)
        }
        Err(error) => Err(GuardError::counters(&error)),
    }
}

/// A map as what it must be.
pub(super) fn typed<T>(map: Map) -> Result<T, GuardError>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(map).map_err(|error| GuardError::counters(&error))
}

fn known<T: aya::Pod>(
    entry: Result<(PodValue<Source>, T), MapError>,
) -> Result<(Source, T), GuardError> {
    let (PodValue(source), value) = entry.map_err(|error| GuardError::counters(&error))?;
    Ok((source, value))
}

/// The address that a source is shown by.
pub fn address_of(Source(address): Source) -> IpAddr {
    Ipv6Addr::from(address).to_canonical()
}

/// The source that an address belongs to.
pub fn source_of(address: IpAddr) -> Source {
    Source::of(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_shown_by_the_address_they_begin_at() {
        let table = [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1:2", "2001:db8::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ];
        for (address, shown) in table {
            let source = source_of(address.parse().unwrap());
            assert_eq!(
                address_of(source),
                shown.parse::<IpAddr>().unwrap(),
                "{address}"
            );
        }
    }
}
