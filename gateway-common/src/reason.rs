//! Why a flow ended as it did, and what became of a packet: two closed lists that kernel and user space share. In: a
//! number from the other side. Out: a name for metrics, and what a failure costs its source. Pure.

/// How a flow came out. Every flow is counted under at most one of these, once.
///
/// The numbers are positions in the counters and, for the verdicts, the name of the socket option that says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// User space has verified who the client is.
    Authenticated,
    /// The client presented no certificate.
    NoCertificate,
    /// The certificate does not chain to a trusted CA.
    UnknownIssuer,
    /// A certificate has expired.
    Expired,
    /// A certificate is not valid yet.
    NotYetValid,
    /// A signature does not verify.
    BadSignature,
    /// The certificate is not one for clients.
    WrongKeyUsage,
    /// The certificate is revoked.
    Revoked,
    /// There is no revocation list to be trusted.
    CrlStale,
    /// An operator has blocked the client.
    Blocked,
    /// A key or signature is too weak.
    WeakKey,
    /// No rule admits the client.
    NotAuthorized,
    /// The client gave up with an alert.
    ClientRejectedServer,
    /// The first bytes are not TLS: said by user space, or seen in the kernel.
    NotTls,
    /// Bytes that break the protocol.
    Malformed,
    /// No version in common.
    Version,
    /// No cipher suite in common.
    CipherSuite,
    /// No key exchange group in common.
    Group,
    /// No application protocol in common.
    Alpn,
    /// No certificate for the name that was asked for.
    Sni,
    /// The handshake was not complete in time.
    Timeout,
    /// The client went away in the middle of the handshake.
    Reset,
    /// A connection limit was reached.
    OverLimit,
    /// The gateway's own fault.
    Internal,
    /// Turned away when it was accepted: its source is banned or denied, and no packet filter was on its path.
    Banned,
    /// The connection ended without a byte from the client: what health checks of load balancers look like.
    NoData,
    /// More flows of one source were waiting to be authenticated than the cap allows; in `enforce` this one was cut off.
    TooManyPending,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 27] = [
        Self::Authenticated,
        Self::NoCertificate,
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::BadSignature,
        Self::WrongKeyUsage,
        Self::Revoked,
        Self::CrlStale,
        Self::Blocked,
        Self::WeakKey,
        Self::NotAuthorized,
        Self::ClientRejectedServer,
        Self::NotTls,
        Self::Malformed,
        Self::Version,
        Self::CipherSuite,
        Self::Group,
        Self::Alpn,
        Self::Sni,
        Self::Timeout,
        Self::Reset,
        Self::OverLimit,
        Self::Internal,
        Self::Banned,
        Self::NoData,
        Self::TooManyPending,
    ];

    /// Numbers below this one can be said by user space; the others only the kernel finds.
    const VERDICTS: i32 = Self::NoData as i32;

    /// The verdict that user space named by a number; `None` for anything that is not one.
    #[inline(always)]
    pub fn verdict(number: i32) -> Option<Self> {
        if !(0..Self::VERDICTS).contains(&number) {
            return None;
        }
        Self::ALL.get(number as usize).copied()
    }

    /// Position in [`Reason::ALL`] and in the counters.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::BadSignature => "bad_signature",
            Self::WrongKeyUsage => "wrong_key_usage",
            Self::Revoked => "revoked",
            Self::CrlStale => "crl_stale",
            Self::Blocked => "blocked",
            Self::WeakKey => "weak_key",
            Self::NotAuthorized => "not_authorized",
            Self::ClientRejectedServer => "client_rejected_server",
            Self::NotTls => "not_tls",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::CipherSuite => "cipher_suite",
            Self::Group => "group",
            Self::Alpn => "alpn",
            Self::Sni => "sni",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::OverLimit => "over_limit",
            Self::Internal => "internal",
            Self::Banned => "banned",
            Self::NoData => "no_data",
            Self::TooManyPending => "too_many_pending",
        }
    }

    /// Points that such an end costs the source, unless the settings say otherwise.
    ///
    /// What an honest agent meets in its life costs nothing or little: a clock that is off, a certificate that ran out
    /// or a listener that is full must not shut out the others behind its address.
    pub const fn weight(self) -> u16 {
        match self {
            Self::Authenticated
            | Self::CrlStale
            | Self::OverLimit
            | Self::Internal
            | Self::Banned
            | Self::NoData
            | Self::TooManyPending => 0,
            Self::Expired
            | Self::NotYetValid
            | Self::NotAuthorized
            | Self::ClientRejectedServer
            | Self::Version
            | Self::CipherSuite
            | Self::Group
            | Self::Alpn
            | Self::Sni
            | Self::Reset => 1,
            Self::Timeout | Self::WeakKey | Self::WrongKeyUsage | Self::Revoked | Self::Blocked => {
                5
            }
            Self::NoCertificate
            | Self::UnknownIssuer
            | Self::BadSignature
            | Self::NotTls
            | Self::Malformed => 10,
        }
    }
}

/// What became of a packet to a protected port. Every such packet is counted under exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It passed.
    Passed(Pass),
    /// It was dropped.
    Dropped(Drop),
    /// It passed, and would have been dropped in mode `enforce`.
    WouldDrop(Drop),
}

impl Fate {
    /// Position among the counters of packets, of which there are at most [`COUNTERS`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        match self {
            Self::Passed(pass) => pass as usize,
            Self::Dropped(drop) => Self::DROPPED + drop as usize,
            Self::WouldDrop(drop) => Self::WOULD_DROP + drop as usize,
        }
    }

    const DROPPED: usize = 8;
    const WOULD_DROP: usize = 16;
}

/// Room for counters of packets, of flows, and for weights: a power of two, so that a mask keeps an index inside,
/// which the verifier follows more easily than a comparison.
pub const COUNTERS: usize = 32;

const _: () = assert!(COUNTERS.is_power_of_two() && Reason::ALL.len() <= COUNTERS);
const _: () = assert!(Pass::ALL.len() <= Fate::DROPPED);
const _: () = assert!(Fate::DROPPED + Drop::ALL.len() <= Fate::WOULD_DROP);
const _: () = assert!(Fate::WOULD_DROP + Drop::ALL.len() <= COUNTERS);

/// Why a packet passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pass {
    /// It ends a flow (FIN or RST): dropping it would only keep the flow alive.
    Ending,
    /// Its source is on the list of those who are always let through.
    Allowed,
    /// Its flow is authenticated.
    Authenticated,
    /// Its flow has failed, and user space is closing it.
    Failed,
    /// Its flow still has time, and has kept to its bounds.
    Pending,
    /// As `Pending`, and the first bytes of its flow, which it carries, are no TLS ClientHello. User space sees that
    /// too, refuses at once and says so, which the source pays for. Without the packet it would wait for it in vain.
    NotTls,
    /// It asks for a new flow.
    Opening,
    /// Its flow is not known: it is older than the guard, is only being opened, or has ended.
    Unknown,
}

impl Pass {
    /// Every one, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::Ending,
        Self::Allowed,
        Self::Authenticated,
        Self::Failed,
        Self::Pending,
        Self::NotTls,
        Self::Opening,
        Self::Unknown,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ending => "ending",
            Self::Allowed => "allowed",
            Self::Authenticated => "authenticated",
            Self::Failed => "failed",
            Self::Pending => "pending",
            Self::NotTls => "not_tls",
            Self::Opening => "opening",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Drop {
    /// Its source is on the list of those who are never let through.
    Denied,
    /// Its source is banned, and its flow is new or not authenticated.
    Banned,
    /// Too many flows of its source wait to be authenticated.
    TooManyPending,
    /// Its flow was not authenticated in time.
    Deadline,
    /// Its flow sent more than a handshake needs.
    ByteBudget,
}

impl Drop {
    /// Every one, in the order of its number.
    pub const ALL: [Self; 5] = [
        Self::Denied,
        Self::Banned,
        Self::TooManyPending,
        Self::Deadline,
        Self::ByteBudget,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Banned => "banned",
            Self::TooManyPending => "too_many_pending",
            Self::Deadline => "deadline",
            Self::ByteBudget => "byte_budget",
        }
    }
}
