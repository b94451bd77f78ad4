//! What user space sets in the kernel program: mode, bounds and weights, as one value of one map. In: the
//! configuration. Out: numbers that the kernel uses as they are, multiplied in advance so that it never divides.

use crate::reason::{COUNTERS, Reason};

/// What happens to packets that should not pass.
pub mod mode {
    /// Packets are not evaluated.
    pub const OFF: u32 = 0;
    /// They pass, and are counted.
    pub const MONITOR: u32 = 1;
    /// They are dropped.
    pub const ENFORCE: u32 = 2;
}

/// The kernel program's settings. All zero, as in a new map: packets are not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// The guard drops nothing after this moment. User space extends it while it lives. In nanoseconds of the
    /// kernel's monotonic clock.
    pub alive_until_ns: u64,
    /// Time from the end of the three-way handshake to the verdict, in nanoseconds.
    pub deadline_ns: u64,
    /// Maximum of pending flows of one source.
    pub pending_max: u64,
    /// Time that forgives one point, in nanoseconds.
    pub point_ns: u64,
    /// Debt beyond which a source is banned, as the time that forgives it, in nanoseconds.
    pub ban_debt_ns: u64,
    /// Length of the first ban, in nanoseconds.
    pub ban_first_ns: u64,
    /// Length of the longest ban, in nanoseconds.
    pub ban_longest_ns: u64,
    /// Time after its end in which a ban doubles the next one, in nanoseconds.
    pub ban_memory_ns: u64,
    /// Bytes that a client may send before it is authenticated.
    pub budget_bytes: u32,
    /// One of [`mode`].
    pub mode: u32,
    /// Not zero if the lists of sources have entries; else the kernel does not look them up.
    pub has_lists: u32,
    /// Fills the size up to the alignment, so that no byte is uninitialized.
    pub padding: u32,
    /// Points of each reason, at [`Reason::index`].
    pub weights: [u16; COUNTERS],
}

const _: () = assert!(size_of::<Settings>() == 8 * 8 + 4 * 4 + COUNTERS * 2);
const _: () = assert!(align_of::<Settings>() == 8);

const SECOND_NS: u64 = 1_000_000_000;

/// Six seconds forgive one point: a source may fail ten times a minute with the lightest failure.
const POINT_NS: u64 = 6 * SECOND_NS;

/// Ten of the heaviest failures at once are within bounds; the eleventh bans.
const BAN_POINTS: u64 = 100;

impl Settings {
    /// The default settings for a mode. The byte budget is far above the longest certificate chain and an early
    /// window of data; the deadline is above the longest handshake timeout, which is a minute.
    pub const fn new(mode: u32) -> Self {
        let mut weights = [0; COUNTERS];
        let mut index = 0;
        while index < Reason::ALL.len() {
            weights[index] = Reason::ALL[index].weight();
            index += 1;
        }
        Self {
            alive_until_ns: 0,
            deadline_ns: 65 * SECOND_NS,
            pending_max: 256,
            point_ns: POINT_NS,
            ban_debt_ns: BAN_POINTS * POINT_NS,
            ban_first_ns: 10 * SECOND_NS,
            ban_longest_ns: 3600 * SECOND_NS,
            ban_memory_ns: 3600 * SECOND_NS,
            budget_bytes: 256 * 1024,
            mode,
            has_lists: 0,
            padding: 0,
            weights,
        }
    }
}
