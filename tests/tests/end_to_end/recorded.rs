//! What the CAs of others wrote once, kept in `recorded/`: certificates and lists that no library here made.
//! In: those files, good until 2036. Out: who gets in with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tests::{
    Backend, Behaviour, Client, ClientBuilder, Credentials, Gateway, Workspace, eventually,
};

/// A recorded file.
fn recorded(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/recorded");
    folder.join(name)
}

/// A recorded certificate with its key, which git does not keep from others' eyes.
fn credentials(workspace: &Workspace, name: &str) -> Credentials {
    let key = workspace
        .folder()
        .join(format!("{}.key", name.replace('/', "-")));
    fs::copy(recorded(&format!("{name}.key")), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    Credentials {
        certificate: recorded(&format!("{name}.pem")),
        key,
    }
}

#[test]
fn the_list_that_step_ca_wrote_shuts_out_whom_it_revoked_and_nobody_else() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let list = format!("crl = [{:?}]", recorded("step-ca/list.der"));
    let gateway = workspace
        .setup()
        .client_ca(&recorded("step-ca/intermediate.pem"))
        .route("edge", &list, &[backend.address()], "")
        .start();
    let good = credentials(&workspace, "step-ca/good");
    let mut client = workspace
        .client()
        .credentials(&good)
        .connect(gateway.address())
        .unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
    let revoked = credentials(&workspace, "step-ca/revoked");
    let client = workspace.client().credentials(&revoked);
    client.refused(gateway.address());
    let reason = [("listener", "edge"), ("reason", "revoked")];
    gateway.wait_for("portcullis_handshake_failures_total", &reason, 1);
}

/// What `spire-agent api fetch x509 -write` writes for a gateway, as it writes it: in place.
struct Fetched(PathBuf);

impl Fetched {
    fn own(&self) -> Credentials {
        Credentials {
            certificate: self.0.join("svid.0.pem"),
            key: self.0.join("svid.0.key"),
        }
    }

    fn bundle(&self) -> PathBuf {
        self.0.join("bundle.0.pem")
    }

    /// The gateway's certificate and key of this time.
    fn write_own(&self, time: &str) {
        let own = self.own();
        for (kind, file) in [("pem", &own.certificate), ("key", &own.key)] {
            let text = fs::read(recorded(&format!("spire/gateway-{time}.{kind}"))).unwrap();
            fs::write(file, text).unwrap();
        }
        fs::set_permissions(&own.key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn write_bundle(&self, time: &str) {
        let text = fs::read(recorded(&format!("spire/bundle-{time}.pem"))).unwrap();
        fs::write(self.bundle(), text).unwrap();
    }
}

/// An agent with its certificate of one time and its bundle of another.
fn spire_agent(workspace: &Workspace, svid: &str, bundle: &str) -> ClientBuilder {
    let roots = recorded(&format!("spire/bundle-{bundle}.pem"));
    let own = credentials(workspace, &format!("spire/agent-{svid}"));
    ClientBuilder::new(roots, "gateway.test").credentials(&own)
}

fn served(gateway: &Gateway, client: &ClientBuilder) -> Client {
    let mut client = client.connect(gateway.address()).unwrap();
    still_served(&mut client);
    client
}

fn still_served(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

#[test]
fn what_spire_writes_while_its_authority_is_replaced_shuts_out_only_whom_the_old_one_issued_and_at_its_end()
 {
    let mut workspace = Workspace::new();
    let files = Fetched(workspace.folder().join("spiffe"));
    fs::create_dir(&files.0).unwrap();
    files.write_own("before");
    files.write_bundle("before");
    workspace.server = files.own();
    let backend = Backend::start(Behaviour::Echo);
    let bound = format!(
        "{{ file = {:?}, trust_domain = \"example.test\" }}",
        files.bundle()
    );
    let setup = workspace.setup().client_authorities(&bound);
    let setup = setup.top("close_spread = \"1s\"");
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let mut old = served(&gateway, &spire_agent(&workspace, "before", "before"));

    // `prepare`: both authorities are in the bundle.
    files.write_bundle("during");
    let renewed = spire_agent(&workspace, "after", "during");
    let mut new = eventually("agents of the next authority get in", || {
        let mut client = renewed.connect(gateway.address()).ok()?;
        // A client learns after its own handshake whether it is let in.
        client.send(b"ping").ok()?;
        client.receive(4).ok()?;
        Some(client)
    });
    still_served(&mut new);

    // `activate`: the next one signs. Agents of both get in, whichever the gateway shows.
    files.write_own("after");
    let both = ["before", "after"].map(|svid| spire_agent(&workspace, svid, "during"));
    eventually("the gateway shows its next certificate", || {
        let client = served(&gateway, &both[0]);
        let shown = client.connection().peer_certificates().unwrap()[0].clone();
        let first = old.connection().peer_certificates().unwrap()[0].clone();
        (shown != first).then_some(())
    });
    for agent in &both {
        served(&gateway, agent);
    }
    still_served(&mut old);
    let failures = "portcullis_handshake_failures_total";
    let refused_so_far = gateway.metrics().sum(failures, &[]) as u64;

    // `taint` and `revoke`: the old one is gone.
    files.write_bundle("after");
    old.receive_to_end();
    let ended = [("listener", "edge"), ("reason", "untrusted")];
    gateway.wait_for("portcullis_connections_ended_total", &ended, 1);
    both[0].refused(gateway.address());
    still_served(&mut new);
    served(&gateway, &spire_agent(&workspace, "after", "after"));
    assert_eq!(
        gateway.metrics().sum(failures, &[]) as u64,
        refused_so_far + 1
    );
}
