//! The gateway under test, started as `portcullis run` with a configuration made for the test.
//! In: routes and extra keys. Out: a program that is ready, its addresses, its metrics, its log.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::authority::{Authority, Credentials, Request};
use crate::client::ClientBuilder;
use crate::host::Host;
use crate::http::{get, get_unix};
use crate::metrics::Metrics;
use crate::process::Process;
use crate::programs::program;
use crate::resolver::Resolver;
use crate::wait::{eventually, eventually_named};

/// The name the gateway's certificate carries.
const SERVER_NAME: &str = "gateway.test";
/// The name that a backend's certificate carries.
const BACKEND_NAME: &str = "backend.test";
/// The first listener's port on the test's own address; the next ones follow.
const FIRST_PORT: u16 = 4317;

/// A folder, an address and two authorities: one for the gateway's certificate, one for the agents'.
pub struct Workspace {
    folder: TempDir,
    name: String,
    /// The test's own address.
    pub host: Host,
    /// Signs the gateway's certificate.
    pub gateways: Authority,
    /// Signs the agents' certificates.
    pub agents: Authority,
    /// The gateway's certificate.
    pub server: Credentials,
    /// An agent that the default rule admits.
    pub agent: Credentials,
}

/// What `portcullis run` shall do.
pub struct Setup<'a> {
    workspace: &'a Workspace,
    admin: Admin,
    top: String,
    tables: String,
    routes: Vec<(String, SocketAddr)>,
    identities: String,
    /// The elements of `client_ca` as they are to stand in the file.
    client_ca: String,
    /// A program and its arguments, which starts the gateway.
    wrapper: Vec<String>,
    /// What tells this gateway's files and ports from those of another one in the same workspace.
    number: u16,
    takes_over: bool,
    mode: &'static str,
}

/// A running gateway.
pub struct Gateway {
    process: Process,
    /// What started it, and the folder of its log.
    command: Command,
    folder: PathBuf,
    routes: Vec<(String, SocketAddr)>,
    admin: Admin,
    /// Where commands find it.
    control: PathBuf,
    takes_over: bool,
}

/// Where the administration endpoint is.
#[derive(Debug, Clone)]
enum Admin {
    Unix(PathBuf),
    Loopback(SocketAddr),
}

impl Admin {
    fn get(&self, path: &str) -> io::Result<(u16, String)> {
        match self {
            Admin::Unix(socket) => get_unix(socket, path),
            Admin::Loopback(address) => get(*address, path),
        }
    }
}

impl fmt::Display for Admin {
    /// As it stands in the configuration.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Admin::Unix(socket) => write!(formatter, "unix:{}", socket.display()),
            Admin::Loopback(address) => write!(formatter, "{address}"),
        }
    }
}

impl Workspace {
    /// Makes all of it.
    pub fn new() -> Workspace {
        let folder = tempfile::Builder::new()
            .prefix("portcullis-test-")
            .tempdir()
            .expect("a temporary folder can be made");
        let host = Host::take();
        let gateways = Authority::create(folder.path(), "gateways", "Gateways of the test");
        let agents = Authority::create(folder.path(), "agents", "Agents of the test");
        let request = Request::server(SERVER_NAME)
            .dns(SERVER_NAME)
            .dns("localhost")
            .ip(host.address());
        let server = gateways.issue("gateway", request);
        let agent = agents.issue(
            "agent-1",
            Request::client("spiffe://example.test/agent/agent-1"),
        );
        Workspace {
            name: unique_name(),
            folder,
            host,
            gateways,
            agents,
            server,
            agent,
        }
    }

    /// The folder, gone with the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the workspace's gateways are called, and no other gateway of the host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `name` and `[paths]` of the workspace's gateways: the one before all tables, the other one of them.
    pub fn identity_keys(&self) -> [String; 2] {
        let paths = format!(
            "[paths]\nstate = {:?}\nrun = {:?}\n",
            self.folder().join("state"),
            self.folder().join("run"),
        );
        [format!("name = {:?}\n", self.name), paths]
    }

    /// A folder of the gateway's: of its block list.
    pub fn state_folder(&self) -> PathBuf {
        self.folder().join("state").join(&self.name)
    }

    /// A folder of the gateway's: of its sockets.
    pub fn run_folder(&self) -> PathBuf {
        self.folder().join("run").join(&self.name)
    }

    /// A client that gets in.
    pub fn client(&self) -> ClientBuilder {
        ClientBuilder::new(self.gateways.certificate(), SERVER_NAME).credentials(&self.agent)
    }

    /// The certificate of a backend that speaks TLS, by the gateways' authority.
    pub fn backend(&self) -> Credentials {
        let request = Request::server(BACKEND_NAME).dns(BACKEND_NAME);
        self.gateways.issue("backend", request)
    }

    /// What the gateway needs of a backend's keys to reach it over mTLS.
    pub fn backend_keys(&self) -> String {
        let own = self.to_backends();
        format!(
            "tls = {{ ca = [{:?}], certificate = {:?}, key = {:?}, server_name = \"{BACKEND_NAME}\" }}",
            self.gateways.certificate(),
            own.certificate,
            own.key
        )
    }

    /// A client as the gateway is one to such a backend.
    pub fn backend_client(&self) -> ClientBuilder {
        ClientBuilder::new(self.gateways.certificate(), BACKEND_NAME)
            .credentials(&self.to_backends())
    }

    fn to_backends(&self) -> Credentials {
        let request = Request::client("spiffe://example.test/gateway");
        self.gateways.issue("to-backends", request)
    }

    /// A configuration without routes, with one rule that admits `spiffe://example.test/agent/*` as `team-a`.
    pub fn setup(&self) -> Setup<'_> {
        Setup {
            workspace: self,
            admin: Admin::Unix(self.folder().join("admin.sock")),
            top: String::new(),
            tables: String::new(),
            routes: Vec::new(),
            identities: "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\ntenant = \"team-a\"\n"
                .to_owned(),
            client_ca: format!("{:?}", self.agents.certificate()),
            wrapper: Vec::new(),
            number: 1,
            takes_over: false,
            mode: "stream",
        }
    }

    /// A gateway with one route `edge` to one server, and nothing else set.
    pub fn gateway(&self, server: SocketAddr) -> Gateway {
        self.setup().route("edge", "", &[server], "").start()
    }
}

/// No other gateway of the host is called that, whichever process its test runs in: pins of the kernel's are shared by all.
fn unique_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace::new()
    }
}

impl Setup<'_> {
    /// Names are resolved by `resolver` alone.
    pub fn resolver(mut self, resolver: &Resolver) -> Self {
        self.wrapper = resolver.wrapper();
        self
    }

    /// One more gateway, beside the first one of this workspace. To be called before its routes are made.
    pub fn second(mut self) -> Self {
        self.number = 2;
        self.admin = Admin::Unix(self.workspace.folder().join("admin-2.sock"));
        self
    }

    /// The next process of a gateway that runs, which it takes over from.
    pub fn takes_over(mut self) -> Self {
        self.takes_over = true;
        self
    }

    /// Keys before the first table.
    pub fn top(mut self, keys: &str) -> Self {
        self.top.push_str(keys);
        self.top.push('\n');
        self
    }

    /// The administration endpoint on TCP; by default it is a Unix socket in the test's folder.
    pub fn admin(mut self, address: SocketAddr) -> Self {
        self.admin = Admin::Loopback(address);
        self
    }

    /// Further tables, such as `[workers]`.
    pub fn tables(mut self, tables: &str) -> Self {
        self.tables.push_str(tables);
        self.tables.push('\n');
        self
    }

    /// Rules in place of the default one.
    pub fn identities(mut self, tables: &str) -> Self {
        tables.clone_into(&mut self.identities);
        self
    }

    /// CAs that the listeners of the routes to come trust, in place of the agents'.
    pub fn client_ca(self, file: &Path) -> Self {
        self.client_authorities(&format!("{file:?}"))
    }

    /// The same, as the elements are to stand in the file.
    pub fn client_authorities(mut self, elements: &str) -> Self {
        elements.clone_into(&mut self.client_ca);
        self
    }

    /// Has the gateway started by a program that takes a command behind its own arguments.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The listeners of the routes to come serve HTTP; the rule so far lets its clients call everything.
    pub fn http(mut self) -> Self {
        self.mode = "http";
        self.identities.push_str("allow = [{ path = \"/\" }]\n");
        self
    }

    /// A listener and a backend of the same name, each with further keys.
    pub fn route(self, name: &str, listener: &str, servers: &[SocketAddr], backend: &str) -> Self {
        let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
        self.route_to_names(name, listener, &servers, backend)
    }

    /// As `route`, with servers as they are to stand in the file.
    pub fn route_to_names(
        mut self,
        name: &str,
        listener: &str,
        servers: &[&str],
        backend: &str,
    ) -> Self {
        let offset = u16::try_from(self.routes.len()).expect("a handful of routes");
        let address = self.workspace.host.at(self.number * FIRST_PORT + offset);
        let workspace = self.workspace;
        write!(
            self.tables,
            "[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\nmode = \"{}\"\n\
             certificate = {:?}\nkey = {:?}\nclient_ca = [{}]\nbackend = \"{name}\"\n{listener}\n\n\
             [[backend]]\nname = \"{name}\"\nservers = {servers:?}\n{backend}\n\n",
            self.mode, workspace.server.certificate, workspace.server.key, self.client_ca,
        )
        .expect("a string takes any text");
        self.routes.push((name.to_owned(), address));
        self
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let [name, paths] = self.workspace.identity_keys();
        let name = name.replace(self.workspace.name(), &self.name());
        format!(
            "{name}{}\n{paths}\n[admin]\naddress = \"{}\"\n\n{}\n{}",
            self.top, self.admin, self.tables, self.identities
        )
    }

    /// `portcullis run` with the file, which it finds in the test's folder as `portcullis.toml`.
    fn command(&self) -> Command {
        let name = match self.number {
            1 => "portcullis.toml",
            _ => "portcullis-2.toml",
        };
        let file = self.workspace.folder().join(name);
        fs::write(&file, self.text()).expect("the test's folder can be written");
        let program = program("portcullis");
        let mut command = match self.wrapper.split_first() {
            None => Command::new(program),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
        };
        command.arg("run").arg("--config").arg(&file);
        if self.takes_over {
            command.arg("--takeover");
        }
        command
    }

    /// Starts the gateway, which has to refuse its configuration: what it says on standard error.
    pub fn refused(self) -> String {
        let output = self.command().output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }

    /// Has `portcullis check` look at the configuration, which ends with this exit code: what it says.
    pub fn check(self, code: i32) -> String {
        self.command();
        let file = self.workspace.folder().join("portcullis.toml");
        let mut check = Command::new(program("portcullis"));
        check.arg("check").arg("--config").arg(file);
        let output = check.output().expect("the program runs");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }

    /// Starts the gateway and waits until it says that it is ready.
    pub fn start(self) -> Gateway {
        let mut gateway = self.begin();
        gateway.wait_until_ready();
        gateway
    }

    /// Starts the gateway and waits for nothing.
    pub fn begin(self) -> Gateway {
        let mut command = self.command();
        if !self.takes_over {
            wait_until_free(&self.routes);
        }
        let folder = self.workspace.folder().to_owned();
        let name = match self.takes_over {
            false => "portcullis",
            true => "successor",
        };
        let process = Process::start(&folder, name, &mut command);
        Gateway {
            process,
            command,
            folder,
            control: self
                .workspace
                .folder()
                .join("run")
                .join(self.name())
                .join("control.sock"),
            admin: self.admin,
            routes: self.routes,
            takes_over: self.takes_over,
        }
    }

    /// What this gateway is called.
    fn name(&self) -> String {
        match self.number {
            1 => self.workspace.name().to_owned(),
            number => format!("{}-{number}", self.workspace.name()),
        }
    }
}

/// Waits, not for ever, until nobody listens on these addresses: the kernel closes what a ring of a killed process was waiting
/// for only some time after that process has been waited for. Whether an address that stays in use is an error is for the
/// gateway to say.
fn wait_until_free(routes: &[(String, SocketAddr)]) {
    let in_use = |address: SocketAddr| {
        let bound = TcpListener::bind(address);
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    for _ in 0..200 {
        if !routes.iter().any(|(_, address)| in_use(*address)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

impl Gateway {
    /// Starts it once more with the same file, after it has ended or been killed, and waits until it is ready.
    pub fn start_again(&mut self) {
        wait_until_free(&self.routes);
        self.process = Process::start(&self.folder, "portcullis", &mut self.command);
        self.takes_over = false;
        self.wait_until_ready();
    }

    /// Waits until it says that it is ready.
    pub fn wait_until_ready(&mut self) {
        eventually("the gateway is ready", || {
            self.process.expect_running();
            // Until then the one before it answers.
            if self.takes_over && !self.log().contains("took over") {
                return None;
            }
            let answer = self.admin.get("/readyz");
            // Connections are taken a moment before commands are.
            (matches!(answer, Ok((200, _))) && self.control.exists()).then_some(())
        });
    }

    /// The address of a route's listener.
    pub fn address_of(&self, route: &str) -> SocketAddr {
        let found = self.routes.iter().find(|(name, _)| name == route);
        found.expect("the test made the route").1
    }

    /// The address of the first route's listener.
    pub fn address(&self) -> SocketAddr {
        self.routes.first().expect("the test made a route").1
    }

    /// GET at the administration endpoint.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub fn admin(&self, path: &str) -> io::Result<(u16, String)> {
        self.admin.get(path)
    }

    /// A scrape.
    pub fn metrics(&self) -> Metrics {
        let (status, body) = self
            .admin("/metrics")
            .expect("the administration endpoint answers");
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Waits until a counter or gauge of the gateway has a value.
    pub fn wait_for(&self, name: &str, labels: &[(&str, &str)], value: u64) -> Metrics {
        let seen = RefCell::new(String::new());
        let what = || {
            let seen = seen.borrow();
            format!("{name}{labels:?} becomes {value}; there is\n{seen}")
        };
        eventually_named(what, || {
            let metrics = self.metrics();
            let is_there = metrics.count(name, labels) == value;
            seen.replace(metrics.shown(name));
            is_there.then_some(metrics)
        })
    }

    /// Waits until so many reloads that a SIGHUP asked for have been taken. A changed file is a cause by itself, so the metric
    /// may count more.
    pub fn wait_for_reloads(&self, count: usize) {
        eventually(&format!("{count} reloads asked for are taken"), || {
            let taken = self.log().matches("reloaded cause=\"SIGHUP").count();
            (taken == count).then_some(())
        });
    }

    /// Waits until a reload has been refused, whatever has caused it.
    pub fn wait_for_a_refused_reload(&self) {
        eventually("a reload is refused", || {
            let labels = [("result", "refused")];
            let refused = self.metrics().count("portcullis_reloads_total", &labels);
            (refused > 0).then_some(())
        });
    }

    /// What the gateway logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }
}
