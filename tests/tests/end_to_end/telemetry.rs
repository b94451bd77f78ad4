//! OpenTelemetry: the exporters of its Python and JavaScript SDKs, configured by their own variables only.
//! In: unmodified SDKs. Out: what arrives at a real receiver equals what was made, record by record.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::{
    Credentials, Gateway, Process, Workspace, client_script, eventually, get, node, node_modules,
    program, python, wheel_file,
};

/// Routes as one has them for OTLP: gRPC clients insist on `h2`, HTTP clients offer nothing.
fn gateway(workspace: &Workspace, grpc: SocketAddr, http: SocketAddr) -> Gateway {
    workspace
        .setup()
        .route("otlp-grpc", "alpn = [\"h2\"]", &[grpc], "")
        .route("otlp-http", "", &[http], "")
        .start()
}

/// The environment of an SDK: OpenTelemetry's variables and nothing else that could steer it.
fn sdk(
    workspace: &Workspace,
    agent: &Credentials,
    endpoint: SocketAddr,
    program: &std::path::Path,
) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("OTEL_SERVICE_NAME", "checkout")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{endpoint}"))
        .env(
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            workspace.gateways.certificate(),
        )
        .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &agent.certificate)
        .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", &agent.key)
        .stdin(Stdio::null());
    command
}

/// Runs a client to its end and reads the line of JSON in which it says what it sent.
fn sent_by(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn python_sdk(
    workspace: &Workspace,
    endpoint: SocketAddr,
    protocol: &str,
    counts: [u32; 3],
) -> Value {
    let mut command = sdk(workspace, &workspace.agent, endpoint, &python());
    command
        .arg(client_script("python/otel_client.py"))
        .arg(protocol)
        .args(counts.map(|count| count.to_string()));
    sent_by(&mut command)
}

/// A receiver on OpenTelemetry's own stubs that writes every span down.
struct Recorder {
    _process: Process,
    file: std::path::PathBuf,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Recorder {
    fn start(workspace: &Workspace) -> Recorder {
        let (grpc, http) = (workspace.host.at(14317), workspace.host.at(14318));
        let file = workspace.folder().join("spans.jsonl");
        let mut command = Command::new(python());
        command
            .arg(client_script("python/otlp_recorder.py"))
            .arg(workspace.host.address().to_string())
            .args([grpc.port().to_string(), http.port().to_string()])
            .arg(&file);
        let mut process = Process::start(workspace.folder(), "recorder", &mut command);
        wait_for_port(&mut process, http);
        Recorder {
            _process: process,
            file,
            grpc,
            http,
        }
    }

    fn spans(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(&self.file).unwrap();
        let spans: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        as_set(&spans)
    }
}

/// Spans as text, so that two lists can be compared whatever their order. Fails when one stands there twice.
fn as_set(spans: &[Value]) -> BTreeSet<String> {
    let set: BTreeSet<String> = spans.iter().map(Value::to_string).collect();
    assert_eq!(set.len(), spans.len(), "a span arrived twice");
    set
}

fn wait_for_port(process: &mut Process, address: SocketAddr) {
    eventually(&format!("somebody listens on {address}"), || {
        process.expect_running();
        std::net::TcpStream::connect(address).ok().map(drop)
    });
}

#[test]
fn an_exporter_whose_batches_pass_within_its_time_out_delivers_everything_late() {
    const SPANS: u32 = 2000;
    let workspace = Workspace::new();
    let recorder = Recorder::start(&workspace);
    // A batch of 512 spans takes three seconds of the ten that the exporter waits.
    let rule = "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\nbytes_per_second = \"24KiB\"\n";
    let gateway = workspace
        .setup()
        .identities(rule)
        .route("otlp-grpc", "alpn = [\"h2\"]", &[recorder.grpc], "")
        .start();
    let endpoint = gateway.address_of("otlp-grpc");
    let sent = python_sdk(&workspace, endpoint, "grpc", [SPANS, 0, 0]);
    let sent = as_set(sent["spans"].as_array().unwrap());
    assert_eq!(sent.len(), SPANS as usize);
    eventually("every span has arrived", || {
        (recorder.spans() == sent).then_some(())
    });
    let identity = ("identity", "spiffe://example.test/agent/agent-1");
    let slowed = "portcullis_identity_slowed_seconds_total";
    assert!(gateway.metrics().sum(slowed, &[identity]) > 1.0);
}

#[test]
fn every_span_of_the_python_sdk_arrives_as_it_was_made_over_grpc() {
    let workspace = Workspace::new();
    let recorder = Recorder::start(&workspace);
    let gateway = gateway(&workspace, recorder.grpc, recorder.http);
    // More than one batch of 512.
    let sent = python_sdk(
        &workspace,
        gateway.address_of("otlp-grpc"),
        "grpc",
        [700, 0, 0],
    );
    let sent = as_set(sent["spans"].as_array().unwrap());
    assert_eq!(sent.len(), 700);
    assert_eq!(recorder.spans(), sent);
    assert_eq!(
        gateway
            .metrics()
            .count("portcullis_handshakes_total", &[("listener", "otlp-grpc")]),
        1
    );
}

#[test]
fn every_span_of_the_python_sdk_arrives_as_it_was_made_over_http() {
    let workspace = Workspace::new();
    let recorder = Recorder::start(&workspace);
    let gateway = gateway(&workspace, recorder.grpc, recorder.http);
    let sent = python_sdk(
        &workspace,
        gateway.address_of("otlp-http"),
        "http",
        [700, 0, 0],
    );
    let sent = as_set(sent["spans"].as_array().unwrap());
    assert_eq!(sent.len(), 700);
    assert_eq!(recorder.spans(), sent);
}

#[test]
fn every_span_of_the_javascript_sdk_arrives_as_it_was_made() {
    let workspace = Workspace::new();
    let recorder = Recorder::start(&workspace);
    let gateway = gateway(&workspace, recorder.grpc, recorder.http);
    let mut expected = BTreeSet::new();
    for (protocol, route) in [("grpc", "otlp-grpc"), ("proto", "otlp-http")] {
        let mut command = sdk(
            &workspace,
            &workspace.agent,
            gateway.address_of(route),
            &node(),
        );
        command
            .arg(client_script("node/otel_client.mjs"))
            .arg(node_modules())
            .args([protocol, "300"]);
        let sent = sent_by(&mut command);
        expected.extend(as_set(sent["spans"].as_array().unwrap()));
    }
    assert_eq!(expected.len(), 600);
    assert_eq!(recorder.spans(), expected);
}

#[test]
fn traces_logs_and_metrics_of_several_services_are_all_counted_by_our_receiver() {
    let workspace = Workspace::new();
    let (grpc, http) = (workspace.host.at(14317), workspace.host.at(14318));
    let mut command = Command::new(program("portcullis-loadgen"));
    command.args([
        "receiver",
        "--grpc",
        &grpc.to_string(),
        "--http",
        &http.to_string(),
    ]);
    let mut receiver = Process::start(workspace.folder(), "receiver", &mut command);
    wait_for_port(&mut receiver, http);
    let gateway = gateway(&workspace, grpc, http);
    python_sdk(
        &workspace,
        gateway.address_of("otlp-grpc"),
        "grpc",
        [120, 45, 7],
    );
    python_sdk(
        &workspace,
        gateway.address_of("otlp-http"),
        "http",
        [30, 5, 3],
    );

    let (status, body) = get(http, "/stats").unwrap();
    assert_eq!(status, 200, "{body}");
    let stats: Value = serde_json::from_str(&body).unwrap();
    let records = &stats["records"];
    assert_eq!(records["spans"], 150, "{body}");
    assert_eq!(records["log_records"], 50, "{body}");
    assert_eq!(records["data_points"], 10, "{body}");
    assert_eq!(stats["refused_requests"], 0, "{body}");
    assert_eq!(stats["sources"][0]["service_name"], "checkout", "{body}");
    for index in 0..120 {
        let times = if index < 30 { 2 } else { 1 };
        assert_eq!(
            stats["span_names"][format!("span {index}")],
            times,
            "{body}"
        );
    }
}

#[test]
fn the_rotel_collector_takes_over_both_transports_what_the_python_sdk_sends() {
    let workspace = Workspace::new();
    let (grpc, http) = (workspace.host.at(14317), workspace.host.at(14318));
    let mut command = Command::new(wheel_file("rotel/rotel-agent"));
    command
        .args([
            "start",
            "--exporter",
            "blackhole",
            "--debug-log",
            "traces",
            "--debug-log",
            "logs",
        ])
        .args([
            "--otlp-grpc-endpoint",
            &grpc.to_string(),
            "--otlp-http-endpoint",
            &http.to_string(),
        ])
        .env("RUST_LOG", "info")
        .env("NO_COLOR", "1");
    let mut rotel = Process::start(workspace.folder(), "rotel", &mut command);
    wait_for_port(&mut rotel, grpc);
    wait_for_port(&mut rotel, http);
    let gateway = gateway(&workspace, grpc, http);
    python_sdk(
        &workspace,
        gateway.address_of("otlp-grpc"),
        "grpc",
        [600, 25, 0],
    );
    python_sdk(
        &workspace,
        gateway.address_of("otlp-http"),
        "http",
        [40, 5, 0],
    );
    // rotel acknowledges before it writes its log.
    eventually("rotel has logged everything", || {
        let log = rotel.log();
        (logged(&log, "spans=") == 640 && logged(&log, "logs=") == 30).then_some(())
    });
}

/// Sum of the numbers that follow a field's name as a word of its own: `spans=512`, not `resource_spans=1`.
fn logged(log: &str, field: &str) -> u64 {
    log.split_whitespace()
        .filter_map(|word| word.strip_prefix(field))
        .map(|number| {
            number
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{number} is no number"))
        })
        .sum()
}

#[test]
fn an_sdk_without_a_certificate_delivers_nothing() {
    let workspace = Workspace::new();
    let recorder = Recorder::start(&workspace);
    let gateway = gateway(&workspace, recorder.grpc, recorder.http);
    let mut command = sdk(
        &workspace,
        &workspace.agent,
        gateway.address_of("otlp-http"),
        &python(),
    );
    command
        .env_remove("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
        .env_remove("OTEL_EXPORTER_OTLP_CLIENT_KEY")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
        .arg(client_script("python/otel_client.py"))
        .args(["http", "5", "0", "0"]);
    let output = command.output().unwrap();
    assert!(
        !output.status.success(),
        "the SDK believes that it delivered"
    );
    assert!(recorder.spans().is_empty());
    let metrics = gateway.metrics();
    let reasons = metrics.by_label("portcullis_handshake_failures_total", "reason");
    assert_eq!(
        reasons.keys().collect::<Vec<_>>(),
        ["no_certificate"],
        "{reasons:?}"
    );
}
