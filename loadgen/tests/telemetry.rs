//! OTLP through TLS into the bundled receiver: what arrives equals what was sent, over both transports.
//! And what the receiver says to requests that are not OTLP, spoken to it with bytes written here.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use loadgen::client::Target;
use loadgen::credentials::{Identity, roots};
use loadgen::failure::FailureKind;
use loadgen::fleet::{Agent, Fleet};
use loadgen::impostor::{Attempt, attempt};
use loadgen::otlp::Protocol;
use loadgen::receiver::{Receiver, Stats};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use rustls::AlertDescription;
use support::{Behind, Pki, run, run_as, serve};

fn receiver() -> Receiver {
    let any = "127.0.0.1:0".parse().unwrap();
    Receiver::start(any, any).unwrap()
}

#[test]
fn every_record_sent_arrives_under_its_agents_name() {
    let pki = Pki::new(3);
    for protocol in ["grpc", "http"] {
        let receiver = receiver();
        let backend = match protocol {
            "grpc" => receiver.grpc_address(),
            _ => receiver.http_address(),
        };
        let address = serve(&pki, 2, Behind::Backend(backend));
        let arguments = [
            "--protocol",
            protocol,
            "--connections",
            "3",
            "--count",
            "90",
            "--records",
            "50",
        ];
        let run = run(&pki, "otlp", address, &arguments);
        assert_eq!(run.code, 0, "{protocol}: {:#} {}", run.report, run.errors);
        assert_eq!(run.number("/details/records sent"), 4500.0);
        assert_eq!(run.number("/details/records acknowledged"), 4500.0);
        let stats = receiver.stats();
        assert_eq!(stats.records.total(), 4500);
        assert_eq!(stats.grpc_requests + stats.http_requests, 90);
        for agent in ["agent-1", "agent-2", "agent-3"] {
            let records = stats.records_of(agent, |_| true);
            assert!(records.spans > 0 && records.data_points > 0 && records.log_records > 0);
        }
        assert_eq!(stats.span_names["GET /orders"], stats.records.spans);
        assert_eq!(
            stats.metric_names["orders.processed"],
            stats.records.data_points
        );
        assert_eq!(
            stats.log_bodies["order accepted"],
            stats.records.log_records
        );
    }
}

#[test]
fn agent_without_certificate_delivers_nothing_and_learns_why() {
    let pki = Pki::new(1);
    let receiver = receiver();
    for (protocol, backend) in [
        ("grpc", receiver.grpc_address()),
        ("http", receiver.http_address()),
    ] {
        let address = serve(&pki, 2, Behind::Backend(backend));
        let run = run_as(
            &pki,
            "otlp",
            address,
            &["--protocol", protocol, "--count", "3"],
        );
        assert_eq!((run.code, run.number("/completed")), (1, 0.0));
        assert!(
            run.failures("alert_certificate_required") >= 3,
            "{protocol}: {:#}",
            run.report
        );
    }
    assert_eq!(receiver.stats(), Stats::default());
}

#[test]
fn fleet_delivers_from_every_agent_until_stopped() {
    let pki = Pki::new(3);
    let receiver = receiver();
    let grpc = serve(&pki, 2, Behind::Backend(receiver.grpc_address()));
    let http = serve(&pki, 2, Behind::Backend(receiver.http_address()));
    let agents = (1..=3)
        .map(|number| {
            let protocol = if number == 2 {
                Protocol::Http
            } else {
                Protocol::Grpc
            };
            let address = if number == 2 { http } else { grpc };
            Agent {
                name: format!("agent-{number}"),
                service_name: "shop".into(),
                protocol,
                target: target(&pki, address, Some(&format!("agents/agent-{number}")))
                    .with_alpn(&[protocol.alpn()]),
                interval: Duration::from_millis(5),
                records: 20,
                claimed_tenant: None,
            }
        })
        .collect();
    let fleet = Fleet::start(agents).unwrap();
    let all_have_sent = |fleet: &Fleet| fleet.states().iter().all(|agent| agent.acknowledged > 100);
    for _ in 0..500 {
        if all_have_sent(&fleet) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fleet.stop(Duration::from_secs(5)).unwrap();
    let states = fleet.states();
    let stats = receiver.stats();
    for agent in states {
        assert_eq!(agent.failed_exports, 0, "{agent:?}");
        assert!(agent.acknowledged > 100, "{agent:?}");
        assert_eq!(agent.sent, agent.acknowledged);
        assert_eq!(
            stats.records_of(&agent.name, |_| true).total(),
            agent.acknowledged
        );
    }
}

#[test]
fn impostors_are_told_apart_from_agents_by_what_tls_says() {
    let pki = Pki::new(1);
    let receiver = receiver();
    let address = serve(&pki, 2, Behind::Backend(receiver.http_address()));
    let agent = attempt(&target(&pki, address, Some("agents/agent-1"))).unwrap();
    assert!(matches!(agent, Attempt::LetIn), "{agent:?}");
    let nobody = attempt(&target(&pki, address, None)).unwrap();
    assert_eq!(
        alert(&nobody),
        Some(AlertDescription::CertificateRequired),
        "{nobody:?}"
    );
    let stranger = attempt(&target(&pki, address, Some("foreign/stranger"))).unwrap();
    assert!(alert(&stranger).is_some(), "{stranger:?}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut silent_target = target(&pki, silent.local_addr().unwrap(), None);
    silent_target.timeout = Duration::from_millis(200);
    let unknown = attempt(&silent_target).unwrap();
    assert!(matches!(unknown, Attempt::Unknown(_)), "{unknown:?}");
}

fn alert(attempt: &Attempt) -> Option<AlertDescription> {
    match attempt {
        Attempt::Refused(failure) => match failure.kind {
            FailureKind::Alert(alert) => Some(alert),
            _ => None,
        },
        _ => None,
    }
}

fn target(pki: &Pki, address: SocketAddr, identity: Option<&str>) -> Target {
    let identities = identity
        .map(|name| {
            let (certificate, key) = (
                pki.path(&format!("{name}.pem")),
                pki.path(&format!("{name}.key")),
            );
            Identity::load(name, &certificate, &key).unwrap()
        })
        .into_iter()
        .collect();
    Target::new(&address.to_string(), roots(&[pki.path("ca.pem")]).unwrap())
        .unwrap()
        .with_identities(identities)
}

#[test]
fn receiver_answers_what_is_not_otlp_with_the_right_status() {
    let receiver = receiver();
    let address = receiver.http_address();
    let protobuf = "application/x-protobuf";
    let cases: [(&str, &str, &str, &[u8], u16); 6] = [
        ("POST", "/v1/traces", "application/json", b"{}", 415),
        ("POST", "/v1/traces", "text/plain", b"", 415),
        ("POST", "/v1/traces", protobuf, b"\xff\xff\xff", 400),
        ("POST", "/v1/profiles", protobuf, b"", 404),
        ("GET", "/v1/traces", protobuf, b"", 405),
        ("PUT", "/stats", protobuf, b"", 404),
    ];
    for (method, path, content_type, body, expected) in cases {
        let headers = format!("content-type: {content_type}\r\n");
        let (status, reply) = exchange(address, method, path, &headers, body);
        assert_eq!(status, expected, "{method} {path}: {reply}");
    }
    let stats = receiver.stats();
    assert_eq!((stats.refused_requests, stats.http_requests), (6, 0));
}

#[test]
fn receiver_reads_gzip_and_shows_what_arrived() {
    let receiver = receiver();
    let span = Span {
        name: "one".into(),
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![span; 7],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&request.encode_to_vec()).unwrap();
    let headers = "content-type: application/x-protobuf; charset=x\r\ncontent-encoding: gzip\r\n";
    let body = encoder.finish().unwrap();
    let (status, reply) = exchange(
        receiver.http_address(),
        "POST",
        "/v1/traces",
        headers,
        &body,
    );
    assert_eq!((status, reply.as_str()), (200, ""));
    let (status, reply) = exchange(receiver.http_address(), "GET", "/stats", "", b"");
    let stats: Stats = serde_json::from_str(&reply).unwrap();
    assert_eq!((status, stats.span_names["one"]), (200, 7));
    assert_eq!(stats, receiver.stats());
}

#[test]
fn receiver_refuses_a_decompression_bomb() {
    let receiver = receiver();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 64 << 20]).unwrap();
    let headers = "content-type: application/x-protobuf\r\ncontent-encoding: gzip\r\n";
    let body = encoder.finish().unwrap();
    assert!(body.len() < 1 << 20);
    let (status, reply) = exchange(receiver.http_address(), "POST", "/v1/logs", headers, &body);
    assert_eq!(status, 413, "{reply}");
}

/// One HTTP/1.1 request on a connection of its own.
fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: receiver\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    let body = reply.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
