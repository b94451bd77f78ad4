//! Rights: what the clients of a rule may call. Nothing, unless a grant says so. In: grants, as `allow` has them; then
//! a call. Out: the grant that permits it. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::context::any_host;
use super::path_index::PathIndex;
use super::{HostPattern, ReadySet, Target};
use crate::http::message::Request;

/// An element of `allow`: any of its targets, from any of its networks, at any of its hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Networks that the client has to be in; none is any.
    pub networks: Vec<IpNet>,
    /// Hosts that the request has to be for; none is any.
    pub hosts: Vec<HostPattern>,
    /// What may be called.
    pub targets: Vec<Target>,
    /// The ready set that its targets are of.
    pub ready: Option<ReadySet>,
}

impl Grant {
    fn holds(&self, request: &Request<'_>, address: IpAddr) -> bool {
        let is_inside = |network: &IpNet| network.contains(&address);
        (self.networks.is_empty() || self.networks.iter().any(is_inside))
            && any_host(&self.hosts, request.authority)
    }
}

/// All that the clients of a rule may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    grants: Vec<Grant>,
    /// Of each target: its grant, and its position there.
    targets: Vec<(usize, usize)>,
    index: PathIndex,
}

impl Rights {
    /// What these permit, and nothing else.
    pub fn new(grants: Vec<Grant>) -> Self {
        let all = grants.iter().enumerate();
        let targets: Vec<_> = all
            .flat_map(|(at, grant)| (0..grant.targets.len()).map(move |target| (at, target)))
            .collect();
        let prefix = |(grant, target): &(usize, usize)| {
            let target: &Target = &grants[*grant].targets[*target];
            target.prefix().clone()
        };
        let index = PathIndex::new(targets.iter().map(prefix).zip(0..));
        Rights {
            grants,
            targets,
            index,
        }
    }

    /// The grants, in the order of the configuration.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The position of a grant that permits a request whose path, as the backend gets it, is this one; `None`: nothing
    /// does. The path has to be plain.
    pub fn permitting(&self, request: &Request<'_>, path: &[u8], address: IpAddr) -> Option<usize> {
        let address = address.to_canonical();
        let mut found = self.index.find(path).flatten();
        found.find_map(|at| {
            let (grant_at, target) = self.targets[*at];
            let grant = &self.grants[grant_at];
            let permits =
                grant.targets[target].takes(request.method, path) && grant.holds(request, address);
            permits.then_some(grant_at)
        })
    }
}
