//! Apache SkyWalking: its own Python agent into a server on the stubs of the same package.
//! In: the agent. Out: every segment, the instance's properties and its heartbeat, at the server.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::{Process, Workspace, client_script, eventually, python};

/// Starts the server that stands for an OAP.
pub fn start_server(workspace: &Workspace, listen: SocketAddr, file: &Path) -> Process {
    let mut command = Command::new(python());
    command
        .arg(client_script("python/skywalking_server.py"))
        .args([listen.ip().to_string(), listen.port().to_string()])
        .arg(file);
    let mut process = Process::start(workspace.folder(), "skywalking-server", &mut command);
    eventually("the server listens", || {
        process.expect_running();
        TcpStream::connect(listen).ok()
    });
    process
}

/// Runs the agent; the segments it made, as id and operation.
pub fn run_agent(
    workspace: &Workspace,
    gateway: SocketAddr,
    segments: usize,
) -> BTreeMap<String, String> {
    let output = Command::new(python())
        .env_clear()
        .env("SW_AGENT_COLLECTOR_BACKEND_SERVICES", gateway.to_string())
        .env("SW_AGENT_FORCE_TLS", "true")
        .env("SW_AGENT_NAME", "checkout")
        .env("SW_AGENT_LOGGING_LEVEL", "ERROR")
        .env("SW_AGENT_COLLECTOR_HEARTBEAT_PERIOD", "1")
        // Nothing to profile and no meters: what is sent is what the test knows of.
        .env("SW_AGENT_PROFILE_ACTIVE", "false")
        .env("SW_AGENT_METER_REPORTER_ACTIVE", "false")
        .env("SW_AGENT_LOG_REPORTER_ACTIVE", "false")
        .arg(client_script("python/skywalking_client.py"))
        .arg(segments.to_string())
        .arg(workspace.gateways.certificate())
        .arg(&workspace.agent.certificate)
        .arg(&workspace.agent.key)
        // Long enough for more than one heartbeat.
        .arg("3")
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let sent: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sent.len(), segments);
    by_id(&sent.iter().collect::<Vec<_>>())
}

fn by_id(segments: &[&Value]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found: BTreeMap<String, String> = segments
        .iter()
        .map(|segment| (text(&segment["segment"]), text(&segment["operation"])))
        .collect();
    assert_eq!(found.len(), segments.len(), "a segment stands there twice");
    found
}

#[test]
fn segments_and_heartbeats_of_the_python_agent_arrive() {
    let workspace = Workspace::new();
    let server = workspace.host.at(21800);
    let file = workspace.folder().join("received.jsonl");
    let _server = start_server(&workspace, server, &file);
    let gateway = workspace
        .setup()
        .route("skywalking", "alpn = [\"h2\"]", &[server], "")
        .start();
    let sent = run_agent(&workspace, gateway.address(), 40);

    let received: Vec<Value> = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let segments: Vec<&Value> = received
        .iter()
        .filter(|line| line["segment"].is_string())
        .collect();
    assert_eq!(by_id(&segments), sent);
    assert!(
        segments
            .iter()
            .all(|segment| segment["service"] == "checkout")
    );
    for message in ["properties", "heartbeat"] {
        assert!(
            received.iter().any(|line| line[message] == "checkout"),
            "no {message}: {received:?}"
        );
    }
}
