//! A certificate's whole life, rehearsed with `portcullis pki` and `openssl req` alone, in front of a running gateway.
//! In: an authority made on the spot, commands as an operator types them. Out: who gets in after each of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tests::{Backend, Behaviour, Client, Credentials, Gateway, Workspace, program};

/// An authority in a folder of the test.
struct Pki(PathBuf);

impl Pki {
    fn run(&self, arguments: &str) -> String {
        let mut command = Command::new(program("portcullis"));
        command.arg("pki").args(arguments.split(' '));
        succeed(command.arg("--directory").arg(&self.0))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn credentials(&self, name: &str, key: &Path) -> Credentials {
        Credentials {
            certificate: self.file(&format!("{name}.pem")),
            key: key.to_owned(),
        }
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// A key and a request for it that nobody but OpenSSL has touched.
fn request(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (key, request) = (
        folder.join(format!("{name}.key")),
        folder.join(format!("{name}.csr")),
    );
    let mut command = Command::new("openssl");
    command.args("req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256".split(' '));
    command.arg("-keyout").arg(&key).arg("-out").arg(&request);
    command.args(["-subj", &format!("/CN={name}"), "-addext"]);
    succeed(command.arg(format!(
        "subjectAltName=URI:spiffe://example.test/agent/{name}"
    )));
    (key, request)
}

fn reload(gateway: &mut Gateway, count: usize) {
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(count);
}

/// Connects to the gateway under `roots`, and has something sent back.
fn enter(
    workspace: &Workspace,
    gateway: &Gateway,
    roots: &Path,
    credentials: &Credentials,
) -> Client {
    let client = workspace.client().roots(roots.to_owned());
    let mut client = client
        .credentials(credentials)
        .connect(gateway.address())
        .unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
    client
}

#[test]
fn a_certificate_lives_from_its_issue_to_its_revocation_by_pki_alone() {
    let workspace = Workspace::new();
    let pki = Pki(workspace.folder().join("pki"));
    pki.run("init --name Rehearsal");
    pki.run("issue ca edge");
    pki.run("issue gateway gateway --dns gateway.test --dns localhost");
    pki.run("issue agent own --uri spiffe://example.test/agent/own --issuer edge");
    pki.run("crl");
    pki.run("crl --issuer edge");
    let roots = pki.file("ca.pem");
    // The gateway's own certificate comes from the same authority, and is renewed under it as well.
    let backend = Backend::start(Behaviour::Echo);
    let lists = [pki.file("ca.crl.pem"), pki.file("edge.crl.pem")];
    let both = workspace.folder().join("both.pem");
    let read = |name: &str| fs::read_to_string(pki.file(name)).unwrap();
    fs::write(&both, read("ca.pem") + &read("edge.pem")).unwrap();
    let keys = format!("crl = {lists:?}");
    let setup = workspace.setup().client_ca(&both);
    let setup = setup.route("edge", &keys, &[backend.address()], "");
    let text = setup.text();
    let mut gateway = setup.start();
    let own = |name: &str| format!("{:?}", pki.file(&format!("gateway.{name}")));
    let text = text
        .replace(&format!("{:?}", workspace.server.certificate), &own("pem"))
        .replace(&format!("{:?}", workspace.server.key), &own("key"));
    fs::write(workspace.folder().join("portcullis.toml"), text).unwrap();
    reload(&mut gateway, 1);

    // Issued here, and signed for a key that never left its place.
    let (key, asked) = request(workspace.folder(), "far");
    pki.run(&format!("sign {} --profile agent", asked.display()));
    let issued = pki.credentials("own", &pki.file("own.key"));
    let signed = pki.credentials("far", &key);
    let mut with_issued = enter(&workspace, &gateway, &roots, &issued);
    let mut with_signed = enter(&workspace, &gateway, &roots, &signed);

    // Renewed, all of them: nobody who is in notices, the new get in, and the old still do.
    let before = workspace.folder().join("own-before");
    fs::copy(pki.file("own.key"), &before).unwrap();
    let said = pki.run("renew own");
    let kept = said.rsplit_once("pki revoke ").unwrap().1;
    let kept = kept.trim_end().trim_end_matches('`').to_owned();
    let (new_key, new_request) = request(&workspace.folder().join("pki"), "new-far");
    pki.run(&format!("renew far --request {}", new_request.display()));
    pki.run("renew gateway");
    reload(&mut gateway, 2);
    let old = pki.credentials(&kept, &before);
    let renewed = pki.credentials("far", &new_key);
    let mut with_old = enter(&workspace, &gateway, &roots, &old);
    let mut with_new = enter(&workspace, &gateway, &roots, &issued);
    enter(&workspace, &gateway, &roots, &renewed);
    for client in [&mut with_issued, &mut with_signed] {
        client.send(b"ping").unwrap();
        assert_eq!(client.receive(4).unwrap(), b"ping");
    }

    // The certificate before the renewal is revoked: its clients are out, and the clients of the new one stay.
    pki.run(&format!("revoke {kept} --issuer edge"));
    pki.run("crl --issuer edge");
    reload(&mut gateway, 3);
    with_old.receive_to_end();
    with_issued.receive_to_end();
    let labels = [("listener", "edge"), ("reason", "revoked")];
    gateway.wait_for("portcullis_connections_ended_total", &labels, 2);
    let client = workspace.client().roots(roots.clone());
    client.credentials(&old).refused(gateway.address());
    gateway.wait_for("portcullis_handshake_failures_total", &labels, 1);
    with_new.send(b"ping").unwrap();
    assert_eq!(with_new.receive(4).unwrap(), b"ping");
    enter(&workspace, &gateway, &roots, &issued);
    enter(&workspace, &gateway, &roots, &renewed);
}
