//! Names, keys and values of the kernel program's maps, once for both sides, with their sizes asserted.
//! The kernel sees nothing but bytes: a layout that differs between the two sides is read without an error.

use crate::reason::{COUNTERS, Fate, Reason};

/// Version of everything below and of what the numbers in it mean: part of the path that maps are pinned at, since the
/// kernel gives a pinned map of another layout to whoever asks for it by name. A test holds it against the layout.
pub const LAYOUT_VERSION: u32 = 1;

/// Name of the XDP program in the object: judges packets.
pub const XDP_PROGRAM: &str = "portcullis";

/// Name of the sock_ops program in the object: follows the life of flows.
pub const LIFE_PROGRAM: &str = "flow_life";

/// Name of the cgroup/setsockopt program in the object: takes user space's verdicts.
pub const VERDICT_PROGRAM: &str = "flow_verdict";

/// Name of the program's constant that switches lines of aya-log on, at debug level, about single flows and bans: a byte
/// that is zero unless whoever loads the object overrides it with one. Off, they cost nothing: the kernel takes them out.
pub const DEBUG_GLOBAL: &str = "DEBUG";

/// Level of the socket option that says a verdict; its name is the number of a [`Reason`], its value means nothing.
/// The kernel knows no such level and answers ENOPROTOOPT where the program is not attached or the flow not known.
pub const VERDICT_LEVEL: i32 = 0x506f_7274;

/// Name of the array from a TCP port to its slot in [`PORT_COUNTS_MAP`]: zero for the ports that are not protected, which
/// are most. An array, since every packet asks it: half a megabyte buys an answer without a call.
pub const PORTS_MAP: &str = "PORTS";

/// As many as there are ports.
pub const PORTS_ENTRIES: u32 = 1 << PortKey::BITS;

/// Name of the per-CPU array from a slot to what arrived for its port. User space gives out the slots, from one on.
pub const PORT_COUNTS_MAP: &str = "PORT_COUNTS";

/// Slots, with the one of no port: 137 KiB of kernel memory per CPU at 536 bytes each.
pub const PORT_COUNTS_ENTRIES: u32 = 1 << Slot::BITS;

/// Most ports that can be protected at once.
pub const PORT_COUNTS_PORTS_MAX: u32 = PORT_COUNTS_ENTRIES - 1;

/// Name of the hash from a `FlowKey` to its `Flow`.
pub const FLOWS_MAP: &str = "FLOWS";

/// Most flows that are known at once; the ones beyond are not judged. About 120 bytes each, allocated as they come.
pub const FLOWS_MAX: u32 = 262_144;

/// Name of the socket storage that holds a `SocketFlow`.
pub const SOCKET_FLOWS_MAP: &str = "SOCKET_FLOWS";

/// Name of the hash from a `Source` to its `Account`. The longest unused one makes room for a new one, and only a
/// complete three-way handshake makes one.
pub const ACCOUNTS_MAP: &str = "ACCOUNTS";

/// Most accounts at once: 6 MiB of kernel memory, allocated up front.
pub const ACCOUNTS_MAX: u32 = 65_536;

/// Name of the hash from a `Source` to its last `Ban`. Apart from the accounts: these come with every client, bans
/// with failures only, so that a crowd of new sources does not push one out.
pub const BANS_MAP: &str = "BANS";

/// Most bans at once: 7 MiB of kernel memory, allocated up front.
pub const BANS_MAX: u32 = 65_536;

/// Name of the prefix tree from addresses to what an operator said of them: 1 to allow, 2 to deny.
pub const LISTS_MAP: &str = "LISTS";

/// Most entries of the lists: about 64 bytes each, allocated as they come.
pub const LISTS_MAX: u32 = 16_384;

/// Name of the array whose only entry is the `Settings`.
pub const SETTINGS_MAP: &str = "SETTINGS";

/// Name of the ring buffer of `BanEvent`s.
pub const EVENTS_MAP: &str = "EVENTS";

/// Bytes of the ring buffer: 4681 events of 48 bytes with the kernel's 8 before each.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Name of the per-CPU array of counters of what was lost, a `u64` each at `Lost::key`.
pub const LOST_MAP: &str = "LOST";

/// Key of [`PORTS_MAP`]: a TCP destination port in the host's byte order.
pub type PortKey = u16;

/// Value of [`PORTS_MAP`]: a port's place among the counters, or zero.
pub type Slot = u8;

/// Value of [`PORT_COUNTS_MAP`]: what one CPU has seen for one port since the program was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PortCounter {
    /// TCP packets, retransmissions included.
    pub packets: u64,
    /// Bytes of their frames, from the Ethernet header on.
    pub bytes: u64,
    /// Packets by what became of them, at [`Fate::index`].
    pub fates: [u64; COUNTERS],
    /// Flows that were opened.
    pub flows_opened: u64,
    /// Flows by how they came out, at [`Reason::index`].
    pub flows: [u64; COUNTERS],
}

impl PortCounter {
    /// Nothing seen.
    pub const ZERO: Self = Self {
        packets: 0,
        bytes: 0,
        fates: [0; COUNTERS],
        flows_opened: 0,
        flows: [0; COUNTERS],
    };

    /// Packets with this fate.
    pub fn fate(&self, fate: Fate) -> u64 {
        self.fates.get(fate.index()).copied().unwrap_or(0)
    }

    /// Flows that came out like this.
    pub fn flow(&self, reason: Reason) -> u64 {
        self.flows.get(reason.index()).copied().unwrap_or(0)
    }

    /// Adds what another CPU has seen.
    pub fn add(&mut self, other: &Self) {
        let sum = |to: &mut [u64], from: &[u64]| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = to.wrapping_add(*from);
            }
        };
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.flows_opened = self.flows_opened.wrapping_add(other.flows_opened);
        sum(&mut self.fates, &other.fates);
        sum(&mut self.flows, &other.flows);
    }
}

impl Default for PortCounter {
    fn default() -> Self {
        Self::ZERO
    }
}

const _: () = assert!(size_of::<PortCounter>() == 8 * (2 + COUNTERS + 1 + COUNTERS));
// The kernel aligns values of hash maps to eight bytes, not more.
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
