//! Whom the gateway believes to be its backend: chain, name, usage and revocation lists of the hop behind it.
//! In: servers whose certificates are good, revoked, or somebody else's, and lists of every age. Out: the bad ones get not
//! a byte and the log says why; the good ones get everything.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use tests::{
    Authority, Backend, Behaviour, Client, Closing, Credentials, Excluded, Gateway, Process,
    Request, RevocationList, Usage, Workspace, eventually,
};

use crate::nginx::{mtls, nginx};

const CONNECT_FAILURES: &str = "portcullis_backend_connect_failures_total";

/// Two servers of one backend: the suspect, and one that is good in any case.
struct Pair {
    workspace: Workspace,
    _servers: Process,
    addresses: [SocketAddr; 2],
    own: Credentials,
}

impl Pair {
    /// Starts both. The good one's certificate is of the same authority.
    fn start(workspace: Workspace, suspect: &Credentials) -> Pair {
        let good = workspace.gateways.issue("good", backend());
        let own = Request::client("spiffe://example.test/gateway/1");
        let own = workspace.agents.issue("own", own);
        let addresses = [workspace.host.at(7000), workspace.host.at(7001)];
        let server = |address: SocketAddr, certificate: &Credentials, answer: &str| {
            let tls = mtls(&workspace, certificate);
            format!("listen {address} ssl; {tls} return \"{answer}\";")
        };
        // Two servers in the place of one.
        let both = [
            server(addresses[0], suspect, "suspect"),
            server(addresses[1], &good, "good"),
        ]
        .join(" } server { ");
        let servers = nginx(&workspace, addresses[0], &both);
        Pair {
            workspace,
            _servers: servers,
            addresses,
            own,
        }
    }

    /// A gateway in front of both, with further keys of the backend's `tls`. One worker, so that they take turns.
    fn gateway(&self, ca: &Path, keys: &str) -> Gateway {
        let tls = format!(
            "tls = {{ ca = [{ca:?}], certificate = {:?}, key = {:?}, server_name = \"backend.test\"{keys} }}",
            self.own.certificate, self.own.key
        );
        let setup = self.workspace.setup().tables("[workers]\ncount = 1");
        setup.route("edge", "", &self.addresses, &tls).start()
    }

    /// What each of a few clients got.
    fn answers(&self, gateway: &Gateway) -> Vec<String> {
        let answer = |_| {
            let mut client = self.workspace.client().connect(gateway.address()).unwrap();
            // The gateway may have gone already.
            let _ = client.send(b"telemetry");
            let (received, closing) = client.receive_to_end();
            assert_eq!(received.is_empty(), closing != Closing::CloseNotify);
            String::from_utf8(received).unwrap()
        };
        (0..4).map(answer).collect()
    }

    fn assert_trusted(&self, ca: &Path, keys: &str) {
        let gateway = self.gateway(ca, keys);
        let mut answers = self.answers(&gateway);
        // Turns begin at random.
        answers.sort();
        assert_eq!(answers, ["good", "good", "suspect", "suspect"]);
        let failures = gateway
            .metrics()
            .count(CONNECT_FAILURES, &[("backend", "edge")]);
        assert_eq!(failures, 0);
    }

    /// The suspect is passed over, and the log says for what.
    fn assert_refused(&self, ca: &Path, keys: &str, reason: &str) {
        let gateway = self.gateway(ca, keys);
        for answer in self.answers(&gateway) {
            assert_eq!(answer, "good", "{reason}");
        }
        self.assert_said(&gateway, reason);
    }

    fn assert_said(&self, gateway: &Gateway, reason: &str) {
        let failures = gateway
            .metrics()
            .count(CONNECT_FAILURES, &[("backend", "edge")]);
        assert!(failures >= 1, "{reason}");
        let said = format!("the server's certificate is refused: {reason}");
        let suspect = self.addresses[0].to_string();
        let names_it = |line: &str| line.contains(&said) && line.contains(&suspect);
        eventually("the reason and the server stand in the log", || {
            gateway.log().lines().any(names_it).then_some(())
        });
    }
}

fn backend() -> Request {
    Request::server("backend.test").dns("backend.test")
}

fn crl(files: &[&Path]) -> String {
    format!(", crl = {files:?}")
}

#[test]
fn a_revoked_backend_gets_nothing_and_the_next_server_is_used() {
    let workspace = Workspace::new();
    let suspect = workspace.gateways.issue("suspect", backend());
    let none = workspace
        .gateways
        .revoke("none.crl", &RevocationList::of(&[]));
    let list = RevocationList::of(&[&suspect.certificate]);
    let list = workspace.gateways.revoke("gateways.crl", &list);
    let pair = Pair::start(workspace, &suspect);
    let ca = pair.workspace.gateways.certificate();
    pair.assert_trusted(&ca, "");
    pair.assert_trusted(&ca, &crl(&[&none]));
    pair.assert_refused(&ca, &crl(&[&list]), "a revocation list names it");
}

#[test]
fn a_revoked_intermediate_takes_the_backends_below_it_along() {
    let workspace = Workspace::new();
    let branch = workspace
        .gateways
        .subordinate("branch", "Branch of the test");
    let suspect = branch.issue("suspect", backend());
    let both = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, read(&workspace.gateways) + &read(&branch)).unwrap();
    let of_branch = branch.revoke("branch.crl", &RevocationList::of(&[]));
    let good = workspace
        .gateways
        .revoke("good.crl", &RevocationList::of(&[]));
    let bad = RevocationList::of(&[&branch.certificate()]);
    let bad = workspace.gateways.revoke("bad.crl", &bad);
    let pair = Pair::start(workspace, &suspect);
    let root = pair.workspace.gateways.certificate();
    pair.assert_refused(&root, &crl(&[&bad]), "a revocation list names it, or one");
    pair.assert_refused(
        &root,
        &crl(&[&good]),
        "there is no revocation list of an intermediate CA",
    );
    pair.assert_trusted(&both, &crl(&[&good, &of_branch]));
    // Trusted by itself, and named by the list of the one above: not trusted.
    pair.assert_refused(
        &both,
        &crl(&[&bad, &of_branch]),
        "a revocation list names it, or one",
    );
}

#[test]
fn a_list_of_backends_that_has_ended_refuses_all_unless_told_otherwise() {
    let workspace = Workspace::new();
    let suspect = workspace.gateways.issue("suspect", backend());
    let list = workspace
        .gateways
        .revoke("ended.crl", &RevocationList::of(&[]).ended());
    let named = RevocationList::of(&[&suspect.certificate]).ended();
    let named = workspace.gateways.revoke("named.crl", &named);
    let pair = Pair::start(workspace, &suspect);
    let ca = pair.workspace.gateways.certificate();
    for keys in ["", ", crl_grace = \"59m\""] {
        let gateway = pair.gateway(&ca, &(crl(&[&list]) + keys));
        assert!(pair.answers(&gateway).iter().all(String::is_empty));
        pair.assert_said(
            &gateway,
            "the revocation list of CN=Gateways of the test is too old",
        );
        let log = gateway.log();
        assert!(log.contains("has ended"), "told at start: {log}");
    }
    for keys in [
        ", crl_grace = \"2h\"",
        ", dangerous_accept_stale_crl = true",
    ] {
        pair.assert_trusted(&ca, &(crl(&[&list]) + keys));
        pair.assert_refused(&ca, &(crl(&[&named]) + keys), "a revocation list names it");
    }
}

#[test]
fn a_backend_that_is_not_what_it_should_be_gets_nothing() {
    let cases = [
        (
            Request::server("other.test").dns("other.test"),
            "it is not valid for the name backend.test",
        ),
        (
            backend().usage(Usage::Client),
            "it lacks the serverAuth extended key usage",
        ),
        (backend().expired(), "it, or one above it, ended on 20"),
        (
            backend().not_yet_valid(),
            "it, or one above it, is not valid before 20",
        ),
    ];
    for (request, reason) in cases {
        let workspace = Workspace::new();
        let suspect = workspace.gateways.issue("suspect", request);
        let pair = Pair::start(workspace, &suspect);
        let ca = pair.workspace.gateways.certificate();
        pair.assert_refused(&ca, "", reason);
    }
    let foreign = [
        ("Gateways of somebody else", "it leads to no CA in ca"),
        (
            "Gateways of the test",
            "a signature of its chain does not verify",
        ),
    ];
    for (name, reason) in foreign {
        let workspace = Workspace::new();
        let foreign = Authority::create(workspace.folder(), "foreign", name);
        let suspect = foreign.issue("suspect", backend());
        let pair = Pair::start(workspace, &suspect);
        let ca = pair.workspace.gateways.certificate();
        pair.assert_refused(&ca, "", reason);
    }
}

/// Two TLS servers in front of one echo, and a gateway with one worker, so that clients take turns with them.
struct Live {
    workspace: Workspace,
    _servers: Process,
    echoes: [Backend; 2],
    gateway: Gateway,
}

impl Live {
    /// Two servers, of which the first is the next in turn.
    fn start(workspace: Workspace, certificates: [&Credentials; 2], ca: &Path, keys: &str) -> Live {
        let echoes = [(); 2].map(|()| Backend::start(Behaviour::Echo));
        let own = Request::client("spiffe://example.test/gateway/1");
        let own = workspace.agents.issue("own", own);
        let addresses = [workspace.host.at(7000), workspace.host.at(7001)];
        let server = |((address, certificate), echo): ((SocketAddr, &Credentials), &Backend)| {
            let tls = mtls(&workspace, certificate);
            format!("listen {address} ssl; {tls} proxy_pass {};", echo.address())
        };
        let both = addresses.into_iter().zip(certificates).zip(&echoes);
        let both = both.map(server);
        let both = both.collect::<Vec<_>>().join(" } server { ");
        let servers = nginx(&workspace, addresses[0], &both);
        let tls = format!(
            "tls = {{ ca = [{ca:?}], certificate = {:?}, key = {:?}, server_name = \"backend.test\"{keys} }}",
            own.certificate, own.key
        );
        let setup = workspace.setup().top("close_spread = \"1s\"");
        let setup = setup.tables("[workers]\ncount = 1");
        // Another backend, whose servers are believed by nothing that those of the first could show.
        let roots = format!("{:?}", workspace.agents.certificate());
        let other = tls.replace(&format!("{ca:?}"), &roots).replace(keys, "");
        let setup = setup.route("edge", "", &addresses, &tls);
        let gateway = setup.route("other", "", &addresses, &other).start();
        let live = Live {
            workspace,
            _servers: servers,
            echoes,
            gateway,
        };
        // Turns begin at random.
        while live.echoes[1].connections().is_empty() {
            let mut client = live.connect();
            client.finish();
            client.receive_to_end();
        }
        live
    }

    fn connect(&self) -> Client {
        let mut client = self
            .workspace
            .client()
            .connect(self.gateway.address())
            .unwrap();
        ping(&mut client);
        client
    }

    fn reload(&mut self) {
        self.gateway.process().signal(Signal::HUP);
        self.gateway.wait_for_reloads(1);
    }

    /// Clients behind the first server lose their connection for `reason`; those behind the second keep it, and so do
    /// all that come.
    fn assert_only_first_left(&self, clients: Vec<Client>, reason: &str) {
        let labels = [("listener", "edge"), ("reason", reason)];
        let ended = "portcullis_connections_ended_total";
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (turn, client) in clients.into_iter().enumerate() {
            if turn % 2 == 0 {
                &mut first
            } else {
                &mut second
            }
            .push(client);
        }
        for client in &mut first {
            assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
        }
        self.gateway.wait_for(ended, &labels, first.len() as u64);
        second.iter_mut().for_each(ping);
        for _ in 0..4 {
            self.connect();
        }
        assert_eq!(
            self.gateway.metrics().count(ended, &labels),
            first.len() as u64
        );
    }
}

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

#[test]
fn a_backend_revoked_in_mid_connection_loses_it_and_the_others_keep_theirs() {
    let workspace = Workspace::new();
    let suspect = workspace.gateways.issue("suspect", backend());
    let good = workspace.gateways.issue("good", backend());
    let list = workspace
        .gateways
        .revoke("gateways.crl", &RevocationList::of(&[]));
    let ca = workspace.gateways.certificate();
    let mut live = Live::start(workspace, [&suspect, &good], &ca, &crl(&[&list]));
    let clients = (0..4).map(|_| live.connect()).collect();
    let named = RevocationList::of(&[&suspect.certificate]);
    live.workspace.gateways.revoke("gateways.crl", &named);
    live.reload();
    live.assert_only_first_left(clients, "backend_revoked");
}

#[test]
fn a_backend_whose_ca_is_removed_loses_its_connections_and_the_others_keep_theirs() {
    let workspace = Workspace::new();
    let leaving = Authority::create(workspace.folder(), "leaving", "Gateways of last year");
    let suspect = leaving.issue("suspect", backend());
    let good = workspace.gateways.issue("good", backend());
    let ca = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&ca, read(&workspace.gateways) + &read(&leaving)).unwrap();
    let mut live = Live::start(workspace, [&suspect, &good], &ca, "");
    let clients = (0..4).map(|_| live.connect()).collect();
    fs::write(&ca, read(&live.workspace.gateways)).unwrap();
    live.reload();
    live.assert_only_first_left(clients, "backend_untrusted");
}

#[test]
fn a_backend_loses_its_connections_when_its_ca_may_not_issue_for_it_any_more() {
    let workspace = Workspace::new();
    let narrowed = Authority::create(workspace.folder(), "narrowed", "Gateways of last year");
    let suspect = narrowed.issue("suspect", backend());
    let good = workspace.gateways.issue("good", backend());
    let ca = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&ca, read(&workspace.gateways) + &read(&narrowed)).unwrap();
    let mut live = Live::start(workspace, [&suspect, &good], &ca, "");
    let clients = (0..4).map(|_| live.connect()).collect();
    let excluded = Excluded::Dns("backend.test");
    let without = narrowed.renewed_excluding("Gateways of last year", excluded);
    fs::write(&ca, read(&live.workspace.gateways) + &without).unwrap();
    live.reload();
    live.assert_only_first_left(clients, "backend_untrusted");
}

#[test]
fn connections_to_a_backend_that_a_listener_has_left_are_evaluated_by_that_backend() {
    let workspace = Workspace::new();
    let suspect = workspace.gateways.issue("suspect", backend());
    let good = workspace.gateways.issue("good", backend());
    let list = workspace
        .gateways
        .revoke("gateways.crl", &RevocationList::of(&[]));
    let ca = workspace.gateways.certificate();
    let mut live = Live::start(workspace, [&suspect, &good], &ca, &crl(&[&list]));
    let mut clients: Vec<_> = (0..2).map(|_| live.connect()).collect();
    let file = live.workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (here, there) = ("backend = \"edge\"", "backend = \"other\"");
    fs::write(&file, text.replace(here, there)).unwrap();
    live.reload();
    // Closes of the untrusted are spread over a second.
    sleep(Duration::from_secs(4));
    clients.iter_mut().for_each(ping);
    let named = RevocationList::of(&[&suspect.certificate]);
    live.workspace.gateways.revoke("gateways.crl", &named);
    live.gateway.process().signal(Signal::HUP);
    live.gateway.wait_for_reloads(2);
    let ended = "portcullis_connections_ended_total";
    let labels = [("listener", "edge"), ("reason", "backend_revoked")];
    live.gateway.wait_for(ended, &labels, 1);
    assert_ne!(clients[0].receive_to_end().1, Closing::CloseNotify);
    ping(&mut clients[1]);
}

/// A server's certificate below an intermediate with this key usage, made by OpenSSL: it, and the root's file.
fn below_an_intermediate(folder: &Path, key_usage: &str) -> (Credentials, PathBuf) {
    fs::create_dir(folder).unwrap();
    let make = |arguments: &str, name: &str, extensions: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(["req", "-x509", "-nodes"]);
        command.args("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 3".split(' '));
        command.args([
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ]);
        command.args(["-subj", &format!("/CN={name}")]);
        command.args(arguments.split_whitespace());
        let extensions = extensions
            .iter()
            .flat_map(|extension| ["-addext", extension]);
        let output = command.args(extensions).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    make("", "root", &["keyUsage=critical,keyCertSign"]);
    make("-CA root.pem -CAkey root.key", "branch", &[key_usage]);
    let leaf = [
        "basicConstraints=critical,CA:FALSE",
        "subjectAltName=DNS:backend.test",
    ];
    make("-CA branch.pem -CAkey branch.key", "leaf", &leaf);
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let certificate = folder.join("chain.pem");
    fs::write(&certificate, read("leaf.pem") + &read("branch.pem")).unwrap();
    let key = folder.join("leaf.key");
    (Credentials { certificate, key }, folder.join("root.pem"))
}

#[test]
fn an_intermediate_of_backends_that_must_not_issue_makes_no_backend() {
    for (key_usage, trusted) in [
        ("keyUsage=keyCertSign", true),
        ("keyUsage=digitalSignature", false),
    ] {
        let workspace = Workspace::new();
        let (suspect, root) = below_an_intermediate(&workspace.folder().join("made"), key_usage);
        let both = workspace.folder().join("both.pem");
        let read = |file: &Path| fs::read_to_string(file).unwrap();
        fs::write(
            &both,
            read(&root) + &read(&workspace.gateways.certificate()),
        )
        .unwrap();
        let pair = Pair::start(workspace, &suspect);
        if trusted {
            pair.assert_trusted(&both, "");
        } else {
            pair.assert_refused(
                &both,
                "",
                "the key usage of an intermediate certificate lacks keyCertSign",
            );
        }
    }
}
