//! Scene by scene through the kernel's own test run: with flows, accounts, bans, lists and settings laid into the maps
//! byte by byte, the verdict and the one counter that the table says; and what a packet of each kind costs.

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, PerCpuHashMap, PerCpuValues};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use gateway_common::{
    ACCOUNTS_MAP, BANS_MAP, COUNTERS, FLOWS_MAP, Fate, Flow, FlowKey, LISTS_MAP, Listed,
    PORT_COUNTS_MAP, PortCounter, PortKey, SETTINGS_MAP, Settings, Source, XDP_PROGRAM,
};

use crate::frames::PORT;
use crate::object;
use crate::scenes::{self, Scene};

/// linux/bpf.h
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

const COUNTER_WORDS: usize = size_of::<PortCounter>() / size_of::<u64>();
const SETTINGS_BYTES: usize = size_of::<Settings>();
const FLOW_KEY_BYTES: usize = size_of::<FlowKey>();

/// The XDP program, attached to nothing, with one protected port and one scene in its maps.
struct Stage(Ebpf);

impl Stage {
    fn new() -> Self {
        let mut loaded = Ebpf::load(&object()).expect("the object loads");
        let program: &mut Xdp = loaded
            .program_mut(XDP_PROGRAM)
            .expect("the object has the program")
            .try_into()
            .expect("it is an XDP program");
        program.load().expect("the verifier accepts it");
        Self(loaded)
    }

    /// Lays a scene into the maps, in place of the one before, and all counters to zero.
    fn set(&mut self, scene: &Scene) {
        let Source(source) = Source::of(scene.key.remote);
        self.entry(
            FLOWS_MAP,
            key_bytes(&scene.key),
            scene.flow.map(|flow| flow_bytes(&flow)),
        );
        let account = scene
            .account
            .map(|account| [account.clear_at_ns, account.pending]);
        self.entry(ACCOUNTS_MAP, source, account);
        let ban = scene.ban.map(|ban| [ban.until_ns, ban.lasts_ns]);
        self.entry(BANS_MAP, source, ban);

        let map = self.0.map_mut(LISTS_MAP).expect("the object has the map");
        let mut lists: LpmTrie<_, [u8; 16], u8> = map.try_into().expect("it is a tree");
        // A network around the address, and another one that is not.
        let network = Key::new(120, scene.key.remote);
        let _ = lists.remove(&network);
        if let Some(listed) = scene.listed {
            let byte = match listed {
                Listed::Allowed => 1,
                Listed::Denied => 2,
            };
            lists.insert(&network, byte, 0).expect("an entry fits");
        }

        let map = self
            .0
            .map_mut(SETTINGS_MAP)
            .expect("the object has the map");
        let mut settings: Array<_, [u8; SETTINGS_BYTES]> = map.try_into().expect("it is an array");
        settings
            .set(0, settings_bytes(&scene.settings), 0)
            .expect("the settings fit");

        let zeros = vec![[0; COUNTER_WORDS]; nr_cpus().expect("the number of CPUs is known")];
        let zeros = PerCpuValues::try_from(zeros).expect("one per CPU");
        let map = self
            .0
            .map_mut(PORT_COUNTS_MAP)
            .expect("the object has the map");
        let mut counts: PerCpuHashMap<_, PortKey, [u64; COUNTER_WORDS]> =
            map.try_into().expect("keys and values have their sizes");
        counts.insert(PORT, zeros, 0).expect("a port fits");
    }

    fn entry<K: aya::Pod, V: aya::Pod>(&mut self, name: &str, key: K, value: Option<V>) {
        let map = self.0.map_mut(name).expect("the object has the map");
        let mut map: HashMap<_, K, V> = map.try_into().expect("keys and values have their sizes");
        match value {
            Some(value) => map.insert(key, value, 0).expect("an entry fits"),
            None => {
                let _ = map.remove(&key);
            }
        }
    }

    fn run(&self, frame: &[u8], repeat: u32) -> (u32, std::time::Duration) {
        let program: &Xdp = self
            .0
            .program(XDP_PROGRAM)
            .expect("the object has the program")
            .try_into()
            .expect("it is an XDP program");
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                repeat,
                ..TestRunOptions::default()
            })
            .expect("the kernel runs the program");
        (result.return_value, result.duration)
    }

    fn counter(&self) -> PortCounter {
        let map = self.0.map(PORT_COUNTS_MAP).expect("the object has the map");
        let counts: PerCpuHashMap<_, PortKey, [u64; COUNTER_WORDS]> =
            map.try_into().expect("keys and values have their sizes");
        let values = counts.get(&PORT, 0).expect("the port is protected");
        let mut sum = PortCounter::ZERO;
        for words in values.iter() {
            let (fates, rest) = words[2..].split_at(COUNTERS);
            sum.add(&PortCounter {
                packets: words[0],
                bytes: words[1],
                fates: fates.try_into().expect("so many"),
                flows_opened: rest[0],
                flows: rest[1..].try_into().expect("so many"),
            });
        }
        sum
    }

    fn first_bytes(&self, key: &FlowKey) -> Option<u8> {
        let map = self.0.map(FLOWS_MAP).expect("the object has the map");
        let flows: HashMap<_, [u8; FLOW_KEY_BYTES], [u8; 16]> =
            map.try_into().expect("keys and values have their sizes");
        flows.get(&key_bytes(key), 0).ok().map(|flow| flow[13])
    }
}

fn key_bytes(key: &FlowKey) -> [u8; FLOW_KEY_BYTES] {
    let mut bytes = [0; FLOW_KEY_BYTES];
    bytes[..16].copy_from_slice(&key.remote);
    bytes[16..32].copy_from_slice(&key.local);
    bytes[32..34].copy_from_slice(&key.remote_port.to_ne_bytes());
    bytes[34..].copy_from_slice(&key.local_port.to_ne_bytes());
    bytes
}

fn flow_bytes(flow: &Flow) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&flow.opened_at_ns.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flow.first_sequence.to_ne_bytes());
    bytes[12..].copy_from_slice(&[flow.state, flow.first_bytes, flow.is_over_cap, 0]);
    bytes
}

fn settings_bytes(settings: &Settings) -> [u8; SETTINGS_BYTES] {
    let long = [
        settings.alive_until_ns,
        settings.deadline_ns,
        settings.pending_max,
        settings.point_ns,
        settings.ban_debt_ns,
        settings.ban_first_ns,
        settings.ban_longest_ns,
        settings.ban_memory_ns,
    ];
    let short = [settings.budget_bytes, settings.mode, settings.has_lists, 0];
    let bytes: Vec<u8> = long
        .into_iter()
        .flat_map(u64::to_ne_bytes)
        .chain(short.into_iter().flat_map(u32::to_ne_bytes))
        .chain(settings.weights.into_iter().flat_map(u16::to_ne_bytes))
        .collect();
    bytes.try_into().expect("there is nothing else in it")
}

/// Nanoseconds on the clock that the kernel programs read.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("it is up") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("it is positive")
}

#[test]
fn every_scene_ends_in_the_kernel_as_the_table_says_and_counts_once() {
    let mut stage = Stage::new();
    let scenes = scenes::table(now_ns());
    assert!(
        scenes.len() >= 60,
        "the table has shrunk to {}",
        scenes.len()
    );
    for scene in scenes {
        stage.set(&scene);
        let (verdict, _) = stage.run(&scene.frame, 1);
        let fate = scene.fate();
        let expected = match fate {
            Fate::Dropped(_) => XDP_DROP,
            Fate::Passed(_) | Fate::WouldDrop(_) => XDP_PASS,
        };
        assert_eq!(verdict, expected, "{}", scene.name);
        let mut counter = PortCounter {
            packets: 1,
            bytes: scene.frame.len() as u64,
            ..PortCounter::ZERO
        };
        counter.fates[fate.index()] = 1;
        assert_eq!(stage.counter(), counter, "{}", scene.name);
        let noted = scene
            .flow
            .map(|flow| scene.first_bytes.unwrap_or(flow.first_bytes));
        assert_eq!(stage.first_bytes(&scene.key), noted, "{}", scene.name);
    }
}

/// Not an assertion of time: the figures are printed, and the runs must end as one run does.
#[test]
fn a_million_packets_of_each_kind_are_judged_alike() {
    const REPEAT: u32 = 1_000_000;
    let kinds = [
        "IPv4, enforce: an authenticated flow of a banned source",
        "IPv4, enforce: a SYN of a banned source",
        "IPv4, enforce: a pending flow of a banned source",
        "IPv4, enforce: a ClientHello",
        "IPv6, enforce: an authenticated flow of a banned source",
        "IPv6, enforce: a SYN of a banned source",
    ];
    let mut stage = Stage::new();
    for kind in kinds {
        let scenes = scenes::table(now_ns());
        let mut scene = scenes
            .into_iter()
            .find(|scene| scene.name == kind)
            .unwrap_or_else(|| panic!("{kind} is not in the table"));
        scene.settings.has_lists = 0;
        stage.set(&scene);
        let (_, each) = stage.run(&scene.frame, REPEAT);
        eprintln!("{kind}: {} ns", each.as_nanos());
        let counter = stage.counter();
        assert_eq!(counter.fate(scene.fate()), u64::from(REPEAT), "{kind}");
    }
}
