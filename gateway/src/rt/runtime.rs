//! Builds a worker's runtime: io_uring as fast as this kernel allows, else epoll.
//! In: the worker's main future. Out: its value. On the worker's own thread, because a single-issuer ring belongs
//! to the thread that made it.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::task::Poll;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

use crate::limits;

/// What moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring with `SINGLE_ISSUER | DEFER_TASKRUN` (Linux 6.1 and later).
    IoUringDeferred,
    /// io_uring with `COOP_TASKRUN` (Linux 5.19 and later).
    IoUringCooperative,
    /// epoll, where io_uring is forbidden or too old.
    Epoll,
}

impl fmt::Display for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Driver::IoUringDeferred => "io_uring, deferred task run",
            Driver::IoUringCooperative => "io_uring, cooperative task run",
            Driver::Epoll => "epoll",
        })
    }
}

thread_local! {
    static DRIVER: Cell<Driver> = const { Cell::new(Driver::IoUringDeferred) };
}

/// Runs `main` to its end on the best driver this kernel offers.
///
/// Tasks that are still alive then are leaked by the runtime: drain first, then leave the process.
pub fn block_on<M, F>(main: M) -> io::Result<F::Output>
where
    M: FnOnce(Driver) -> F,
    F: Future,
{
    for driver in [Driver::IoUringDeferred, Driver::IoUringCooperative] {
        match ring(driver) {
            Ok(mut runtime) => return Ok(runtime.block_on(enter(driver, main))),
            Err(error) => tracing::warn!(%driver, %error, "driver not available, trying the next"),
        }
    }
    block_on_epoll(main)
}

/// Runs `main` to its end on epoll.
pub(super) fn block_on_epoll<M, F>(main: M) -> io::Result<F::Output>
where
    M: FnOnce(Driver) -> F,
    F: Future,
{
    let mut runtime = RuntimeBuilder::<LegacyDriver>::new()
        .enable_timer()
        .build()?;
    Ok(runtime.block_on(enter(Driver::Epoll, main)))
}

fn ring(driver: Driver) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring::IoUring::builder();
    if driver == Driver::IoUringDeferred {
        ring.setup_single_issuer().setup_defer_taskrun();
    } else {
        ring.setup_coop_taskrun();
    }
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(limits::RING_ENTRIES)
        .uring_builder(ring)
        .enable_timer()
        .build()
}

fn enter<M: FnOnce(Driver) -> F, F: Future>(driver: Driver, main: M) -> F {
    DRIVER.set(driver);
    main(driver)
}

/// Makes a descriptor from outside fit for this thread's driver: io_uring wants it blocking, epoll must never block.
pub(super) fn adopt(descriptor: impl AsFd) -> io::Result<()> {
    let epoll = DRIVER.get() == Driver::Epoll;
    Ok(rustix::io::ioctl_fionbio(descriptor, epoll)?)
}

/// Lets the other tasks of this thread run once, where the driver does not see to that by itself.
pub(super) async fn take_turns() {
    let mut is_due = DRIVER.get() == Driver::Epoll;
    poll_fn(|context| {
        if !std::mem::take(&mut is_due) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
