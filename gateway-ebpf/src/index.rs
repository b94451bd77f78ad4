//! Positions of counters, in a form that the verifier lets a process without CAP_PERFMON add to a pointer. In: a
//! position and a number that is never large. Out: the same position.

use core::arch::asm;

use gateway_common::COUNTERS;

/// `position`, which must be below [`COUNTERS`], as something that the verifier takes for any of them.
///
/// The kernel guards additions to pointers against speculation, by one bound for all paths that lead to an addition.
/// A position that is known on one path and not on the next would have two: the program would be refused. So the highest
/// bit of `unknown`, a time or a count, which will not be set in our lives, times the largest position, is added, and the
/// mask makes one range of all paths.
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
