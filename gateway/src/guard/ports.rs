//! The protected ports. In: those of the listeners. Out: a slot for each among the kernel program's counters, and what
//! was counted there. On the control thread.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::{Array, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use gateway_common::{
    PORT_COUNTS_MAP, PORT_COUNTS_PORTS_MAX, PORTS_ENTRIES, PORTS_MAP, PortCounter, PortKey, Slot,
};

use super::layout::Plain;
use super::{GuardError, PortCount};

/// The protected ports, in order, with their slots.
#[derive(Debug)]
pub(super) struct Ports(BTreeMap<PortKey, Slot>);

impl Ports {
    /// How many can be protected is asked before the kernel is.
    pub fn ensure_room(ports: &BTreeSet<PortKey>) -> Result<(), GuardError> {
        if ports.len() > PORT_COUNTS_PORTS_MAX as usize {
            return Err(GuardError::TooManyPorts { count: ports.len() });
        }
        Ok(())
    }

    /// Protects these ports and no others. One that is protected already, in maps that were there before, keeps its slot
    /// and what was counted in it.
    pub fn protect(loaded: &mut Ebpf, ports: &BTreeSet<PortKey>) -> Result<Self, GuardError> {
        Self::ensure_room(ports)?;
        let before = protected(loaded)?;
        let slots = assign(&before, ports);
        for (port, slot) in &slots {
            if before.get(port) != Some(slot) {
                clear(loaded, *slot)?;
            }
        }
        let unprotected = before.keys().filter(|port| !slots.contains_key(port));
        let changes = unprotected
            .map(|port| (*port, 0))
            .chain(slots.iter().map(|(port, slot)| (*port, *slot)));
        let map = loaded
            .map_mut(PORTS_MAP)
            .ok_or(GuardError::foreign(PORTS_MAP))?;
        let mut map: Array<_, Slot> = map
            .try_into()
            .map_err(|error| GuardError::counters(&error))?;
        for (port, slot) in changes {
            map.set(port.into(), slot, 0)
                .map_err(|error| GuardError::counters(&error))?;
        }
        Ok(Self(slots))
    }

    /// Counters of every protected port, by port.
    pub fn counts(&self, loaded: &Ebpf) -> Result<Vec<PortCount>, GuardError> {
        let map = loaded
            .map(PORT_COUNTS_MAP)
            .ok_or(GuardError::foreign(PORT_COUNTS_MAP))?;
        let map: PerCpuArray<_, Plain<PortCounter>> = map
            .try_into()
            .map_err(|error| GuardError::counters(&error))?;
        let count = |(port, slot): (&PortKey, &Slot)| {
            let values = map
                .get(&u32::from(*slot), 0)
                .map_err(|error| GuardError::counters(&error))?;
            Ok(PortCount::of(*port, &values))
        };
        self.0.iter().map(count).collect()
    }
}

/// The ports that the maps say are protected.
fn protected(loaded: &Ebpf) -> Result<BTreeMap<PortKey, Slot>, GuardError> {
    let map = loaded
        .map(PORTS_MAP)
        .ok_or(GuardError::foreign(PORTS_MAP))?;
    let map: Array<_, Slot> = map
        .try_into()
        .map_err(|error| GuardError::counters(&error))?;
    let mut slots = BTreeMap::new();
    for (index, port) in (0..PORTS_ENTRIES).zip(0..=PortKey::MAX) {
        let slot = map
            .get(&index, 0)
            .map_err(|error| GuardError::counters(&error))?;
        if slot != 0 {
            slots.insert(port, slot);
        }
    }
    Ok(slots)
}

/// A slot for each port: the one it has, else the lowest that nobody has or had. There are as many as there may be ports,
/// so that the ports that go have to give theirs up only when there is no other.
fn assign(before: &BTreeMap<PortKey, Slot>, ports: &BTreeSet<PortKey>) -> BTreeMap<PortKey, Slot> {
    let mut slots: BTreeMap<PortKey, Slot> = ports
        .iter()
        .filter_map(|port| Some((*port, *before.get(port)?)))
        .collect();
    let taken: BTreeSet<Slot> = slots.values().copied().collect();
    let free = (1..=Slot::MAX).filter(|slot| !taken.contains(slot));
    let new: Vec<PortKey> = ports
        .iter()
        .copied()
        .filter(|port| !slots.contains_key(port))
        .collect();
    slots.extend(new.into_iter().zip(free));
    slots
}

/// Sets all counters of a slot to zero, on all CPUs.
fn clear(loaded: &mut Ebpf, slot: Slot) -> Result<(), GuardError> {
    let map = loaded
        .map_mut(PORT_COUNTS_MAP)
        .ok_or(GuardError::foreign(PORT_COUNTS_MAP))?;
    let mut map: PerCpuArray<_, Plain<PortCounter>> = map
        .try_into()
        .map_err(|error| GuardError::counters(&error))?;
    let cpus = nr_cpus().map_err(|(path, error)| GuardError::Counters {
        reason: format!("{path}: {error}"),
    })?;
    let zeros = vec![Plain(PortCounter::ZERO); cpus];
    let zeros = PerCpuValues::try_from(zeros).map_err(|error| GuardError::Counters {
        reason: error.to_string(),
    })?;
    map.set(slot.into(), zeros, 0)
        .map_err(|error| GuardError::counters(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_keeps_its_slot_and_a_new_one_gets_one_that_is_free() {
        let before = BTreeMap::from([(4317, 1), (4318, 2), (443, 3)]);
        let ports = BTreeSet::from([443, 4317, 9090, 11800]);
        let slots = assign(&before, &ports);
        let expected = BTreeMap::from([(443, 3), (4317, 1), (9090, 2), (11800, 4)]);
        assert_eq!(slots, expected);
    }

    #[test]
    fn there_is_a_slot_for_as_many_ports_as_may_be_protected() {
        let ports: BTreeSet<PortKey> = (1..=PortKey::from(Slot::MAX)).collect();
        assert!(Ports::ensure_room(&ports).is_ok());
        let slots = assign(&BTreeMap::from([(7, 255), (9, 1)]), &ports);
        let distinct: BTreeSet<Slot> = slots.values().copied().collect();
        assert_eq!((slots.len(), distinct.len()), (255, 255));
        assert!(
            !distinct.contains(&0),
            "zero is for ports that are not protected"
        );
    }
}
