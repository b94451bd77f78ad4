//! Positions of counters, in a form that the verifier accepts in pointer arithmetic without CAP_PERFMON. In: a
//! position and a number that is never large. Out: the same position.

use core::arch::asm;

use gateway_common::COUNTERS;

/// `position`, which must be below [`COUNTERS`], as a value that the verifier takes for any of them.
///
/// The kernel guards pointer arithmetic against speculation, by one bound for all paths to an addition. A position
/// that is constant on one path only would give two bounds, and the verifier would refuse the program. So this adds
/// the highest bit of `unknown`, times the largest position, and masks the sum: one range on all paths. That bit is
/// never set, since `unknown` is a time or a count.
#[inline(always)]
pub fn any(position: usize, unknown: u64) -> usize {
    let mut index = unknown;
    // SAFETY: registers only. Written out, or the compiler would see that the mask is of no use.
    unsafe {
        asm!(
            "{index} >>= 63",
            "{index} *= {last}",
            "{index} += {position}",
            "{index} &= {last}",
            index = inout(reg) index,
            position = in(reg) position,
            last = const COUNTERS - 1,
            options(nomem, nostack, pure),
        );
    }
    index as usize
}
