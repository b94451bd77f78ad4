//! The outcome of a start, without one: looks at everything that `Gateway::start` and `portcullis run` need beyond the
//! configuration, in the same order, with the same rights and the same words. In: a checked configuration, the privileges. Out:
//! what would keep the gateway from starting, and what it would start without. Makes no file and no folder, listens nowhere,
//! attaches nothing. On the main thread of `portcullis check`.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::block::BlockList;
use gateway_guard::Guard;

use super::descriptors;
use super::error::StartError;
use super::guard_start;
use super::privilege::Privileges;
use super::state::SharedState;
use crate::admin::AdminSocket;
use crate::blocks::BlockFile;
use crate::config::{Config, Paths};
use crate::control::{AskError, Claim, Client, Status};
use crate::local;
use crate::telemetry;

/// What was found.
#[derive(Debug, Default)]
pub struct Trial {
    /// What would keep the gateway from starting.
    pub obstacles: Vec<String>,
    /// What it would start without, with a warning.
    pub warnings: Vec<String>,
    /// The process of this gateway that runs already.
    pub running: Option<Status>,
}

/// Whether a process of this gateway runs.
enum Running {
    No,
    Yes(Box<Status>),
    /// One does, and does not answer this user.
    Silent,
}

/// Looks at everything that `run` needs. A process of this gateway that runs already has the folders `running`.
pub fn try_start(
    config: Config,
    blocks: BlockList,
    (running, privileges): (&Paths, &Privileges),
) -> Trial {
    let config = Arc::new(config);
    let mut trial = Trial::default();
    trial.note(Claim::look(&config.paths));
    trial.note(BlockFile::look_writable(&config.paths));
    let asked = Client::connect(running).and_then(Client::status);
    let running = match asked {
        Ok(status) => Running::Yes(Box::new(status)),
        Err(AskError::NotRunning(..)) => Running::No,
        Err(AskError::NotAllowed(..) | AskError::Silent(..) | AskError::Refused(_)) => {
            Running::Silent
        }
    };
    let divided = descriptors::divide(&config);
    trial.listeners(&config, privileges, &running);
    if let Some(address) = &config.admin {
        let is_ours = !matches!(running, Running::No);
        let looked = AdminSocket::look(address, is_ours);
        trial.note(looked.map_err(|error| StartError::admin(address, error)));
    }
    match divided {
        Ok(budget) => {
            trial.warnings.extend(budget.shortfall);
            let (config, blocks) = (Arc::clone(&config), Arc::new(blocks));
            trial.note(SharedState::new(
                config,
                blocks,
                Vec::new(),
                budget.descriptors,
            ));
        }
        Err(error) => trial.obstacles.push(error.to_string()),
    }
    trial.note(telemetry::look(config.audit.as_ref()).map_err(StartError::Audit));
    trial.guard(&config, privileges);
    if let Running::Yes(status) = running {
        trial.running = Some(*status);
    }
    trial
}

impl Trial {
    fn note<T>(&mut self, outcome: Result<T, impl std::fmt::Display>) {
        if let Err(error) = outcome {
            self.obstacles.push(error.to_string());
        }
    }

    /// Whether each address is free, or belongs to the gateway that runs.
    fn listeners(&mut self, config: &Config, privileges: &Privileges, running: &Running) {
        let taken: Vec<SocketAddr> = match running {
            Running::No => Vec::new(),
            Running::Yes(status) => {
                let listeners = status.listeners.iter();
                listeners
                    .filter_map(|listener| listener.address.parse().ok())
                    .collect()
            }
            Running::Silent => return,
        };
        let until = local::lingers_until();
        for listener in &config.listeners {
            let address = listener.address;
            if taken.contains(&address) {
                continue;
            }
            let looked = privileges.run(move || local::await_free(address, until));
            self.note(looked.map_err(|error| StartError::Listen {
                listener: listener.name.clone(),
                address,
                error,
            }));
        }
    }

    /// Whether the kernel takes the programs, and the interfaces are there.
    fn guard(&mut self, config: &Arc<Config>, privileges: &Privileges) {
        let Some(plan) = guard_start::plan(config) else {
            return;
        };
        let ports: Vec<_> = config
            .listeners
            .iter()
            .map(|listener| listener.address.port())
            .collect();
        let is_required = plan.is_required;
        let loaded = privileges.run(move || Guard::try_load(&plan, &ports));
        // Here, as on every thread that serves, without the privileges.
        let outcome = loaded.and_then(|guard| guard.prove_usable());
        match outcome {
            Ok(()) => {}
            Err(error) if is_required => self.obstacles.push(StartError::Guard(error).to_string()),
            Err(error) => self
                .warnings
                .push(format!("[guard]: it would run without all of it: {error}")),
        }
    }
}
