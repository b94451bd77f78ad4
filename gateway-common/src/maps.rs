//! Names, keys and values of the kernel program's maps, once for both sides, with their sizes asserted.
//! The kernel sees nothing but bytes: a layout that differs between the two sides is read without an error.

/// Name of the XDP program in the object.
pub const XDP_PROGRAM: &str = "portcullis";

/// Name of the per-CPU hash from a protected port to what arrived for it.
///
/// User space inserts a key for every protected port before the program is attached. The kernel only ever adds to
/// values that are there, so this map is the list of protected ports as well.
pub const PORT_COUNTS_MAP: &str = "PORT_COUNTS";

/// Most ports that can be protected at once: 4 KiB of kernel memory per CPU at 16 bytes each, allocated up front.
pub const PORT_COUNTS_PORTS_MAX: u32 = 256;

/// Key of [`PORT_COUNTS_MAP`]: a TCP destination port in the host's byte order.
pub type PortKey = u16;

/// Value of [`PORT_COUNTS_MAP`]: what one CPU has seen for one port since the program was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortCounter {
    /// TCP packets, retransmissions included.
    pub packets: u64,
    /// Bytes of their frames, from the Ethernet header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<PortKey>() == 2);
const _: () = assert!(size_of::<PortCounter>() == 16);
// The kernel aligns values of hash maps to eight bytes, not more.
const _: () = assert!(align_of::<PortCounter>() == 8);
// The kernel keeps fifteen bytes of a name.
const _: () = assert!(XDP_PROGRAM.len() <= 15 && PORT_COUNTS_MAP.len() <= 15);
