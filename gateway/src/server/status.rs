//! What the running gateway reports of itself to its operators. In: its counters and its state. Out: plain values. On the
//! thread that asks; never waits for a worker.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use super::error::StartError;
use super::fixed;
use super::gateway::{Gateway, Reloads};
use crate::config::{Config, Dependents, GuardMode};
use crate::telemetry::{self, BlocksInForce};

impl Gateway {
    /// Reports from now on that the gateway is ready. It accepts connections since its start; but a caller that waits for it, to
    /// block a client for instance, needs its commands as well.
    pub fn set_ready(&self) {
        self.health.set_ready(true);
    }

    /// Whether the gateway accepts connections and commands.
    pub fn is_ready(&self) -> bool {
        self.health.is_ready()
    }

    /// What moves the bytes of each worker; `None` for one that does not run yet.
    pub fn drivers(&self) -> Vec<Option<String>> {
        self.metrics.drivers()
    }

    /// Listeners, the addresses they got, and how many connections are open.
    pub fn listeners(&self) -> Vec<(String, SocketAddr, u64)> {
        let open = self.metrics.open_connections();
        let addresses = self.addresses.iter().cloned();
        addresses
            .zip(open)
            .map(|((name, address), open)| (name, address, open))
            .collect()
    }

    /// What the guard does, in a few words.
    pub fn guard_state(&self) -> String {
        let guard = &self.lock_shared().config.guard;
        let where_ = match (guard.mode, self.guard.is_attached()) {
            (GuardMode::Off, _) => return "off".to_owned(),
            (_, true) => "in the kernel",
            (_, false) => "not in the kernel: the gateway keeps accounts by itself",
        };
        format!("{}, {where_}", guard.mode.name())
    }

    /// Which block list is in force.
    pub fn blocks(&self) -> BlocksInForce {
        self.metrics.blocks_in_force()
    }

    /// Connections that stand on a CA alone.
    pub fn dependents(&self) -> Dependents {
        self.metrics.dependents()
    }

    /// What came of reloads.
    pub fn reloads(&self) -> Reloads {
        let reloads = self.reloads.lock();
        reloads.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A reload was taken, or refused for a reason.
    pub fn note_reload(&self, refused: Option<&str>) {
        let now = Some(SystemTime::now());
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            None => reloads.taken_at = now,
            Some(_) => reloads.refused_at = now,
        }
        reloads.refused_because = refused.map(str::to_owned);
    }

    /// Everything that a reload from `config` would be refused for.
    pub fn would_refuse(&self, config: &Config) -> Vec<String> {
        let current = self.lock_shared();
        let fixed = fixed::differences(&current.config, config);
        let fixed = fixed
            .into_iter()
            .map(|what| format!("{what} cannot be changed while running: restart"));
        // What `put_in_force` may fail at.
        let made = current.with_config(Arc::new(config.clone()));
        let audit = match config.audit == current.config.audit {
            true => Ok(()),
            false => telemetry::look(config.audit.as_ref()).map_err(StartError::Audit),
        };
        let failed = [made.map(drop).err(), audit.err()];
        let failed = failed.into_iter().flatten();
        fixed.chain(failed.map(|error| error.to_string())).collect()
    }

    /// Leaves to the process that has taken over what one process alone may have, and says that no more connections will be taken.
    pub fn make_way(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
        self.control_stop.leave_admin();
        self.announce_drain();
    }
}
