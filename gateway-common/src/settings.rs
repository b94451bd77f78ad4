//! What user space tells the kernel program: mode, bounds and weights, in one value of one map. In: the configuration.
//! Out: numbers that the kernel uses as they are, with every product taken in advance where it would need a division.

use crate::reason::{COUNTERS, Reason};

/// What is done with packets that should not pass.
pub mod mode {
    /// Nothing is judged.
    pub const OFF: u32 = 0;
    /// They pass, and are counted.
    pub const MONITOR: u32 = 1;
    /// They are dropped.
    pub const ENFORCE: u32 = 2;
}

/// The kernel program's settings. All zero, as the map is made: nothing is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Until when user space answers for the program: after that nothing is dropped.
    pub alive_until_ns: u64,
    /// From the end of the three-way handshake to the verdict.
    pub deadline_ns: u64,
    /// Unauthenticated flows of one source at a time.
    pub pending_max: u64,
    /// Time in which one point of debt is forgiven.
    pub point_ns: u64,
    /// Debt beyond which a source is banned, as the time it takes to be forgiven.
    pub ban_debt_ns: u64,
    /// Length of the first ban.
    pub ban_first_ns: u64,
    /// Length of the longest ban.
    pub ban_longest_ns: u64,
    /// How long after its end a ban makes the next one longer.
    pub ban_memory_ns: u64,
    /// Bytes a client may send before it is authenticated.
    pub budget_bytes: u32,
    /// One of [`mode`].
    pub mode: u32,
    /// Not zero when the lists of sources have entries; the kernel does not look them up otherwise.
    pub has_lists: u32,
    /// Makes the size a multiple of the alignment without bytes that nobody has written.
    pub padding: u32,
    /// Points that each reason costs the source, at [`Reason::index`].
    pub weights: [u16; COUNTERS],
}

const _: () = assert!(size_of::<Settings>() == 8 * 8 + 4 * 4 + COUNTERS * 2);
const _: () = assert!(align_of::<Settings>() == 8);

const SECOND_NS: u64 = 1_000_000_000;

/// One point is forgiven in six seconds: ten failed handshakes a minute of the lightest kind go on forever.
const POINT_NS: u64 = 6 * SECOND_NS;

/// Ten of the heaviest failures at once are within bounds, the eleventh is a ban.
const BAN_POINTS: u64 = 100;

impl Settings {
    /// Settings for a mode. The byte budget is far above the longest certificate chain and an early window of data,
    /// the deadline above the minute that is the longest handshake timeout.
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
