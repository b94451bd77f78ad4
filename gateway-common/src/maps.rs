//! Names, keys and values of the kernel program's maps, shared by both sides, with asserted sizes.
//! The kernel sees only bytes: it reads a layout that differs between the two sides without an error.

use crate::reason::{COUNTERS, PacketVerdict, Reason};

/// Version of everything below, and of the meaning of its numbers. It is part of the path at which maps are pinned,
/// because the kernel opens a pinned map by its name, whatever its layout. A test compares it with the layout.
pub const LAYOUT_VERSION: u32 = 1;

/// Name of the XDP program in the object: it evaluates packets.
pub const XDP_PROGRAM: &str = "portcullis";

/// Name of the sock_ops program in the object: it follows the life of flows.
pub const LIFE_PROGRAM: &str = "flow_life";

/// Name of the cgroup/setsockopt program in the object: it takes user space's verdicts.
pub const VERDICT_PROGRAM: &str = "flow_verdict";

/// Name of the program's constant that enables lines of aya-log, at debug level, about single flows and bans. It is a
/// byte; the loader sets it to one. Zero costs nothing: the kernel removes the code.
pub const DEBUG_GLOBAL: &str = "DEBUG";

/// Level of the socket option for verdicts. The option's name is the number of a [`Reason`]; its value has no
/// meaning. Without the program, or for an unknown flow, the kernel answers ENOPROTOOPT.
pub const VERDICT_LEVEL: i32 = 0x506f_7274;

/// Name of the array from a TCP port to its slot in [`PORT_COUNTS_MAP`]; zero if the port is not protected. An array,
/// since every packet reads it: half a megabyte saves a call.
pub const PORTS_MAP: &str = "PORTS";

/// Number of TCP ports.
pub const PORTS_ENTRIES: u32 = 1 << PortKey::BITS;

/// Name of the per-CPU array from a slot to the counters of its port. User space assigns the slots, from one on.
pub const PORT_COUNTS_MAP: &str = "PORT_COUNTS";

/// Number of slots, including the one of no port: 137 KiB of kernel memory per CPU, at 536 bytes each.
pub const PORT_COUNTS_ENTRIES: u32 = 1 << Slot::BITS;

/// Maximum of protected ports.
pub const PORT_COUNTS_PORTS_MAX: u32 = PORT_COUNTS_ENTRIES - 1;

/// Name of the hash from a `FlowKey` to its `Flow`.
pub const FLOWS_MAP: &str = "FLOWS";

/// Maximum of open flows in the map; packets of further flows pass. About 120 bytes each, allocated on demand.
pub const FLOWS_MAX: u32 = 262_144;

/// Name of the socket storage that holds a `SocketFlow`.
pub const SOCKET_FLOWS_MAP: &str = "SOCKET_FLOWS";

/// Name of the hash from a `Source` to its `Account`. A new account evicts the least recently used one; only a
/// complete three-way handshake makes one.
pub const ACCOUNTS_MAP: &str = "ACCOUNTS";

/// Maximum of accounts: 6 MiB of kernel memory, allocated at the start.
pub const ACCOUNTS_MAX: u32 = 65_536;

/// Name of the hash from a `Source` to its last `Ban`. Apart from the accounts, which come with every client: bans
/// come with failures only, so many new sources evict none.
pub const BANS_MAP: &str = "BANS";

/// Maximum of bans: 7 MiB of kernel memory, allocated at the start.
pub const BANS_MAX: u32 = 65_536;

/// Name of the prefix tree from addresses to the operator's lists: 1 allows, 2 denies.
pub const LISTS_MAP: &str = "LISTS";

/// Maximum of list entries: about 64 bytes each, allocated on demand.
pub const LISTS_MAX: u32 = 16_384;

/// Name of the array with the `Settings` as its only entry.
pub const SETTINGS_MAP: &str = "SETTINGS";

/// Name of the ring buffer of `BanEvent`s.
pub const EVENTS_MAP: &str = "EVENTS";

/// Bytes of the ring buffer: 4681 events of 48 bytes with the kernel's 8 before each.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Name of the per-CPU array of counters of overflows, a `u64` each at `Overflow::key`.
pub const LOST_MAP: &str = "LOST";

/// Key of [`PORTS_MAP`]: a TCP destination port in the host's byte order.
pub type PortKey = u16;

/// Value of [`PORTS_MAP`]: a port's index in [`PORT_COUNTS_MAP`], or zero.
pub type Slot = u8;

/// Value of [`PORT_COUNTS_MAP`]: what one CPU has seen of one port since the program was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PortCounter {
    /// TCP packets, retransmissions included.
    pub packets: u64,
    /// Bytes of their frames, from the Ethernet header on.
    pub bytes: u64,
    /// Packets by their verdict, at [`PacketVerdict::index`].
    pub packets_by_verdict: [u64; COUNTERS],
    /// Flows that have opened.
    pub flows_opened: u64,
    /// Flows by their reason, at [`Reason::index`].
    pub flows: [u64; COUNTERS],
}

impl PortCounter {
    /// Nothing seen.
    pub const ZERO: Self = Self {
        packets: 0,
        bytes: 0,
        packets_by_verdict: [0; COUNTERS],
        flows_opened: 0,
        flows: [0; COUNTERS],
    };

    /// Packets with this verdict.
    pub fn packets_with(&self, verdict: PacketVerdict) -> u64 {
        self.packets_by_verdict
            .get(verdict.index())
            .copied()
            .unwrap_or(0)
    }

    /// Flows with this reason.
    pub fn flow(&self, reason: Reason) -> u64 {
        self.flows.get(reason.index()).copied().unwrap_or(0)
    }

    /// Adds the counters of another CPU.
    pub fn add(&mut self, other: &Self) {
        let sum = |to: &mut [u64], from: &[u64]| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = to.wrapping_add(*from);
            }
        };
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.flows_opened = self.flows_opened.wrapping_add(other.flows_opened);
        sum(&mut self.packets_by_verdict, &other.packets_by_verdict);
        sum(&mut self.flows, &other.flows);
    }
}

impl Default for PortCounter {
    fn default() -> Self {
        Self::ZERO
    }
}

const _: () = assert!(size_of::<PortCounter>() == 8 * (2 + COUNTERS + 1 + COUNTERS));
// The kernel aligns values of hash maps to eight bytes.
const _: () = assert!(align_of::<PortCounter>() == 8);
// The kernel keeps fifteen bytes of a name.
const _: () = assert!(
    XDP_PROGRAM.len() <= 15
        && LIFE_PROGRAM.len() <= 15
        && VERDICT_PROGRAM.len() <= 15
        && PORT_COUNTS_MAP.len() <= 15
        && SOCKET_FLOWS_MAP.len() <= 15
        && SETTINGS_MAP.len() <= 15
);
