//! Builds a worker's runtime: io_uring as fast as this kernel allows, else epoll.
//! In: the worker's main future. Out: its value. On the worker's own thread, because a single-issuer ring belongs
//! to the thread that made it.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::task::Poll;

use gateway_core::limits;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

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

impl Driver {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Driver::IoUringDeferred => "io_uring",
            Driver::IoUringCooperative => "io_uring_cooperative",
            Driver::Epoll => "epoll",
        }
    }
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
            Err(error) => {
                let hint = hint(&error);
                tracing::warn!(%driver, %error, hint, "driver not available, trying the next");
            }
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

/// What an operator can do about a ring that cannot be made.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::OutOfMemory => {
            "the rings of this user exceed RLIMIT_MEMLOCK: raise it (LimitMEMLOCK= in the unit, ulimit -l), or run fewer workers"
        }
        io::ErrorKind::PermissionDenied => {
            "a seccomp filter or kernel.io_uring_disabled forbids io_uring"
        }
        _ => "the kernel is too old for it, or was built without io_uring",
    }
}

fn ring(driver: Driver) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut settings = io_uring::IoUring::builder();
    if driver == Driver::IoUringDeferred {
        settings.setup_single_issuer().setup_defer_taskrun();
    } else {
        settings.setup_coop_taskrun();
    }
    try_out(&settings)?;
    let [largest, smaller @ ..] = limits::RING_ENTRIES;
    let mut made = build(&settings, largest);
    for entries in smaller {
        match &made {
            // Linux charges rings to the memory that a user may lock, and a small ring works too: a full submission queue
            // is handed to the kernel earlier.
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                tracing::debug!(
                    entries,
                    "the ring exceeds RLIMIT_MEMLOCK, trying a smaller one"
                );
                made = build(&settings, entries);
            }
            _ => break,
        }
    }
    made
}

fn build(
    settings: &io_uring::Builder,
    entries: u32,
) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(entries)
        .uring_builder(settings.clone())
        .enable_timer()
        .build()
}

/// Sends one operation through a small ring of the same kind. A seccomp filter may allow `io_uring_setup` and forbid
/// `io_uring_enter`, and the runtime would spin on the error without serving anything.
fn try_out(settings: &io_uring::Builder) -> io::Result<()> {
    let mut ring = settings.build(1)?;
    // SAFETY: a no-op refers to no memory, so nothing has to outlive it (io_uring_enter(2), IORING_OP_NOP).
    unsafe {
        ring.submission()
            .push(&io_uring::opcode::Nop::new().build())
    }
    .expect("a new queue has room for one entry");
    ring.submit_and_wait(1)?;
    let done = ring.completion().next();
    match done.map(|entry| entry.result()) {
        Some(0..) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("the ring completes no operation")),
    }
}

fn enter<M: FnOnce(Driver) -> F, F: Future>(driver: Driver, main: M) -> F {
    DRIVER.set(driver);
    main(driver)
}

/// The driver of this thread.
pub(super) fn driver() -> Driver {
    DRIVER.get()
}

/// Makes a descriptor from outside fit for this thread's driver: io_uring wants it blocking, epoll must never block.
pub(super) fn adopt(descriptor: impl AsFd) -> io::Result<()> {
    let epoll = DRIVER.get() == Driver::Epoll;
    Ok(rustix::io::ioctl_fionbio(descriptor, epoll)?)
}

/// Lets the other tasks of this thread run once, where the driver does not see to that by itself.
pub(super) async fn yield_now() {
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
