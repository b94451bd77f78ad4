//! Which CPU a worker runs on. In: the worker's number, the CPUs that the process may use. Out: a thread that stays on one of
//! them, and a claim that keeps other gateways' workers off it. On the worker's thread, once.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Begins the abstract socket names by which workers claim CPUs.
const CLAIMS: &str = "portcullis-cpu";

/// Keeps a CPU for one worker until it is dropped: several gateways with one worker each would otherwise all run on the first
/// one. The kernel releases the name however the process ends.
#[derive(Debug)]
pub(super) struct CpuClaim {
    cpu: usize,
    /// `None` where another worker has the CPU already, and this one shares it.
    _name: Option<UnixDatagram>,
}

/// Pins this thread to a CPU that the process may use and no other worker has; where all have one, to that at position
/// `number`.
pub(super) fn pin(number: usize) -> Option<CpuClaim> {
    let allowed = match sched_getaffinity(None) {
        Ok(allowed) => allowed,
        Err(error) => {
            tracing::warn!(%error, "cannot tell which CPUs may be used; not pinned");
            return None;
        }
    };
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .collect();
    let claim = claim(&cpus, number, CLAIMS)?;
    let mut only = CpuSet::new();
    only.set(claim.cpu);
    if let Err(error) = sched_setaffinity(None, &only) {
        tracing::warn!(worker = number, cpu = claim.cpu, %error, "cannot pin the worker");
    }
    Some(claim)
}

/// Claims one of `cpus`, the one at position `number` before all others; `None` where there are none.
fn claim(cpus: &[usize], number: usize, prefix: &str) -> Option<CpuClaim> {
    let first = number % cpus.len().max(1);
    let in_turn = cpus.iter().cycle().skip(first).take(cpus.len());
    let free = in_turn.copied().find_map(|cpu| {
        let name = SocketAddr::from_abstract_name(format!("{prefix}-{cpu}")).ok()?;
        let name = UnixDatagram::bind_addr(&name).ok()?;
        Some(CpuClaim {
            cpu,
            _name: Some(name),
        })
    });
    let shared = || {
        let cpu = *cpus.get(first)?;
        Some(CpuClaim { cpu, _name: None })
    };
    free.or_else(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_several_gateways_share_a_cpu_only_when_all_have_one() {
        let prefix = format!("portcullis-test-{}", std::process::id());
        let cpus = [3, 5, 8];
        let claim = |number| claim(&cpus, number, &prefix).unwrap();
        let first = claim(0);
        let of_another_gateway = claim(0);
        let beside_it = claim(1);
        assert_eq!(
            [first.cpu, of_another_gateway.cpu, beside_it.cpu],
            [3, 5, 8]
        );
        assert_eq!(claim(1).cpu, 5, "all are taken");
        drop(of_another_gateway);
        assert_eq!(claim(0).cpu, 5, "it is free again");
    }
}
