//! Everything that bears on a packet, as bytes: what is known of its flow and source, the settings, the time. In: bytes
//! of any kind, or a scene of the kernel tests. Out: a `Known` to evaluate by, with the frame behind it; or those bytes.

use std::cell::Cell;

use gateway_common::{
    Account, Address, Ban, Flow, FlowKey, Listed, Segment, Settings, Source, State,
};

/// What is known when a packet arrives. It answers for the packet's own flow and source, and for no other.
pub struct Known {
    /// When it arrives.
    pub now_ns: u64,
    /// What user space has said.
    pub settings: Settings,
    /// Its flow.
    pub flow: Option<Flow>,
    /// What its source owes and has open.
    pub account: Option<Account>,
    /// The last ban of its source.
    pub ban: Option<Ban>,
    /// What an operator said of its address.
    pub listed: Option<Listed>,
    /// Whose packet it is.
    pub key: Cell<Option<FlowKey>>,
}

impl Known {
    /// What the first bytes say, and the frame behind them; nothing if they are too few.
    pub fn read(mut bytes: &[u8]) -> Option<(Self, &[u8])> {
        let bytes = &mut bytes;
        let now_ns = long(bytes)?;
        let settings = Settings {
            alive_until_ns: long(bytes)?,
            deadline_ns: long(bytes)?,
            pending_max: long(bytes)?,
            budget_bytes: word(bytes)?,
            has_lists: byte(bytes)?.into(),
            ..Settings::new(byte(bytes)?.into())
        };
        let flow = Flow {
            opened_at_ns: long(bytes)?,
            first_sequence: word(bytes)?,
            state: byte(bytes)?,
            first_bytes: byte(bytes)?,
            is_over_cap: byte(bytes)?,
            padding: 0,
        };
        let account = Account {
            clear_at_ns: 0,
            pending: long(bytes)?,
        };
        let ban = Ban {
            until_ns: long(bytes)?,
            lasts_ns: 1,
            reason: Ban::NO_REASON,
            operator: 1,
        };
        let [is_known, has_account, has_ban, listed] = take(bytes)?;
        let known = Self {
            now_ns,
            settings,
            flow: (is_known != 0).then_some(flow),
            account: (has_account != 0).then_some(account),
            ban: (has_ban != 0).then_some(ban),
            listed: Listed::from_byte(listed),
            key: Cell::new(None),
        };
        Some((known, bytes))
    }

    /// The bytes that are read as this.
    pub fn write(&self) -> Vec<u8> {
        let settings = &self.settings;
        let flow = self.flow.unwrap_or_default();
        let account = self.account.unwrap_or_default();
        let until_ns = self.ban.map_or(0, |ban| ban.until_ns);
        let listed = match self.listed {
            Some(Listed::Allowed) => 1,
            Some(Listed::Denied) => 2,
            None => 0,
        };
        let mut bytes = Vec::new();
        bytes.extend(self.now_ns.to_ne_bytes());
        bytes.extend(settings.alive_until_ns.to_ne_bytes());
        bytes.extend(settings.deadline_ns.to_ne_bytes());
        bytes.extend(settings.pending_max.to_ne_bytes());
        bytes.extend(settings.budget_bytes.to_ne_bytes());
        bytes.extend([settings.has_lists as u8, settings.mode as u8]);
        bytes.extend(flow.opened_at_ns.to_ne_bytes());
        bytes.extend(flow.first_sequence.to_ne_bytes());
        bytes.extend([flow.state, flow.first_bytes, flow.is_over_cap]);
        bytes.extend(account.pending.to_ne_bytes());
        bytes.extend(until_ns.to_ne_bytes());
        bytes.extend([
            u8::from(self.flow.is_some()),
            u8::from(self.account.is_some()),
            u8::from(self.ban.is_some()),
            listed,
        ]);
        bytes
    }

    /// Answers for the flow and the source of this segment from now on.
    pub fn is_of(&self, segment: &Segment) {
        self.key.set(Some(FlowKey::of(segment)));
    }

    fn remote(&self) -> Option<Address> {
        self.key.get().map(|key| key.remote)
    }
}

impl State for Known {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn listed(&self, address: &Address) -> Option<Listed> {
        assert_eq!(Some(*address), self.remote());
        self.listed
    }

    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        assert_eq!(Some(*key), self.key.get());
        self.flow
    }

    fn account(&self, source: &Source) -> Option<Account> {
        assert_eq!(Some(*source), self.remote().map(Source::of));
        self.account
    }

    fn ban(&self, source: &Source) -> Option<Ban> {
        assert_eq!(Some(*source), self.remote().map(Source::of));
        self.ban
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn long(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_ne_bytes)
}

fn word(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_ne_bytes)
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    take(bytes).map(|[byte]| byte)
}
