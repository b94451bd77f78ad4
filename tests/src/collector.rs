//! OpenTelemetry's Collector on either side of the gateway: as the agent, with its queue on disk, and as the backend.
//! In: exporters, and numbers to make telemetry of. Out: how often each number arrived, counted from the files that the
//! backend writes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::authority::Credentials;
use crate::gateway::Workspace;
use crate::http::post_json;
use crate::process::Process;
use crate::programs::software;
use crate::wait::eventually;

/// The signals of OTLP, as the Collector and its URLs name them.
pub const SIGNALS: [&str; 3] = ["traces", "metrics", "logs"];

/// Where a backend receives OTLP over gRPC and HTTP, and the files' Collector behind it.
const BACKEND_GRPC: u16 = 14317;
const BACKEND_HTTP: u16 = 14318;
const STORE_GRPC: u16 = 24317;
/// Where the agent receives for its first exporter; the next ones follow.
const AGENT_HTTP: u16 = 34318;

/// A Collector with a configuration of its own, which can be ended and started again.
pub struct Collector {
    folder: PathBuf,
    name: String,
    listens: Vec<SocketAddr>,
    process: Option<Process>,
}

/// One way from the agent to the gateway.
pub struct Exporter {
    /// What the records that go this way begin with.
    pub name: &'static str,
    kind: &'static str,
    settings: Value,
}

impl Exporter {
    /// OTLP over gRPC, with `gzip`, `zstd`, `snappy` or `none`.
    pub fn grpc(name: &'static str, gateway: SocketAddr, compression: &str) -> Exporter {
        Exporter::new(name, "otlp_grpc", gateway.to_string(), compression)
    }

    /// OTLP over HTTP.
    pub fn http(name: &'static str, gateway: SocketAddr, compression: &str) -> Exporter {
        let endpoint = format!("https://{gateway}");
        Exporter::new(name, "otlp_http", endpoint, compression)
    }

    fn new(
        name: &'static str,
        kind: &'static str,
        endpoint: String,
        compression: &str,
    ) -> Exporter {
        let settings = json!({
            "endpoint": endpoint,
            "compression": compression,
            // As in docs/clients.md, with shorter pauses.
            "retry_on_failure": {
                "enabled": true, "initial_interval": "200ms", "max_interval": "1s", "max_elapsed_time": "0s"
            },
            "sending_queue": { "enabled": true, "queue_size": 100_000, "storage": "file_storage" },
        });
        Exporter {
            name,
            kind,
            settings,
        }
    }

    /// Changes a setting, such as `timeout`.
    pub fn with(mut self, key: &str, value: Value) -> Exporter {
        self.settings[key] = value;
        self
    }

    fn key(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// How often each record of one signal has arrived, by its name.
pub type Delivery = BTreeMap<String, usize>;

impl Collector {
    /// A Collector that speaks mTLS to gateways and writes what it gets to files.
    pub fn backend(workspace: &Workspace) -> Collector {
        let listens = [BACKEND_GRPC, BACKEND_HTTP].map(|port| workspace.host.at(port));
        let tls = backend_tls(workspace);
        let configuration = files(workspace, &listens, Some(&tls));
        Collector::start(workspace, "backend", configuration, listens.to_vec())
    }

    /// The same in two, so that the first can be killed: what it has acknowledged it has in a queue on disk, and the second,
    /// which is returned beside it, writes the files.
    pub fn backend_with_a_queue(workspace: &Workspace) -> (Collector, Collector) {
        let store_address = workspace.host.at(STORE_GRPC);
        let store = files(workspace, &[store_address], None);
        let store = Collector::start(workspace, "store", store, vec![store_address]);
        let listens = [BACKEND_GRPC, BACKEND_HTTP].map(|port| workspace.host.at(port));
        let exporter =
            Exporter::grpc("store", store_address, "none").with("tls", json!({ "insecure": true }));
        let mut configuration = json!({
            "extensions": queue(workspace, "backend-queue"),
            "receivers": { "otlp": receiver(&listens, Some(&backend_tls(workspace))) },
            "exporters": { exporter.key(): exporter.settings },
            "service": service(),
        });
        for signal in SIGNALS {
            configuration["service"]["pipelines"][signal] =
                json!({ "receivers": ["otlp"], "exporters": [exporter.key()] });
        }
        configuration["service"]["extensions"] = json!(["file_storage"]);
        let backend = Collector::start(workspace, "backend", configuration, listens.to_vec());
        (backend, store)
    }

    /// Where a backend listens for gRPC.
    pub fn backend_grpc(workspace: &Workspace) -> SocketAddr {
        workspace.host.at(BACKEND_GRPC)
    }

    /// Where a backend listens for HTTP.
    pub fn backend_http(workspace: &Workspace) -> SocketAddr {
        workspace.host.at(BACKEND_HTTP)
    }

    /// An agent with a receiver for each exporter, which present `agent` and read it anew each second.
    pub fn agent(
        workspace: &Workspace,
        agent: &Credentials,
        exporters: Vec<Exporter>,
    ) -> Collector {
        let mut configuration = json!({
            "extensions": queue(workspace, "agent-queue"),
            "receivers": {},
            "exporters": {},
            "service": service(),
        });
        configuration["service"]["extensions"] = json!(["file_storage"]);
        let mut listens = Vec::new();
        for (port, exporter) in (AGENT_HTTP..).zip(exporters) {
            let address = workspace.host.at(port);
            let receiver = format!("otlp/{}", exporter.name);
            configuration["receivers"][&receiver] =
                json!({ "protocols": { "http": { "endpoint": address.to_string() } } });
            for signal in SIGNALS {
                configuration["service"]["pipelines"][format!("{signal}/{}", exporter.name)] =
                    json!({ "receivers": [&receiver], "exporters": [exporter.key()] });
            }
            let key = exporter.key();
            let mut settings = exporter.settings;
            settings["tls"] = json!({
                "ca_file": workspace.gateways.certificate(),
                "cert_file": agent.certificate,
                "key_file": agent.key,
                "reload_interval": "1s",
            });
            configuration["exporters"][key] = settings;
            listens.push(address);
        }
        Collector::start(workspace, "agent", configuration, listens)
    }

    fn start(
        workspace: &Workspace,
        name: &str,
        configuration: Value,
        listens: Vec<SocketAddr>,
    ) -> Collector {
        let folder = workspace.folder().to_owned();
        // Its parser of YAML reads JSON.
        fs::write(
            folder.join(format!("{name}.yaml")),
            configuration.to_string(),
        )
        .expect("the test's folder can be written");
        let mut collector = Collector {
            folder,
            name: name.to_owned(),
            listens,
            process: None,
        };
        collector.start_again();
        collector
    }

    /// Starts it, which must not run, and waits until it listens.
    pub fn start_again(&mut self) {
        let mut command = Command::new(software("collector/collector"));
        command.arg("--config").arg(format!(
            "file:{}",
            self.folder.join(format!("{}.yaml", self.name)).display()
        ));
        let mut process = Process::start(&self.folder, &self.name, &mut command);
        for address in &self.listens {
            eventually(&format!("the Collector listens on {address}"), || {
                process.expect_running();
                TcpStream::connect(address).ok()
            });
        }
        self.process = Some(process);
    }

    /// Ends it without a chance to say goodbye.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends it as one does.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait();
        }
    }

    /// What it printed since it was started last.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Hands one request of records of a signal to the exporter of this number; they are named after the exporter and the number
    /// of each. `padding` bytes make each larger. The agent has them on disk when this returns.
    pub fn send(
        &self,
        exporter: usize,
        name: &str,
        signal: &str,
        numbers: std::ops::Range<usize>,
        padding: usize,
    ) {
        let body = request(
            signal,
            numbers.map(|number| record_name(name, number)),
            padding,
        );
        let address = self.listens[exporter];
        let (status, answer) = post_json(address, &format!("/v1/{signal}"), &body.to_string())
            .expect("the agent answers");
        assert_eq!(status, 200, "{answer}");
    }

    /// What has arrived of a signal.
    pub fn delivered(workspace: &Workspace, signal: &str) -> Delivery {
        let mut delivery = Delivery::new();
        let text = fs::read_to_string(written(workspace, signal)).unwrap_or_default();
        // A line that is being written now is not valid yet.
        for line in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            for name in names(&line, signal) {
                *delivery.entry(name).or_default() += 1;
            }
        }
        delivery
    }

    /// Waits until all of these records have arrived: how many of them arrived more than once.
    pub fn wait_for_all(workspace: &Workspace, signal: &str, name: &str, count: usize) -> usize {
        eventually(&format!("{count} {signal} of {name} arrive"), || {
            let delivery = Collector::delivered(workspace, signal);
            let times: Vec<usize> = (0..count)
                .filter_map(|number| delivery.get(&record_name(name, number)).copied())
                .collect();
            (times.len() == count).then(|| times.iter().filter(|times| **times > 1).count())
        })
    }
}

fn record_name(name: &str, number: usize) -> String {
    format!("{name}-{number}")
}

fn service() -> Value {
    json!({ "telemetry": { "metrics": { "level": "none" } }, "pipelines": {} })
}

fn queue(workspace: &Workspace, folder: &str) -> Value {
    json!({ "file_storage": { "directory": workspace.folder().join(folder), "create_directory": true } })
}

fn backend_tls(workspace: &Workspace) -> Value {
    let own = workspace.backend();
    json!({
        "cert_file": own.certificate,
        "key_file": own.key,
        "client_ca_file": workspace.gateways.certificate(),
        "min_version": "1.3",
    })
}

/// gRPC at the first address, HTTP at the second.
fn receiver(listens: &[SocketAddr], tls: Option<&Value>) -> Value {
    let mut protocols = json!({});
    for (protocol, address) in ["grpc", "http"].into_iter().zip(listens) {
        protocols[protocol] = json!({ "endpoint": address.to_string() });
        if let Some(tls) = tls {
            protocols[protocol]["tls"] = tls.clone();
        }
    }
    json!({ "protocols": protocols })
}

fn written(workspace: &Workspace, signal: &str) -> PathBuf {
    workspace.folder().join(format!("{signal}.json"))
}

/// A Collector that writes each signal to a file.
fn files(workspace: &Workspace, listens: &[SocketAddr], tls: Option<&Value>) -> Value {
    let mut configuration = json!({
        "receivers": { "otlp": receiver(listens, tls) },
        "exporters": {},
        "service": service(),
    });
    for signal in SIGNALS {
        let exporter = format!("file/{signal}");
        let path: &Path = &written(workspace, signal);
        configuration["exporters"][&exporter] =
            json!({ "path": path, "append": true, "flush_interval": "50ms" });
        configuration["service"]["pipelines"][signal] =
            json!({ "receivers": ["otlp"], "exporters": [exporter] });
    }
    configuration
}

/// One request of OTLP/JSON.
fn request(signal: &str, names: impl Iterator<Item = String>, padding: usize) -> Value {
    let padding = random_text(padding);
    let attributes = json!([{ "key": "padding", "value": { "stringValue": padding } }]);
    let records: Vec<Value> = names
        .map(|name| match signal {
            "traces" => json!({
                "traceId": "0123456789abcdef0123456789abcdef", "spanId": "0123456789abcdef",
                "name": name, "kind": 2, "attributes": attributes,
                "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000000000001",
            }),
            "metrics" => json!({
                "name": name,
                "gauge": { "dataPoints": [{ "asInt": "1", "timeUnixNano": "1700000000000000000", "attributes": attributes }] },
            }),
            _ => json!({
                "body": { "stringValue": name }, "timeUnixNano": "1700000000000000000", "attributes": attributes,
            }),
        })
        .collect();
    let [resources, scopes, list] = fields(signal);
    json!({ resources: [{ "resource": {}, scopes: [{ "scope": {}, list: records }] }] })
}

/// What no compression makes small.
fn random_text(length: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + u8::try_from(state % 90).expect("below 90"))
        })
        .collect()
}

/// The nested lists of a signal in OTLP/JSON.
fn fields(signal: &str) -> [&'static str; 3] {
    match signal {
        "traces" => ["resourceSpans", "scopeSpans", "spans"],
        "metrics" => ["resourceMetrics", "scopeMetrics", "metrics"],
        "logs" => ["resourceLogs", "scopeLogs", "logRecords"],
        other => panic!("{other} is no signal of OTLP"),
    }
}

fn names(line: &Value, signal: &str) -> Vec<String> {
    let [resources, scopes, list] = fields(signal);
    let each = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for resource in each(line, resources) {
        for scope in each(&resource, scopes) {
            for record in each(&scope, list) {
                let name = match signal {
                    "logs" => &record["body"]["stringValue"],
                    _ => &record["name"],
                };
                names.push(name.as_str().expect("every record has its name").to_owned());
            }
        }
    }
    names
}
