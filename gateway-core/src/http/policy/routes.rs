//! Routes of a listener: which backend takes a request, and what changes on the way. In: routes in the order of the
//! file; then a call. Out: the choice of the first route that matches, or of the listener's own backend. Pure.

use std::collections::BTreeSet;

use super::context::any_host;
use super::path_index::PathIndex;
use super::{FieldSource, HostPattern, RequestContext, Target};
use crate::http::message::PathPrefix;
use crate::identity::Tenant;

/// A field that a request has to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMatch {
    /// Whose word it is.
    pub source: FieldSource,
    /// Its value.
    pub value: Box<[u8]>,
}

/// The requests of a route that go to its canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryShare {
    /// So many of a hundred, at random.
    Percent(u8),
    /// Those of these tenants.
    Tenants(BTreeSet<Tenant>),
}

/// A second backend of a route, for some of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// Position of the backend.
    pub backend: usize,
    /// Which requests.
    pub share: CanaryShare,
}

impl Canary {
    fn takes(&self, call: &RequestContext<'_>) -> bool {
        match &self.share {
            CanaryShare::Percent(percent) => call.draw % 100 < u32::from(*percent),
            CanaryShare::Tenants(tenants) => call.tenant.is_some_and(|named| {
                let mut tenants = tenants.iter();
                tenants.any(|tenant| tenant.as_str().as_bytes() == named)
            }),
        }
    }
}

/// A backend that gets copies of a route's requests. Its responses are discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// Position of the backend.
    pub backend: usize,
    /// So many of a hundred requests, at random.
    pub percent: u8,
}

impl Mirror {
    fn takes(&self, call: &RequestContext<'_>) -> bool {
        // Other digits than those that a canary looks at: who goes to one says nothing of who is copied.
        call.draw / 100 % 100 < u32::from(self.percent)
    }
}

/// A `[[route]]`: what a request has to be like, and where it goes then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Hosts that the request has to be for; none is any.
    pub hosts: Vec<HostPattern>,
    /// What is called: one of these.
    pub targets: Vec<Target>,
    /// Fields that the request has to have, all of them.
    pub fields: Vec<FieldMatch>,
    /// Position of the backend.
    pub backend: usize,
    /// A second backend.
    pub canary: Option<Canary>,
    /// A backend that gets copies.
    pub mirror: Option<Mirror>,
    /// What takes the place of the target's prefix in the path.
    pub prefix: Option<PathPrefix>,
    /// What takes the place of the authority.
    pub authority: Option<Box<[u8]>>,
}

impl Route {
    fn matches(&self, target: usize, call: &RequestContext<'_>) -> bool {
        let request = call.request;
        self.targets[target].takes(request.method, request.path)
            && any_host(&self.hosts, request.authority)
            && self.fields.iter().all(|field| {
                let value = field.source.value(call);
                value.is_some_and(|value| *value == *field.value)
            })
    }

    /// Whether host and fields let through every request that those of another route let through.
    fn admits_all_of(&self, other: &Route) -> bool {
        let covers = |host: &HostPattern| self.hosts.iter().any(|own| own.covers(host));
        let has_all_hosts = !other.hosts.is_empty() && other.hosts.iter().all(covers);
        (self.hosts.is_empty() || has_all_hosts)
            && self.fields.iter().all(|field| other.fields.contains(field))
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteChoice<'a> {
    /// Position of the route in the listener's table; `None`: no route matches, and the listener's backend takes it.
    pub route: Option<usize>,
    /// Position of the backend.
    pub backend: usize,
    /// Whether that is the route's canary.
    pub is_canary: bool,
    /// Position of the backend that gets a copy.
    pub mirror: Option<usize>,
    /// The prefix that is replaced, and what takes its place.
    pub rewritten: Option<(&'a PathPrefix, &'a PathPrefix)>,
    /// What takes the place of the authority.
    pub authority: Option<&'a [u8]>,
}

/// The routes of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    routes: Vec<Route>,
    backend: Option<usize>,
    /// Of each target: its route, and its position there.
    targets: Vec<(usize, usize)>,
    index: PathIndex,
}

impl RouteTable {
    /// Takes the routes in the order of the file, and the backend of requests that none matches, if there is one.
    pub fn new(routes: Vec<Route>, backend: Option<usize>) -> Self {
        let all = routes.iter().enumerate();
        let targets: Vec<_> = all
            .flat_map(|(at, route)| (0..route.targets.len()).map(move |target| (at, target)))
            .collect();
        let prefix = |(route, target): &(usize, usize)| {
            let target: &Target = &routes[*route].targets[*target];
            target.prefix().clone()
        };
        let index = PathIndex::new(targets.iter().map(prefix).zip(0..));
        RouteTable {
            routes,
            backend,
            targets,
            index,
        }
    }

    /// The routes, in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Position of the backend for requests that no route matches.
    pub fn backend(&self) -> Option<usize> {
        self.backend
    }

    /// Positions of all backends that requests may go to.
    pub fn backends(&self) -> BTreeSet<usize> {
        let canaries = self.routes.iter().filter_map(|route| route.canary.as_ref());
        let canaries = canaries.map(|canary| canary.backend);
        let own = self.routes.iter().map(|route| route.backend);
        let mirrors = self.mirrors();
        own.chain(canaries)
            .chain(mirrors)
            .chain(self.backend)
            .collect()
    }

    /// Positions of the backends that get copies.
    pub fn mirrors(&self) -> BTreeSet<usize> {
        let mirrors = self.routes.iter().filter_map(|route| route.mirror);
        mirrors.map(|mirror| mirror.backend).collect()
    }

    /// Positions of earlier routes that together take every request of the route at a position, which is then never reached.
    /// None: it is reached.
    pub fn covering(&self, position: usize) -> BTreeSet<usize> {
        let route = &self.routes[position];
        let mut covering = BTreeSet::new();
        for target in &route.targets {
            let earlier = self.first_covering(target, |earlier| {
                earlier < position && self.routes[earlier].admits_all_of(route)
            });
            match earlier {
                Some(earlier) => covering.insert(earlier),
                None => return BTreeSet::new(),
            };
        }
        covering
    }

    /// The backend that takes the calls of a target, as far as neither host nor fields decide; not a canary.
    pub fn backend_of(&self, target: &Target) -> Option<usize> {
        let route = self.first_covering(target, |route| {
            let route = &self.routes[route];
            route.hosts.is_empty() && route.fields.is_empty()
        });
        route.map_or(self.backend, |route| Some(self.routes[route].backend))
    }

    /// The first route that is admissible and takes all calls of a target.
    fn first_covering(
        &self,
        target: &Target,
        is_admissible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let candidates = self.index.find(target.prefix().as_bytes()).flatten();
        let covering = candidates.filter_map(|at| {
            let (route, own) = self.targets[*at];
            (self.routes[route].targets[own].covers(target) && is_admissible(route))
                .then_some(route)
        });
        covering.min()
    }

    /// Where a request goes: by the first route that matches, else to the listener's backend; `None` without one.
    pub fn find(&self, call: &RequestContext<'_>) -> Option<RouteChoice<'_>> {
        let mut first: Option<(usize, usize)> = None;
        for at in self.index.find(call.request.path).flatten() {
            let (route, target) = self.targets[*at];
            let is_earlier = first.is_none_or(|(known, _)| route < known);
            if is_earlier && self.routes[route].matches(target, call) {
                first = Some((route, target));
            }
        }
        let Some((at, target)) = first else {
            return self.backend.map(|backend| RouteChoice {
                route: None,
                backend,
                is_canary: false,
                mirror: None,
                rewritten: None,
                authority: None,
            });
        };
        let route = &self.routes[at];
        let canary = route.canary.as_ref().filter(|canary| canary.takes(call));
        let mirror = route.mirror.filter(|mirror| mirror.takes(call));
        let prefix = route.prefix.as_ref();
        Some(RouteChoice {
            route: Some(at),
            backend: canary.map_or(route.backend, |canary| canary.backend),
            is_canary: canary.is_some(),
            mirror: mirror.map(|mirror| mirror.backend),
            rewritten: prefix.map(|prefix| (route.targets[target].prefix(), prefix)),
            authority: route.authority.as_deref(),
        })
    }
}
