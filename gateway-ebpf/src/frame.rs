//! A frame as the driver received it. In: the context of an XDP program. Out: its first bytes in place, and copies of
//! any bytes by the kernel's helper. Without CAP_PERFMON, the verifier allows direct reads at constant offsets only.

use core::hint::assert_unchecked;
use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use gateway_common::Packet;

/// A frame as the driver received it.
pub struct Frame {
    context: XdpContext,
    length: u32,
}

impl Frame {
    #[inline(always)]
    pub fn new(context: XdpContext) -> Self {
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
        // Not zeroed: the compiler would call `memset`, whose loop the verifier accepts only with CAP_PERFMON.
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

    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        let start = self.context.data();
        // SAFETY: there is no frame at zero. Not said, the compiler asks, and the verifier does not allow the question.
        unsafe { assert_unchecked(start != 0) };
        if start + N > self.context.data_end() {
            return None;
        }
        // SAFETY: the kernel lends the bytes between the two for as long as the program runs, and nobody writes them.
        Some(unsafe { &*(start as *const [u8; N]) })
    }
}
