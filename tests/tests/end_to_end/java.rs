//! The Java agents of SkyWalking and OpenTelemetry, which present a client certificate by themselves, as docs/clients.md sets them up.
//! In: a program each, with the agent in its JVM. Out: what arrived behind the gateway.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::{Collector, SIGNALS, Setup, Workspace, eventually, post_json, software};

use crate::skywalking::start_server;

/// A JVM that takes little, with our classes in its path.
pub fn java(workspace: &Workspace) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .current_dir(workspace.folder())
        .stdin(Stdio::null());
    command
}

/// Runs a program to its end.
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{command:?}:\n{said}");
    assert!(said.contains("made "), "{said}");
}

/// Makes so many segments with SkyWalking's agent and sends them to the gateway.
pub fn send_segments(workspace: &Workspace, gateway: SocketAddr, segments: usize) {
    // The agent finds its files beside its own.
    let agent = workspace.folder().join("skywalking-agent");
    for folder in ["config", "plugins", "activations", "ca"] {
        fs::create_dir_all(agent.join(folder)).unwrap();
    }
    fs::write(agent.join("config/agent.config"), "").unwrap();
    for (from, to) in [
        (software("java/apm-agent.jar"), "skywalking-agent.jar"),
        (workspace.gateways.certificate(), "ca/gateway-ca.pem"),
        (workspace.agent.certificate.clone(), "ca/agent.pem"),
        (workspace.agent.key.clone(), "ca/agent.key"),
    ] {
        fs::copy(from, agent.join(to)).unwrap();
    }
    run(java(workspace)
        .arg("-javaagent:skywalking-agent/skywalking-agent.jar")
        .args([
            "-Dskywalking.agent.service_name=checkout",
            "-Dskywalking.agent.force_tls=true",
            "-Dskywalking.agent.ssl_trusted_ca_path=/ca/gateway-ca.pem",
            "-Dskywalking.agent.ssl_cert_chain_path=/ca/agent.pem",
            "-Dskywalking.agent.ssl_key_path=/ca/agent.key",
            "-Dskywalking.logging.output=CONSOLE",
        ])
        .arg(format!("-Dskywalking.collector.backend_service={gateway}"))
        .arg("-cp")
        .arg(software("java"))
        .args(["Send", &segments.to_string(), "4000"]));
}

/// The names that `Send` gives to its segments.
pub fn operations(segments: usize) -> BTreeSet<String> {
    (0..segments).map(|number| format!("/n/{number}")).collect()
}

#[test]
fn segments_of_the_skywalking_java_agent_arrive_over_its_own_mtls() {
    let workspace = Workspace::new();
    let server = workspace.host.at(21800);
    let file = workspace.folder().join("received.jsonl");
    let _server = start_server(&workspace, server, &file);
    let gateway = workspace
        .setup()
        .route("skywalking", "alpn = [\"h2\"]", &[server], "")
        .start();
    send_segments(&workspace, gateway.address(), 40);
    let received: Vec<Value> = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let made: Vec<String> = received
        .iter()
        .filter(|line| line["segment"].is_string())
        .map(|line| line["operation"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(made.len(), 40);
    assert_eq!(made.into_iter().collect::<BTreeSet<_>>(), operations(40));
    let handshakes = gateway
        .metrics()
        .count("portcullis_handshakes_total", &[("listener", "skywalking")]);
    assert_eq!(handshakes, 1);
}

#[test]
fn spans_of_the_opentelemetry_java_agent_arrive_over_grpc_and_http() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let keys = workspace.backend_keys();
    let gateway = workspace
        .setup()
        .route(
            "otlp-grpc",
            "alpn = [\"h2\"]",
            &[Collector::backend_grpc(&workspace)],
            &keys,
        )
        .route(
            "otlp-http",
            "",
            &[Collector::backend_http(&workspace)],
            &keys,
        )
        .start();
    let calls = 10;
    let ways = [("grpc", "otlp-grpc"), ("http/protobuf", "otlp-http")];
    for (index, (protocol, route)) in ways.into_iter().enumerate() {
        let agent = software("java/opentelemetry-javaagent.jar");
        let endpoint = format!("https://{}", gateway.address_of(route));
        run(java(&workspace)
            .arg(format!("-javaagent:{}", agent.display()))
            .arg("-cp")
            .arg(software("java"))
            .args(["Calls", &calls.to_string()])
            .env("OTEL_SERVICE_NAME", "checkout")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env(
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                workspace.gateways.certificate(),
            )
            .env(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                &workspace.agent.certificate,
            )
            .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", &workspace.agent.key));
        // Each call is a span of the client and one of the server.
        let expected = (index + 1) * calls * 2;
        eventually(&format!("{expected} spans arrive"), || {
            let spans: usize = Collector::delivered(&workspace, SIGNALS[0]).values().sum();
            (spans == expected).then_some(())
        });
    }
}

/// The endpoints of which SkyWalking's server has a segment of `checkout`.
fn stored(query: SocketAddr) -> BTreeSet<String> {
    let now = time::OffsetDateTime::now_utc();
    let minute = |offset: i64| {
        let at = now + time::Duration::minutes(offset);
        let (date, hour, minute) = (at.date(), at.hour(), at.minute());
        format!("{date} {hour:02}{minute:02}")
    };
    let question = serde_json::json!({
        "query": "query($c: TraceQueryCondition) { queryBasicTraces(condition: $c) { traces { endpointNames } } }",
        "variables": { "c": {
            "queryDuration": { "start": minute(-30), "end": minute(2), "step": "MINUTE" },
            "traceState": "ALL", "queryOrder": "BY_START_TIME",
            "paging": { "pageNum": 1, "pageSize": 1000 },
        } },
    });
    let Ok((200, body)) = post_json(query, "/graphql", &question.to_string()) else {
        return BTreeSet::new();
    };
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    let traces = answer["data"]["queryBasicTraces"]["traces"].as_array();
    traces
        .into_iter()
        .flatten()
        .filter_map(|trace| trace["endpointNames"][0].as_str())
        .map(str::to_owned)
        .collect()
}

#[test]
#[ignore = "long: SkyWalking's server, by `cargo xtask test --all`"]
fn segments_of_the_skywalking_java_agent_are_found_in_skywalkings_own_server() {
    let workspace = Workspace::new();
    let setup = workspace.setup();
    assert_found_in_skywalkings_own_server(&workspace, setup, "alpn = [\"h2\"]");
}

#[test]
#[ignore = "long: SkyWalking's server, by `cargo xtask test --all`"]
fn segments_that_pass_one_by_one_are_found_in_skywalkings_own_server() {
    let workspace = Workspace::new();
    let setup = workspace.setup().http();
    assert_found_in_skywalkings_own_server(&workspace, setup, "");
}

/// Has the Java agent send through a gateway of this set-up, with these keys of its listener.
fn assert_found_in_skywalkings_own_server(workspace: &Workspace, setup: Setup<'_>, listener: &str) {
    let (rest, grpc) = (workspace.host.at(12800), workspace.host.at(11800));
    let folder = workspace.folder().join("oap");
    let copied = Command::new("cp")
        .args([
            "-r",
            concat!(env!("CARGO_MANIFEST_DIR"), "/software/oap/config"),
        ])
        .arg(&folder)
        .status()
        .unwrap();
    assert!(copied.success());
    let file = folder.join("application.yml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("127.0.0.1", &workspace.host.address().to_string()),
    )
    .unwrap();
    let own = workspace
        .gateways
        .issue("oap", tests::Request::server("oap.test").dns("oap.test"));
    let to_backend = workspace.gateways.issue(
        "gateway-to-oap",
        tests::Request::client("spiffe://example.test/gateway"),
    );
    let mut server = java(workspace);
    server
        .arg("-Dcom.linecorp.armeria.warnNettyVersions=false")
        .arg("-cp")
        .arg(format!(
            "{}:{}/*",
            folder.display(),
            software("oap").display()
        ))
        .arg("org.apache.skywalking.oap.server.starter.OAPServerStartUp")
        .env("OAP_TLS", "true")
        .env("OAP_TLS_KEY", &own.key)
        .env("OAP_TLS_CERTIFICATE", &own.certificate)
        .env("OAP_TLS_CLIENT_CA", workspace.gateways.certificate());
    let mut server = tests::Process::start(workspace.folder(), "oap", &mut server);
    // It takes half a minute by itself.
    for _ in 0..3 {
        if matches!(tests::get(rest, "/healthcheck"), Ok((200, _))) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(20));
    }
    eventually("SkyWalking's server is ready", || {
        server.expect_running();
        matches!(tests::get(rest, "/healthcheck"), Ok((200, _))).then_some(())
    });
    let keys = format!(
        "tls = {{ ca = [{:?}], certificate = {:?}, key = {:?}, server_name = \"oap.test\" }}",
        workspace.gateways.certificate(),
        to_backend.certificate,
        to_backend.key,
    );
    let gateway = setup.route("skywalking", listener, &[grpc], &keys).start();
    send_segments(workspace, gateway.address(), 100);
    eventually("every segment is found", || {
        (stored(rest) == operations(100)).then_some(())
    });
}
