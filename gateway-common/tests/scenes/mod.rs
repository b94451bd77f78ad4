//! What is known when a packet arrives, and what must become of it. One table for both sides: the tests beside this
//! folder give it to `evaluate_packet` in user space, those of the `tests` crate to the built program in the kernel.

use gateway_common::{
    Account, Address, Ban, DropReason, Flow, FlowKey, Listed, PacketVerdict, PassReason, Reason,
    Settings, Source, State, first_bytes, flow_state, mode,
};

use crate::frames::{Client, packet};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Times before and after now that no test takes as long as.
const SECOND_NS: u64 = 1_000_000_000;
const LONG_NS: u64 = 1000 * SECOND_NS;

const CLIENT_HELLO: [u8; 12] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0];
const FIRST: u32 = 0xffff_ff00; // wraps within the budget
const BUDGET: u32 = 4096;
const PENDING_MAX: u64 = 3;

/// A packet and everything that bears on it.
pub struct Scene {
    /// What is particular about it.
    pub name: String,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// Whose it is.
    pub key: FlowKey,
    /// When it is evaluated.
    pub now_ns: u64,
    /// The settings.
    pub settings: Settings,
    /// What is known of its flow.
    pub flow: Option<Flow>,
    /// What its source owes and has open.
    pub account: Option<Account>,
    /// The last ban of its source.
    pub ban: Option<Ban>,
    /// What an operator said of its address.
    pub listed: Option<Listed>,
    /// What would be done in mode `enforce`.
    pub expected: Result<PassReason, DropReason>,
    /// What is noted of its first bytes.
    pub first_bytes: Option<u8>,
}

impl Scene {
    /// The verdict under the scene's mode.
    pub fn verdict(&self) -> PacketVerdict {
        let is_enforced =
            self.settings.mode == mode::ENFORCE && self.settings.alive_until_ns > self.now_ns;
        match self.expected {
            Ok(pass) => PacketVerdict::Passed(pass),
            Err(drop) if is_enforced => PacketVerdict::Dropped(drop),
            Err(drop) => PacketVerdict::WouldDrop(drop),
        }
    }
}

impl State for Scene {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn listed(&self, address: &Address) -> Option<Listed> {
        (*address == self.key.remote).then_some(self.listed)?
    }

    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        (*key == self.key).then_some(self.flow)?
    }

    fn account(&self, source: &Source) -> Option<Account> {
        (*source == Source::of(self.key.remote)).then_some(self.account)?
    }

    fn ban(&self, source: &Source) -> Option<Ban> {
        (*source == Source::of(self.key.remote)).then_some(self.ban)?
    }
}

/// Every reason to pass and to drop, from every side of every bound, in both families; each in `enforce`, in
/// `monitor`, and in an `enforce` that nobody answers for any more.
pub fn table(now_ns: u64) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (family, client) in [("IPv4", Client::ipv4()), ("IPv6", Client::ipv6())] {
        for (word, mode, alive_until_ns) in [
            ("enforce", mode::ENFORCE, now_ns + LONG_NS),
            ("monitor", mode::MONITOR, now_ns + LONG_NS),
            ("abandoned", mode::ENFORCE, now_ns - SECOND_NS),
        ] {
            let settings = Settings {
                alive_until_ns,
                deadline_ns: LONG_NS,
                budget_bytes: BUDGET,
                pending_max: PENDING_MAX,
                has_lists: 1,
                ..Settings::new(mode)
            };
            for mut scene in family_table(&client, now_ns, settings) {
                scene.name = format!("{family}, {word}: {}", scene.name);
                scenes.push(scene);
            }
        }
    }
    scenes
}

fn family_table(client: &Client, now_ns: u64, settings: Settings) -> Vec<Scene> {
    let scene = |name: &str, flags: u8, offset: u32, payload: &[u8]| Scene {
        name: name.to_owned(),
        frame: packet(client, flags, FIRST.wrapping_add(offset), payload),
        key: client.key(),
        now_ns,
        settings,
        flow: None,
        account: None,
        ban: None,
        listed: None,
        expected: Ok(PassReason::Unknown),
        first_bytes: None,
    };
    let mut scenes = newcomers(&scene, now_ns);
    scenes.extend(known(&scene, now_ns));
    scenes.extend(bounds(&scene, now_ns));
    scenes.extend(openings(&scene, now_ns));
    scenes.extend(listed(&scene, now_ns));
    scenes
}

type Make<'a> = &'a dyn Fn(&str, u8, u32, &[u8]) -> Scene;

fn ban(until_ns: u64) -> Option<Ban> {
    Some(Ban {
        until_ns,
        lasts_ns: SECOND_NS,
        reason: Reason::NotTls.index() as u32,
        operator: 0,
    })
}

fn account(pending: u64) -> Option<Account> {
    Some(Account {
        clear_at_ns: u64::MAX / 2,
        pending,
    })
}

fn flow(now_ns: u64, state: u8) -> Option<Flow> {
    Some(Flow {
        opened_at_ns: now_ns,
        first_sequence: FIRST,
        state,
        ..Flow::default()
    })
}

/// Packets of no known flow.
fn newcomers(make: Make<'_>, now_ns: u64) -> Vec<Scene> {
    let syn = |name: &str| make(name, SYN, 0, &[]);
    let (banned, over) = (ban(now_ns + LONG_NS), ban(now_ns - SECOND_NS));
    vec![
        Scene {
            expected: Ok(PassReason::Opening),
            ..syn("a first SYN")
        },
        Scene {
            expected: Ok(PassReason::Opening),
            account: account(PENDING_MAX - 1),
            ..syn("a SYN below the cap")
        },
        Scene {
            expected: Err(DropReason::TooManyPending),
            account: account(PENDING_MAX),
            ..syn("a SYN at the cap")
        },
        Scene {
            expected: Err(DropReason::TooManyPending),
            account: account(u64::MAX),
            ..syn("a SYN far above the cap")
        },
        Scene {
            expected: Err(DropReason::Banned),
            ban: banned,
            ..syn("a SYN of a banned source")
        },
        Scene {
            expected: Err(DropReason::Banned),
            ban: banned,
            account: account(9),
            ..syn("a SYN of a banned source at the cap")
        },
        Scene {
            expected: Ok(PassReason::Opening),
            ban: over,
            ..syn("a SYN after a ban")
        },
        Scene {
            ban: banned,
            account: account(9),
            ..make("an ACK of an old flow of a banned source", ACK, 1, &[7; 9])
        },
        Scene {
            ban: banned,
            ..make("a SYN and ACK", SYN | ACK, 0, &[])
        },
        make("no flags at all", 0, 0, &[]),
        Scene {
            expected: Ok(PassReason::Ending),
            ban: banned,
            ..make("a SYN and FIN", SYN | FIN, 0, &[])
        },
        Scene {
            expected: Ok(PassReason::Ending),
            ban: banned,
            ..make("a RST of nowhere", RST, 0, &[])
        },
    ]
}

/// Packets of flows with a verdict of user space, and ends.
fn known(make: Make<'_>, now_ns: u64) -> Vec<Scene> {
    let (old, banned) = (now_ns - LONG_NS - SECOND_NS, ban(now_ns + LONG_NS));
    let settled = |name: &str, state| Scene {
        flow: flow(old, state),
        ban: banned,
        account: account(u64::MAX),
        ..make(name, ACK, 1_000_000, b"not TLS")
    };
    let ending = |name: &str, flags| Scene {
        expected: Ok(PassReason::Ending),
        flow: flow(old, flow_state::PENDING),
        ban: banned,
        ..make(name, flags, 0, b"not TLS")
    };
    vec![
        Scene {
            expected: Ok(PassReason::Authenticated),
            ..settled(
                "an authenticated flow of a banned source",
                flow_state::AUTHENTICATED,
            )
        },
        Scene {
            expected: Ok(PassReason::Failed),
            ..settled("a failed flow of a banned source", flow_state::FAILED)
        },
        // No use to the flow it names: it is evaluated as if there were none.
        Scene {
            expected: Ok(PassReason::Opening),
            flow: flow(old, flow_state::AUTHENTICATED),
            ..make("a SYN in an authenticated flow", SYN, 1, &[])
        },
        Scene {
            expected: Err(DropReason::Banned),
            flow: flow(old, flow_state::AUTHENTICATED),
            ban: banned,
            ..make("a SYN in a flow of a banned source", SYN, 1, &[])
        },
        ending("FIN in a flow past everything", FIN | ACK),
        ending("RST in a flow past everything", RST),
        ending("RST and ACK in a flow past everything", RST | ACK),
    ]
}

/// A packet of a flow that has been pending for a second.
fn pending(make: Make<'_>, now_ns: u64, name: &str, offset: u32, payload: &[u8]) -> Scene {
    Scene {
        expected: Ok(PassReason::Pending),
        flow: flow(now_ns - SECOND_NS, flow_state::PENDING),
        ..make(name, ACK, offset, payload)
    }
}

/// Packets of pending flows, on both sides of each bound.
fn bounds(make: Make<'_>, now_ns: u64) -> Vec<Scene> {
    let pending = |name: &str, offset, payload: &[u8]| pending(make, now_ns, name, offset, payload);
    let of_age = |name: &str, age_ns: u64, expected| Scene {
        expected,
        flow: flow(now_ns.wrapping_sub(age_ns), flow_state::PENDING),
        ..make(name, ACK, 1, &[7; 9])
    };
    let over_budget = |name: &str, offset, payload: &[u8]| Scene {
        expected: Err(DropReason::ByteBudget),
        ..pending(name, offset, payload)
    };
    let (before, after) = (LONG_NS - 100 * SECOND_NS, LONG_NS + SECOND_NS);
    let ahead = 0_u64.wrapping_sub(LONG_NS);
    vec![
        pending("an empty ACK", 0, &[]),
        pending("a keep-alive probe, one byte back", u32::MAX, &[0]),
        pending("data behind the first", 12, b"not looked at"),
        pending("data behind the first, wrapped", 0x200, b"not looked at"),
        pending("the last byte of the budget", BUDGET - 1, &[0]),
        over_budget("a byte beyond the budget", BUDGET, &[0]),
        over_budget("data across the budget's end", BUDGET - 1, &[0, 0]),
        over_budget("data far beyond the budget", u32::MAX / 2 - 9, &[0; 9]),
        of_age(
            "a flow before its deadline",
            before,
            Ok(PassReason::Pending),
        ),
        of_age("a flow past its deadline", after, Err(DropReason::Deadline)),
        of_age("a flow of a clock ahead", ahead, Ok(PassReason::Pending)),
        Scene {
            expected: Err(DropReason::Banned),
            ban: ban(now_ns + LONG_NS),
            ..pending("a pending flow of a banned source", 0, &CLIENT_HELLO)
        },
        Scene {
            account: account(u64::MAX),
            ..pending("a pending flow of a source at its cap", 1, &[7])
        },
        Scene {
            expected: Err(DropReason::TooManyPending),
            flow: flow(now_ns, flow_state::PENDING).map(|flow| Flow {
                is_over_cap: 1,
                ..flow
            }),
            ..pending("a flow that was one too many", 1, &[7])
        },
    ]
}

/// First bytes of pending flows.
fn openings(make: Make<'_>, now_ns: u64) -> Vec<Scene> {
    let hello: [(&str, &[u8]); 4] = [
        ("a ClientHello", &CLIENT_HELLO),
        (
            "as much of a ClientHello as is looked at",
            &CLIENT_HELLO[..6],
        ),
        (
            "less of a ClientHello than is looked at",
            &CLIENT_HELLO[..5],
        ),
        ("the first byte of a ClientHello", &CLIENT_HELLO[..1]),
    ];
    let junk: [(&str, &[u8]); 8] = [
        ("plain HTTP", b"GET / HTTP/1.1\r\n\r\n"),
        ("one byte of HTTP", b"G"),
        ("HTTP/2 in the clear", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("an SSL 2 hello", &[0x80, 0x2e, 1, 3, 1, 0]),
        ("a handshake record of no version", &[22, 4, 1, 2, 0, 1]),
        ("a ServerHello", &[22, 3, 3, 2, 0, 2]),
        ("application data", &[23, 3, 3, 2, 0, 1]),
        ("zeros", &[0; 64]),
    ];
    let hello = hello.map(|(name, bytes)| Scene {
        first_bytes: Some(first_bytes::TLS),
        ..pending(make, now_ns, name, 0, bytes)
    });
    let junk = junk.map(|(name, bytes)| Scene {
        expected: Ok(PassReason::NotTls),
        first_bytes: Some(first_bytes::NOT_TLS),
        ..pending(make, now_ns, name, 0, bytes)
    });
    hello.into_iter().chain(junk).collect()
}

/// Operators' lists go before everything but ends.
fn listed(make: Make<'_>, now_ns: u64) -> Vec<Scene> {
    let with = |name: &str, listed, expected, flags| Scene {
        listed: Some(listed),
        expected,
        ban: ban(now_ns + LONG_NS),
        ..make(name, flags, 0, b"")
    };
    vec![
        with(
            "a SYN of a banned source that is allowed",
            Listed::Allowed,
            Ok(PassReason::Allowed),
            SYN,
        ),
        with(
            "a SYN of a source that is denied",
            Listed::Denied,
            Err(DropReason::Denied),
            SYN,
        ),
        with(
            "an ACK of a source that is denied",
            Listed::Denied,
            Err(DropReason::Denied),
            ACK,
        ),
        with(
            "a RST of a source that is denied",
            Listed::Denied,
            Ok(PassReason::Ending),
            RST,
        ),
        Scene {
            flow: flow(now_ns, flow_state::AUTHENTICATED),
            ..with(
                "an authenticated flow of a source that is denied",
                Listed::Denied,
                Err(DropReason::Denied),
                ACK,
            )
        },
        Scene {
            settings: Settings {
                has_lists: 0,
                ..make("", 0, 0, &[]).settings
            },
            ..with(
                "an ACK of a denied source while the lists are off",
                Listed::Denied,
                Ok(PassReason::Unknown),
                ACK,
            )
        },
    ]
}
