//! The kernel programs. XDP evaluates packets on ingress interfaces, before the network stack. sock_ops and
//! setsockopt on the gateway's cgroup follow its flows and take its verdicts. They only glue: `gateway-common` parses
//! a frame, decides on it and prices a failure, and user space tests that. This file: the maps and the programs'
//! entry points.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)] // for `atomic`: the compiler has no atomic addition for this target

mod atomic;
mod flow;
mod frame;
mod index;
mod log;

use core::cell::Cell;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, xdp_action},
    btf_maps::SkStorage,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::{btf_map, cgroup_sockopt, map, sock_ops, xdp},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    programs::{SockOpsContext, SockoptContext, XdpContext},
};
use gateway_common::{
    ACCOUNTS_MAX, Account, Address, BANS_MAX, Ban, EVENTS_BYTES, FLOWS_MAX, Flow, FlowKey,
    LISTS_MAX, Listed, Overflow, PORT_COUNTS_ENTRIES, PORTS_ENTRIES, Packet, PacketVerdict,
    PortCounter, PortKey, Segment, Settings, Slot, SocketFlow, Source, State, evaluate_packet,
    mode, parse,
};

use crate::frame::Frame;

/// Which ports are protected.
#[map]
static PORTS: Array<Slot> = Array::with_max_entries(PORTS_ENTRIES, 0);

/// What arrived, by protected port.
#[map]
static PORT_COUNTS: PerCpuArray<PortCounter> =
    PerCpuArray::with_max_entries(PORT_COUNTS_ENTRIES, 0);

/// Open flows, for packets.
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(FLOWS_MAX, BPF_F_NO_PREALLOC);

/// Flows, for verdicts and ends. The kernel makes socket storage only for maps with type information.
#[btf_map]
static SOCKET_FLOWS: SkStorage<SocketFlow> = SkStorage::new();

/// Debts and open flows of sources.
#[map]
static ACCOUNTS: LruHashMap<Source, Account> = LruHashMap::with_max_entries(ACCOUNTS_MAX, 0);

/// Bans of sources.
#[map]
static BANS: LruHashMap<Source, Ban> = LruHashMap::with_max_entries(BANS_MAX, 0);

/// Operators' lists.
#[map]
static LISTS: LpmTrie<Address, u8> = LpmTrie::with_max_entries(LISTS_MAX, BPF_F_NO_PREALLOC);

/// The settings.
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Bans that begin, for user space.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// Counters of overflows, at [`Overflow::key`].
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Overflow::ALL.len() as u32, 0);

/// The licence in the kernel's spelling: some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The XDP program. `frags`: it can be attached to interfaces whose frames span several buffers.
#[xdp(frags)]
pub fn portcullis(context: XdpContext) -> u32 {
    let frame = Frame::new(context);
    match parse(&frame) {
        Ok(segment) => protect(&frame, &segment),
        Err(_) => xdp_action::XDP_PASS,
    }
}

/// Evaluates and counts a packet, if it is for a protected port.
#[inline(always)]
fn protect(frame: &Frame, segment: &Segment) -> u32 {
    let Some(counter) = counter_of(segment.destination_port) else {
        return xdp_action::XDP_PASS;
    };
    // SAFETY: the map lent a pointer to this CPU's own value, and elements of an array do not move. XDP runs with
    // bottom halves disabled, and other programs write other fields.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += u64::from(frame.length());
    }
    let Some(settings) = settings() else {
        return xdp_action::XDP_PASS;
    };
    let evaluation = evaluate_packet(frame, segment, settings, &Maps::new());
    if let Some(first_bytes) = evaluation.first_bytes
        && let Some(flow) = FLOWS.get_ptr_mut(FlowKey::of(segment))
    {
        // SAFETY: the map lent a pointer to a value that is not given back before the program ends. A byte is written
        // whole, and the first packet with data is the only one that writes it.
        unsafe { (*flow).first_bytes = first_bytes };
    }
    // SAFETY: as above.
    let unknown = unsafe { (*counter).packets };
    let index = index::any(evaluation.verdict.index(), unknown);
    // SAFETY: as above, and the index is one of its counters'.
    unsafe {
        *(&raw mut (*counter).packets_by_verdict)
            .cast::<u64>()
            .add(index) += 1
    };
    match evaluation.verdict {
        PacketVerdict::Passed(_) | PacketVerdict::WouldDrop(_) => xdp_action::XDP_PASS,
        PacketVerdict::Dropped(_) => xdp_action::XDP_DROP,
    }
}

/// The sock_ops program: flows are opened when their three-way handshake is complete, and end.
#[sock_ops]
pub fn flow_life(context: SockOpsContext) -> u32 {
    flow::follow(&context);
    1 // nothing was asked of us
}

/// The setsockopt program: user space's verdicts.
#[cgroup_sockopt(setsockopt)]
pub fn flow_verdict(context: SockoptContext) -> i32 {
    flow::take_verdict(&context);
    1 // go on: with the option, or where it was ours without
}

/// This CPU's counters of a protected port.
#[inline(always)]
fn counter_of(port: PortKey) -> Option<*mut PortCounter> {
    match *PORTS.get(port.into())? {
        0 => None,
        slot => PORT_COUNTS.get_ptr_mut(slot.into()),
    }
}

/// The settings; `None` in mode `off`.
#[inline(always)]
fn settings() -> Option<&'static Settings> {
    SETTINGS
        .get(0)
        .filter(|settings| settings.mode != mode::OFF)
}

/// The time, for programs that may not call the coarse clock.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts an overflow.
#[inline(always)]
fn count_overflow(overflow: Overflow) {
    if let Some(counter) = LOST.get_ptr_mut(overflow.key()) {
        // SAFETY: the map lent the pointer, to a value of eight bytes.
        unsafe { atomic::add(counter, 1) };
    }
}

/// The maps and the clock, as `evaluate_packet` reads them.
struct Maps {
    now_ns: Cell<Option<u64>>,
}

impl Maps {
    const fn new() -> Self {
        Self {
            now_ns: Cell::new(None),
        }
    }
}

impl State for Maps {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        if let Some(now_ns) = self.now_ns.get() {
            return now_ns;
        }
        // The coarse clock, of the last tick, costs half: no bound is as short as a tick.
        let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
        self.now_ns.set(Some(now_ns));
        now_ns
    }

    #[inline(always)]
    fn listed(&self, address: &Address) -> Option<Listed> {
        let whole = u32::BITS * 4;
        LISTS
            .get(Key::new(whole, *address))
            .and_then(|byte| Listed::from_byte(*byte))
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        // SAFETY: values are given back after a grace period only, which this program is within; fields that change
        // meanwhile are read whole.
        unsafe { FLOWS.get(key) }.copied()
    }

    #[inline(always)]
    fn account(&self, source: &Source) -> Option<Account> {
        // SAFETY: as for flows. An element that is taken for another source meanwhile is a wrong answer once.
        unsafe { ACCOUNTS.get(source) }.copied()
    }

    #[inline(always)]
    fn ban(&self, source: &Source) -> Option<Ban> {
        // SAFETY: as for accounts.
        unsafe { BANS.get(source) }.copied()
    }
}

/// Never linked: the verifier refuses a program with a panic. The compiler needs it to exist.
#[panic_handler]
fn panic(_information: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
