//! The kernel programs' log: lines about single flows, with `--log-level debug`. In: aya-log's ring. Out: lines of our own
//! log. On the control thread. Switched on before the programs are loaded, or never: the kernel then drops the code that
//! would write them.

use std::sync::Mutex;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::GuardError;

/// The reader of the kernel programs' log.
pub(super) struct KernelLog(Mutex<EbpfLogger<&'static Bridge>>);

/// From the log that aya-log writes to, to ours.
struct Bridge;

static BRIDGE: Bridge = Bridge;

impl KernelLog {
    /// Whether our log takes such lines.
    pub(super) fn is_wanted() -> bool {
        tracing::enabled!(tracing::Level::DEBUG)
    }

    /// The log of an object that was loaded with it switched on.
    pub(super) fn of(loaded: &mut Ebpf) -> Result<Self, GuardError> {
        let logger = EbpfLogger::init_with_logger(loaded, &BRIDGE);
        logger
            .map(|logger| Self(Mutex::new(logger)))
            .map_err(|error| GuardError::counters(&error))
    }

    /// Passes on what has been written since the last time.
    pub(super) fn pass_on(&self) {
        if let Ok(mut logger) = self.0.lock() {
            logger.flush();
        }
    }
}

impl Log for Bridge {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!("kernel: {}", record.args());
    }

    fn flush(&self) {}
}
