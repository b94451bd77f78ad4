//! Everything that the pinned maps say, at one moment. In: the pins. Out: plain values that the commands show. The maps
//! are read one after the other while the kernel writes them: counters may be a few packets apart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, SystemTime};

use gateway_common::{Account, Overflow, Settings, mode};
use gateway_core::sources::SourceState;
use gateway_guard::{
    AttachMode, Attachment, GuardError, LIFE_NS, Maps, Pins, PortCount, address_of, now_ns,
};
use rustix::net::netdevice::index_to_name;

/// What the guard knows at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// By the wall clock.
    pub at: SystemTime,
    /// By the kernel's monotonic clock, which every moment below is of.
    pub now_ns: u64,
    /// What the kernel program goes by.
    pub settings: Settings,
    /// Whether flows are followed.
    pub is_attached: bool,
    /// Where the programs check packets.
    pub attachments: Vec<Attachment>,
    /// What it has counted, by port.
    pub counts: Vec<PortCount>,
    /// What there was no room for.
    pub overflows: Vec<(Overflow, u64)>,
    /// What it holds against each source.
    pub sources: BTreeMap<IpAddr, SourceState>,
}

/// Whether a gateway answers for the kernel program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeat {
    /// None has yet.
    Never,
    /// One does, and has said so this long ago.
    Alive(Duration),
    /// None does any more, since this long.
    Gone(Duration),
}

impl Snapshot {
    /// Finds the pins of a gateway and reads all that is in them.
    ///
    /// # Errors
    /// When there are none, or one cannot be read: the text says where and what to do.
    pub fn take(name: &str) -> Result<Self, GuardError> {
        let pins = Pins::find(name)?;
        Self::read(&pins, &pins.maps()?)
    }

    /// Reads all that is pinned.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn read(pins: &Pins, maps: &Maps) -> Result<Self, GuardError> {
        Self::with_sources(pins, maps, maps.sources()?)
    }

    /// As [`Snapshot::take`], without the accounts: there may be tens of thousands.
    ///
    /// # Errors
    /// As there.
    pub fn take_bans(name: &str) -> Result<Self, GuardError> {
        let pins = Pins::find(name)?;
        let maps = pins.maps()?;
        let bans = maps.bans()?.into_iter();
        let sources = bans.map(|(source, ban)| {
            let state = SourceState {
                ban: Some(ban),
                ..SourceState::default()
            };
            (address_of(source), state)
        });
        Self::with_sources(&pins, &maps, sources.collect())
    }

    fn with_sources(
        pins: &Pins,
        maps: &Maps,
        sources: BTreeMap<IpAddr, SourceState>,
    ) -> Result<Self, GuardError> {
        let interfaces = pins.interfaces()?.into_iter();
        Ok(Self {
            at: SystemTime::now(),
            now_ns: now_ns(),
            settings: maps.settings()?,
            is_attached: pins.is_attached(),
            attachments: interfaces.map(attachment).collect(),
            counts: maps.counts()?,
            overflows: maps.overflows()?,
            sources,
        })
    }

    /// Whether a gateway answers for the kernel program.
    pub fn heartbeat(&self) -> Heartbeat {
        let until_ns = self.settings.alive_until_ns;
        if until_ns == 0 {
            return Heartbeat::Never;
        }
        match until_ns.checked_sub(self.now_ns) {
            Some(left) if left > 0 => {
                let left = Duration::from_nanos(left);
                Heartbeat::Alive(Duration::from_nanos(LIFE_NS).saturating_sub(left))
            }
            _ => Heartbeat::Gone(Duration::from_nanos(self.now_ns - until_ns)),
        }
    }

    /// Why bans and caps are not acted by, if they are not.
    pub fn why_nothing_is_dropped(&self) -> Option<String> {
        if !self.is_attached {
            return Some("the kernel program is not attached".to_owned());
        }
        match (self.heartbeat(), self.settings.mode) {
            (Heartbeat::Never | Heartbeat::Gone(_), _) => Some(
                "no gateway answers for the kernel program, so it lets everything pass".to_owned(),
            ),
            (Heartbeat::Alive(_), mode::ENFORCE) => None,
            (Heartbeat::Alive(_), mode) => {
                let mode = super::shown::mode_name(mode);
                Some(format!("mode is {mode:?}, which drops nothing"))
            }
        }
    }

    /// What is left of an account's debt, as time.
    pub fn debt_ns(&self, account: &Account) -> u64 {
        account.clear_at_ns.saturating_sub(self.now_ns)
    }

    /// What is left of an account's debt, in points.
    pub fn debt_points(&self, account: &Account) -> f64 {
        self.points(self.debt_ns(account))
    }

    /// The debt in points that is a ban when it is exceeded.
    pub fn ban_points(&self) -> f64 {
        self.points(self.settings.ban_debt_ns)
    }

    fn points(&self, debt_ns: u64) -> f64 {
        match self.settings.point_ns {
            0 => 0.0,
            point_ns => debt_ns as f64 / point_ns as f64,
        }
    }

    /// How many bans are in force.
    pub fn bans_in_force(&self) -> usize {
        let states = self.sources.values();
        states
            .filter(|state| state.ban.is_some_and(|ban| ban.holds(self.now_ns)))
            .count()
    }
}

/// What the pin of an attachment says. An interface that is gone, or of another network namespace, has no name here.
fn attachment((index, mode): (u32, AttachMode)) -> Attachment {
    // Any socket will do: the kernel is asked about the network namespace that it is in.
    let name = UnixDatagram::unbound()
        .ok()
        .and_then(|socket| index_to_name(&socket, index).ok());
    Attachment {
        interface: name.unwrap_or_else(|| format!("number {index}")),
        mode,
    }
}

/// Values for the tests of everything that shows them.
#[cfg(test)]
pub mod samples {
    use super::*;
    use gateway_common::{Ban, DropReason, PacketVerdict, PassReason, PortCounter, Reason};
    use gateway_guard::AttachMode;

    pub const SECOND_NS: u64 = 1_000_000_000;
    pub const NOW_NS: u64 = 5000 * SECOND_NS;

    /// A gateway that enforces, with one port, and no source known yet.
    pub fn quiet() -> Snapshot {
        Snapshot {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            now_ns: NOW_NS,
            settings: Settings {
                alive_until_ns: NOW_NS + 9 * SECOND_NS,
                ..Settings::new(mode::ENFORCE)
            },
            is_attached: true,
            overflows: Overflow::ALL.map(|overflow| (overflow, 0)).to_vec(),
            attachments: vec![Attachment {
                interface: "eth0".to_owned(),
                mode: AttachMode::Native,
            }],
            counts: vec![port_count(4317, PortCounter::ZERO)],
            sources: BTreeMap::new(),
        }
    }

    /// The same, some time into an attack.
    pub fn busy() -> Snapshot {
        let mut counter = PortCounter::ZERO;
        let mut snapshot = quiet();
        snapshot.overflows[Overflow::Flow.index()].1 = 7;
        counter.packets = 1500;
        counter.bytes = 200_000;
        counter.flows_opened = 40;
        counter.flows[Reason::Authenticated.index()] = 25;
        counter.flows[Reason::NotTls.index()] = 11;
        counter.packets_by_verdict[PacketVerdict::Passed(PassReason::Authenticated).index()] = 1000;
        counter.packets_by_verdict[PacketVerdict::Dropped(DropReason::Banned).index()] = 480;
        counter.packets_by_verdict[PacketVerdict::WouldDrop(DropReason::TooManyPending).index()] =
            20;
        snapshot.counts = vec![port_count(4317, counter)];
        let mut add = |address: &str, pending, debt_points: u64, ban| {
            let account = Account {
                clear_at_ns: NOW_NS + debt_points * snapshot.settings.point_ns,
                pending,
            };
            let address = address.parse().unwrap();
            snapshot
                .sources
                .insert(address, SourceState { account, ban });
        };
        add("192.0.2.1", 3, 50, None);
        add("192.0.2.2", 0, 0, None);
        add("192.0.2.3", 0, 20, Some(by_guard(20, 60)));
        add("192.0.2.4", 0, 0, Some(by_guard(-100, 10)));
        add("2001:db8::", 7, 0, Some(by_operator(3600)));
        snapshot
    }

    pub fn port_count(port: u16, counter: PortCounter) -> PortCount {
        PortCount {
            port,
            packets: counter.packets,
            bytes: counter.bytes,
            counter,
        }
    }

    /// A ban of the kernel's with so many seconds left.
    pub fn by_guard(left_seconds: i64, lasts_seconds: u64) -> Ban {
        Ban {
            until_ns: NOW_NS.wrapping_add_signed(left_seconds * SECOND_NS as i64),
            lasts_ns: lasts_seconds * SECOND_NS,
            reason: Reason::NotTls.index() as u32,
            operator: 0,
        }
    }

    /// A ban that root has just made.
    pub fn by_operator(lasts_seconds: u64) -> Ban {
        Ban::by_operator(0, NOW_NS, lasts_seconds * SECOND_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{NOW_NS, SECOND_NS, busy, quiet};
    use super::*;

    #[test]
    fn the_heartbeat_says_how_long_the_gateway_has_been_silent() {
        let seconds = Duration::from_secs;
        let table = [
            (0, Heartbeat::Never),
            (NOW_NS + 10 * SECOND_NS, Heartbeat::Alive(seconds(0))),
            (NOW_NS + SECOND_NS, Heartbeat::Alive(seconds(9))),
            (NOW_NS, Heartbeat::Gone(seconds(0))),
            (NOW_NS - 30 * SECOND_NS, Heartbeat::Gone(seconds(30))),
        ];
        let mut snapshot = quiet();
        for (alive_until_ns, expected) in table {
            snapshot.settings.alive_until_ns = alive_until_ns;
            assert_eq!(snapshot.heartbeat(), expected);
        }
    }

    #[test]
    fn a_ban_is_acted_by_only_in_enforce_with_a_gateway_that_lives() {
        let mut snapshot = quiet();
        assert_eq!(snapshot.why_nothing_is_dropped(), None);
        snapshot.settings.mode = mode::MONITOR;
        let why = snapshot.why_nothing_is_dropped().unwrap();
        assert!(why.contains("\"monitor\""), "{why}");
        snapshot.settings.mode = mode::ENFORCE;
        snapshot.settings.alive_until_ns = NOW_NS;
        let why = snapshot.why_nothing_is_dropped().unwrap();
        assert!(why.contains("no gateway"), "{why}");
    }

    #[test]
    fn past_bans_are_not_in_force() {
        assert_eq!(busy().bans_in_force(), 2);
    }
}
