//! A timer that is exact to some microseconds. In: a moment. Out: a wake-up. On the load's threads, one for each that waits.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A kernel timer: tokio's own wheel ticks in milliseconds, which is twenty times an echo.
#[derive(Debug)]
pub(crate) struct Timer {
    descriptor: AsyncFd<OwnedFd>,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        #[expect(
            deprecated,
            reason = "deprecated for types that may lie about their descriptor; OwnedFd cannot"
        )]
        let descriptor = AsyncFd::new(descriptor)?;
        Ok(Self { descriptor })
    }

    /// Cancellation safe: the next call sets it anew.
    pub(crate) async fn sleep_until(&self, instant: Instant) -> io::Result<()> {
        let wait = instant.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let value = Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let never_again = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        timerfd_settime(
            self.descriptor.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec {
                it_interval: never_again,
                it_value: value,
            },
        )?;
        let mut expirations = [0; 8];
        self.descriptor
            .async_io(Interest::READABLE, |timer| {
                Ok(rustix::io::read(timer, &mut expirations)?)
            })
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timer_wakes_well_within_a_millisecond() {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let timer = Timer::new().unwrap();
                let best = async {
                    let mut best = Duration::MAX;
                    for _ in 0..20 {
                        let instant = Instant::now() + Duration::from_micros(300);
                        timer.sleep_until(instant).await.unwrap();
                        let now = Instant::now();
                        assert!(now >= instant);
                        best = best.min(now - instant);
                    }
                    best
                }
                .await;
                assert!(best < Duration::from_millis(1), "{best:?}");
            });
    }
}
