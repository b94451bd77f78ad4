//! Routes of streams: which backend takes a connection. In: routes in the order of the file; then what a handshake has
//! found out. Out: the backend of the first route that matches, or the listener's own. Pure.

use std::collections::BTreeSet;

use crate::http::policy::HostPattern;
use crate::identity::Tenant;
use crate::pattern::Pattern;

/// A `[[route]]` of streams: what a connection has to be like, and where it goes then. Nothing is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRoute {
    /// Server names that the client has to ask for.
    pub hosts: Vec<HostPattern>,
    /// Application protocols, of which one has to be chosen.
    pub protocols: Vec<Vec<u8>>,
    /// Identities that the client has to have.
    pub identities: Vec<Pattern>,
    /// Tenants that it has to be of.
    pub tenants: BTreeSet<Tenant>,
    /// Position of the backend.
    pub backend: usize,
}

/// What a handshake has found out.
#[derive(Debug, Clone, Copy)]
pub struct StreamContext<'a> {
    /// The server name that the client asked for (RFC 6066 section 3).
    pub server_name: Option<&'a str>,
    /// The application protocol that was chosen (RFC 7301).
    pub protocol: Option<&'a [u8]>,
    /// The client's identity.
    pub identity: &'a str,
    /// Its tenant.
    pub tenant: Option<&'a Tenant>,
}

/// The routes of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamRoutes {
    routes: Vec<StreamRoute>,
    backend: Option<usize>,
}

impl StreamRoute {
    fn matches(&self, context: &StreamContext<'_>) -> bool {
        let StreamRoute {
            hosts,
            protocols,
            identities,
            tenants,
            backend: _,
        } = self;
        let is_host = |name: &str| hosts.iter().any(|host| host.matches(name.as_bytes()));
        let is_protocol = |chosen: &[u8]| protocols.iter().any(|protocol| protocol == chosen);
        let is_identity = |identity: &Pattern| identity.matches(context.identity);
        (hosts.is_empty() || context.server_name.is_some_and(is_host))
            && (protocols.is_empty() || context.protocol.is_some_and(is_protocol))
            && (identities.is_empty() || identities.iter().any(is_identity))
            && (tenants.is_empty() || context.tenant.is_some_and(|own| tenants.contains(own)))
    }
}

impl StreamRoutes {
    /// Takes the routes in the order of the file, and the backend of connections that none matches, if there is one.
    pub fn new(routes: Vec<StreamRoute>, backend: Option<usize>) -> Self {
        StreamRoutes { routes, backend }
    }

    /// The routes, in the order of the file.
    pub fn routes(&self) -> &[StreamRoute] {
        &self.routes
    }

    /// Position of the backend for connections that no route matches.
    pub fn backend(&self) -> Option<usize> {
        self.backend
    }

    /// Positions of all backends that connections may go to.
    pub fn backends(&self) -> BTreeSet<usize> {
        let own = self.routes.iter().map(|route| route.backend);
        own.chain(self.backend).collect()
    }

    /// Position of the backend of a connection; `None` where it has none.
    pub fn find(&self, context: &StreamContext<'_>) -> Option<usize> {
        let mut routes = self.routes.iter();
        let first = routes.find(|route| route.matches(context));
        first.map_or(self.backend, |route| Some(route.backend))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(backend: usize) -> StreamRoute {
        StreamRoute {
            hosts: Vec::new(),
            protocols: Vec::new(),
            identities: Vec::new(),
            tenants: BTreeSet::new(),
            backend,
        }
    }

    fn tenant(text: &str) -> Tenant {
        Tenant::parse(text).expect("a tenant")
    }

    #[test]
    fn the_first_route_of_which_all_holds_decides_and_else_the_backend() {
        let host = |text| HostPattern::parse(text).expect("a host");
        let routes = vec![
            StreamRoute {
                hosts: vec![host("otlp.example.org"), host("*.oap.example.org")],
                protocols: vec![b"h2".to_vec()],
                ..any(1)
            },
            StreamRoute {
                identities: vec![Pattern::parse("spiffe://example.org/db/*").expect("a pattern")],
                tenants: BTreeSet::from([tenant("shop"), tenant("bank")]),
                ..any(2)
            },
            StreamRoute {
                tenants: BTreeSet::from([tenant("shop")]),
                ..any(3)
            },
        ];
        let routes = [Some(0), None].map(|backend| StreamRoutes::new(routes.clone(), backend));
        assert_eq!(routes[0].backends(), BTreeSet::from([0, 1, 2, 3]));
        for (server_name, protocol, identity, of, expected) in [
            (Some("OTLP.example.org"), Some("h2"), "a", None, Some(1)),
            (Some("a.oap.example.org"), Some("h2"), "a", None, Some(1)),
            (
                Some("otlp.example.org"),
                Some("h2"),
                "a",
                Some("shop"),
                Some(1),
            ),
            (Some("otlp.example.org"), Some("http/1.1"), "a", None, None),
            (Some("otlp.example.org"), None, "a", None, None),
            (Some("x.example.org"), Some("h2"), "a", None, None),
            (None, Some("h2"), "a", Some("shop"), Some(3)),
            (
                None,
                None,
                "spiffe://example.org/db/1",
                Some("bank"),
                Some(2),
            ),
            (
                None,
                None,
                "spiffe://example.org/db/1",
                Some("shop"),
                Some(2),
            ),
            (None, None, "spiffe://example.org/db/1", None, None),
            (None, None, "spiffe://example.org/web/1", Some("bank"), None),
        ] {
            let of = of.map(tenant);
            let context = StreamContext {
                server_name,
                protocol: protocol.map(str::as_bytes),
                identity,
                tenant: of.as_ref(),
            };
            let found = routes.each_ref().map(|routes| routes.find(&context));
            assert_eq!(found, [expected.or(Some(0)), expected], "{context:?}");
        }
    }
}
