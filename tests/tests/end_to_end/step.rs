//! step-ca as it runs: a CA that issues the gateway's certificate and the agents', renews in place, revokes and publishes its list.
//! In: its own two programs, by `cargo xtask setup --all`. Out: what newcomers are served, and who is shut out.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::{Backend, Behaviour, Credentials, Process, Workspace, eventually, get, software};

/// A running CA.
struct StepCa {
    folder: PathBuf,
    address: SocketAddr,
    clear: SocketAddr,
    _process: Process,
}

impl StepCa {
    fn start(workspace: &Workspace) -> StepCa {
        let folder = workspace.folder().join("step");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("password"), "of-the-test\n").unwrap();
        let (address, clear) = (workspace.host.at(9443), workspace.host.at(9080));
        let ip = address.ip().to_string();
        let password = folder.join("password").display().to_string();
        run(Command::new(software("step/step"))
            .args([
                "ca",
                "init",
                "--name",
                "Agents",
                "--deployment-type",
                "standalone",
            ])
            .args(["--dns", &ip, "--address", &address.to_string()])
            .args(["--provisioner", "tests", "--password-file", &password])
            .args(["--provisioner-password-file", &password])
            .env("STEPPATH", &folder));
        let file = folder.join("config/ca.json");
        let mut configuration: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        configuration["insecureAddress"] = json!(clear.to_string());
        configuration["crl"] = json!({ "enabled": true, "generateOnRevoke": true });
        fs::write(&file, configuration.to_string()).unwrap();
        let mut command = Command::new(software("step/step-ca"));
        command.args(["--password-file", &password]).arg(&file);
        command.env("STEPPATH", &folder);
        let mut process = Process::start(workspace.folder(), "step-ca", &mut command);
        eventually("step-ca is well", || {
            process.expect_running();
            get(clear, "/1.0/crl").ok()
        });
        StepCa {
            folder,
            address,
            clear,
            _process: process,
        }
    }

    fn step(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(software("step/step"));
        command.arg("ca").args(arguments);
        command.args(["--ca-url", &format!("https://{}", self.address), "--root"]);
        command.arg(self.root()).env("STEPPATH", &self.folder);
        run(&mut command)
    }

    /// As `step`, with what proves that one may.
    fn as_provisioner(&self, arguments: &[&str]) -> String {
        let password = self.folder.join("password").display().to_string();
        let who = [
            "--provisioner",
            "tests",
            "--provisioner-password-file",
            &password,
        ];
        self.step(&[arguments, &who].concat())
    }

    fn root(&self) -> PathBuf {
        self.folder.join("certs/root_ca.crt")
    }

    fn intermediate(&self) -> PathBuf {
        self.folder.join("certs/intermediate_ca.crt")
    }

    fn issue(&self, name: &str, names: &[&str]) -> Credentials {
        let [certificate, key] =
            ["crt", "key"].map(|kind| self.folder.join(format!("{name}.{kind}")));
        let mut arguments = vec!["certificate", name];
        let files = [certificate.display().to_string(), key.display().to_string()];
        arguments.extend(files.iter().map(String::as_str));
        for name in names {
            arguments.extend(["--san", name]);
        }
        self.as_provisioner(&arguments);
        Credentials { certificate, key }
    }

    /// Writes the list as it is published now.
    fn fetch_list(&self, to: &Path) {
        let url = format!("http://{}/1.0/crl", self.clear);
        run(Command::new("python3")
            .args(["-c", "import sys, urllib.request as r; open(sys.argv[2], 'wb').write(r.urlopen(sys.argv[1]).read())", &url])
            .arg(to));
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A gateway whose own certificate is the CA's, and an echo through it.
fn workspace_of(ca: impl Fn(&Workspace) -> StepCa) -> (Workspace, StepCa) {
    let mut workspace = Workspace::new();
    let ca = ca(&workspace);
    let ip = workspace.host.address().to_string();
    workspace.server = ca.issue("gateway", &["gateway.test", &ip]);
    workspace.agent = ca.issue("agent", &["spiffe://example.test/agent/agent-1"]);
    (workspace, ca)
}

#[test]
#[ignore = "long: step-ca takes minutes to build"]
fn what_step_ca_renews_in_place_is_served_and_nobody_is_disconnected() {
    let (workspace, ca) = workspace_of(StepCa::start);
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().client_ca(&ca.root());
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let connect = || {
        let client = workspace.client().roots(ca.root());
        let mut client = client.connect(gateway.address()).unwrap();
        client.send(b"ping").unwrap();
        assert_eq!(client.receive(4).unwrap(), b"ping");
        client
    };
    let mut stays = connect();
    let before = stays.connection().peer_certificates().unwrap()[0].clone();
    let files = [&workspace.server.certificate, &workspace.server.key]
        .map(|path| path.display().to_string());
    for renewal in [["renew", "--force"], ["rekey", "--force"]] {
        let served = || connect().connection().peer_certificates().unwrap()[0].clone();
        let last = served();
        ca.step(&[renewal[0], &files[0], &files[1], renewal[1]]);
        eventually("the renewed certificate is served", || {
            (served() != last).then_some(())
        });
    }
    stays.send(b"ping").unwrap();
    assert_eq!(stays.receive(4).unwrap(), b"ping");
    assert_eq!(stays.connection().peer_certificates().unwrap()[0], before);
}

#[test]
#[ignore = "long: step-ca takes minutes to build"]
fn whom_step_ca_revokes_its_published_list_shuts_out() {
    let (workspace, ca) = workspace_of(StepCa::start);
    let other = ca.issue("other", &["spiffe://example.test/agent/other"]);
    let list = workspace.folder().join("list.der");
    ca.fetch_list(&list);
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().client_ca(&ca.intermediate());
    let keys = format!("crl = [{list:?}]");
    let gateway = setup.route("edge", &keys, &[backend.address()], "").start();
    let client = |who: &Credentials| workspace.client().roots(ca.root()).credentials(who);
    for who in [&workspace.agent, &other] {
        client(who).connect(gateway.address()).unwrap();
    }
    let serial = run(Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-in"])
        .arg(&other.certificate));
    // step-ca knows serial numbers in decimal.
    let serial = run(Command::new("python3")
        .args(["-c", "import sys; print(int(sys.argv[1], 16))"])
        .arg(serial.trim_start_matches("serial=")));
    let token = ca.as_provisioner(&["token", &serial, "--revoke"]);
    ca.step(&["revoke", &serial, "--token", &token]);
    ca.fetch_list(&list);
    let revoked = [("listener", "edge"), ("reason", "revoked")];
    eventually("the revoked one is refused", || {
        let _ = client(&other).connect(gateway.address());
        let failures = "portcullis_handshake_failures_total";
        (gateway.metrics().count(failures, &revoked) > 0).then_some(())
    });
    client(&workspace.agent).connect(gateway.address()).unwrap();
}
