//! Lines for whoever looks into a single flow. In: what happened to it, never a packet. Out: a record for aya-log, if the
//! loader has switched that on; if not, the kernel drops these functions and every call to them when it loads the
//! programs. In functions of their own: inlined, they would take registers and stack from programs that have none to
//! spare, and what is spilled then the verifier lets only a process with CAP_PERFMON use.

use aya_ebpf::Global;
use aya_log_ebpf::debug;
use gateway_common::{Ban, FlowKey, Reason};

/// Not zero when lines are wanted: `gateway_common::DEBUG_GLOBAL`.
#[unsafe(no_mangle)]
static DEBUG: Global<u8> = Global::new(0);

/// aya-log wants a context, and does nothing with it.
const NO_CONTEXT: () = ();

/// A flow was opened.
#[inline(always)]
pub fn opened(key: &FlowKey, is_over_cap: bool) {
    if DEBUG.load() != 0 {
        write_opened(key, is_over_cap);
    }
}

/// A flow has come out, by user space's verdict or by its end.
#[inline(always)]
pub fn settled(key: &FlowKey, reason: Reason) {
    if DEBUG.load() != 0 {
        write_settled(key, reason.index());
    }
}

/// The source of a flow is banned from now on.
#[inline(always)]
pub fn banned(key: &FlowKey, ban: &Ban) {
    if DEBUG.load() != 0 {
        write_banned(key, ban.reason, ban.lasts_ns);
    }
}

#[inline(never)]
fn write_opened(key: &FlowKey, is_over_cap: bool) {
    debug!(
        NO_CONTEXT,
        "port {}: flow of {:i} port {} opened, over cap {}",
        key.local_port,
        key.remote.octets(),
        key.remote_port,
        u8::from(is_over_cap)
    );
}

#[inline(never)]
fn write_settled(key: &FlowKey, reason: usize) {
    debug!(
        NO_CONTEXT,
        "port {}: flow of {:i} port {} came out, reason {}",
        key.local_port,
        key.remote.octets(),
        key.remote_port,
        reason
    );
}

#[inline(never)]
fn write_banned(key: &FlowKey, reason: u32, lasts_ns: u64) {
    debug!(
        NO_CONTEXT,
        "port {}: source of {:i} banned for {} ns, reason {}",
        key.local_port,
        key.remote.octets(),
        lasts_ns,
        reason
    );
}
