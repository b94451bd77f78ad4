//! gRPC's C core on both ends, by grpcio for Python.
//! In: the claims of `clients/python/grpcio_peer.py`, and of `grpcio_health.py` about health. Out: that each holds.

use std::net::TcpStream;
use std::process::Command;

use tests::{
    Credentials, HttpBackend, Process, Reply, Speaks, Workspace, client_script, eventually, python,
};

/// As many claims as the script makes.
const CLAIMS: usize = 12;

fn command(role: &str, address: &str, files: Option<(&Credentials, &std::path::Path)>) -> Command {
    let mut command = Command::new(python());
    command.arg(client_script("python/grpcio_peer.py"));
    command.args([role, address]);
    if let Some((own, ca)) = files {
        command.arg(&own.certificate).arg(&own.key).arg(ca);
    }
    command
}

/// Every claim, with a backend over mTLS or in clear.
fn every_claim_holds(is_clear: bool) {
    let workspace = Workspace::new();
    let address = workspace.host.at(14317);
    let own = workspace.backend();
    let ca = workspace.gateways.certificate();
    let files = (!is_clear).then_some((&own, ca.as_path()));
    let mut serve = command("server", &address.to_string(), files);
    let _server = Process::start(workspace.folder(), "grpcio-server", &mut serve);
    eventually("grpcio listens", || TcpStream::connect(address).ok());
    let keys = match is_clear {
        true => "protocol = \"h2\"".to_owned(),
        false => workspace.backend_keys(),
    };
    let setup = workspace.setup().http();
    let gateway = setup.route("edge", "", &[address], &keys).start();
    let files = Some((&workspace.agent, ca.as_path()));
    let mut run = command("client", &gateway.address().to_string(), files);
    let mut client = Process::start(workspace.folder(), "grpcio-client", &mut run);
    let status = client.wait();
    let log = client.log();
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("ok ").count(), CLAIMS, "{log}");
}

#[test]
fn every_claim_holds_to_a_backend_over_mtls() {
    every_claim_holds(false);
}

#[test]
fn every_claim_holds_to_a_backend_by_prior_knowledge() {
    every_claim_holds(true);
}

#[test]
fn clients_hear_by_the_protocol_of_health_whether_a_backend_serves() {
    const CLAIMS: usize = 5;
    let workspace = Workspace::new();
    let server = workspace.host.free();
    let keys = "protocol = \"h2\"\n\
                health = { kind = \"tcp\", interval = \"1s\", timeout = \"1s\", healthy_after = 1, unhealthy_after = 1 }";
    let setup = workspace.setup().http().tables("[workers]\ncount = 1");
    let gateway = setup
        .route("edge", "grpc_health = true", &[server], keys)
        .start();
    let own = &workspace.agent;
    let mut run = Command::new(python());
    run.arg(client_script("python/grpcio_health.py"));
    run.arg(gateway.address().to_string());
    run.args([
        &own.certificate,
        &own.key,
        &workspace.gateways.certificate(),
    ]);
    let mut client = Process::start(workspace.folder(), "grpcio-health", &mut run);
    eventually("the client watches, or gives up", || {
        let has_ended = client.log().contains("Error");
        (has_ended || client.log().contains("ok watched")).then_some(())
    });
    let backend = HttpBackend::clear(server, Speaks::Http2, |_| Reply::grpc());
    let status = client.wait();
    let log = client.log();
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("ok ").count(), CLAIMS, "{log}");
    assert!(backend.requests().is_empty(), "the gateway answers itself");
}
