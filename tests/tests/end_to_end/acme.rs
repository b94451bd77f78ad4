//! The gateway's own certificate by ACME: Let's Encrypt's test server `pebble` issues it, `step` asks for it. In: both programs, by
//! `cargo xtask setup --all`. Out: what newcomers are served, and what an operator reads of a certificate without a subject.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tests::{Backend, Behaviour, Credentials, Process, Workspace, eventually, program, software};

/// A running ACME server that believes whoever asks.
struct Pebble {
    folder: PathBuf,
    directory: String,
    challenges: String,
    trust: PathBuf,
    _process: Process,
}

impl Pebble {
    fn start(workspace: &Workspace) -> Pebble {
        let folder = workspace.folder().join("pebble");
        fs::create_dir(&folder).unwrap();
        let [address, management, challenges] =
            [14000, 15000, 5002].map(|port| workspace.host.at(port).to_string());
        let configuration = json!({ "pebble": {
            "listenAddress": address,
            "managementListenAddress": management,
            "certificate": workspace.server.certificate,
            "privateKey": workspace.server.key,
            "httpPort": 5002,
            "tlsPort": 5001,
            "profiles": { "default": { "description": "of the test", "validityPeriod": 86400 } },
        } });
        let file = folder.join("pebble.json");
        fs::write(&file, configuration.to_string()).unwrap();
        let mut command = Command::new(software("pebble/pebble"));
        command.arg("-config").arg(file);
        for (name, value) in [
            ("PEBBLE_VA_ALWAYS_VALID", "1"),
            ("PEBBLE_VA_NOSLEEP", "1"),
            ("PEBBLE_WFE_NONCEREJECT", "0"),
        ] {
            command.env(name, value);
        }
        let mut process = Process::start(workspace.folder(), "pebble", &mut command);
        let trust = workspace.gateways.certificate();
        let root = eventually("pebble is well", || {
            process.expect_running();
            fetch(&format!("https://{management}/roots/0"), &trust)
        });
        fs::write(folder.join("root.pem"), root).unwrap();
        Pebble {
            directory: format!("https://{address}/dir"),
            folder,
            challenges,
            trust,
            _process: process,
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// Orders a certificate, which is written in place.
    fn issue(&self, name: &str) -> Credentials {
        let [certificate, key] = ["crt", "key"].map(|kind| self.folder.join(format!("own.{kind}")));
        let output = Command::new(software("step/step"))
            .args(["ca", "certificate", name])
            .args([&certificate, &key])
            .args(["--force", "--acme", &self.directory])
            .args(["--contact", "mailto:operator@example.test", "--standalone"])
            .args(["--http-listen", &self.challenges])
            .args(["--not-before=-1m", "--not-after=12h", "--root"])
            .arg(&self.trust)
            .env("STEPPATH", &self.folder)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        Credentials { certificate, key }
    }
}

/// What is there, if its server is.
fn fetch(url: &str, roots: &Path) -> Option<Vec<u8>> {
    let script = "import ssl, sys, urllib.request as r\n\
                  c = ssl.create_default_context(cafile=sys.argv[2])\n\
                  sys.stdout.buffer.write(r.urlopen(sys.argv[1], context=c).read())";
    let output = Command::new("python3")
        .args(["-c", script, url])
        .arg(roots)
        .output()
        .unwrap();
    output.status.success().then_some(output.stdout)
}

#[test]
#[ignore = "long: step and pebble take minutes to build"]
fn a_certificate_by_acme_is_served_and_renewed_and_told_by_its_names() {
    let mut workspace = Workspace::new();
    let pebble = Pebble::start(&workspace);
    workspace.server = pebble.issue("gateway.test");
    let subject = Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-in"])
        .arg(&workspace.server.certificate)
        .output()
        .unwrap();
    let subject = String::from_utf8(subject.stdout).unwrap();
    assert_eq!(subject.trim(), "subject=", "ACME's certificates have none");

    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let connect = || {
        let client = workspace.client().roots(pebble.root());
        let mut client = client.connect(gateway.address()).unwrap();
        client.send(b"ping").unwrap();
        assert_eq!(client.receive(4).unwrap(), b"ping");
        client
    };
    let mut stays = connect();
    let first = stays.connection().peer_certificates().unwrap()[0].clone();
    pebble.issue("gateway.test");
    eventually("the renewed certificate is served", || {
        let served = connect().connection().peer_certificates().unwrap()[0].clone();
        (served != first).then_some(())
    });
    stays.send(b"ping").unwrap();
    assert_eq!(stays.receive(4).unwrap(), b"ping");

    let output = Command::new(program("portcullis"))
        .args(["check", "--config"])
        .arg(workspace.folder().join("portcullis.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let line = said
        .lines()
        .find(|line| line.contains("listener edge certificate"));
    assert!(
        line.is_some_and(|line| line.contains("gateway.test")),
        "{said}"
    );
}
