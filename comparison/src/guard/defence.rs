//! Kinds of floods, and the defences that are compared. In: a defence. Out: its part of the gateway's configuration,
//! its rules for nftables. Makes text and does nothing.

use clap::ValueEnum;

use super::topology::{AGENTS_INTERFACE, ATTACKERS_INTERFACE};

/// Where the gateway listens.
pub const PORT: u16 = 4317;

/// The guard's cap: unauthenticated connections of a source at a time. All attackers together stay below the gateway's
/// `max_handshakes` of 1024 this way, which the default of the cap would not see to.
pub const PENDING_MAX: u32 = 32;

/// New connections of one source that the rate limit admits in a second: five times what an agent makes.
pub const CONNECTIONS_PER_SECOND: u32 = 10;

/// Points beyond which a source is banned, for the guard and for the set of nftables alike.
pub const BAN_POINTS: u32 = 100;

/// How long a first ban lasts, in seconds: longer than a flood.
pub const BAN_SECONDS: u32 = 10;

/// The set of nftables that the failure log fills, by family, table and name.
pub const BANNED: &str = "netdev bench banned";

/// A kind of flood, by its name in the load generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FloodKind {
    /// Full handshakes with a certificate of a foreign CA.
    Badcert,
    /// Random bytes and plain HTTP.
    Junk,
    /// A ClientHello, then a reset or silence.
    Half,
    /// Connections that say nothing.
    Idle,
    /// A ClientHello, one byte a second.
    Slow,
    /// SYNs under forged addresses.
    Syn,
}

impl FloodKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Badcert => "badcert",
            Self::Junk => "junk",
            Self::Half => "half",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Syn => "syn",
        }
    }

    /// Whether the flood works by what it makes the gateway compute: the guard must make that cheap.
    pub fn costs_cpu(self) -> bool {
        matches!(self, Self::Badcert | Self::Junk)
    }

    /// Whether the flood works by connections that it holds: the guard must keep them few.
    pub fn holds(self) -> bool {
        matches!(self, Self::Half | Self::Idle | Self::Slow)
    }
}

/// What stands against a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Defence {
    /// Nothing but the gateway itself.
    Off,
    /// The guard, which counts and drops nothing.
    Monitor,
    /// The guard.
    Enforce,
    /// nftables: new connections of each source, so many a second.
    NftLimit,
    /// nftables: sources that the gateway's failure log names too often, as fail2ban does it.
    NftBan,
}

impl Defence {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Monitor => "monitor",
            Self::Enforce => "enforce",
            Self::NftLimit => "nft limit",
            Self::NftBan => "nft ban",
        }
    }

    /// Its part of the gateway's configuration.
    pub fn guard(self) -> String {
        let mode = match self {
            Self::Monitor => "monitor",
            Self::Enforce => "enforce",
            Self::Off | Self::NftLimit | Self::NftBan => return String::new(),
        };
        format!(
            "[guard]\nmode = \"{mode}\"\ninterfaces = [\"{AGENTS_INTERFACE}\", \"{ATTACKERS_INTERFACE}\"]\n\
             required = true\nmax_pending = {PENDING_MAX}\nban_threshold = {BAN_POINTS}\n\
             ban_first = \"{BAN_SECONDS}s\"\n\n"
        )
    }

    /// Its rules for nftables, at the earliest hook: the kernel has not looked at an address yet, which is the best
    /// they can do.
    pub fn rules(self) -> Option<String> {
        let (set, rule) = match self {
            Self::Off | Self::Monitor | Self::Enforce => return None,
            Self::NftLimit => (
                "set sources { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 1m; }"
                    .to_owned(),
                format!(
                    "tcp dport {PORT} tcp flags & (syn | ack) == syn update @sources {{ ip saddr limit rate over \
                     {CONNECTIONS_PER_SECOND}/second burst {} packets }} counter name dropped drop",
                    2 * CONNECTIONS_PER_SECOND
                ),
            ),
            Self::NftBan => (
                "set banned { type ipv4_addr; size 65536; flags timeout; }".to_owned(),
                format!("tcp dport {PORT} ip saddr @banned counter name dropped drop"),
            ),
        };
        Some(format!(
            "table netdev bench {{\n\
             {set}\n\
             counter dropped {{ }}\n\
             chain ingress {{\n\
             type filter hook ingress devices = {{ {AGENTS_INTERFACE}, {ATTACKERS_INTERFACE} }} priority -500; policy accept;\n\
             {rule}\n\
             }}\n}}\n"
        ))
    }
}

/// Points that a failure costs its source, by the reason in the audit log: what the guard takes for it.
pub fn points(reason: &str) -> u32 {
    match reason {
        "no_certificate" | "unknown_issuer" | "bad_signature" | "not_tls" | "malformed" => 10,
        "timeout" | "weak_key" | "wrong_key_usage" | "revoked" | "blocked" => 5,
        "crl_stale" | "over_limit" | "internal" => 0,
        _ => 1,
    }
}
