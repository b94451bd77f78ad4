//! What deciding takes where lists are long: identity rules, revocation, and the header that tells a backend who came.
//! In: nothing. Out: times by Criterion.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::backend::{ProxiedConnection, proxy_header};
use gateway_core::certificate::{Certificate, Chain, Identity};
use gateway_core::http::message::{Field, HeaderList, PathPrefix, read_request};
use gateway_core::http::policy::{
    Grant, ReadySet, RequestContext, Rights, Route, RouteTable, Target, decide,
};
use gateway_core::identity::{Pattern, Rule, Rules, Tenant};
use gateway_core::revocation::{
    AuthorityId, AuthorityKey, IssuerList, Link, Revocation, Serial, StalePolicy, Status,
};

/// Rules of a large cluster that names each agent.
const RULES: usize = 10_000;

/// Entries of a long list.
const ENTRIES: u32 = 1_000_000;

fn certificate(number: usize) -> Certificate {
    Certificate {
        uris: vec![format!("spiffe://example.org/agent/{number}")],
        common_name: Some(format!("agent-{number}")),
        issuer: "CN=example".to_owned(),
        ..Certificate::default()
    }
}

/// How the rules of a cluster may be written: each names its agent by another kind of pattern.
const SHAPES: [(&str, Shape); 4] = [
    ("exact", |number| Rule {
        uri: Some(uri(&format!("spiffe://example.org/agent/{number}"))),
        ..Rule::default()
    }),
    ("prefix", |number| Rule {
        uri: Some(uri(&format!("spiffe://example.org/agent/{number}*"))),
        ..Rule::default()
    }),
    ("segment", |number| Rule {
        uri: Some(uri(&format!("spiffe://example.org/*/{number}"))),
        ..Rule::default()
    }),
    ("prefix and cn", |number| Rule {
        uri: Some(uri("spiffe://example.org/agent/*")),
        common_name: Some(Pattern::parse(&format!("agent-{number}")).expect("a name is a pattern")),
        ..Rule::default()
    }),
];

/// Makes the rule of one agent.
type Shape = fn(usize) -> Rule;

fn uri(text: &str) -> Pattern {
    Pattern::parse_uri(text).expect("a URI is a pattern")
}

/// A request by a listener of ten routes and a rule of every ready set, to the first route and to none.
fn request(criterion: &mut Criterion) {
    let prefix = |text: &str| PathPrefix::parse(text).expect("a path is a prefix");
    let route = |number: usize| Route {
        hosts: Vec::new(),
        targets: vec![Target::path(prefix(&format!("/api/v{number}")), Vec::new())],
        fields: Vec::new(),
        backend: number,
        canary: None,
        mirror: None,
        prefix: None,
        authority: None,
    };
    let routes = RouteTable::new((1..=10).map(route).collect(), Some(0));
    let grant = |set: ReadySet| Grant {
        targets: set.targets(),
        ready: Some(set),
        ..Grant::default()
    };
    let rights = Rights::new(ReadySet::ALL.map(grant).into());
    let mut group = criterion.benchmark_group("decision on a request");
    for (name, path) in [
        ("a route", "/api/v1/push"),
        (
            "no route",
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ),
    ] {
        let mut list = HeaderList::new(10_000);
        let fields = [(":method", "POST"), (":scheme", "https"), (":path", path)];
        for (name, value) in fields {
            list.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        let request = read_request(&list).expect("it is well-formed");
        let told = HeaderList::new(0);
        let context = RequestContext {
            request: &request,
            list: &list,
            told: &told,
            tenant: Some(b"red"),
            address: [192, 0, 2, 1].into(),
            draw: 0,
        };
        let mut sent = Vec::new();
        assert!(decide(&routes, &rights, &context, &mut sent).is_ok());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                sent.clear();
                black_box(decide(&routes, &rights, black_box(&context), &mut sent).is_ok())
            });
        });
    }
}

/// Ten rules beside ten thousand: the agent of the last one, and one that has no rule.
fn identity(criterion: &mut Criterion) {
    for (shape, rule) in SHAPES {
        let mut group = criterion.benchmark_group(format!("identity by {shape}"));
        for count in [10, RULES] {
            // From 10,000 on, so that all names are of one length, however many there are.
            let rules = Rules::new((RULES..RULES + count).map(rule).collect());
            let (known, unknown) = (certificate(RULES + count - 1), certificate(99_999));
            assert_eq!(
                rules.decide(&known, None, 0).map(|found| found.rule),
                Ok(count - 1)
            );
            assert!(rules.decide(&unknown, None, 0).is_err());
            for (name, certificate) in [("last", &known), ("none", &unknown)] {
                group.bench_function(format!("{name} of {count}"), |bencher| {
                    bencher.iter(|| black_box(rules.decide(black_box(certificate), None, 0)));
                });
            }
        }
    }
}

fn serial(number: u32) -> Serial {
    Serial::new(&[&[1; 12][..], &number.to_be_bytes()].concat()).expect("16 bytes are a number")
}

/// A certificate that the list names, and one that it does not.
fn revocation(criterion: &mut Criterion) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let day = Duration::from_secs(86_400);
    let mut list = IssuerList::new(SystemTime::UNIX_EPOCH, now + day, StalePolicy::Refuse);
    list.reserve(ENTRIES as usize);
    for number in 0..ENTRIES {
        list.insert(serial(number));
    }
    let issuer = AuthorityId([7; 32]);
    let revocation = Revocation::new([(issuer, list)]);
    let mut group = criterion.benchmark_group("revocation of 1,000,000 entries");
    for (name, number, expected) in [
        ("named", ENTRIES / 2, Status::Revoked),
        ("not named", ENTRIES, Status::Good),
    ] {
        let serial = serial(number);
        let chain = Chain {
            links: vec![Link {
                issuer,
                key: AuthorityKey::default(),
                serial,
            }],
            points: Vec::new(),
            anchor: issuer,
            constraints: None,
            not_before: now,
            not_after: now + day,
            ends_with_anchor: false,
        };
        assert_eq!(revocation.status(&chain, now), expected);
        group.bench_function(name, |bencher| {
            bencher.iter(|| revocation.status(black_box(&chain), now));
        });
    }
}

fn header(criterion: &mut Criterion) {
    let certificate = certificate(1);
    let tenant = Tenant::parse("tenant-1").expect("a name of a tenant");
    let (kind, name) = certificate.name();
    let identity = Identity {
        kind,
        name,
        trust_domain: None,
    };
    let proxied = ProxiedConnection {
        address: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        listener_address: SocketAddr::from(([192, 0, 2, 2], 443)),
        is_resumed: false,
        cipher_suite: "TLS_AES_128_GCM_SHA256",
        protocol: Some(b"h2"),
        certificate: &certificate,
        identity: &identity,
        tenant: Some(&tenant),
    };
    criterion.bench_function("PROXY header", |bencher| {
        bencher.iter(|| proxy_header(black_box(&proxied)).expect("everything fits"));
    });
}

criterion_group!(benches, identity, request, revocation, header);
criterion_main!(benches);
