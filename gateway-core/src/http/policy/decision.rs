//! The decision on a request: may its client make it, and where does it go? In: routes of the listener, rights of the
//! rule, the call. Out: the choice, the path as the backend gets it; or a refusal. The one place for the order of
//! these questions. Pure.

use super::{RequestContext, Rights, RouteChoice, RouteTable};
use crate::http::answer::RequestRefusal;
use crate::http::message::is_plain;

/// What becomes of a request that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Where it goes.
    pub choice: RouteChoice<'a>,
    /// Position of the grant that permits it.
    pub grant: usize,
}

/// Decides on a request. The path that its route makes of its own is appended to `path`; nothing is, if it stays.
///
/// Rights hold for the path as the backend gets it: what a client may do there does not depend on where it is mounted
/// here.
///
/// # Errors
///
/// The request is not passed on.
pub fn decide<'a>(
    routes: &'a RouteTable,
    rights: &Rights,
    call: &RequestContext<'_>,
    path: &mut Vec<u8>,
) -> Result<Decision<'a>, RequestRefusal> {
    let request = call.request;
    if !is_plain(request.path) {
        return Err(RequestRefusal::PathNotPlain);
    }
    let choice = routes.find(call).ok_or(RequestRefusal::NoRoute)?;
    let start = path.len();
    if let Some((before, after)) = choice.rewritten {
        let is_below = after.replace(before, request.path, path);
        debug_assert!(is_below, "the route matched by this prefix");
    }
    let sent = match &path[start..] {
        [] => request.path,
        rewritten => rewritten,
    };
    let grant = rights.permitting(request, sent, call.address);
    let grant = grant.ok_or(RequestRefusal::NotAllowed)?;
    Ok(Decision { choice, grant })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::answer::GrpcStatus;
    use crate::http::message::{Field, HeaderList, PathPrefix, read_request};
    use crate::http::policy::{
        Canary, CanaryShare, FieldMatch, FieldSource, Grant, HashKey, HostPattern, Route, Target,
    };
    use crate::identity::Tenant;
    use proptest::prelude::*;

    fn prefix(text: &str) -> PathPrefix {
        PathPrefix::parse(text).unwrap()
    }

    /// A route for paths below a prefix.
    fn route(text: &str, backend: usize) -> Route {
        Route {
            hosts: Vec::new(),
            targets: vec![Target::path(prefix(text), Vec::new())],
            fields: Vec::new(),
            backend,
            canary: None,
            mirror: None,
            prefix: None,
            authority: None,
        }
    }

    fn anything() -> Rights {
        below("/")
    }

    fn below(text: &str) -> Rights {
        Rights::new(vec![Grant {
            targets: vec![Target::path(prefix(text), Vec::new())],
            ..Grant::default()
        }])
    }

    /// A request with these fields beside `:method` and `:scheme`, and what is asked about it.
    struct Asked {
        list: HeaderList,
        told: HeaderList,
        tenant: Option<&'static [u8]>,
        draw: u32,
    }

    impl Asked {
        fn new(path: &str, fields: &[(&str, &str)]) -> Self {
            let mut list = HeaderList::new(10_000);
            let pseudo = [(":method", "GET"), (":scheme", "https"), (":path", path)];
            for (name, value) in pseudo.iter().chain(fields) {
                list.push(Field::new(name.as_bytes(), value.as_bytes()));
            }
            let mut told = HeaderList::new(10_000);
            told.push(Field::new(b"x-zone", b"edge"));
            Asked {
                list,
                told,
                tenant: None,
                draw: 0,
            }
        }

        /// The backend, the route and the path that is sent.
        fn decide(
            &self,
            routes: &RouteTable,
            rights: &Rights,
        ) -> Result<(usize, Option<usize>, String), RequestRefusal> {
            let request = read_request(&self.list).unwrap();
            let context = RequestContext {
                request: &request,
                list: &self.list,
                told: &self.told,
                tenant: self.tenant,
                address: [192, 0, 2, 1].into(),
                draw: self.draw,
            };
            let mut path = Vec::new();
            let decision = decide(routes, rights, &context, &mut path)?;
            if path.is_empty() {
                path.extend_from_slice(request.path);
            }
            let choice = decision.choice;
            Ok((
                choice.backend,
                choice.route,
                String::from_utf8(path).unwrap(),
            ))
        }
    }

    fn backend(asked: &Asked, routes: &RouteTable) -> Option<usize> {
        let decided = asked.decide(routes, &anything());
        decided.ok().map(|(backend, ..)| backend)
    }

    #[test]
    fn the_first_route_that_matches_wins_then_the_listeners_backend() {
        let routes = vec![
            Route {
                hosts: vec![HostPattern::parse("one.example").unwrap()],
                ..route("/api", 1)
            },
            route("/api/v1/push", 2),
            route("/api/v1", 3),
            route("/api/v1/push", 4),
        ];
        let table = RouteTable::new(routes.clone(), Some(9));
        for (path, host, expected) in [
            ("/api/v1/push", "one.example", 1),
            ("/api/v1/push", "two.example", 2),
            ("/api/v1/query", "two.example", 3),
            ("/api", "two.example", 9),
        ] {
            let asked = Asked::new(path, &[(":authority", host)]);
            assert_eq!(backend(&asked, &table), Some(expected), "{host}{path}");
        }
        let without = RouteTable::new(routes, None);
        let asked = Asked::new("/other", &[]);
        let decided = asked.decide(&without, &anything());
        assert_eq!(decided, Err(RequestRefusal::NoRoute));
    }

    #[test]
    fn a_field_of_ours_is_never_the_clients() {
        let with = |source: FieldSource, value: &str| Route {
            fields: vec![FieldMatch {
                source,
                value: value.as_bytes().into(),
            }],
            ..route("/", 1)
        };
        let ours = || FieldSource::Told(b"x-zone"[..].into());
        let theirs = || FieldSource::Sent(b"x-zone"[..].into());
        let forged = Asked::new("/", &[("x-zone", "core")]);
        for (source, value, expected) in [
            (ours(), "edge", Some(1)),
            (ours(), "core", None),
            (theirs(), "core", Some(1)),
            (FieldSource::Tenant, "core", None),
        ] {
            let table = RouteTable::new(vec![with(source.clone(), value)], None);
            assert_eq!(backend(&forged, &table), expected, "{source:?} {value}");
        }
        let table = RouteTable::new(vec![with(FieldSource::Tenant, "red")], None);
        let of_red = Asked {
            tenant: Some(b"red"),
            ..Asked::new("/", &[])
        };
        assert_eq!(backend(&of_red, &table), Some(1));
    }

    #[test]
    fn a_canary_takes_its_share_or_its_tenants() {
        let with = |share| Route {
            canary: Some(Canary { backend: 7, share }),
            ..route("/", 1)
        };
        let table = RouteTable::new(vec![with(CanaryShare::Percent(5))], None);
        let taken = (0..10_000).filter(|draw| {
            let asked = Asked {
                draw: *draw,
                ..Asked::new("/", &[])
            };
            backend(&asked, &table) == Some(7)
        });
        assert_eq!(taken.count(), 500);
        let red = [Tenant::parse("red").unwrap()].into();
        let table = RouteTable::new(vec![with(CanaryShare::Tenants(red))], None);
        for (tenant, expected) in [
            (Some(&b"red"[..]), 7),
            (Some(b"blue"), 1),
            (Some(b"red|blue"), 1),
            (None, 1),
        ] {
            let asked = Asked {
                tenant,
                ..Asked::new("/", &[])
            };
            assert_eq!(backend(&asked, &table), Some(expected), "{tenant:?}");
        }
    }

    /// A row `TARGET… | HOST…`: a target is a service, or a method (`*` for any) and a path.
    fn route_of(row: &str) -> Route {
        let (targets, hosts) = row.split_once('|').unwrap_or((row, ""));
        let targets = targets
            .split(',')
            .map(|text| match text.trim().split_once(' ') {
                None => Target::service(text.trim()).unwrap(),
                Some(("*", path)) => Target::path(prefix(path), Vec::new()),
                Some((methods, path)) => {
                    let methods = methods.split('+').map(|method| method.as_bytes().into());
                    Target::path(prefix(path), methods.collect())
                }
            });
        let hosts = hosts.split_whitespace();
        Route {
            hosts: hosts
                .map(|host| HostPattern::parse(host).unwrap())
                .collect(),
            targets: targets.collect(),
            ..route("/", 1)
        }
    }

    /// Routes, and those that cover the last one.
    const COVERED: &[(&[&str], &[usize])] = &[
        (&["* /", "* /api"], &[0]),
        (&["* /api", "* /"], &[]),
        (&["* /api", "* /apis"], &[]),
        (&["* /api", "POST /api/v1"], &[0]),
        (&["POST /api", "* /api/v1"], &[]),
        (&["POST+GET /api", "GET /api/v1"], &[0]),
        (&["GET /a", "* /b", "GET /a/b, POST /b"], &[0, 1]),
        (&["GET /a", "* /b", "GET /a/b, POST /c"], &[]),
        (&["* /", "a.B", "a.B/Do"], &[0]),
        (&["a.B", "a.B/Do"], &[0]),
        (&["a.B/Do", "a.B"], &[]),
        (&["a.B", "POST /a.B"], &[]),
        (&["POST /a.B", "a.B"], &[0]),
        (&["* / | a.example", "* /"], &[]),
        (&["* /", "* / | a.example"], &[0]),
        (&["* / | *.example", "* /x | a.example *.b.example"], &[0]),
        (&["* / | *.example", "* /x | a.example b.test"], &[]),
        (&["* / | a.example", "* /x | *.example"], &[]),
    ];

    #[test]
    fn a_route_is_covered_by_earlier_ones_that_take_all_of_its_requests() {
        for (rows, expected) in COVERED {
            let routes: Vec<_> = rows.iter().map(|row| route_of(row)).collect();
            let last = routes.len() - 1;
            let covering = RouteTable::new(routes, None).covering(last);
            assert_eq!(Vec::from_iter(covering), *expected, "{rows:?}");
        }
        let with_field = Route {
            fields: vec![FieldMatch {
                source: FieldSource::Tenant,
                value: b"red"[..].into(),
            }],
            ..route("/", 1)
        };
        for (routes, is_covered) in [
            ([with_field.clone(), route("/", 2)], false),
            ([route("/", 1), with_field.clone()], true),
            ([with_field.clone(), with_field], true),
        ] {
            let covering = RouteTable::new(routes.into(), None).covering(1);
            assert_eq!(!covering.is_empty(), is_covered);
        }
    }

    #[test]
    fn rights_hold_for_the_path_that_the_backend_gets() {
        let mounted = Route {
            prefix: Some(prefix("/")),
            ..route("/otlp", 1)
        };
        let table = RouteTable::new(vec![mounted], Some(2));
        let asked = Asked::new("/otlp/v1/traces?a", &[]);
        let sent = (1, Some(0), "/v1/traces?a".to_owned());
        assert_eq!(asked.decide(&table, &below("/v1/traces")), Ok(sent));
        let decided = asked.decide(&table, &below("/otlp"));
        assert_eq!(decided, Err(RequestRefusal::NotAllowed));
    }

    #[test]
    fn a_path_that_servers_read_in_several_ways_is_refused_before_any_rule() {
        let table = RouteTable::new(Vec::new(), Some(1));
        for path in ["/a/../b", "/a/%2e%2e/b", "//a", "/a//b", "/%61"] {
            let decided = Asked::new(path, &[]).decide(&table, &anything());
            assert_eq!(decided, Err(RequestRefusal::PathNotPlain), "{path}");
        }
        let refusal = RequestRefusal::PathNotPlain;
        assert_eq!(refusal.http_status(), 400);
        assert_eq!(refusal.grpc_status(), GrpcStatus::Internal);
    }

    #[test]
    fn requests_are_kept_together_by_what_the_backend_is_told_before_what_the_client_says() {
        let asked = Asked::new("/", &[("x-zone", "core"), ("x-shard", "7")]);
        let request = read_request(&asked.list).unwrap();
        let context = RequestContext {
            request: &request,
            list: &asked.list,
            told: &asked.told,
            tenant: Some(b"red"),
            address: [192, 0, 2, 1].into(),
            draw: 0,
        };
        let header = |name: &str| HashKey::Header(name.as_bytes().into());
        for (key, expected) in [
            (HashKey::Tenant, Some(&b"red"[..])),
            (HashKey::Identity, Some(b"agent")),
            (header("x-zone"), Some(b"edge")),
            (header("x-shard"), Some(b"7")),
            (header("x-none"), None),
        ] {
            assert_eq!(key.of_request(&context, "agent"), expected, "{key:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_route_that_is_covered_takes_no_request(
            rows in proptest::collection::vec(
                "(\\*|GET|POST|GET\\+POST) (/|/a|/a/b|/s\\.T)(, s\\.T(/M)?)?( \\|( a\\.test| \\*\\.test| \\*\\.a\\.test){0,2})?", 1..6,
            ),
            method in "(GET|POST)", path in "(/|/a|/a/b|/a/b/c|/s\\.T/M|/s\\.T/N)",
            host in "(test|a\\.test|b\\.a\\.test)",
        ) {
            let table = RouteTable::new(rows.iter().map(|row| route_of(row)).collect(), None);
            let fields = [(":method", method.as_str()), (":scheme", "https"), (":path", &path), (":authority", &host)];
            let mut list = HeaderList::new(10_000);
            for (name, value) in fields {
                list.push(Field::new(name.as_bytes(), value.as_bytes()));
            }
            let told = HeaderList::new(0);
            let context = RequestContext {
                request: &read_request(&list).unwrap(),
                list: &list,
                told: &told,
                tenant: None,
                address: [192, 0, 2, 1].into(),
                draw: 0,
            };
            if let Some(route) = table.find(&context).and_then(|choice| choice.route) {
                prop_assert!(table.covering(route).is_empty(), "{rows:?} {method} {host}{path}");
            }
        }

        #[test]
        fn a_path_that_is_sent_is_plain_and_below_what_replaces_its_prefix(
            before in "(/[ab]){0,2}", after in "(/[ab]){0,2}",
            path in "(/(a|b|\\.|%2f|;|%2e|%20){0,3}){1,4}(\\?[a/.]{0,3})?",
        ) {
            let text = |text: &str| if text.is_empty() { "/".to_owned() } else { text.to_owned() };
            let (before, after) = (text(&before), text(&after));
            let rewritten = Route {
                prefix: Some(prefix(&after)),
                ..route(&before, 1)
            };
            let table = RouteTable::new(vec![rewritten], None);
            let decided = Asked::new(&path, &[]).decide(&table, &anything());
            match decided {
                Ok((_, _, sent)) => {
                    prop_assert!(is_plain(sent.as_bytes()), "{path} {sent}");
                    prop_assert!(prefix(&after).rest(sent.as_bytes()).is_some(), "{path} {sent}");
                    let rest = prefix(&before).rest(path.as_bytes()).map(<[u8]>::len);
                    prop_assert!(sent.len() >= rest.unwrap_or(0), "{path} {sent}");
                }
                Err(RequestRefusal::PathNotPlain) => prop_assert!(!is_plain(path.as_bytes())),
                Err(refusal) => {
                    prop_assert_eq!(refusal, RequestRefusal::NoRoute);
                    prop_assert!(prefix(&before).rest(path.as_bytes()).is_none());
                }
            }
        }
    }
}
