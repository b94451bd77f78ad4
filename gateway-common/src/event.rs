//! What the kernel program tells of its own accord: bans that begin, and what it could not keep. In: the bytes of a
//! record of the ring buffer. Out: a `BanEvent`. Pure.

use crate::source::{Ban, Source};

/// A ban has begun. Told once, when the failure that tips it is counted; the ban in force is not told again.
///
/// Two processors that tip the same source in the same instant both tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BanEvent {
    /// Who is banned.
    pub source: Source,
    /// Until when, and why.
    pub ban: Ban,
    /// The protected port at which the last failure was.
    pub local_port: u16,
    /// Zero, as the next. They make the size a multiple of the alignment without bytes that nobody has written; not an
    /// array, for which the compiler would call `memset`.
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
    /// What the kernel program had no room for. Each is counted, so that nothing is lost in silence.
    #[repr(u8)]
    pub enum Lost {
        /// A ban began, and the ring buffer was full: the ban holds, nobody was told.
        BanEvent = "ban_event";
        /// A source was to be banned, and is not.
        Ban = "ban";
        /// A flow was opened whose packets are not known: they pass. Its verdict counts, unless its socket had no room
        /// either.
        Flow = "flow";
        /// A flow was opened or failed for which its source has no account: it is not followed, or not charged.
        Account = "account";
    }
}

impl Lost {
    /// Key of the map [`LOST_MAP`](crate::LOST_MAP).
    #[inline(always)]
    pub const fn key(self) -> u32 {
        self as u32
    }
}
