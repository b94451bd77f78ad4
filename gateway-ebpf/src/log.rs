//! Log lines about single flows. In: what happened to a flow, never a packet. Out: a record for aya-log, if the
//! loader enabled it; else the kernel removes these functions and their calls when it loads the programs. Not
//! inlined: they would take registers and stack that the programs need, and only CAP_PERFMON may use spilled
//! registers.

use aya_ebpf::Global;
use aya_log_ebpf::debug;
use gateway_common::{Ban, FlowKey, Reason};

/// Not zero if lines are enabled: `gateway_common::DEBUG_GLOBAL`.
#[unsafe(no_mangle)]
static DEBUG: Global<u8> = Global::new(0);

/// aya-log takes a context and does not use it.
const NO_CONTEXT: () = ();

/// A flow has opened.
#[inline(always)]
pub fn opened(key: &FlowKey, is_over_cap: bool) {
    if DEBUG.load() != 0 {
        write_opened(key, is_over_cap);
    }
}

/// A flow has its reason, by user space's verdict or by its end.
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
