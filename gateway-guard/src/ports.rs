//! The protected ports. In: those of the listeners. Out: a slot for each among the kernel program's counters, and what
//! was counted there. On the control thread, or in a command.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use gateway_common::{
    PORT_COUNTS_MAP, PORT_COUNTS_PORTS_MAX, PORTS_ENTRIES, PORTS_MAP, PortCounter, PortKey, Slot,
};

use super::GuardError;
use super::layout::PodValue;
use super::maps::{PortCount, typed};

/// The protected ports, in order, with their slots.
pub(super) struct Ports {
    ports: Array<MapData, Slot>,
    counts: PerCpuArray<MapData, PodValue<PortCounter>>,
    slots: BTreeMap<PortKey, Slot>,
}

impl Ports {
    /// The ports that the maps say are protected.
    pub(super) fn open(
        open: impl Fn(&'static str) -> Result<Map, GuardError>,
    ) -> Result<Self, GuardError> {
        let ports: Array<MapData, Slot> = typed(open(PORTS_MAP)?)?;
        let mut slots = BTreeMap::new();
        for (index, port) in (0..PORTS_ENTRIES).zip(0..=PortKey::MAX) {
            let slot = ports
                .get(&index, 0)
                .map_err(|error| GuardError::counters(&error))?;
            if slot != 0 {
                slots.insert(port, slot);
            }
        }
        Ok(Self {
            ports,
            counts: typed(open(PORT_COUNTS_MAP)?)?,
            slots,
        })
    }

    /// How many can be protected is asked before the kernel is.
    pub(super) fn ensure_room(ports: &BTreeSet<PortKey>) -> Result<(), GuardError> {
        if ports.len() > PORT_COUNTS_PORTS_MAX as usize {
            return Err(GuardError::TooManyPorts { count: ports.len() });
        }
        Ok(())
    }

    /// Protects these ports and no others. One that is protected already, in maps that were there before, keeps its slot
    /// and what was counted in it.
    pub(super) fn protect(&mut self, ports: &BTreeSet<PortKey>) -> Result<(), GuardError> {
        Self::ensure_room(ports)?;
        let slots = assign(&self.slots, ports);
        for (port, slot) in &slots {
            if self.slots.get(port) != Some(slot) {
                self.clear(*slot)?;
            }
        }
        let unprotected = self.slots.keys().filter(|port| !slots.contains_key(port));
        let changes = unprotected
            .map(|port| (*port, 0))
            .chain(slots.iter().map(|(port, slot)| (*port, *slot)));
        for (port, slot) in changes {
            self.ports
                .set(port.into(), slot, 0)
                .map_err(|error| GuardError::counters(&error))?;
        }
        self.slots = slots;
        Ok(())
    }

    /// The ports that are protected.
    pub(super) fn protected(&self) -> BTreeSet<PortKey> {
        self.slots.keys().copied().collect()
    }

    /// Counters of every protected port, by port. They are read while the kernel writes them: a sum over the CPUs may
    /// mix moments, by the few packets that arrive meanwhile.
    pub(super) fn counts(&self) -> Result<Vec<PortCount>, GuardError> {
        let count = |(port, slot): (&PortKey, &Slot)| {
            let values = self
                .counts
                .get(&u32::from(*slot), 0)
                .map_err(|error| GuardError::counters(&error))?;
            let mut counter = PortCounter::ZERO;
            for PodValue(of_cpu) in values.iter() {
                counter.add(of_cpu);
            }
            Ok(PortCount {
                port: *port,
                packets: counter.packets,
                bytes: counter.bytes,
                counter,
            })
        };
        self.slots.iter().map(count).collect()
    }

    /// Sets all counters of a slot to zero, on all CPUs.
    fn clear(&mut self, slot: Slot) -> Result<(), GuardError> {
        let cpus = nr_cpus().map_err(|(path, error)| GuardError::Counters {
            reason: format!("{path}: {error}"),
        })?;
        let zeros = vec![PodValue(PortCounter::ZERO); cpus];
        let zeros = PerCpuValues::try_from(zeros).map_err(|error| GuardError::Counters {
            reason: error.to_string(),
        })?;
        self.counts
            .set(slot.into(), zeros, 0)
            .map_err(|error| GuardError::counters(&error))
    }
}

/// A slot for each port: the one it has, else the lowest that no port has or had. There are as many as there may be ports,
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
