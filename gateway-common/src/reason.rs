//! Why a flow ended, and the verdict on a packet: closed lists that kernel and user space share. In: a number from
//! the other side. Out: a label for metrics, and the price of a failure. Pure.

closed_list! {
    /// Why a flow is authenticated or has failed. Each flow is counted under at most one reason, once.
    ///
    /// The number is the position in the counters and, for verdicts, the name of the socket option. The value is the
    /// default price in points: see [`weight`](Reason::weight).
    #[repr(u8)]
    pub enum Reason: u16 {
        /// User space has verified the client.
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
        /// A revocation list is missing or too old.
        CrlStale = "crl_stale", 0;
        /// An operator has blocked the client.
        Blocked = "blocked", 5;
        /// A key or signature is too weak.
        WeakKey = "weak_key", 5;
        /// No rule admits the client.
        NotAuthorized = "not_authorized", 1;
        /// The client gave up with an alert.
        ClientRejectedServer = "client_rejected_server", 1;
        /// The first bytes are not TLS: reported by user space, or seen in the kernel.
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
        /// Refused at its accept: the source is banned or denied, and no packet filter was in the path.
        Banned = "banned", 0;
        /// The connection ended without a byte from the client, as health checks of load balancers do.
        NoData = "no_data", 0;
        /// The source had more pending flows than the cap allows; in `enforce` this one was cut off.
        TooManyPending = "too_many_pending", 0;
    }
}

impl Reason {
    /// User space can send the numbers below this one; the kernel alone finds the others.
    const VERDICTS: i32 = Self::NoData as i32;

    /// The verdict with this number; `None` for a number that is not a verdict of user space.
    #[inline(always)]
    pub fn verdict(number: i32) -> Option<Self> {
        if !(0..Self::VERDICTS).contains(&number) {
            return None;
        }
        Self::ALL.get(number as usize).copied()
    }

    /// Points that this reason costs the source, unless the settings say otherwise.
    ///
    /// What an honest agent meets costs nothing or little: a wrong clock, an expired certificate or a full listener
    /// must not ban the other agents behind its address.
    pub const fn weight(self) -> u16 {
        self.row()
    }
}

/// The verdict on a packet to a protected port. Each such packet is counted under exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketVerdict {
    /// It passed.
    Passed(PassReason),
    /// It was dropped.
    Dropped(DropReason),
    /// It passed, and mode `enforce` would have dropped it.
    WouldDrop(DropReason),
}

impl PacketVerdict {
    /// Position in the counters of packets, below [`COUNTERS`].
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

/// Number of counters of packets, of flows, and of weights. A power of two, so that a mask bounds an index: the
/// verifier follows a mask more easily than a comparison.
pub const COUNTERS: usize = 32;

const _: () = assert!(COUNTERS.is_power_of_two() && Reason::ALL.len() <= COUNTERS);
const _: () = assert!(PassReason::ALL.len() <= PacketVerdict::DROPPED);
const _: () = assert!(PacketVerdict::DROPPED + DropReason::ALL.len() <= PacketVerdict::WOULD_DROP);
const _: () = assert!(PacketVerdict::WOULD_DROP + DropReason::ALL.len() <= COUNTERS);

closed_list! {
    /// Why a packet passed.
    #[repr(u8)]
    pub enum PassReason {
        /// It ends a flow (FIN or RST): dropping it would only keep the flow alive.
        Ending = "ending";
        /// The operator's lists allow its source.
        Allowed = "allowed";
        /// Its flow is authenticated.
        Authenticated = "authenticated";
        /// Its flow has failed, and user space closes it.
        Failed = "failed";
        /// Its flow is within its deadline and its byte budget.
        Pending = "pending";
        /// As `Pending`, but it carries the first bytes of its flow, which are no TLS ClientHello. User space refuses
        /// the flow at once and charges the source; without this packet it would wait in vain.
        NotTls = "not_tls";
        /// It opens a new flow.
        Opening = "opening";
        /// Its flow is unknown: older than the guard, just opening, or ended.
        Unknown = "unknown";
    }
}

closed_list! {
    /// Why a packet is dropped.
    #[repr(u8)]
    pub enum DropReason {
        /// The operator's lists deny its source.
        Denied = "denied";
        /// Its source is banned, and its flow is new or not authenticated.
        Banned = "banned";
        /// Its source has too many pending flows.
        TooManyPending = "too_many_pending";
        /// Its flow has passed its deadline without a verdict.
        Deadline = "deadline";
        /// Its flow has sent more bytes than a handshake needs.
        ByteBudget = "byte_budget";
    }
}
