//! Testers that others wrote: h2spec of HTTP/2, and gRPC's interoperability tests.
//! In: the gateway between tester and server. Out: what they say, case by case.

use std::net::SocketAddr;
use std::process::Command;

use tests::{
    Gateway, HttpBackend, Process, Reply, Sidecar, Speaks, Workspace, eventually, software,
};

/// h2spec's cases that the gateway fails rightly; docs/http-conformance.md argues each.
const H2SPEC_EXCEPTIONS: [&str; 2] = [
    "http2/5.3.1: Sends HEADERS frame that depend on itself",
    "http2/5.3.1: Sends PRIORITY frame that depend on itself",
];

/// The cases of gRPC's interoperability tests that need neither a cloud nor a special server.
const INTEROP_CASES: [&str; 16] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
];

/// Cases of h2spec, and those among them that failed.
fn h2spec(workspace: &Workspace, address: SocketAddr) -> (usize, Vec<String>) {
    let report = workspace.folder().join("h2spec.xml");
    let mut command = Command::new(software("h2spec/h2spec"));
    command
        .args(["--strict", "--timeout", "3", "--host"])
        .arg(address.ip().to_string())
        .args(["--port", &address.port().to_string()])
        .args(["--path", "/h2spec", "--junit-report"])
        .arg(&report);
    let mut process = Process::start(workspace.folder(), "h2spec", &mut command);
    process.wait();
    let text = std::fs::read_to_string(report).unwrap();
    let cases = text.split("<testcase ").skip(1);
    let failed = cases.clone().filter(|case| {
        let end = case.find("</testcase>").unwrap_or(case.len());
        case[..end].contains("<failure") || case[..end].contains("<error")
    });
    let attribute = |case: &str, name: &str| {
        let start = case.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
        let length = case[start..].find('"').unwrap();
        case[start..start + length].to_owned()
    };
    let failed = failed.map(|case| {
        format!(
            "{}: {}",
            attribute(case, "package"),
            attribute(case, "classname")
        )
    });
    (cases.clone().count(), failed.collect())
}

#[test]
fn h2spec_finds_nothing_but_what_is_argued() {
    let workspace = Workspace::new();
    let backend = HttpBackend::over_mtls(&workspace, 14317, Speaks::Http2, |_| {
        // Some cases want content that flow control has to hold back.
        Reply::status(200).content(&[b'x'; 100])
    });
    let keys = workspace.backend_keys();
    let gateway = workspace
        .setup()
        .http()
        .route("edge", "", &[backend.address()], &keys)
        .start();
    let sidecar = Sidecar::start(&workspace.client().alpn("h2"), gateway.address());
    let (cases, failed) = h2spec(&workspace, sidecar.address());
    assert_eq!(cases, 146, "h2spec has run");
    assert_eq!(failed, H2SPEC_EXCEPTIONS);
}

/// gRPC's server, in clear or over mTLS.
fn interop_server(workspace: &Workspace, is_clear: bool) -> (Process, SocketAddr) {
    let address = workspace.host.at(14317);
    let mut command = Command::new(software("interop/interop"));
    command.args(["server", "-address", &address.to_string()]);
    if !is_clear {
        let own = workspace.backend();
        command.arg("-certificate").arg(own.certificate);
        command.arg("-key").arg(own.key);
        command.arg("-ca").arg(workspace.gateways.certificate());
    }
    let process = Process::start(workspace.folder(), "interop-server", &mut command);
    eventually("gRPC's server listens", || {
        std::net::TcpStream::connect(address).ok()
    });
    (process, address)
}

/// Runs all cases over one connection, but for those that open their own.
fn interop(
    workspace: &Workspace,
    address: SocketAddr,
    ca: &std::path::Path,
    own: &tests::Credentials,
) {
    let mut command = Command::new(software("interop/interop"));
    command.args(["client", "-address", &address.to_string()]);
    command.arg("-certificate").arg(&own.certificate);
    command.arg("-key").arg(&own.key);
    command.arg("-ca").arg(ca).args(INTEROP_CASES);
    let mut process = Process::start(workspace.folder(), "interop-client", &mut command);
    let status = process.wait();
    let log = process.log();
    assert!(status.success(), "{log}");
    for case in INTEROP_CASES {
        assert!(log.contains(&format!("PASS {case}")), "{case}: {log}");
    }
}

fn interop_through(workspace: &Workspace, gateway: &Gateway) {
    let ca = workspace.gateways.certificate();
    interop(workspace, gateway.address(), &ca, &workspace.agent);
}

#[test]
fn grpcs_cases_pass_to_a_backend_over_mtls() {
    let workspace = Workspace::new();
    let (_server, address) = interop_server(&workspace, false);
    let keys = workspace.backend_keys();
    let setup = workspace.setup().http();
    let gateway = setup.route("edge", "", &[address], &keys).start();
    interop_through(&workspace, &gateway);
}

#[test]
fn grpcs_cases_pass_to_a_backend_by_prior_knowledge() {
    let workspace = Workspace::new();
    let (_server, address) = interop_server(&workspace, true);
    let setup = workspace.setup().http();
    let gateway = setup
        .route("edge", "", &[address], "protocol = \"h2\"")
        .start();
    interop_through(&workspace, &gateway);
}
