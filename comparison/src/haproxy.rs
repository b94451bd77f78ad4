//! HAProxy as another side of a comparison: mode tcp, with TLS towards the client or without.
//! In: a workspace, a backend. Out: a running HAProxy with one thread. Debian's, whose OpenSSL is part of what is
//! measured.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::install;
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
    backend: u16,
) -> Result<(Process, u16)> {
    let port = free_port()?;
    let file = workspace.path("haproxy.cfg");
    let tls = match transport {
        Transport::Plain => String::new(),
        Transport::Tls => options(workspace)?,
    };
    fs::write(&file, configuration(&tls, port, backend))?;
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

/// What a listener needs for TLS. It reads certificate and key from one file.
fn options(workspace: &Workspace) -> Result<String> {
    let bundle = workspace.path("haproxy.pem");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&bundle)?;
    for name in ["current/server.pem", "current/server.key"] {
        file.write_all(&fs::read(workspace.path(name))?)?;
    }
    Ok(format!(
        " ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 curves X25519",
        bundle.display(),
        workspace.text("pki/ca.pem")
    ))
}

fn configuration(tls: &str, port: u16, backend: u16) -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 9500\n\
         defaults\n    mode tcp\n    maxconn 9500\n    backlog 4096\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen edge\n    bind 127.0.0.1:{port}{tls}\n    server backend 127.0.0.1:{backend}\n"
    )
}
