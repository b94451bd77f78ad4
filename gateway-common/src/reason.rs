//! Why a flow ended as it did, and what became of a packet: two closed lists that kernel and user space share. In: a
//! number from the other side. Out: a name for metrics, and what a failure costs its source. Pure.

closed_list! {
    /// How a flow came out. Every flow is counted under at most one of these, once.
    ///
    /// The numbers are positions in the counters and, for the verdicts, the name of the socket option that says them.
    #[repr(u8)]
    pub enum Reason: u16 {
        /// User space has verified who the client is.
        Authenticated = "authenticated", 0;
        /// The client presented no certificate.
        NoCertificate = "no_certificate", 10;
        /// The certificate does not chain to a trusted CA.
        UnknownIssuer = "unknown_issuer", 10;
        /// A certificate has expired.
        Expired = "expired", 1;
        /// A certificate is not valid yet.
        NotYetValid = "not_yet_valid", 1;
        /// A signature does not verify.
        BadSignature = "bad_signature", 10;
        /// The certificate is not one for clients.
        WrongKeyUsage = "wrong_key_usage", 5;
        /// The certificate is revoked.
        Revoked = "revoked", 5;
        /// There is no revocation list to be trusted.
        CrlStale = "crl_stale", 0;
        /// An operator has blocked the client.
        Blocked = "blocked", 5;
        /// A key or signature is too weak.
        WeakKey = "weak_key", 5;
        /// No rule admits the client.
        NotAuthorized = "not_authorized", 1;
        /// The client gave up with an alert.
        ClientRejectedServer = "client_rejected_server", 1;
        /// The first bytes are not TLS: said by user space, or seen in the kernel.
        NotTls = "not_tls", 10;
        /// Bytes that break the protocol.
        Malformed = "malformed", 10;
        /// No version in common.
        Version = "version", 1;
        /// No cipher suite in common.
        CipherSuite = "cipher_suite", 1;
        /// No key exchange group in common.
        Group = "group", 1;
        /// No application protocol in common.
        Alpn = "alpn", 1;
        /// No certificate for the name that was asked for.
        Sni = "sni", 1;
        /// The handshake was not complete in time.
        Timeout = "timeout", 5;
        /// The client went away in the middle of the handshake.
        Reset = "reset", 1;
        /// A connection limit was reached.
        OverLimit = "over_limit", 0;
        /// The gateway's own fault.
        Internal = "internal", 0;
        /// Turned away when it was accepted: its source is banned or denied, and no packet filter was on its path.
        Banned = "banned", 0;
        /// The connection ended without a byte from the client: what health checks of load balancers look like.
        NoData = "no_data", 0;
        /// More flows of one source were waiting to be authenticated than the cap allows; in `enforce` this one was cut off.
        TooManyPending = "too_many_pending", 0;
    }
}

impl Reason {
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

    /// Points that such an end costs the source, unless the settings say otherwise.
    ///
    /// What an honest agent meets in its life costs nothing or little: a clock that is off, a certificate that ran out
    /// or a listener that is full must not shut out the others behind its address.
    pub const fn weight(self) -> u16 {
        self.row()
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

closed_list! {
    /// Why a packet passed.
    #[repr(u8)]
    pub enum Pass {
        /// It ends a flow (FIN or RST): dropping it would only keep the flow alive.
        Ending = "ending";
        /// Its source is on the list of those who are always let through.
        Allowed = "allowed";
        /// Its flow is authenticated.
        Authenticated = "authenticated";
        /// Its flow has failed, and user space is closing it.
        Failed = "failed";
        /// Its flow still has time, and has kept to its bounds.
        Pending = "pending";
        /// As `Pending`, and the first bytes of its flow, which it carries, are no TLS ClientHello. User space sees that
        /// too, refuses at once and says so, which the source pays for. Without the packet it would wait for it in vain.
        NotTls = "not_tls";
        /// It asks for a new flow.
        Opening = "opening";
        /// Its flow is not known: it is older than the guard, is only being opened, or has ended.
        Unknown = "unknown";
    }
}

closed_list! {
    /// Why a packet is dropped.
    #[repr(u8)]
    pub enum Drop {
        /// Its source is on the list of those who are never let through.
        Denied = "denied";
        /// Its source is banned, and its flow is new or not authenticated.
        Banned = "banned";
        /// Too many flows of its source wait to be authenticated.
        TooManyPending = "too_many_pending";
        /// Its flow was not authenticated in time.
        Deadline = "deadline";
        /// Its flow sent more than a handshake needs.
        ByteBudget = "byte_budget";
    }
}
