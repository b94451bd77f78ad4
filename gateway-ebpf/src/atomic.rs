//! Atomic additions to values that several CPUs change. In: a pointer into a map. The compiler has none for this
//! target: one instruction of assembly.

use core::arch::asm;

/// Adds `amount` to what `value` points to; a negative amount is added in two's complement.
///
/// # Safety
/// `value` points into a map's value, at a multiple of eight bytes.
#[inline(always)]
pub unsafe fn add(value: *mut u64, amount: u64) {
    // SAFETY: by the caller; the instruction touches these eight bytes only.
    unsafe {
        asm!(
            "lock *(u64 *)({value} + 0) += {amount}",
            value = in(reg) value,
            amount = in(reg) amount,
            options(nostack),
        );
    }
}
