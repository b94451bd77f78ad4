//! The life of a flow: it opens, gets user space's verdict, ends. In: the calls of sock_ops and setsockopt. Out: the
//! flow in its map and in its socket, its reason counted once, its source charged. The kernel holds the socket's lock
//! for both programs, so an end and a verdict never run at once.

use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use aya_ebpf::{
    bindings::{
        BPF_ANY, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock,
    },
    helpers::generated::{bpf_sk_storage_get, bpf_tcp_sock},
    programs::{SockOpsContext, SockoptContext},
};
use gateway_common::{
    Account, Address, Ban, BanEvent, Evidence, Flow, FlowKey, Listed, Overflow, PortCounter,
    Reason, Settings, SocketFlow, Source, State, VERDICT_LEVEL, first_bytes, flow_state,
    settled_by, settled_by_end, socket_state,
};

use crate::{
    ACCOUNTS, BANS, EVENTS, FLOWS, Maps, SOCKET_FLOWS, atomic, count_overflow, counter_of, index,
    log, now_ns, settings,
};

/// Programs see one page of an option's value.
const SHOWN_BYTES: i32 = 4096;

/// Handles a call of the sock_ops program.
#[inline(always)]
pub fn follow(context: &SockOpsContext) {
    match context.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => open(context),
        BPF_SOCK_OPS_STATE_CB if context.arg(1) == BPF_TCP_CLOSE => end(context),
        _ => {}
    }
}

/// The three-way handshake is complete, which a forged source address cannot do: the flow is known from here on.
#[inline(always)]
fn open(context: &SockOpsContext) {
    let key = key_of(context);
    let Some(counter) = counter_of(key.local_port) else {
        return;
    };
    let Some(settings) = settings() else {
        return;
    };
    // SAFETY: the context is the kernel's, and its socket is checked for null by the helper's caller below.
    let socket = unsafe { (*context.ops).__bindgen_anon_2.sk };
    // During a takeover the programs of both gateways run, one after the other.
    if socket_flow_of(socket, None).is_some() {
        return;
    }
    // The clock of the packet program: its time is never before this one.
    let now_ns = Maps::new().now_ns();
    let mut socket_flow = SocketFlow {
        key,
        state: socket_state::PENDING,
        first_bytes: first_bytes::UNSEEN,
        is_over_cap: 0,
        is_counted: 0,
    };
    let mut account = None;
    if !is_allowed(&key, settings) {
        let Some(found) = account_of(&Source::of(key.remote), now_ns) else {
            return;
        };
        // SAFETY: the map lent the pointer; see `Maps::account`.
        let is_over_cap = unsafe { (*found).pending } >= settings.pending_max;
        socket_flow.is_over_cap = u8::from(is_over_cap);
        socket_flow.is_counted = 1;
        account = Some(found);
    }
    if socket_flow_of(socket, Some(&mut socket_flow)).is_none() {
        count_overflow(Overflow::Flow);
        return;
    }
    let flow = Flow {
        opened_at_ns: now_ns,
        // SAFETY: the context is the kernel's.
        first_sequence: unsafe { (*context.ops).rcv_nxt },
        state: flow_state::PENDING,
        first_bytes: first_bytes::UNSEEN,
        is_over_cap: socket_flow.is_over_cap,
        padding: 0,
    };
    if FLOWS.insert(key, flow, BPF_ANY.into()).is_err() {
        count_overflow(Overflow::Flow);
    }
    // SAFETY: both point into values of maps, at fields of eight bytes.
    unsafe {
        if let Some(account) = account {
            atomic::add(&raw mut (*account).pending, 1);
        }
        atomic::add(&raw mut (*counter).flows_opened, 1);
    }
    log::opened(&key, socket_flow.is_over_cap != 0);
    let flags = context.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    let _ = context.set_cb_flags(flags as i32);
}

/// The connection has ended.
#[inline(always)]
fn end(context: &SockOpsContext) {
    // SAFETY: the context is the kernel's.
    let (socket, received_bytes) = unsafe {
        (
            (*context.ops).__bindgen_anon_2.sk,
            (*context.ops).bytes_received,
        )
    };
    let Some(known) = socket_flow_of(socket, None) else {
        return;
    };
    // SAFETY: the socket is locked and lives, and so does its storage.
    let known = unsafe { &mut *known };
    let seen = first_bytes_of(&known.key);
    let _ = FLOWS.remove(known.key);
    if known.state != socket_state::PENDING {
        return;
    }
    known.first_bytes = seen;
    leave_pending(known);
    let evidence = Evidence {
        received_bytes,
        first_bytes: seen,
        is_over_cap: known.is_over_cap != 0,
    };
    match settled_by_end(&evidence) {
        Some(reason) => {
            known.state = socket_state::SETTLED;
            settle(&known.key, reason);
        }
        None => known.state = socket_state::UNDECIDED,
    }
}

/// Takes user space's verdict. Other options are left to the kernel.
#[inline(always)]
pub fn take_verdict(context: &SockoptContext) {
    let option = context.sockopt;
    // SAFETY: the context is the kernel's.
    let (level, name, socket) = unsafe {
        (
            (*option).level,
            (*option).optname,
            (*option).__bindgen_anon_1.sk,
        )
    };
    if level != VERDICT_LEVEL {
        // A value longer than a page. Before Linux 6.4 the kernel refuses it, unless a program lets it use the
        // original.
        unsafe {
            if (*option).optlen > SHOWN_BYTES {
                (*option).optlen = 0;
            }
        }
        return;
    }
    let (Some(verdict), Some(known)) = (Reason::verdict(name), socket_flow_of(socket, None)) else {
        return;
    };
    // SAFETY: the context is the kernel's; minus one says that the option was ours, and is not looked up any more.
    unsafe { (*option).optlen = -1 };
    // SAFETY: the socket is locked and lives, and so does its storage.
    let known = unsafe { &mut *known };
    if known.state == socket_state::SETTLED {
        return;
    }
    // An ended flow is not in the map, and another one may have its addresses by now.
    let mut open = None;
    if known.state == socket_state::PENDING {
        open = FLOWS.get_ptr_mut(known.key);
        // SAFETY: the map lent the pointer, and the flow is open.
        known.first_bytes = open.map_or(first_bytes::UNSEEN, |flow| unsafe { (*flow).first_bytes });
        leave_pending(known);
    }
    known.state = socket_state::SETTLED;
    let evidence = Evidence {
        received_bytes: received_bytes_of(socket),
        first_bytes: known.first_bytes,
        is_over_cap: known.is_over_cap != 0,
    };
    let reason = settled_by(verdict, &evidence);
    if let Some(flow) = open {
        let state = match reason {
            Reason::Authenticated => flow_state::AUTHENTICATED,
            _ => flow_state::FAILED,
        };
        // SAFETY: as above. A byte is written whole.
        unsafe { (*flow).state = state };
    }
    settle(&known.key, reason);
}

/// Counts a flow under its reason and charges its source.
#[inline(always)]
fn settle(key: &FlowKey, reason: Reason) {
    let now_ns = now_ns();
    let index = index::any(reason.index(), now_ns);
    if let Some(counter) = counter_of(key.local_port) {
        let offset = offset_of!(PortCounter, flows) + index * size_of::<u64>();
        // SAFETY: the map lent the pointer, and the index is one of its counters'.
        unsafe { atomic::add(counter.byte_add(offset).cast(), 1) };
    }
    log::settled(key, reason);
    let Some(settings) = settings() else {
        return;
    };
    // SAFETY: there are as many weights as counters.
    let weight = unsafe { *settings.weights.as_ptr().add(index) };
    if weight == 0 {
        return;
    }
    if is_allowed(key, settings) {
        return;
    }
    let Some(account) = account_of(&Source::of(key.remote), now_ns) else {
        return;
    };
    // SAFETY: the map lent the pointer; what is written is one word, and `Account` says what two writers do.
    if unsafe { (*account).charge(weight, now_ns, settings) } {
        ban(key, reason, now_ns, settings);
    }
}

/// Bans a flow's source and reports it, unless the source is banned already.
#[inline(always)]
fn ban(key: &FlowKey, reason: Reason, now_ns: u64, settings: &Settings) {
    let source = Source::of(key.remote);
    let before = Maps::new().ban(&source);
    if before.is_some_and(|before| before.holds(now_ns)) {
        return;
    }
    let ban = Ban::next(before, reason, now_ns, settings);
    if BANS.insert(source, ban, BPF_ANY.into()).is_err() {
        count_overflow(Overflow::Ban);
        return;
    }
    log::banned(key, &ban);
    // Written to the stack first. Directly into the ring, the compiler would call `memcpy`, which subtracts pointers;
    // the verifier allows that only to processes with CAP_PERFMON.
    let event = BanEvent {
        source,
        ban,
        local_port: key.local_port,
        padding: 0,
        more_padding: 0,
    };
    if EVENTS.output::<BanEvent>(event, 0).is_err() {
        count_overflow(Overflow::BanEvent);
    }
}

/// Whether the operator's lists allow the client of a flow.
#[inline(always)]
fn is_allowed(key: &FlowKey, settings: &Settings) -> bool {
    settings.has_lists != 0 && Maps::new().listed(&key.remote) == Some(Listed::Allowed)
}

/// The account of a source; a new one if there is none.
#[inline(always)]
fn account_of(source: &Source, now_ns: u64) -> Option<*mut Account> {
    if let Some(account) = ACCOUNTS.get_ptr_mut(source) {
        return Some(account);
    }
    // Not all zero: see `Frame::load`.
    let account = Account {
        clear_at_ns: now_ns,
        pending: 0,
    };
    let _ = ACCOUNTS.insert(source, account, BPF_NOEXIST.into());
    let made = ACCOUNTS.get_ptr_mut(source);
    if made.is_none() {
        count_overflow(Overflow::Account);
    }
    made
}

/// Takes the flow out of its source's pending ones.
#[inline(always)]
fn leave_pending(flow: &SocketFlow) {
    if flow.is_counted != 0
        && let Some(account) = ACCOUNTS.get_ptr_mut(Source::of(flow.key.remote))
    {
        // Zero if the account was evicted and made anew.
        unsafe {
            if (*account).pending > 0 {
                atomic::add(&raw mut (*account).pending, u64::MAX);
            }
        }
    }
}

/// What the packets of an open flow have shown.
#[inline(always)]
fn first_bytes_of(key: &FlowKey) -> u8 {
    // SAFETY: as for `Maps::flow`.
    unsafe { FLOWS.get(key) }.map_or(first_bytes::UNSEEN, |flow| flow.first_bytes)
}

/// A socket's storage; made from `initial` if that is given.
#[inline(always)]
fn socket_flow_of(
    socket: *mut bpf_sock,
    initial: Option<&mut SocketFlow>,
) -> Option<*mut SocketFlow> {
    if socket.is_null() {
        return None;
    }
    let (initial, flags) = match initial {
        Some(initial) => (ptr::from_mut(initial), BPF_SK_STORAGE_GET_F_CREATE),
        None => (ptr::null_mut(), 0),
    };
    // The wrapper of aya-ebpf takes another kind of program's context.
    let map: *mut c_void = (&raw const SOCKET_FLOWS).cast_mut().cast();
    // SAFETY: the map is one of socket storage, the socket is the context's and not null, and `initial` is of the
    // map's type.
    let found = unsafe { bpf_sk_storage_get(map, socket.cast(), initial.cast(), flags.into()) };
    (!found.is_null()).then_some(found.cast())
}

/// Bytes received by a socket, as TCP counts them. Without an answer, the maximum: then nothing is concluded.
#[inline(always)]
fn received_bytes_of(socket: *mut bpf_sock) -> u64 {
    // SAFETY: the socket is the context's and not null.
    let tcp = unsafe { bpf_tcp_sock(socket) };
    if tcp.is_null() {
        return u64::MAX;
    }
    // SAFETY: the helper lent the pointer.
    unsafe { (*tcp).bytes_received }
}

/// The `ip6` words hold mapped IPv4 addresses too. The remote port is in network order, in the upper half.
#[inline(always)]
fn key_of(context: &SockOpsContext) -> FlowKey {
    // SAFETY: the context is the kernel's.
    let (remote, local) = unsafe {
        (
            address(&raw const (*context.ops).remote_ip6),
            address(&raw const (*context.ops).local_ip6),
        )
    };
    FlowKey {
        remote,
        local,
        remote_port: u32::from_be(context.remote_port()) as u16,
        local_port: context.local_port() as u16,
    }
}

/// Four words of the context, in network order.
///
/// # Safety
/// They are the kernel's.
#[inline(always)]
unsafe fn address(words: *const [u32; 4]) -> Address {
    let words: *const u32 = words.cast();
    // One by one: the compiler would copy all from a pointer of its own, and the verifier knows only the context's.
    let word = |index| unsafe { words.add(index).read_volatile() };
    Address::from_words([word(0), word(1), word(2), word(3)])
}
