//! docs/recipes.md, each recipe as it stands there: its configuration, its files in its layout, a client of the kind it is for.
//! In: the page's text. Out: what the client delivers before the files are rotated and after, and that nobody is refused.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tests::{
    Backend, Behaviour, Collector, Credentials, Exporter, Gateway, Request, Workspace, eventually,
};

use crate::prometheus;

/// A section of the page, up to the next of its level.
fn section(heading: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipes.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, rest) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("the page has no section {heading}"));
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The first example in a language.
fn example(section: &str, language: &str) -> String {
    let (_, rest) = section.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// A machine as the recipe sees it: its `/` is the test's folder.
struct RecipeHost {
    workspace: Workspace,
    address: SocketAddr,
}

impl RecipeHost {
    /// With the certificate of an agent that the recipe's rule admits, or the tests' own rule where it has none.
    fn new(section: &str) -> RecipeHost {
        let mut workspace = Workspace::new();
        if example(section, "toml").contains("spiffe://example.org/agent/*") {
            let request = Request::client("spiffe://example.org/agent/1");
            workspace.agent = workspace.agents.issue("recipe-agent", request);
        }
        let ca = workspace.agents.certificate();
        fs::copy(ca, workspace.folder().join("agents-ca.pem")).unwrap();
        let address = workspace.host.at(4317);
        RecipeHost { workspace, address }
    }

    /// A path of the recipe.
    fn path(&self, path: &str) -> PathBuf {
        let path = self.workspace.folder().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// The recipe's gateway in front of a backend.
    fn start(&self, section: &str, port: u16, backend: &str) -> Gateway {
        let listener = format!("0.0.0.0:{port}");
        let text = example(section, "toml");
        assert!(text.contains(&listener), "{text}");
        let root = self.workspace.folder().display();
        let text = text
            .replace(&listener, &self.address.to_string())
            .replace("\"/", &format!("\"{root}/"));
        let setup = self.workspace.setup();
        let setup = match text.contains("[[identity]]") {
            true => setup.identities(""),
            false => setup,
        };
        setup.tables(&format!("{text}\n{backend}\n")).start()
    }

    /// A certificate for the gateway.
    fn own(&self, name: &str) -> Credentials {
        self.workspace.gateways.issue(name, self.request())
    }

    fn request(&self) -> Request {
        Request::server("gateway.test")
            .dns("gateway.test")
            .ip(self.workspace.host.address())
    }

    /// Waits until newcomers are shown this certificate.
    fn wait_until_served(&self, certificate: &Path) {
        let expected = CertificateDer::from_pem_file(certificate).unwrap();
        eventually("the new certificate is served", || {
            let client = self.workspace.client().alpn("h2").alpn("http/1.1");
            let client = client.connect(self.address).unwrap();
            let served = client.connection().peer_certificates()?.first()?.clone();
            (served == expected).then_some(())
        });
    }
}

/// Publishes a generation of files: the first makes the layout, the second rotates.
type Publish = fn(&RecipeHost, u32) -> PathBuf;

/// Lets a Collector deliver through a recipe's gateway, before its files are rotated and after.
fn run(heading: &str, publish: Publish) {
    let section = section(heading);
    let recipe_host = RecipeHost::new(&section);
    let workspace = &recipe_host.workspace;
    let _backend = Collector::backend(workspace);
    publish(&recipe_host, 1);
    let backend = format!(
        "[[backend]]\nname = \"collector\"\nservers = [\"{}\"]\n{}",
        Collector::backend_grpc(workspace),
        workspace.backend_keys()
    );
    let gateway = recipe_host.start(&section, 4317, &backend);
    // The second connects when it has something to send: after the rotation.
    let exporters =
        ["before", "after"].map(|name| Exporter::grpc(name, recipe_host.address, "gzip"));
    let agent = Collector::agent(workspace, &workspace.agent, exporters.into());
    agent.send(0, "before", "logs", 0..50, 0);
    Collector::wait_for_all(workspace, "logs", "before", 50);
    recipe_host.wait_until_served(&publish(&recipe_host, 2));
    agent.send(1, "after", "logs", 0..50, 0);
    Collector::wait_for_all(workspace, "logs", "after", 50);
    agent.send(0, "before", "logs", 50..60, 0);
    Collector::wait_for_all(workspace, "logs", "before", 60);
    let failures = "portcullis_handshake_failures_total";
    let failures = gateway.metrics().by_label(failures, "reason");
    assert!(failures.is_empty(), "{failures:?}");
}

/// Writes a file as one that has a mode of its own, whatever was there, in place.
fn write(path: &Path, from: &Path, mode: u32) {
    fs::write(path, fs::read(from).unwrap()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes a file beside and moves it into its place.
fn replace(path: &Path, from: &Path) {
    let staged = path.with_extension("staged");
    fs::copy(from, &staged).unwrap();
    fs::rename(staged, path).unwrap();
}

fn relink(target: &str, link: &Path) {
    let staged = link.with_file_name("staged");
    symlink(target, &staged).unwrap();
    fs::rename(staged, link).unwrap();
}

#[test]
fn a_collector_delivers_through_the_recipe_for_cert_manager() {
    run(
        "cert-manager, and every secret that Kubernetes mounts",
        |recipe_host, number| {
            let own = recipe_host.own(&format!("own-{number}"));
            let day = format!("..2026_11_2{number}");
            let ca = recipe_host.workspace.agents.certificate();
            for (name, from) in [
                ("tls.crt", &own.certificate),
                ("tls.key", &own.key),
                ("ca.crt", &ca),
            ] {
                let mount = "/etc/portcullis/tls";
                fs::copy(from, recipe_host.path(&format!("{mount}/{day}/{name}"))).unwrap();
                if number == 1 {
                    symlink(
                        format!("..data/{name}"),
                        recipe_host.path(&format!("{mount}/{name}")),
                    )
                    .unwrap();
                }
            }
            relink(&day, &recipe_host.path("/etc/portcullis/tls/..data"));
            own.certificate
        },
    );
}

#[test]
fn a_collector_delivers_through_the_recipe_for_vault_agent() {
    run("Vault agent", |recipe_host, number| {
        let own = recipe_host.own(&format!("own-{number}"));
        let parts = [&own.certificate, &own.key].map(|part| fs::read_to_string(part).unwrap());
        let whole = recipe_host.path("/run/whole.pem");
        fs::write(&whole, parts.concat()).unwrap();
        fs::set_permissions(&whole, fs::Permissions::from_mode(0o600)).unwrap();
        replace(&recipe_host.path("/run/portcullis/gateway.pem"), &whole);
        own.certificate
    });
}

#[test]
fn a_collector_delivers_through_the_recipe_for_certbot() {
    run("certbot", |recipe_host, number| {
        let own = recipe_host.own(&format!("own-{number}"));
        for (name, from) in [("privkey", &own.key), ("fullchain", &own.certificate)] {
            let file = format!("archive/gateway.example.org/{name}{number}.pem");
            fs::copy(from, recipe_host.path(&format!("/etc/letsencrypt/{file}"))).unwrap();
            let link = format!("/etc/letsencrypt/live/gateway.example.org/{name}.pem");
            let link = recipe_host.path(&link);
            let _ = fs::remove_file(&link);
            symlink(format!("../../{file}"), link).unwrap();
        }
        own.certificate
    });
}

/// What SPIRE's own programs write: in place, one after the other.
fn svid(recipe_host: &RecipeHost, number: u32, names: [&str; 3]) -> PathBuf {
    let own = recipe_host.own(&format!("own-{number}"));
    let [certificate, key, bundle] =
        names.map(|name| recipe_host.path(&format!("/run/spiffe/{name}")));
    write(&certificate, &own.certificate, 0o644);
    write(&key, &own.key, 0o600);
    write(&bundle, &recipe_host.workspace.agents.certificate(), 0o644);
    own.certificate
}

#[test]
fn a_collector_delivers_through_the_recipe_for_spiffe_helper() {
    run("spiffe-helper", |recipe_host, number| {
        svid(
            recipe_host,
            number,
            ["svid.pem", "svid_key.pem", "svid_bundle.pem"],
        )
    });
}

#[test]
fn a_collector_delivers_through_the_recipe_for_what_the_spire_agent_fetches() {
    run("spire-agent api fetch", |recipe_host, number| {
        svid(
            recipe_host,
            number,
            ["svid.0.pem", "svid.0.key", "bundle.0.pem"],
        )
    });
}

#[test]
fn a_collector_delivers_through_the_recipe_for_step_ca() {
    run("step-ca", |recipe_host, number| {
        let folder = "/etc/portcullis/step";
        let [certificate, key, roots] = ["gateway.crt", "gateway.key", "roots.pem"]
            .map(|name| recipe_host.path(&format!("{folder}/{name}")));
        let name = format!("own-{number}");
        let gateways = &recipe_host.workspace.gateways;
        let own = if number == 1 {
            let own = recipe_host.own(&name);
            write(&roots, &recipe_host.workspace.agents.certificate(), 0o644);
            write(&key, &own.key, 0o600);
            own.certificate
        } else {
            // `renew` keeps the key and writes the certificate alone.
            gateways.issue_again(&name, &key, recipe_host.request())
        };
        write(&certificate, &own, 0o644);
        own
    });
}

#[test]
fn prometheus_writes_through_the_recipe_for_prometheus_and_cortex() {
    let section = section("Prometheus and Cortex");
    let mut recipe_host = RecipeHost::new(&section);
    recipe_host.address = recipe_host.workspace.host.at(9009);
    let workspace = &recipe_host.workspace;
    let (sender, receiver) = (workspace.host.at(9090), workspace.host.at(19090));
    let arguments = ["--web.enable-remote-write-receiver"];
    let _receiver = prometheus::start(workspace, "receiver", receiver, "{}", &arguments);
    let publish = |name: &str| {
        let own = recipe_host.own(name);
        for (file, from) in [("tls.key", &own.key), ("tls.crt", &own.certificate)] {
            replace(
                &recipe_host.path(&format!("/etc/portcullis/tls/{file}")),
                from,
            );
        }
        own.certificate
    };
    publish("own-1");
    let backend = format!("[[backend]]\nname = \"cortex\"\nservers = [\"{receiver}\"]\n");
    let _gateway = recipe_host.start(&section, 9009, &backend);
    // The recipe's own lines, with this test's address and files.
    let mut write = example(&section, "yaml")
        .replace("gateway.example.org:9009", &recipe_host.address.to_string())
        .replace("/api/v1/push", "/api/v1/write");
    for (file, path) in [
        ("gateway-ca.pem", workspace.gateways.certificate()),
        ("agent.pem", workspace.agent.certificate.clone()),
        ("agent.key", workspace.agent.key.clone()),
    ] {
        write = write.replace(file, &path.display().to_string());
    }
    let scrape = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: self\n    \
         static_configs: [{{targets: [\"{sender}\"]}}]\n{write}"
    );
    let _sender = prometheus::start(workspace, "sender", sender, &scrape, &[]);
    let samples = || {
        let found = prometheus::query(receiver, "count_over_time(up[5m])");
        let count = found.into_values().next()?;
        count.trim_matches('"').parse::<u32>().ok()
    };
    let first = eventually("samples arrive", samples);
    recipe_host.wait_until_served(&publish("own-2"));
    eventually("more samples arrive", || {
        samples().filter(|count| *count > first)
    });
}

#[test]
fn a_certificate_that_openssl_writes_by_the_recipe_gets_in() {
    let section = section("My CA is …");
    let (_, rest) = section.split_once("# agent.ext: ").unwrap();
    let extensions = format!("# {}", rest.split_once("```").unwrap().0);
    // The command stands in the first line.
    let command = rest.lines().next().unwrap();
    let workspace = Workspace::new();
    let folder = workspace.folder().join("openssl");
    fs::create_dir(&folder).unwrap();
    let rule = extensions.replace("example.org/agent/1", "example.test/agent/1");
    fs::write(folder.join("agent.ext"), rule).unwrap();
    let script = format!(
        "set -e\nkey() {{ openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1; chmod 600 $1; }}\n\
         key ca.key\nopenssl req -x509 -new -key ca.key -subj /CN=Agents -days 30 -out ca.pem \
         -addext keyUsage=critical,keyCertSign,cRLSign\n\
         key agent.key\nopenssl req -new -key agent.key -subj /CN=agent -out agent.csr\n{command}\n"
    );
    let made = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().client_ca(&folder.join("ca.pem"));
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let agent = Credentials {
        certificate: folder.join("agent.pem"),
        key: folder.join("agent.key"),
    };
    let client = workspace.client().credentials(&agent);
    let mut client = client.connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}
