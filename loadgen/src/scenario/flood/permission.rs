//! The targets that a flood may hit: this host by loopback, or any target in a network namespace of its own.
//! In: the target, and whether sources are forged. Out: yes, or the reason why not. Once, before the first packet.
//!
//! A namespace is a test's own when an ancestor of this process lives in another one: `unshare` or `ip netns exec` was
//! called on the way here. A container shares its namespace with its process 1, so its namespace does not count. That
//! is right, because a container may reach other hosts.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The option that lifts the refusal, which names it.
pub const OVERRIDE: &str = "i-am-allowed-to-attack-this-target";

/// Refuses a target that may belong to others.
pub(crate) fn ensure_permitted(target: IpAddr, is_forged: bool) -> Result<()> {
    decide(has_own_network()?, target, is_forged)
}

fn has_own_network() -> Result<bool> {
    // Of the thread, because setns changes no more than that.
    let ours = network_of("thread-self").context("/proc/thread-self/ns/net cannot be read")?;
    let mut process = parent_of("self");
    while let Some(ancestor) = process {
        // Process 1 and those of other users do not always let us look.
        if network_of(&ancestor).is_some_and(|theirs| theirs != ours) {
            return Ok(true);
        }
        process = parent_of(&ancestor);
    }
    Ok(false)
}

fn network_of(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/net")).ok()
}

/// `None` above process 1, and above the first process of a container.
fn parent_of(process: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim();
    (parent != "0").then(|| parent.to_owned())
}

fn decide(has_own_network: bool, target: IpAddr, is_forged: bool) -> Result<()> {
    let is_loopback = target.to_canonical().is_loopback();
    if has_own_network || is_loopback && !is_forged {
        return Ok(());
    }
    if is_forged {
        bail!(
            "packets with forged sources are sent only inside a network namespace of their own, as `unshare --net` \
             or `ip netns exec` make them; elsewhere only with --{OVERRIDE}"
        );
    }
    bail!(
        "{target} is neither loopback nor reached from a network namespace of its own; if it is yours to attack, \
         say --{OVERRIDE}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_or_a_namespace_of_its_own_is_attacked_and_forged_packets_stay_inside_one() {
        let is_permitted = |has_own_network, target: &str, is_forged| {
            decide(has_own_network, target.parse().unwrap(), is_forged).is_ok()
        };
        let loopback = ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"];
        for target in loopback {
            assert!(is_permitted(false, target, false), "{target}");
            assert!(!is_permitted(false, target, true), "{target}");
        }
        for target in ["10.0.0.1", "192.0.2.1", "2001:db8::1", "0.0.0.0", "::"] {
            assert!(!is_permitted(false, target, false), "{target}");
            assert!(!is_permitted(false, target, true), "{target}");
            for is_forged in [false, true] {
                assert!(is_permitted(true, target, is_forged), "{target}");
            }
        }
    }
}
