//! The clock that the kernel program reads. In: nothing. Out: nanoseconds since the host started, the same in every
//! process. On any thread, without a system call.

use rustix::time::{ClockId, clock_gettime};

/// Now, on the kernel's monotonic clock. It does not go on while the host is suspended, and neither do bans.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the clock begins at zero and goes forward");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("part of a second");
    seconds * 1_000_000_000 + nanoseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_uptime_and_goes_forward() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let (first, second) = (now_ns(), now_ns());
        assert!(first <= second);
        // The uptime counts suspended time too.
        assert!(first as f64 / 1e9 < seconds + 60.0, "{first} {uptime}");
    }
}
