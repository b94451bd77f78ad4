//! The kernel programs, loaded and attached by the tests themselves, and their maps, value by value. In: settings,
//! ports, lists, whatever a scene lays out. Out: counters, accounts, bans, events. Knows `gateway-common` and nothing of
//! the gateway's own side, which has tests of its own. What is attached ends with the value, or with the process.

use std::fs::File;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapError, MapInfo, PerCpuArray, PerCpuValues, RingBuf};
use aya::programs::{
    CgroupAttachMode, CgroupSockopt, Program, ProgramError, SockOps, TestRun, TestRunOptions, Xdp,
    XdpMode,
};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use gateway_common::{
    ACCOUNTS_MAP, Account, Address, BANS_MAP, Ban, BanEvent, COUNTERS, DEBUG_GLOBAL, EVENTS_MAP,
    FLOWS_MAP, Flow, FlowKey, LIFE_PROGRAM, LISTS_MAP, LOST_MAP, Listed, Overflow, PORT_COUNTS_MAP,
    PORTS_MAP, PortCounter, PortKey, SETTINGS_MAP, Settings, Slot, Source, VERDICT_PROGRAM,
    XDP_PROGRAM,
};
use log::{Level, Log, Metadata, Record};

use crate::object;

const COUNTER_WORDS: usize = size_of::<PortCounter>() / size_of::<u64>();
const SETTINGS_BYTES: usize = size_of::<Settings>();
const FLOW_KEY_BYTES: usize = size_of::<FlowKey>();

/// The slot of whichever port is protected: not the first, so that a slot taken for another is seen.
const SLOT: u32 = 7;

type Octets = [u8; 16];
type BanWords = [u64; 3];
type AccountWords = [u64; 2];

/// The object, loaded.
pub struct Programs {
    loaded: Ebpf,
    logger: EbpfLogger<&'static Lines>,
    lines: &'static Lines,
}

impl Programs {
    /// All maps empty; the XDP program accepted by the verifier.
    pub fn load() -> Self {
        Self::load_by(&mut EbpfLoader::new())
    }

    /// The same, with lines of aya-log switched on.
    pub fn load_with_lines() -> Self {
        Self::load_by(EbpfLoader::new().override_global(DEBUG_GLOBAL, &1_u8, true))
    }

    fn load_by(loader: &mut EbpfLoader<'_>) -> Self {
        let mut loaded = loader.load(&object()).expect("the object loads");
        let lines: &Lines = Box::leak(Box::default()); // the logger wants to own or borrow it for ever
        let logger = EbpfLogger::init_with_logger(&mut loaded, lines).expect("it has lines");
        let mut programs = Self {
            loaded,
            logger,
            lines,
        };
        let program: &mut Xdp = programs.program(XDP_PROGRAM);
        program.load().expect("the verifier accepts it");
        programs
    }

    /// Lines that nobody has read yet.
    pub fn lines(&mut self) -> Vec<String> {
        self.logger.flush();
        std::mem::take(&mut *self.lines.0.lock().expect("nobody has panicked"))
    }

    /// Evaluates what an interface of this thread's namespace receives, in its driver.
    pub fn attach(&mut self, interface: &str) {
        let program: &mut Xdp = self.program(XDP_PROGRAM);
        program
            .attach(interface, XdpMode::Driver)
            .expect("veth has XDP");
    }

    /// Follows the flows of sockets made in `cgroup`; twice, when it is called twice.
    pub fn follow(&mut self, cgroup: &File) {
        let verdicts: &mut CgroupSockopt = self.program(VERDICT_PROGRAM);
        load_once(verdicts.load());
        verdicts
            .attach(cgroup, CgroupAttachMode::Single)
            .expect("the cgroup takes it");
        let life: &mut SockOps = self.program(LIFE_PROGRAM);
        load_once(life.load());
        life.attach(cgroup, CgroupAttachMode::Single)
            .expect("the cgroup takes it");
    }

    fn program<'a, T>(&'a mut self, name: &str) -> &'a mut T
    where
        &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.loaded.program_mut(name).expect("the object has it");
        program.try_into().expect("it is of this kind")
    }

    /// Runs the XDP program on a frame: its answer, and what one run took.
    pub fn run(&self, frame: &[u8], repeat: u32) -> (u32, Duration) {
        let program = self.loaded.program(XDP_PROGRAM).expect("the object has it");
        let program: &Xdp = program.try_into().expect("it is an XDP program");
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                repeat,
                ..TestRunOptions::default()
            })
            .expect("the kernel runs the program");
        (result.return_value, result.duration)
    }

    /// Runs the XDP program on a frame once: its answer, and the frame afterwards.
    pub fn run_whole(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let program = self.loaded.program(XDP_PROGRAM).expect("the object has it");
        let program: &Xdp = program.try_into().expect("it is an XDP program");
        let mut after = vec![0; frame.len()];
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut after),
                ..TestRunOptions::default()
            })
            .expect("the kernel runs the program");
        assert_eq!(result.data_size_out as usize, frame.len());
        (result.return_value, after)
    }

    /// Protects a port, in place of the one before, and sets the counters to zero.
    pub fn protect(&mut self, port: PortKey) {
        let zeros = vec![[0; COUNTER_WORDS]; nr_cpus().expect("the number of CPUs is known")];
        let zeros = PerCpuValues::try_from(zeros).expect("one per CPU");
        let mut counts: PerCpuArray<_, [u64; COUNTER_WORDS]> = self.map_mut(PORT_COUNTS_MAP);
        counts.set(SLOT, zeros, 0).expect("there are many");
        let mut ports: Array<_, Slot> = self.map_mut(PORTS_MAP);
        ports
            .set(port.into(), SLOT as Slot, 0)
            .expect("every port is there");
    }

    pub fn set_settings(&mut self, settings: &Settings) {
        let mut map: Array<_, [u8; SETTINGS_BYTES]> = self.map_mut(SETTINGS_MAP);
        map.set(0, settings_bytes(settings), 0)
            .expect("the settings fit");
    }

    pub fn set_flow(&mut self, key: &FlowKey, flow: Option<Flow>) {
        let bytes = flow.map(|flow| flow_bytes(&flow));
        self.set_entry(FLOWS_MAP, key_bytes(key), bytes);
    }

    pub fn set_account(&mut self, source: Source, account: Option<Account>) {
        let words = account.map(|account| [account.clear_at_ns, account.pending]);
        self.set_entry::<Octets, AccountWords>(ACCOUNTS_MAP, source.0.octets(), words);
    }

    pub fn set_ban(&mut self, source: Source, ban: Option<Ban>) {
        let words = ban.map(|ban| {
            let last = u64::from(ban.reason) | u64::from(ban.operator) << 32;
            [ban.until_ns, ban.lasts_ns, last]
        });
        self.set_entry::<Octets, BanWords>(BANS_MAP, source.0.octets(), words);
    }

    /// Puts a network on a list, or takes it off.
    pub fn set_listed(&mut self, network: Address, prefix: u32, listed: Option<Listed>) {
        let mut lists: LpmTrie<_, Octets, u8> = self.map_mut(LISTS_MAP);
        let key = Key::new(prefix, network.octets());
        let byte = listed.map(|listed| match listed {
            Listed::Allowed => 1,
            Listed::Denied => 2,
        });
        // It need not have been there.
        let _ = lists.remove(&key);
        if let Some(byte) = byte {
            lists.insert(&key, byte, 0).expect("an entry fits");
        }
    }

    fn set_entry<K: aya::Pod, V: aya::Pod>(&mut self, name: &str, key: K, value: Option<V>) {
        let mut map: HashMap<_, K, V> = self.map_mut(name);
        // It need not have been there.
        let _ = map.remove(&key);
        if let Some(value) = value {
            map.insert(key, value, 0).expect("an entry fits");
        }
    }

    /// What was counted for a port, over all CPUs.
    pub fn counter(&self, port: PortKey) -> PortCounter {
        let ports: Array<_, Slot> = self.map(PORTS_MAP);
        let slot = ports.get(&port.into(), 0).expect("every port is there");
        assert_eq!(u32::from(slot), SLOT, "port {port} is not protected");
        let counts: PerCpuArray<_, [u64; COUNTER_WORDS]> = self.map(PORT_COUNTS_MAP);
        let values = counts.get(&SLOT, 0).expect("there are many");
        let mut sum = PortCounter::ZERO;
        for words in values.iter() {
            let (packets_by_verdict, rest) = words[2..].split_at(COUNTERS);
            sum.add(&PortCounter {
                packets: words[0],
                bytes: words[1],
                packets_by_verdict: packets_by_verdict.try_into().expect("so many"),
                flows_opened: rest[0],
                flows: rest[1..].try_into().expect("so many"),
            });
        }
        sum
    }

    pub fn flow(&self, key: &FlowKey) -> Option<Flow> {
        let flows: HashMap<_, [u8; FLOW_KEY_BYTES], [u8; 16]> = self.map(FLOWS_MAP);
        let bytes = flows.get(&key_bytes(key), 0).ok()?;
        let (opened_at_ns, rest) = bytes.split_first_chunk()?;
        let (first_sequence, rest) = rest.split_first_chunk()?;
        let [state, first_bytes, is_over_cap, padding] = *rest.first_chunk()?;
        Some(Flow {
            opened_at_ns: u64::from_ne_bytes(*opened_at_ns),
            first_sequence: u32::from_ne_bytes(*first_sequence),
            state,
            first_bytes,
            is_over_cap,
            padding,
        })
    }

    /// Flows that are known.
    pub fn flow_count(&self) -> usize {
        let flows: HashMap<_, [u8; FLOW_KEY_BYTES], [u8; 16]> = self.map(FLOWS_MAP);
        flows.keys().filter(Result::is_ok).count()
    }

    pub fn account(&self, source: Source) -> Option<Account> {
        let accounts: HashMap<_, Octets, AccountWords> = self.map(ACCOUNTS_MAP);
        let [clear_at_ns, pending] = accounts.get(&source.0.octets(), 0).ok()?;
        Some(Account {
            clear_at_ns,
            pending,
        })
    }

    /// Sources that have an account.
    pub fn account_count(&self) -> usize {
        let accounts: HashMap<_, Octets, AccountWords> = self.map(ACCOUNTS_MAP);
        accounts.keys().filter(Result::is_ok).count()
    }

    pub fn ban(&self, source: Source) -> Option<Ban> {
        let bans: HashMap<_, Octets, BanWords> = self.map(BANS_MAP);
        let [until_ns, lasts_ns, last] = bans.get(&source.0.octets(), 0).ok()?;
        Some(Ban {
            until_ns,
            lasts_ns,
            reason: last as u32,
            operator: (last >> 32) as u32,
        })
    }

    /// Events that nobody has read yet.
    pub fn events(&mut self) -> Vec<BanEvent> {
        let mut events: RingBuf<_> = self.map_mut(EVENTS_MAP);
        let mut read = Vec::new();
        while let Some(record) = events.next() {
            read.push(BanEvent::read(&record).expect("it is an event"));
        }
        read
    }

    /// What there was no room for, over all CPUs.
    pub fn overflows(&self, overflow: Overflow) -> u64 {
        let counters: PerCpuArray<_, u64> = self.map(LOST_MAP);
        let values = counters.get(&overflow.key(), 0).expect("there is one");
        values.iter().sum()
    }

    /// What the kernel says of each map.
    pub fn maps(&self) -> Vec<MapInfo> {
        let info = |map: &Map| match map {
            Map::Array(data)
            | Map::HashMap(data)
            | Map::LpmTrie(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::RingBuf(data)
            | Map::SkStorage(data) => data.info().expect("the kernel knows it"),
            other => panic!("a kind that no map of ours has had: {other:?}"),
        };
        self.loaded.maps().map(|(_, map)| info(map)).collect()
    }

    fn map<'a, T>(&'a self, name: &str) -> T
    where
        T: TryFrom<&'a Map, Error = MapError>,
    {
        let map = self.loaded.map(name).expect("the object has the map");
        map.try_into().expect("keys and values have their sizes")
    }

    fn map_mut<'a, T>(&'a mut self, name: &str) -> T
    where
        T: TryFrom<&'a mut Map, Error = MapError>,
    {
        let map = self.loaded.map_mut(name).expect("the object has the map");
        map.try_into().expect("keys and values have their sizes")
    }
}

/// Keeps what aya-log reads.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        assert_eq!(record.level(), Level::Debug, "{record:?}");
        let mut lines = self.0.lock().expect("nobody has panicked");
        lines.push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// The source that an address belongs to.
pub fn source(address: IpAddr) -> Source {
    Source::of(address)
}

/// Nanoseconds on the clock that the kernel programs read.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("it is up") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("it is positive")
}

/// A program that is attached a second time is loaded already.
fn load_once(result: Result<(), ProgramError>) {
    match result {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
        Err(error) => panic!("the verifier refuses it: {error}"),
    }
}

fn key_bytes(key: &FlowKey) -> [u8; FLOW_KEY_BYTES] {
    let mut bytes = [0; FLOW_KEY_BYTES];
    bytes[..16].copy_from_slice(&key.remote.octets());
    bytes[16..32].copy_from_slice(&key.local.octets());
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
