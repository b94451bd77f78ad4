//! Cortex behind the gateway: each tenant from its client's certificate, in a system that believes every `X-Scope-OrgID`.
//! In: Prometheus' remote write, queries, calls of Cortex' own parts. Out: what Cortex has of which tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::{
    Answer, ClientBuilder, Credentials, Gateway, Http1Answer, Http1Client, Http2Client, Process,
    Request, Workspace, eventually, get, software,
};

use crate::prometheus;

/// Who may do what: writers and readers of one tenant, a reader of two, Cortex' own parts.
const RULES: &str = r#"
[[identity]]
match = { uri = "spiffe://example.test/prometheus/*" }
tenant_from = "uri"
allow = ["cortex-push"]

[[identity]]
match = { uri = "spiffe://example.test/grafana/*" }
tenant_from = "uri"
allow = ["cortex-query"]

[[identity]]
match = { uri = "spiffe://example.test/overview" }
tenants = ["team-a", "team-b"]
default_tenant = "team-a"
allow = ["cortex-query"]

[[identity]]
match = { uri = "spiffe://example.test/cortex/querier" }
component = true
allow = ["cortex-component", "cortex-query"]
"#;

const UP: &str = "/prometheus/api/v1/query?query=prometheus_build_info";

/// The clients, by what their URIs end with.
const CLIENTS: [&str; 6] = [
    "prometheus/team-a",
    "prometheus/team-b",
    "grafana/team-a",
    "grafana/team-b",
    "overview",
    "cortex/querier",
];

/// Cortex with all of its parts, and the gateway before its two ports.
struct Scene {
    workspace: Workspace,
    gateway: Gateway,
    http: SocketAddr,
    credentials: BTreeMap<&'static str, Credentials>,
    _cortex: Process,
}

impl Scene {
    fn start() -> Scene {
        let workspace = Workspace::new();
        let (http, grpc) = (workspace.host.at(19009), workspace.host.at(19095));
        let cortex = start(&workspace, http, grpc);
        let setup = workspace.setup().http().identities(RULES);
        let gateway = setup
            .route("cortex", "", &[http], "")
            .route(
                "cortex-grpc",
                "alpn = [\"h2\"]",
                &[grpc],
                "protocol = \"h2\"",
            )
            .start();
        let credentials = CLIENTS.map(|name| {
            let request = Request::client(&format!("spiffe://example.test/{name}"));
            let file = name.replace('/', "-");
            (name, workspace.agents.issue(&file, request))
        });
        Scene {
            credentials: credentials.into(),
            workspace,
            gateway,
            http,
            _cortex: cortex,
        }
    }

    fn client(&self, name: &str) -> ClientBuilder {
        let client = self.workspace.client();
        client.credentials(&self.credentials[name])
    }

    /// Prometheus, which scrapes itself and writes as a team.
    fn writer(&self, team: &str, port: u16) -> Process {
        let own = &self.credentials[format!("prometheus/{team}").as_str()];
        let listen = self.workspace.host.at(port);
        let configuration = format!(
            "global: {{scrape_interval: 1s, external_labels: {{writer: {team}}}}}\n\
             scrape_configs:\n  - job_name: self\n    static_configs: [{{targets: [\"{listen}\"]}}]\n\
             remote_write:\n  - url: https://{}/api/v1/push\n    \
             tls_config: {{ca_file: {:?}, cert_file: {:?}, key_file: {:?}}}\n    \
             queue_config: {{batch_send_deadline: 200ms}}\n",
            self.gateway.address(),
            self.workspace.gateways.certificate(),
            own.certificate,
            own.key,
        );
        prometheus::start(&self.workspace, team, listen, &configuration, &[])
    }

    /// Writes a sample as one of the clients, with a header in which it claims to be another one. The status.
    fn write(&self, name: &str, fields: &str) -> u16 {
        let mut client = Http1Client::connect(&self.client(name), self.gateway.address());
        let fields = format!(
            "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: 0.1.0\r\n{fields}"
        );
        client.post("/api/v1/push", &fields, &sample(name)).status
    }

    /// GET as one of the clients, with further header lines.
    fn get(&self, name: &str, path: &str, fields: &str) -> Http1Answer {
        let mut client = Http1Client::connect(&self.client(name), self.gateway.address());
        let head = format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n{fields}\r\n");
        client.send(head.as_bytes());
        client.answer()
    }

    /// Whose series a client gets: values of a label that each writer gives its own.
    fn writers(&self, name: &str, fields: &str) -> BTreeSet<String> {
        self.writers_of(UP, name, fields)
    }

    fn writers_of(&self, path: &str, name: &str, fields: &str) -> BTreeSet<String> {
        let answer = self.get(name, path, fields);
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer: Value = serde_json::from_slice(&answer.content).unwrap();
        let series = answer["data"]["result"].as_array().unwrap().iter();
        let writer = |series: &Value| series["metric"]["writer"].as_str().unwrap().to_owned();
        series.map(writer).collect()
    }

    /// A call of Cortex' own parts among each other, for a tenant.
    fn statistics(&self, name: &str, tenant: &str) -> Answer {
        let address = self.gateway.address_of("cortex-grpc");
        let mut client = Http2Client::connect(&self.client(name), address);
        let fields: [(&[u8], &[u8]); 7] = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", b"/cortex.Ingester/UserStats"),
            (b":authority", b"gateway.test"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"x-scope-orgid", tenant.as_bytes()),
        ];
        // An empty message.
        let stream = client.request(&fields, &[0; 5]);
        client.answer(stream)
    }
}

/// Starts Cortex, in which nothing but the header says whose a request is.
fn start(workspace: &Workspace, http: SocketAddr, grpc: SocketAddr) -> Process {
    let folder = workspace.folder().join("cortex");
    for part in ["rules", "alerts"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    let address = workspace.host.address();
    let ring = format!("kvstore: {{store: inmemory}}, instance_addr: {address}");
    let configuration = format!(
        "target: all
auth_enabled: true
server: {{http_listen_address: {address}, http_listen_port: {}, grpc_listen_address: {address}, grpc_listen_port: {}}}
distributor: {{shard_by_all_labels: true, ring: {{{ring}}}}}
ingester:
  lifecycler:
    address: {address}
    min_ready_duration: 0s
    final_sleep: 0s
    num_tokens: 64
    ring: {{kvstore: {{store: inmemory}}, replication_factor: 1}}
blocks_storage:
  backend: filesystem
  filesystem: {{dir: ./blocks}}
  tsdb: {{dir: ./tsdb}}
  bucket_store: {{sync_dir: ./sync}}
querier: {{store_gateway_addresses: \"{grpc}\"}}
frontend_worker: {{frontend_address: \"{grpc}\", match_max_concurrent: true}}
tenant_federation: {{enabled: true}}
compactor: {{data_dir: ./compactor, sharding_ring: {{{ring}}}}}
ruler: {{ring: {{{ring}}}}}
ruler_storage: {{backend: local, local: {{directory: ./rules}}}}
alertmanager: {{external_url: \"http://localhost/alertmanager\", cluster: {{listen_address: \"\"}}}}
alertmanager_storage: {{backend: local, local: {{path: ./alerts}}}}
",
        http.port(),
        grpc.port()
    );
    let file = folder.join("cortex.yaml");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new(software("cortex/cortex"));
    command
        .current_dir(&folder)
        .arg(format!("-config.file={}", file.display()));
    let mut process = Process::start(workspace.folder(), "cortex", &mut command);
    eventually("Cortex is ready", || {
        process.expect_running();
        matches!(get(http, "/ready"), Ok((200, _))).then_some(())
    });
    process
}

/// One sample of `claimed{writer=…}`, as remote write 1.0 has it.
fn sample(writer: &str) -> Vec<u8> {
    let label = |name: &str, value: &str| {
        field(
            1,
            &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat(),
        )
    };
    // A query asks for the whole second before it.
    let taken = SystemTime::now() - Duration::from_secs(5);
    let taken = taken.duration_since(UNIX_EPOCH).unwrap();
    // A double and a varint.
    let value = [&[0x09][..], &1_f64.to_le_bytes()].concat();
    let time = [vec![0x10], varint(taken.as_millis() as u64)].concat();
    let series = [
        label("__name__", "claimed"),
        label("writer", writer),
        field(2, &[value, time].concat()),
    ];
    let plain = field(1, &series.concat());
    // A block of snappy may be a single literal.
    let length = u8::try_from(plain.len() - 1).expect("a sample is short");
    [varint(plain.len() as u64), vec![60 << 2, length], plain].concat()
}

/// A field of protobuf with a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [
        vec![(number << 3) | 2],
        varint(content.len() as u64),
        content.to_vec(),
    ]
    .concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn only(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

#[test]
#[ignore = "long: Cortex takes ten minutes to build"]
fn cortex_has_what_two_writers_send_as_their_own_tenants_and_shows_it_to_nobody_else() {
    let scene = Scene::start();
    let (status, said) = get(scene.http, UP).unwrap();
    assert_eq!(status, 401, "Cortex takes nothing without a tenant: {said}");
    let _writers = [scene.writer("team-a", 9090), scene.writer("team-b", 9091)];
    for team in ["team-a", "team-b"] {
        let reader = format!("grafana/{team}");
        eventually("a reader sees the series of its team", || {
            (scene.writers(&reader, "") == only(team)).then_some(())
        });
    }
    let forged = "X-Scope-OrgID: team-b\r\n";
    let spelt = "x_scope_orgid: team-b\r\nX-Scope-Orgid: team-a|team-b\r\n";
    let claimed = "/prometheus/api/v1/query?query=claimed";
    let querier = |path, tenant| {
        let fields = format!("X-Scope-OrgID: {tenant}\r\n");
        scene.writers_of(path, "cortex/querier", &fields)
    };
    for fields in [forged, spelt] {
        assert_eq!(scene.write("prometheus/team-a", fields), 200, "{fields}");
        assert_eq!(scene.writers("grafana/team-a", fields), only("team-a"));
    }
    // Of what has claimed to be another's, the other one has nothing.
    let written = only("prometheus/team-a");
    assert_eq!(querier(claimed, "team-a"), written);
    assert_eq!(querier(claimed, "team-b"), BTreeSet::new());
    assert_eq!(querier(UP, "team-b"), only("team-b"));
    assert_eq!(querier(UP, "nobody"), BTreeSet::new());

    // A set: one of it, several of it, and none beside it.
    let both = BTreeSet::from(["team-a", "team-b"].map(str::to_owned));
    let overview = |fields| scene.writers("overview", fields);
    assert_eq!(overview(""), only("team-a"));
    assert_eq!(overview(forged), only("team-b"));
    assert_eq!(overview("X-Scope-OrgID: team-a|team-b\r\n"), both);
    for other in ["team-a|team-c", "team-c", "team-a|", "|"] {
        let fields = format!("X-Scope-OrgID: {other}\r\n");
        let answer = scene.get("overview", UP, &fields);
        assert_eq!(answer.status, 403, "{other}: {answer:?}");
    }

    // Rights: Cortex itself says what it refuses in plain text too.
    for (name, path) in [
        ("prometheus/team-a", UP),
        ("prometheus/team-a", "/api/v1/rules"),
        ("grafana/team-a", "/config"),
        ("grafana/team-a", "/api/v1/push"),
        ("overview", "/ingester/shutdown"),
    ] {
        let answer = scene.get(name, path, "");
        assert_eq!(answer.status, 403, "{name} {path}");
        assert_eq!(answer.value("content-type"), Some("text/plain"));
        assert_eq!(answer.content, b"no rule allows this request\n");
    }
}

#[test]
#[ignore = "long: Cortex takes ten minutes to build"]
fn the_parts_of_cortex_name_any_tenant_over_grpc_and_its_clients_reach_none_of_them() {
    let scene = Scene::start();
    let _writer = scene.writer("team-a", 9090);
    eventually("the series have arrived", || {
        (scene.writers("grafana/team-a", "") == only("team-a")).then_some(())
    });
    // A message with figures, and one in which all are zero and so absent.
    let known = scene.statistics("cortex/querier", "team-a");
    assert_eq!(known.grpc_status(), Some(0), "{known:?}");
    assert!(known.content.len() > 5, "{known:?}");
    let forged = scene.statistics("cortex/querier", "forged");
    assert_eq!(forged.grpc_status(), Some(0), "{forged:?}");
    assert_eq!(forged.content, [0; 5], "{forged:?}");
    for name in ["prometheus/team-a", "grafana/team-a", "overview"] {
        let answer = scene.statistics(name, "team-a");
        let status = Some(7);
        assert_eq!(answer.grpc_status(), status, "{name}: {answer:?}");
    }
}
