//! The guard's start: prepared before the first socket is made, attached when the ports are known.
//! In: the configuration, the privileges. Out: every listener's sockets, and the guard's handle. On the thread that starts the
//! gateway. Where the kernel programs cannot run, the gateway keeps the same accounts in a table of its own, and says so.

use std::sync::Arc;

use gateway_core::sources::Policy;
use gateway_guard::{Guard, GuardHandle, Plan, TargetCgroup, former_name};

use super::error::StartError;
use super::listen::{self, Bound, Ports};
use super::privilege::Privileges;
use crate::config::{Config, GuardMode};

/// Binds every listener, inside the cgroup that is followed, and attaches the kernel programs for their ports.
pub(super) fn bind_and_guard(
    config: &Arc<Config>,
    privileges: &Privileges,
    ports: Ports,
) -> Result<(Bound, GuardHandle), StartError> {
    let is_required = config.guard.required;
    let config = Arc::clone(config);
    let (bound, guard) = privileges.run(move || {
        let plan = plan(&config);
        let cgroup = plan.as_ref().map(TargetCgroup::prepare);
        let bound = listen::bind_all(&config, ports)?;
        let Some((plan, cgroup)) = plan.zip(cgroup) else {
            return Ok((bound, GuardHandle::none()));
        };
        let ports: Vec<_> = bound
            .addresses
            .iter()
            .map(|(_, address)| address.port())
            .collect();
        let guard = cgroup.and_then(|cgroup| Guard::start(&plan, &ports, cgroup));
        match guard {
            Ok(guard) => Ok((bound, GuardHandle::by_kernel(guard))),
            Err(error) if plan.is_required => Err(StartError::Guard(error)),
            Err(error) => Ok((bound, GuardHandle::by_source_table(&error))),
        }
    })?;
    // Here, as on every thread that serves, without the privileges.
    match guard.prove_usable() {
        Ok(()) => Ok((bound, guard)),
        Err(error) if is_required => Err(StartError::Guard(error)),
        Err(error) => Ok((bound, GuardHandle::by_source_table(&error))),
    }
}

/// What the guard is to do by `config`; `None` where it is off.
pub(super) fn plan(config: &Config) -> Option<Plan> {
    let guard = &config.guard;
    (guard.mode != GuardMode::Off).then(|| Plan {
        name: config.paths.name.to_string(),
        former_name: Some(former_name(&config.file)),
        is_lasting: guard.is_lasting,
        interfaces: guard.interfaces.clone(),
        is_required: guard.required,
        policy: Policy::clone(&guard.policy),
    })
}
