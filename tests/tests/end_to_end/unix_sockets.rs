//! Servers behind a Unix socket: what reaches them, what they are told, what is said of them.
//! In: nginx and an HTTP backend behind sockets. Out: the PROXY header, requests, health checks, metrics, `check`.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use tests::{Http1Client, HttpBackend, Reply, Speaks, Workspace, eventually};

use crate::nginx::nginx;

/// Takes connections at `path`, and carries each to `backend`.
fn carry(path: &Path, backend: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (near, far) = (stream.unwrap(), TcpStream::connect(backend).unwrap());
            let (to, from) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || copy(near, far));
            thread::spawn(move || copy(from, to));
        }
    });
}

trait HalfClose: io::Read + io::Write {
    fn finish(&self);
}

impl HalfClose for TcpStream {
    fn finish(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl HalfClose for UnixStream {
    fn finish(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

fn copy(mut from: impl HalfClose, mut to: impl HalfClose) {
    let _ = io::copy(&mut from, &mut to);
    to.finish();
}

#[test]
fn a_stream_reaches_nginx_behind_a_unix_socket_with_the_proxy_header() {
    let workspace = Workspace::new();
    let listen = workspace.host.at(7000);
    let socket = workspace.folder().join("nginx.sock");
    let answer = "$proxy_protocol_addr|$proxy_protocol_tlv_0xe0|";
    let _nginx = nginx(
        &workspace,
        listen,
        &format!(
            "listen {listen}; listen unix:{} proxy_protocol; return \"{answer}\";",
            socket.display()
        ),
    );
    let server = format!("unix:{}", socket.display());
    let gateway = workspace
        .setup()
        .route_to_names("edge", "", &[&server], "proxy_protocol = true")
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    let own = client.socket().local_addr().unwrap().ip();
    let (received, _) = client.receive_to_end();
    assert_eq!(
        String::from_utf8(received).unwrap(),
        format!("{own}|team-a|")
    );
}

#[test]
fn a_stream_waits_for_no_socket_that_is_not_there_and_metrics_name_it() {
    let workspace = Workspace::new();
    let server = format!("unix:{}", workspace.folder().join("none.sock").display());
    let gateway = workspace
        .setup()
        .route_to_names("edge", "", &[&server], "")
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    assert!(client.receive_to_end().0.is_empty());
    let labels = [("backend", "edge"), ("server", server.as_str())];
    let failures = "portcullis_backend_connect_failures_total";
    eventually("the failure is counted by the socket's name", || {
        (gateway.metrics().count(failures, &labels) >= 1).then_some(())
    });
}

#[test]
fn requests_and_health_checks_reach_a_server_behind_a_unix_socket() {
    let workspace = Workspace::new();
    let backend = HttpBackend::clear(workspace.host.free(), Speaks::Http1, |_| Reply::status(200));
    let socket = workspace.folder().join("backend.sock");
    carry(&socket, backend.address());
    let server = format!("unix:{}", socket.display());
    let health = "health = { kind = \"http\", path = \"/ready\", interval = \"1s\" }";
    let gateway = workspace
        .setup()
        .http()
        .route_to_names("edge", "", &[&server], health)
        .start();
    let mut client = Http1Client::connect(&workspace.client(), gateway.address());
    assert_eq!(client.post("/v1/traces", "", b"content").status, 200);
    eventually("a health check comes", || {
        let requests = backend.requests();
        let check = requests.iter().find(|request| request.path == "/ready")?;
        assert_eq!(check.values("host"), ["localhost"]);
        Some(())
    });
    let requests = backend.requests();
    let sent = requests.iter().find(|request| request.path == "/v1/traces");
    assert_eq!(sent.unwrap().content, b"content");
}

#[test]
fn check_warns_of_a_socket_that_every_user_could_replace() {
    const WARNING: &str = "every user of this host may write to";
    let workspace = Workspace::new();
    let folder = workspace.folder().join("sockets");
    fs::create_dir(&folder).unwrap();
    let server = format!("unix:{}", folder.join("otlp.sock").display());
    for (mode, is_open) in [(0o1777, true), (0o775, false)] {
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        let setup = workspace.setup();
        let said = setup.route_to_names("edge", "", &[&server], "").check(0);
        assert_eq!(said.contains(WARNING), is_open, "{mode:o}: {said}");
    }
}
