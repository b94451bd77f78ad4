//! Prometheus and what speaks its remote write (Cortex, Mimir): Debian's Prometheus into a second one.
//! In: a server that scrapes itself and writes through the gateway with `tls_config`. Out: the same samples, queried.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use tests::{Backend, Behaviour, Process, Workspace, eventually, get, prometheus};

/// Starts Prometheus and waits until it is ready.
pub fn start(
    workspace: &Workspace,
    name: &str,
    listen: SocketAddr,
    configuration: &str,
    arguments: &[&str],
) -> Process {
    let folder = workspace.folder().join(name);
    fs::create_dir(&folder).unwrap();
    let file = folder.join("prometheus.yml");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new(prometheus());
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("data").display()
        ))
        .arg(format!("--web.listen-address={listen}"))
        .args(arguments);
    let mut process = Process::start(workspace.folder(), name, &mut command);
    eventually(&format!("{name} is ready"), || {
        process.expect_running();
        matches!(get(listen, "/-/ready"), Ok((200, _))).then_some(())
    });
    process
}

/// The answer to a query, as series and value.
pub fn query(server: SocketAddr, expression: &str) -> BTreeMap<String, String> {
    // The only characters of these expressions that a URL does not carry as they are.
    let escaped: String = expression
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let (status, body) = get(server, &format!("/api/v1/query?query={escaped}")).unwrap();
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["data"]["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|series| (series["metric"].to_string(), series["value"][1].to_string()))
        .collect()
}

/// The configuration of a server that scrapes itself, and writes to the gateway.
pub fn writing(workspace: &Workspace, sender: SocketAddr, gateway: SocketAddr) -> String {
    format!(
        "global: {{scrape_interval: 1s, external_labels: {{cluster: edge}}}}\n\
         scrape_configs:\n  - job_name: self\n    static_configs: [{{targets: [\"{sender}\"]}}]\n\
         remote_write:\n  - url: https://{gateway}/api/v1/write\n    \
         tls_config: {{ca_file: {:?}, cert_file: {:?}, key_file: {:?}}}\n    \
         queue_config: {{batch_send_deadline: 200ms}}\n",
        workspace.gateways.certificate(),
        workspace.agent.certificate,
        workspace.agent.key,
    )
}

/// Waits until the receiver has what the sender has, and nothing failed on the way.
pub fn wait_for_series(sender: SocketAddr, receiver: SocketAddr) {
    // A value that stays as it is, on every series of a scrape: both sides must agree on all of them.
    let stays = "{__name__=~\"prometheus_build_info|up|go_info|process_start_time_seconds|scrape_samples_scraped\"}";
    eventually("the receiver has the series of the sender", || {
        let (sent, received) = (query(sender, stays), query(receiver, stays));
        // `external_labels` are added on the way out.
        let received: BTreeMap<String, String> = received
            .into_iter()
            .map(|(series, value)| (series.replace("\"cluster\":\"edge\",", ""), value))
            .collect();
        (sent.len() == 5 && sent == received).then_some(())
    });
    let failed = query(
        sender,
        "prometheus_remote_storage_samples_failed_total + prometheus_remote_storage_samples_dropped_total",
    );
    assert!(failed.values().all(|value| value == "\"0\""), "{failed:?}");
    let delivered = eventually("the sender counts its samples", || {
        query(sender, "prometheus_remote_storage_samples_total > 100")
            .into_values()
            .next()
    });
    assert_ne!(delivered, "\"0\"");
}

#[test]
fn remote_write_delivers_every_series_with_its_values() {
    let workspace = Workspace::new();
    let (sender, receiver) = (workspace.host.at(9090), workspace.host.at(19090));
    let _receiver = start(
        &workspace,
        "receiver",
        receiver,
        "{}",
        &["--web.enable-remote-write-receiver"],
    );
    // As it is done for Cortex: HTTP/1.1 or h2, whatever the client prefers and the backend speaks.
    let gateway = workspace
        .setup()
        .route("remote-write", "alpn = [\"http/1.1\"]", &[receiver], "")
        .start();
    let configuration = writing(&workspace, sender, gateway.address());
    let _sender = start(&workspace, "sender", sender, &configuration, &[]);

    wait_for_series(sender, receiver);
    // The sender keeps its connections: it does not shake hands anew for each batch.
    let metrics = gateway.metrics();
    let handshakes = metrics.count(
        "portcullis_handshakes_total",
        &[("listener", "remote-write")],
    );
    assert!((1..=4).contains(&handshakes), "{handshakes} handshakes");
}

#[test]
fn prometheus_scrapes_the_gateways_own_metrics() {
    let workspace = Workspace::new();
    let (server, admin) = (workspace.host.at(9090), workspace.host.at(9464));
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .admin(admin)
        .route("edge", "", &[backend.address()], "")
        .start();
    workspace
        .client()
        .without_certificate()
        .refused(gateway.address());
    for _ in 0..3 {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        client.send(b"x").unwrap();
        client.receive(1).unwrap();
    }
    let configuration = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: portcullis\n    \
         static_configs: [{{targets: [\"{admin}\"]}}]\n"
    );
    let _server = start(&workspace, "prometheus", server, &configuration, &[]);
    for (expression, value) in [
        ("up", "1"),
        (
            "portcullis_connections_accepted_total{listener=\"edge\"}",
            "4",
        ),
        (
            "portcullis_handshake_failures_total{reason=\"no_certificate\"}",
            "1",
        ),
        ("portcullis_handshake_duration_seconds_count", "3"),
        (
            "count(portcullis_certificate_not_after_timestamp_seconds > time())",
            "2",
        ),
    ] {
        eventually(&format!("{expression} is {value}"), || {
            let found: Vec<String> = query(server, expression).into_values().collect();
            (found == [format!("\"{value}\"")]).then_some(())
        });
    }
}
