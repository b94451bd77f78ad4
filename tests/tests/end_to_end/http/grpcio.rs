//! gRPC's C core on both ends, by grpcio for Python.
//! In: the claims of `clients/python/grpcio_peer.py`. Out: that each holds through the gateway.

use std::net::TcpStream;
use std::process::Command;

use tests::{Credentials, Process, Workspace, client_script, eventually, python};

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
