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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{Field, HeaderList, PathPrefix, read_request};

    fn path(prefix: &str, methods: &[&str]) -> Target {
        let methods = methods.iter().map(|method| method.as_bytes().into());
        Target::path(PathPrefix::parse(prefix).unwrap(), methods.collect())
    }

    fn grant(targets: Vec<Target>) -> Grant {
        Grant {
            targets,
            ..Grant::default()
        }
    }

    /// The position of the grant that permits a request, `method host path`, of a client at this address.
    fn permitted(rights: &Rights, request: &str, address: &str) -> Option<usize> {
        let [method, host, path] = request.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let mut list = HeaderList::new(10_000);
        for (name, value) in [
            (":method", method),
            (":scheme", "https"),
            (":path", path),
            (":authority", host),
        ] {
            list.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        let request = read_request(&list).unwrap();
        rights.permitting(&request, path.as_bytes(), address.parse().unwrap())
    }

    #[test]
    fn nothing_is_permitted_that_no_grant_names() {
        let rights = Rights::new(vec![
            grant(vec![path("/api/v1/push", &["POST"])]),
            grant(vec![
                path("/api/v1", &["GET"]),
                Target::service("a.B").unwrap(),
            ]),
            Grant {
                networks: vec!["10.1.0.0/16".parse().unwrap()],
                hosts: vec![HostPattern::parse("admin.example").unwrap()],
                targets: vec![path("/", &[])],
                ready: None,
            },
        ]);
        for (request, expected) in [
            ("POST a /api/v1/push", Some(0)),
            ("POST a /api/v1/push?a=b", Some(0)),
            ("POST a /api/v1/push/more", Some(0)),
            ("POST a /api/v1/pusher", None),
            ("GET a /api/v1/push", Some(1)),
            ("GET a /api/v1", Some(1)),
            ("GET a /api", None),
            ("PUT a /api/v1", None),
            ("POST a /a.B/Do", Some(1)),
            ("POST a /a.B", None),
            ("GET a /a.B/Do", None),
            ("DELETE admin.example /", None),
            ("GET a /", None),
        ] {
            assert_eq!(
                permitted(&rights, request, "192.0.2.1"),
                expected,
                "{request}"
            );
        }
        for (request, address, expected) in [
            ("DELETE admin.example /x", "10.1.2.3", Some(2)),
            ("DELETE admin.example:443 /", "::ffff:10.1.2.3", Some(2)),
            ("DELETE admin.example /x", "10.2.2.3", None),
            ("DELETE other.example /x", "10.1.2.3", None),
        ] {
            assert_eq!(permitted(&rights, request, address), expected, "{request}");
        }
        assert_eq!(permitted(&Rights::default(), "GET a /", "10.1.2.3"), None);
    }

    /// A set, whether it permits a request, and the request.
    const READY: &str = "\
        otlp | yes | POST a /v1/traces
        otlp | yes | POST a /opentelemetry.proto.collector.trace.v1.TraceService/Export
        otlp | no | GET a /v1/traces
        otlp | no | POST a /api/v1/push
        skywalking-agent | yes | POST a /skywalking.v3.TraceSegmentReportService/collect
        skywalking-agent | yes | POST a /v3/segments
        skywalking-agent | no | POST a /graphql
        skywalking-agent | no | POST a /RemoteService/call
        skywalking-query | yes | POST a /graphql
        skywalking-query | no | POST a /v3/segments
        cortex-push | yes | POST a /api/v1/push
        cortex-push | no | GET a /prometheus/api/v1/query
        cortex-query | yes | GET a /prometheus/api/v1/query?query=up
        cortex-query | yes | GET a /prometheus/api/v1/label/job/values
        cortex-query | no | POST a /api/v1/push
        cortex-query | no | GET a /api/v1/rules
        cortex-ruler | yes | DELETE a /api/v1/rules/one%2Ftwo/group
        cortex-ruler | no | POST a /ruler/delete_tenant_config
        cortex-alertmanager | yes | POST a /alertmanager/api/v2/silences
        cortex-alertmanager | no | GET a /multitenant_alertmanager/configs
        cortex-component | yes | POST a /cortex.Ingester/Push
        cortex-component | no | POST a /api/v1/push
        cortex-admin | yes | POST a /ingester/shutdown
        cortex-admin | no | POST a /api/v1/push
        prometheus-remote-write | yes | POST a /api/v1/write
        prometheus-remote-write | no | GET a /api/v1/query";

    #[test]
    fn ready_sets_permit_what_their_systems_call_and_nothing_of_the_others() {
        for row in READY.lines() {
            let [set, expected, request] = row
                .split(" | ")
                .map(str::trim)
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
            let rights = Rights::new(vec![grant(ReadySet::named(set).unwrap().targets())]);
            let found = permitted(&rights, request, "192.0.2.1").is_some();
            assert_eq!(found, expected == "yes", "{row}");
        }
    }
}
