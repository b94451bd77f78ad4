//! `[admin.tls]`: the metrics page for other hosts. In: scrapers with good, foreign, blocked and revoked certificates, silent
//! and slow ones; curl and Prometheus. Out: who reads the page, what else there is to read, who notices.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use tests::{
    Authority, Backend, Behaviour, Credentials, Gateway, Metrics, Request, RevocationList, Setup,
    Workspace, eventually, program,
};

use crate::prometheus;

const ENDED: &str = "portcullis_connections_ended_total";
const FAILURES: &str = "portcullis_handshake_failures_total";

/// The certificates of those who watch.
struct Watchers {
    authority: Authority,
    /// One that is allowed.
    scraper: Credentials,
}

impl Watchers {
    fn of(workspace: &Workspace) -> Watchers {
        let authority = Authority::create(workspace.folder(), "watchers", "Watchers of the test");
        let request = Request::client("spiffe://example.test/watch/prometheus");
        let scraper = authority.issue("prometheus", request);
        Watchers { authority, scraper }
    }

    /// The section, with further keys.
    fn section(&self, workspace: &Workspace, more: &str) -> String {
        format!(
            "[admin.tls]\naddress = \"{}\"\ncertificate = {:?}\nkey = {:?}\nclient_ca = [{:?}]\n\
             allow = [{{ uri = \"spiffe://example.test/watch/*\" }}]\n{more}\n",
            address(workspace),
            workspace.server.certificate,
            workspace.server.key,
            self.authority.certificate(),
        )
    }

    /// A gateway with a route and the endpoint.
    fn gateway(&self, workspace: &Workspace, backend: &Backend, more: &str) -> Gateway {
        setup(workspace, &self.section(workspace, more), backend).start()
    }
}

fn setup<'w>(workspace: &'w Workspace, section: &str, backend: &Backend) -> Setup<'w> {
    workspace
        .setup()
        .top("drain_timeout = \"0s\"")
        .tables("[audit]\nfile = \"audit.jsonl\"")
        .tables(section)
        .route("edge", "", &[backend.address()], "")
}

fn address(workspace: &Workspace) -> SocketAddr {
    workspace.host.at(9465)
}

/// curl, as another host calls it.
fn curl(workspace: &Workspace, who: &Credentials, arguments: &[&str], path: &str) -> Output {
    Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20"])
        .arg("--cacert")
        .arg(workspace.gateways.certificate())
        .arg("--cert")
        .arg(&who.certificate)
        .arg("--key")
        .arg(&who.key)
        .args(arguments)
        .arg(format!("https://{}{path}", address(workspace)))
        .output()
        .unwrap()
}

/// The page, or what curl says.
fn scrape(workspace: &Workspace, who: &Credentials) -> Result<String, String> {
    let output = curl(workspace, who, &["--fail"], "/metrics");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Waits until so many lines of the audit log are about the endpoint.
fn wait_for_audit_lines(workspace: &Workspace, count: usize) {
    eventually(&format!("{count} audit lines"), || {
        let audit = fs::read_to_string(workspace.folder().join("audit.jsonl")).unwrap();
        let of_admin = audit
            .lines()
            .filter(|line| line.contains("\"listener\":\"admin\""));
        (of_admin.count() == count).then_some(())
    });
}

fn echo(workspace: &Workspace, gateway: &Gateway) {
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

#[test]
fn who_is_allowed_reads_the_page_and_is_counted_like_any_client() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let gateway = watchers.gateway(&workspace, &backend, "");
    let page = scrape(&workspace, &watchers.scraper).unwrap();
    assert!(page.ends_with("# EOF\n"), "{page}");
    let page = Metrics::parse(&page);
    assert!(page.has("portcullis_connections_open", &[("listener", "edge")]));
    gateway.wait_for(ENDED, &[("listener", "admin"), ("reason", "finished")], 1);
    wait_for_audit_lines(&workspace, 2);
}

#[test]
fn scrapers_get_metrics_and_health_and_nothing_that_names_or_changes_anything() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let _gateway = watchers.gateway(&workspace, &backend, "");
    let status = |arguments: &[&str], path: &str| {
        let written = [
            arguments,
            &["--output", "/dev/null", "--write-out", "%{http_code}"],
        ];
        let output = curl(&workspace, &watchers.scraper, &written.concat(), path);
        String::from_utf8(output.stdout).unwrap()
    };
    for (path, expected) in [
        ("/livez", "200"),
        ("/readyz", "200"),
        ("/metrics", "200"),
        ("/blocked", "404"),
        ("/observed", "404"),
        ("/block", "404"),
        ("/", "404"),
    ] {
        assert_eq!(status(&[], path), expected, "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(
            status(&["--request", method], "/metrics"),
            "405",
            "{method}"
        );
    }
}

#[test]
fn whoever_is_not_allowed_reads_nothing_and_who_may_scrape_may_not_send() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let request = Request::client("spiffe://example.test/agent/agent-9");
    let other = watchers.authority.issue("other", request);
    let gateway = watchers.gateway(&workspace, &backend, "");
    // Admitted on the listener, foreign here; and one of the watchers' CA that an [[identity]] rule would admit.
    for (who, reason) in [
        (&workspace.agent, "unknown_issuer"),
        (&other, "not_authorized"),
    ] {
        scrape(&workspace, who).unwrap_err();
        gateway.wait_for(FAILURES, &[("listener", "admin"), ("reason", reason)], 1);
    }
    // Not by the rules of other listeners.
    eventually("the log says which list decides", || {
        let words = "no element of allow in [admin.tls] matches";
        gateway.log().contains(words).then_some(())
    });
    let nobody = workspace.client().without_certificate();
    nobody.refused(address(&workspace));
    gateway.wait_for(
        FAILURES,
        &[("listener", "admin"), ("reason", "no_certificate")],
        1,
    );
    workspace
        .client()
        .credentials(&watchers.scraper)
        .refused(gateway.address());
    wait_for_audit_lines(&workspace, 3);
}

#[test]
fn blocked_and_revoked_scrapers_read_nothing_more() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let second = watchers.authority.issue(
        "second",
        Request::client("spiffe://example.test/watch/second"),
    );
    let list = watchers
        .authority
        .revoke("watchers", &RevocationList::of(&[]));
    let gateway = watchers.gateway(&workspace, &backend, &format!("crl = [{list:?}]"));
    for who in [&watchers.scraper, &second] {
        scrape(&workspace, who).unwrap();
    }
    let blocked = Command::new(program("portcullis"))
        .args(["block", "--config"])
        .arg(workspace.folder().join("portcullis.toml"))
        .args([
            "--identity",
            "spiffe://example.test/watch/prometheus",
            "--reason",
            "test",
        ])
        .output()
        .unwrap();
    assert!(blocked.status.success(), "{blocked:?}");
    scrape(&workspace, &watchers.scraper).unwrap_err();
    gateway.wait_for(FAILURES, &[("listener", "admin"), ("reason", "blocked")], 1);
    scrape(&workspace, &second).unwrap();

    let revoked = RevocationList::of(&[&second.certificate]).numbered(2);
    watchers.authority.revoke("watchers", &revoked);
    let labels = [("listener", "admin"), ("reason", "revoked")];
    eventually("the list acts", || {
        let refused = scrape(&workspace, &second).is_err();
        (refused && gateway.metrics().count(FAILURES, &labels) > 0).then_some(())
    });
    let failures = gateway.metrics().by_label(FAILURES, "reason");
    assert_eq!(failures.len(), 2, "{failures:?}");
}

#[test]
fn the_certificate_that_scrapers_see_is_rotated_like_any_other() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let request = || Request::server("gateway.test").ip(workspace.host.address());
    let own = workspace.gateways.issue("scraped", request());
    let section = watchers.section(&workspace, "");
    let section = section
        .replace(
            &path(&workspace.server.certificate),
            &path(&own.certificate),
        )
        .replace(&path(&workspace.server.key), &path(&own.key));
    let _gateway = setup(&workspace, &section, &backend).start();
    scrape(&workspace, &watchers.scraper).unwrap();
    // By another CA, which this scraper does not trust.
    let others = Authority::create(workspace.folder(), "others", "Another CA");
    let next = others.issue("next", request());
    fs::copy(&next.key, &own.key).unwrap();
    fs::copy(&next.certificate, &own.certificate).unwrap();
    eventually("the new certificate is served", || {
        scrape(&workspace, &watchers.scraper).err()
    });
}

fn path(path: &Path) -> String {
    format!("{path:?}")
}

#[test]
fn silent_slow_and_endless_peers_keep_neither_scrapers_out_nor_agents() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let gateway = watchers.gateway(&workspace, &backend, "");
    let connect = || TcpStream::connect(address(&workspace)).unwrap();
    let _silent: Vec<_> = (0..600).map(|_| connect()).collect();
    scrape(&workspace, &watchers.scraper).unwrap();
    echo(&workspace, &gateway);
    // In, and then nothing, half a request, or one without end.
    let client = || {
        let client = workspace.client().credentials(&watchers.scraper);
        client.connect(address(&workspace)).unwrap()
    };
    let mut slow: Vec<_> = (0..40).map(|_| client()).collect();
    for client in &mut slow {
        client
            .send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
            .unwrap();
    }
    let mut endless = client();
    let header = format!("X-Long: {}\r\n", "x".repeat(8000));
    endless.send(b"GET /metrics HTTP/1.1\r\n").unwrap();
    while endless.send(header.as_bytes()).is_ok() {}
    scrape(&workspace, &watchers.scraper).unwrap();
    echo(&workspace, &gateway);
    // They are gone by themselves.
    for client in &mut slow {
        client.receive_to_end();
    }
    gateway.wait_for("portcullis_connections_open", &[("listener", "admin")], 0);
}

#[test]
fn check_and_status_show_the_endpoint_and_say_who_gets_in() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let gateway = watchers.gateway(&workspace, &backend, "");
    let portcullis = |arguments: &[&str]| {
        let mut command = Command::new(program("portcullis"));
        command.args(arguments).arg("--config");
        command.arg(workspace.folder().join("portcullis.toml"));
        let output = command.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let shown = portcullis(&["check"]);
    for expected in [
        "Listener admin",
        &address(&workspace).to_string(),
        "the metrics page, for:",
        "uri spiffe://example.test/watch/*",
        "CN=Watchers of the test",
        "admin tls certificate",
    ] {
        assert!(shown.contains(expected), "{expected} in\n{shown}");
    }
    let certificate = watchers.scraper.certificate.to_str().unwrap().to_owned();
    let asked = portcullis(&["check", "--certificate", &certificate]);
    assert!(
        asked.contains("Listener admin: ADMITTED by rule 1"),
        "{asked}"
    );
    assert!(asked.contains("Listener edge: REFUSED"), "{asked}");
    let status = portcullis(&["status"]);
    assert!(status.contains("admin"), "{status}");
    drop(gateway);
}

#[test]
fn a_process_that_takes_over_goes_on_serving_scrapers() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let section = watchers.section(&workspace, "");
    let mut first = setup(&workspace, &section, &backend).start();
    scrape(&workspace, &watchers.scraper).unwrap();
    let second = setup(&workspace, &section, &backend).takes_over().start();
    assert!(first.wait().success(), "{}", first.log());
    scrape(&workspace, &watchers.scraper).unwrap();
    drop(second);
}

/// The example of docs/operations.md in a language, below "Scrape from another host".
fn documented(language: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, section) = text.split_once("### Scrape from another host\n").unwrap();
    let (_, example) = section.split_once(&format!("```{language}\n")).unwrap();
    example.split_once("```").unwrap().0.to_owned()
}

#[test]
fn prometheus_scrapes_from_another_host_as_the_page_says() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let request = Request::client("spiffe://example.test/x").dns("prometheus.example.org");
    let who = watchers.authority.issue("by-dns", request);
    let section = documented("toml")
        .replace("0.0.0.0:9465", &address(&workspace).to_string())
        .replace("\"server.pem\"", &path(&workspace.server.certificate))
        .replace("\"server.key\"", &path(&workspace.server.key))
        .replace(
            "\"watchers-ca.pem\"",
            &path(&watchers.authority.certificate()),
        );
    let gateway = setup(&workspace, &section, &backend).start();
    let text = |path: &Path| path.display().to_string();
    let configuration = documented("yaml")
        .replace(
            "gateway-1.example.org:9465",
            &address(&workspace).to_string(),
        )
        .replace(
            "server_name: gateway-1.example.org",
            "server_name: gateway.test",
        )
        .replace(
            "/etc/prometheus/gateways-ca.pem",
            &text(&workspace.gateways.certificate()),
        )
        .replace("/etc/prometheus/prometheus.pem", &text(&who.certificate))
        .replace("/etc/prometheus/prometheus.key", &text(&who.key));
    let configuration = format!("global: {{scrape_interval: 1s}}\n{configuration}");
    let server = workspace.host.at(9090);
    let _prometheus = prometheus::start(&workspace, "prometheus", server, &configuration, &[]);
    for (expression, value) in [
        ("up{job=\"portcullis\"}", "1"),
        ("count(portcullis_build_info)", "1"),
    ] {
        eventually(&format!("{expression} is {value}"), || {
            let found: Vec<String> = prometheus::query(server, expression)
                .into_values()
                .collect();
            (found == [format!("\"{value}\"")]).then_some(())
        });
    }
    let failures = gateway.metrics().by_label(FAILURES, "reason");
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn a_scraper_that_hangs_up_at_once_harms_nobody() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let watchers = Watchers::of(&workspace);
    let gateway = watchers.gateway(&workspace, &backend, "");
    for _ in 0..50 {
        let client = workspace.client().credentials(&watchers.scraper);
        let mut client = client.connect(address(&workspace)).unwrap();
        client
            .send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        client.abort();
        // And one that is no TLS at all.
        connect_in_clear(&workspace);
    }
    gateway.wait_for("portcullis_connections_open", &[("listener", "admin")], 0);
    scrape(&workspace, &watchers.scraper).unwrap();
}

fn connect_in_clear(workspace: &Workspace) {
    let mut socket = TcpStream::connect(address(workspace)).unwrap();
    // Whether it is reset before that is no matter.
    let _ = socket.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
}
