//! What is fixed at the start: threads, sockets, and what metrics count by. In: the configuration in force and another one.
//! Out: every difference that takes a restart, by section and name. Decides nothing else.

use std::sync::Arc;

use gateway_core::limits;

use crate::config::{Config, GuardMode, Listener};

/// Everything in `new` that only a restart can bring; empty where it can be taken while running.
pub(super) fn differences(old: &Config, new: &Config) -> Vec<String> {
    let suites = |config: &Config| -> Vec<_> {
        let suites = config.provider.cipher_suites.iter();
        suites.map(|suite| suite.suite()).collect()
    };
    let groups = |config: &Config| -> Vec<_> {
        let groups = config.provider.kx_groups.iter();
        groups.map(|group| group.name()).collect()
    };
    let guard = |config: &Config| {
        let guard = &config.guard;
        let is_off = guard.mode == GuardMode::Off;
        (is_off, guard.interfaces.clone(), guard.required)
    };
    let differences = [
        ("name or [paths]", old.paths != new.paths),
        ("[workers] count", old.workers != new.workers),
        ("[admin]", old.admin != new.admin),
        (
            "[guard] interfaces, required, or whether there is a guard,",
            guard(old) != guard(new),
        ),
        ("[tls] provider", old.provider_name != new.provider_name),
        ("[tls] cipher_suites", suites(old) != suites(new)),
        ("[tls] groups", groups(old) != groups(new)),
    ];
    let differing = differences.into_iter().filter(|(_, differs)| *differs);
    let mut found: Vec<_> = differing.map(|(what, _)| what.to_owned()).collect();
    found.extend(listeners(old, new));
    found.extend(backends(old, new));
    found
}

fn listeners(old: &Config, new: &Config) -> Vec<String> {
    let [before, after] =
        [old, new].map(|config| names(&config.listeners, |listener| &listener.name));
    let mut found = of_sets("listener", &before, &after);
    let same = |one: &Arc<Listener>| {
        let other = new.listeners.iter().find(|other| other.name == one.name);
        other.map(|other| (Arc::clone(one), Arc::clone(other)))
    };
    for (one, other) in old.listeners.iter().filter_map(same) {
        let name = &one.name;
        if one.address != other.address {
            let (from, to) = (one.address, other.address);
            found.push(format!("listener {name:?}: address (from {from} to {to})"));
        }
        if one.max_connections != other.max_connections {
            found.push(format!("listener {name:?}: max_connections"));
        }
        if one.max_handshakes != other.max_handshakes {
            found.push(format!("listener {name:?}: max_handshakes"));
        }
    }
    found
}

/// Everything knows a backend by its position: new ones come behind those that there are, and none goes.
fn backends(old: &Config, new: &Config) -> Vec<String> {
    let [before, after] = [old, new].map(|config| names(&config.backends, |backend| &backend.name));
    let most = before.len().max(limits::BACKENDS_RELOADED_MAX);
    match after.strip_prefix(before.as_slice()) {
        Some(_) if after.len() <= most => Vec::new(),
        Some(_) => vec![format!("more than {most} backends")],
        None => {
            let gone = before.iter().filter(|name| !after.contains(name));
            let gone: Vec<_> = gone
                .map(|name| format!("backend {name:?}, which is gone,"))
                .collect();
            match gone.is_empty() {
                true => vec![
                    "the order of the backends (new ones may stand behind the others)".to_owned(),
                ],
                false => gone,
            }
        }
    }
}

fn names<T>(of: &[Arc<T>], name: impl Fn(&T) -> &String) -> Vec<&str> {
    of.iter().map(|one| name(one).as_str()).collect()
}

/// What was added to a set, taken from it, or put in another order: metrics count by position.
fn of_sets(kind: &str, before: &[&str], after: &[&str]) -> Vec<String> {
    let new = after.iter().filter(|name| !before.contains(name));
    let gone = before.iter().filter(|name| !after.contains(name));
    let mut found: Vec<_> = new.map(|name| format!("the new {kind} {name:?}")).collect();
    found.extend(gone.map(|name| format!("{kind} {name:?}, which is gone,")));
    if found.is_empty() && before != after {
        found.push(format!("the order of the {kind}s"));
    }
    found
}
