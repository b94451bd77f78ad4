//! SPIRE as it runs: a server whose authority lives two minutes, an agent that hands out certificates of a minute, and
//! `spire-agent api fetch` that writes them where the gateway reads them. In: its own two programs, by
//! `cargo xtask setup --all`. Out: who gets in while one authority follows the other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tests::{
    Backend, Behaviour, ClientBuilder, Credentials, Process, Workspace, eventually, software,
};

/// The groups that SPIRE tells the gateway and its agents apart by. Users would do as well, but need not reach SPIRE's programs.
const GATEWAY: u32 = 0;
const AGENT: u32 = 65534;

/// A trust domain of its own, with one node.
struct Spire {
    folder: PathBuf,
    _server: Process,
    _agent: Process,
}

impl Spire {
    /// A server and an agent that has joined it, with an entry for each of the two groups.
    fn start(workspace: &Workspace) -> Spire {
        let folder = workspace.folder().join("spire");
        fs::create_dir(&folder).unwrap();
        let address = workspace.host.at(8081);
        let (ip, port) = (address.ip(), address.port());
        let place = folder.display();
        let server = format!(
            "server {{\n bind_address = \"{ip}\"\n bind_port = \"{port}\"\n socket_path = \"{place}/server.sock\"\n \
             trust_domain = \"example.test\"\n data_dir = \"{place}/server\"\n log_level = \"INFO\"\n \
             ca_ttl = \"2m\"\n default_x509_svid_ttl = \"1m\"\n ca_key_type = \"ec-p256\"\n}}\n\
             plugins {{\n DataStore \"sql\" {{ plugin_data {{ database_type = \"sqlite3\"\n \
             connection_string = \"{place}/entries.sqlite3\" }} }}\n \
             NodeAttestor \"join_token\" {{ plugin_data {{}} }}\n KeyManager \"memory\" {{ plugin_data {{}} }}\n}}\n"
        );
        let agent = format!(
            "agent {{\n server_address = \"{ip}\"\n server_port = \"{port}\"\n socket_path = \"{place}/agent.sock\"\n \
             trust_domain = \"example.test\"\n data_dir = \"{place}/agent\"\n log_level = \"INFO\"\n \
             trust_bundle_path = \"{place}/first.pem\"\n}}\n\
             plugins {{\n NodeAttestor \"join_token\" {{ plugin_data {{}} }}\n \
             KeyManager \"memory\" {{ plugin_data {{}} }}\n WorkloadAttestor \"unix\" {{ plugin_data {{}} }}\n}}\n"
        );
        let mut run_server = with_configuration(&folder, "server", &server);
        let mut server = Process::start(workspace.folder(), "spire-server", &mut run_server);
        let at_server = |arguments: &[&str]| {
            let mut command = Command::new(software("spire/spire-server"));
            command.args(arguments).arg("-socketPath");
            command.arg(folder.join("server.sock")).output().unwrap()
        };
        let bundle = eventually("the server is well", || {
            server.expect_running();
            let output = at_server(&["bundle", "show"]);
            output.status.success().then_some(output.stdout)
        });
        fs::write(folder.join("first.pem"), bundle).unwrap();
        let node = "spiffe://example.test/node";
        let token = at_server(&["token", "generate", "-spiffeID", node]);
        let token = String::from_utf8(token.stdout).unwrap();
        for (group, path, more) in [
            (GATEWAY, "gateway", &["-dns", "gateway.test"][..]),
            (AGENT, "agent/agent-1", &[]),
        ] {
            let id = format!("spiffe://example.test/{path}");
            let selector = format!("unix:gid:{group}");
            let entry = [
                "entry",
                "create",
                "-parentID",
                node,
                "-spiffeID",
                &id,
                "-selector",
                &selector,
            ];
            let output = at_server(&[&entry, more].concat());
            assert!(output.status.success(), "{output:?}");
        }
        let mut run_agent = with_configuration(&folder, "agent", &agent);
        run_agent.args(["-joinToken", token.trim_start_matches("Token:").trim()]);
        let agent = Process::start(workspace.folder(), "spire-agent", &mut run_agent);
        Spire {
            folder,
            _server: server,
            _agent: agent,
        }
    }

    /// Writes a group's certificate, its key and the bundle, as docs/recipes.md has it: whether there is one.
    fn fetch(&self, group: u32) -> bool {
        let folder = self.files(group);
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--regid={group}"))
            .args(["--clear-groups", "--"])
            .arg(software("spire/spire-agent"))
            .args(["api", "fetch", "x509", "-socketPath"])
            .arg(self.folder.join("agent.sock"))
            .arg("-write")
            .arg(&folder);
        command.output().unwrap().status.success()
    }

    /// Where they are.
    fn files(&self, group: u32) -> PathBuf {
        self.folder.join(format!("files-of-{group}"))
    }

    fn credentials(&self, group: u32) -> Credentials {
        Credentials {
            certificate: self.files(group).join("svid.0.pem"),
            key: self.files(group).join("svid.0.key"),
        }
    }

    fn bundle(&self, group: u32) -> PathBuf {
        self.files(group).join("bundle.0.pem")
    }
}

/// `spire-HALF run` with this configuration.
fn with_configuration(folder: &Path, half: &str, text: &str) -> Command {
    let file = folder.join(format!("{half}.conf"));
    fs::write(&file, text).unwrap();
    let mut command = Command::new(software(&format!("spire/spire-{half}")));
    command.args(["run", "-config"]).arg(file);
    command
}

/// The key of the authority that issued a certificate, by its number.
fn authority_of(certificate: &Path) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-ext", "authorityKeyIdentifier", "-in"])
        .arg(certificate)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "long: four minutes, and SPIRE takes twenty to build"]
fn nobody_is_shut_out_while_spires_authorities_follow_each_other() {
    let mut workspace = Workspace::new();
    let spire = Spire::start(&workspace);
    for group in [GATEWAY, AGENT] {
        eventually("the agent hands out a certificate", || {
            spire.fetch(group).then_some(())
        });
    }
    workspace.server = spire.credentials(GATEWAY);
    let backend = Backend::start(Behaviour::Echo);
    let bundle = spire.bundle(GATEWAY);
    let gateway = workspace
        .setup()
        .client_authorities(&format!(
            "{{ file = {bundle:?}, trust_domain = \"example.test\" }}"
        ))
        .route("edge", "", &[backend.address()], "")
        .start();

    // Four minutes are two rotations: the next authority is made after half of the life of one, and signs after five sixths.
    let deadline = Instant::now() + Duration::from_secs(240);
    let (mut gateways, mut agents) = (BTreeSet::new(), BTreeSet::new());
    let mut connections = 0;
    while Instant::now() < deadline {
        for group in [GATEWAY, AGENT] {
            assert!(spire.fetch(group), "the agent hands out certificates");
        }
        gateways.insert(authority_of(&spire.credentials(GATEWAY).certificate));
        agents.insert(authority_of(&spire.credentials(AGENT).certificate));
        // The client trusts what its own bundle says.
        let client = ClientBuilder::new(spire.bundle(AGENT), "gateway.test");
        let client = client.credentials(&spire.credentials(AGENT));
        let mut client = client.connect(gateway.address()).unwrap();
        client.send(b"ping").unwrap();
        assert_eq!(client.receive(4).unwrap(), b"ping");
        connections += 1;
        thread::sleep(Duration::from_secs(1));
    }
    for authorities in [&gateways, &agents] {
        assert!(authorities.len() >= 3, "{authorities:?}");
    }
    let metrics = gateway.metrics();
    let failures = metrics.by_label("portcullis_handshake_failures_total", "reason");
    assert!(failures.is_empty(), "{failures:?}");
    let handshakes = metrics.count("portcullis_handshakes_total", &[("listener", "edge")]);
    assert_eq!(handshakes, connections);
}
