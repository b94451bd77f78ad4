//! CPU time of this thread. In: nothing. Out: what it has spent so far, in the kernel as well.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since the thread began.
pub fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread has spent no negative time")
}
