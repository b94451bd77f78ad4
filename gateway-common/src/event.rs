//! What the kernel program reports: bans that begin, and overflows. In: the bytes of a record of the ring buffer.
//! Out: a `BanEvent`. Pure.

use crate::source::{Ban, Source};

/// A ban has begun. Reported once, when the failure that tips it is counted; a ban in force is not reported again.
///
/// Two processors that tip the same source at the same instant both report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BanEvent {
    /// The banned source.
    pub source: Source,
    /// Its end and its reason.
    pub ban: Ban,
    /// The protected port at which the last failure was.
    pub local_port: u16,
    /// Zero, as is the next field. Both fill the size up to the alignment, so that no byte is uninitialized. Not an
    /// array: the compiler would call `memset` for it.
    pub padding: u16,
    /// Zero.
    pub more_padding: u32,
}

const _: () = assert!(size_of::<BanEvent>() == 48 && align_of::<BanEvent>() == 8);

impl BanEvent {
    /// The event in a record of the ring buffer; `None` if the record is of another size.
    pub fn read(record: &[u8]) -> Option<Self> {
        let (source, rest) = record.split_first_chunk::<16>()?;
        let (until_ns, rest) = rest.split_first_chunk()?;
        let (lasts_ns, rest) = rest.split_first_chunk()?;
        let (reason, rest) = rest.split_first_chunk()?;
        let (operator, rest) = rest.split_first_chunk()?;
        let (local_port, padding) = rest.split_first_chunk()?;
        let _: &[u8; 6] = padding.try_into().ok()?;
        Some(Self {
            source: Source((*source).into()),
            ban: Ban {
                until_ns: u64::from_ne_bytes(*until_ns),
                lasts_ns: u64::from_ne_bytes(*lasts_ns),
                reason: u32::from_ne_bytes(*reason),
                operator: u32::from_ne_bytes(*operator),
            },
            local_port: u16::from_ne_bytes(*local_port),
            padding: 0,
            more_padding: 0,
        })
    }
}

closed_list! {
    /// What the kernel program had no room for. Each case is counted.
    #[repr(u8)]
    pub enum Overflow {
        /// A ban began and the ring buffer was full: the ban holds, without a report.
        BanEvent = "ban_event";
        /// The map of bans had no room: the source is not banned.
        Ban = "ban";
        /// A flow opened without an entry: its packets pass. Its verdict counts, unless its socket had no room
        /// either.
        Flow = "flow";
        /// A flow opened or failed and its source has no account: the flow is not followed, or not charged.
        Account = "account";
    }
}

impl Overflow {
    /// Key of the map [`LOST_MAP`](crate::LOST_MAP).
    #[inline(always)]
    pub const fn key(self) -> u32 {
        self as u32
    }
}
