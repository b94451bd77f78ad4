//! How a thread shares a CPU with the workers.
//! In: nothing. Out: the calling thread gets little of a CPU that a worker wants, and makes way for a worker at once. For
//! threads with long work to do; never for a worker.

use std::io;

use gateway_core::limits;

/// Lowers the priority of the calling thread, for good: Linux gives each thread a priority of its own.
///
/// Niceness alone says how much of a CPU the thread gets, and not when: it would keep what it has begun until the next
/// tick of the clock, some milliseconds, while a worker that has just been woken waits. A thread that asks for longer
/// slices than others (Linux 6.12; before that it means nothing) is interrupted by one that asks for shorter ones.
pub fn lower_priority() -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: limits::RELOAD_NICENESS,
        sched_priority: 0,
        sched_runtime: limits::RELOAD_SLICE.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of a structure that lives until it returns, and keeps no pointer to it.
    let refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match refused {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calling thread's niceness and slice, as the kernel has them.
    fn standing() -> (i32, u64) {
        // SAFETY: a structure of integers, for which zeros are values.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        let bytes = size_of::<libc::sched_attr>();
        // SAFETY: the kernel writes at most `bytes` bytes to a structure of that size.
        let refused =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
        assert_eq!(refused, 0, "{}", io::Error::last_os_error());
        (attributes.sched_nice, attributes.sched_runtime)
    }

    #[test]
    fn a_thread_that_stands_back_is_nice_and_asks_for_long_slices_and_no_other_thread_does() {
        let before = standing();
        let of_thread = std::thread::spawn(|| {
            lower_priority().unwrap();
            standing()
        });
        let (nice, slice) = of_thread.join().unwrap();
        assert_eq!(nice, limits::RELOAD_NICENESS);
        // Kernels before 6.12 have one slice for all, and say nothing of it.
        let asked_for = limits::RELOAD_SLICE.as_nanos() as u64;
        assert_eq!(slice, if before.1 == 0 { 0 } else { asked_for });
        assert!(before.1 < asked_for, "others ask for shorter ones");
        assert_eq!(standing(), before);
    }
}
