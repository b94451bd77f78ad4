//! The kernel program: XDP on the ingress interfaces, before the network stack sees a packet.
//! In: a frame. Out: `XDP_PASS`, always, and one more packet in the counter of a protected port. It only glues: what a
//! frame is and what becomes of it is decided by `gateway-common`, which is tested in user space.

#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::{map, xdp},
    maps::PerCpuHashMap,
    programs::XdpContext,
};
use gateway_common::{PORT_COUNTS_PORTS_MAX, Packet, PortCounter, PortKey, Verdict, judge};

/// What arrived, by protected port. The name is `gateway_common::PORT_COUNTS_MAP`.
#[map]
static PORT_COUNTS: PerCpuHashMap<PortKey, PortCounter> =
    PerCpuHashMap::with_max_entries(PORT_COUNTS_PORTS_MAX, 0);

/// Licence as the kernel spells it: some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The XDP program; its name is `gateway_common::XDP_PROGRAM`. `frags`: it can be attached to interfaces whose frames
/// span several buffers.
#[xdp(frags)]
pub fn portcullis(context: XdpContext) -> u32 {
    let frame = Frame::new(context);
    match judge(&frame) {
        Verdict::Pass => {}
        Verdict::CountAndPass { port } => count(port, frame.length()),
    }
    xdp_action::XDP_PASS
}

/// Adds one frame to `port`'s counter, if that port is protected.
#[inline(always)]
fn count(port: PortKey, bytes: u32) {
    if let Some(counter) = PORT_COUNTS.get_ptr_mut(port) {
        // SAFETY: the map lent a pointer to this CPU's own value, and elements of a preallocated map stay allocated for
        // as long as the program runs. XDP runs with bottom halves disabled, so nothing else on this CPU writes to it.
        let counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += u64::from(bytes);
    }
}

/// A frame as the driver received it.
struct Frame {
    context: XdpContext,
    length: u32,
}

impl Frame {
    #[inline(always)]
    fn new(context: XdpContext) -> Self {
        // SAFETY: the context is the one the kernel called the program with.
        let length = unsafe { bpf_xdp_get_buff_len(context.ctx) };
        Self {
            context,
            length: length as u32, // frames are far below 4 GiB
        }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // Not zeroed first: for that the compiler would call `memset`, whose loop the verifier accepts only from
        // processes with CAP_PERFMON.
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the context is the one the kernel called the program with, and `bytes` has room for `N` bytes.
        let status = unsafe {
            bpf_xdp_load_bytes(
                self.context.ctx,
                offset,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        // SAFETY: the helper wrote all `N` bytes, or said that it did not.
        (status == 0).then(|| unsafe { bytes.assume_init() })
    }
}

/// Never linked: the verifier would refuse a program with a panic in it. The compiler wants it to exist.
#[panic_handler]
fn panic(_information: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
