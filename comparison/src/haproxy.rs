//! HAProxy as another side of a comparison: mode tcp, with TLS towards the client or without, and mode http.
//! In: a workspace, a job, a backend. Out: a running HAProxy with one thread. Debian's, whose OpenSSL is part of what is
//! measured.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::install;
use crate::job::{Http, Job, PROXY_CERTIFICATE, PROXY_KEY, TENANT, TENANT_FIELD};
use crate::process::{Cpu, Process, pinned};
use crate::transport::Transport;
use crate::workspace::{Workspace, free_port};

/// The program, and those of its libraries that a small installation lacks.
const PACKAGES: [&str; 5] = [
    "haproxy",
    "liblua5.3-0",
    "libopentracing-c-wrapper0",
    "libopentracing1",
    "libpcre2-8-0",
];

/// Finds HAProxy in the project's own tools, where it is unpacked when it is not there.
pub fn find() -> Result<PathBuf> {
    install::from_debian("haproxy", &PACKAGES, "usr/sbin/haproxy")
}

/// Starts HAProxy and waits until it listens.
pub fn start(
    workspace: &Workspace,
    program: &Path,
    transport: Transport,
    job: Job,
    backend: u16,
) -> Result<(Process, u16)> {
    let port = free_port()?;
    let file = workspace.path("haproxy.cfg");
    let tls = match transport {
        Transport::Plain => String::new(),
        Transport::Tls => options(workspace)?,
    };
    let text = match job {
        Job::Relay => relay(&tls, port, backend),
        Job::Requests {
            clients,
            backend: version,
        } => {
            let bind = format!("127.0.0.1:{port}{tls} alpn {}", clients.alpn());
            let server = format!("127.0.0.1:{backend}{}", towards(workspace, version)?);
            requests(&bind, &server)
        }
    };
    fs::write(&file, text)?;
    let mut command = pinned(Cpu::Server, program);
    command.arg("-db").arg("-f").arg(&file);
    command.env("LD_LIBRARY_PATH", libraries(program)?);
    let mut process = Process::start(command, &workspace.path("haproxy.log"))?;
    process.await_port(port)?;
    Ok((process, port))
}

/// `usr/lib/ARCHITECTURE-linux-gnu` beside `usr/sbin`.
fn libraries(program: &Path) -> Result<PathBuf> {
    let folder = format!("../lib/{}-linux-gnu", std::env::consts::ARCH);
    let folder = program.with_file_name(folder);
    ensure!(folder.is_dir(), "{}: no such folder", folder.display());
    Ok(folder)
}

/// Certificate and key in one file, as HAProxy reads them.
fn bundle(workspace: &Workspace, name: &str, parts: [&str; 2]) -> Result<PathBuf> {
    let bundle = workspace.path(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&bundle)?;
    for part in parts {
        file.write_all(&fs::read(workspace.path(part))?)?;
    }
    Ok(bundle)
}

/// What a listener needs for TLS.
fn options(workspace: &Workspace) -> Result<String> {
    let parts = ["current/server.pem", "current/server.key"];
    let bundle = bundle(workspace, "haproxy.pem", parts)?;
    Ok(format!(
        " ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 curves X25519",
        bundle.display(),
        workspace.text("pki/ca.pem")
    ))
}

/// What a connection to the backend needs for TLS.
fn towards(workspace: &Workspace, version: Http) -> Result<String> {
    let bundle = bundle(
        workspace,
        "haproxy-client.pem",
        [PROXY_CERTIFICATE, PROXY_KEY],
    )?;
    Ok(format!(
        " ssl crt {} ca-file {} verify required verifyhost localhost sni str(localhost) ssl-min-ver TLSv1.3 alpn {}",
        bundle.display(),
        workspace.text("pki/ca.pem"),
        version.alpn()
    ))
}

/// Connections to the backend are shared by all clients, which is the least work.
fn requests(bind: &str, server: &str) -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 9500\n    tune.h2.max-concurrent-streams 250\n\
         defaults\n    mode http\n    maxconn 9500\n    backlog 4096\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen edge\n    bind {bind}\n    http-reuse always\n    http-request del-header {TENANT_FIELD}\n    \
         http-request set-header {TENANT_FIELD} {TENANT}\n    server backend {server}\n"
    )
}

fn relay(tls: &str, port: u16, backend: u16) -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 9500\n\
         defaults\n    mode tcp\n    maxconn 9500\n    backlog 4096\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen edge\n    bind 127.0.0.1:{port}{tls}\n    server backend 127.0.0.1:{backend}\n"
    )
}
