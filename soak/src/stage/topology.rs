//! Two hosts joined by a veth pair: the gateway's, with the servers, and the agents'.
//! In: nothing. Out: namespaces, a cgroup, a resolver's file in its place. All of it ends with the process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, version};
use tests::{Authority, Credentials};

use crate::line::chain;
use crate::namespace::Namespace;

/// The agents' end of the pair.
pub const AGENTS_INTERFACE: &str = "agent0";
/// The gateway's end.
const GATEWAY_INTERFACE: &str = "gate0";

/// The hosts.
pub struct Topology {
    /// The gateway's.
    pub gateway_host: Namespace,
    /// The agents'.
    pub agents_host: Namespace,
    cgroup: PathBuf,
}

impl Topology {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// When the cgroup cannot be made, which takes root.
    pub fn make() -> Result<Topology> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mut points = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let point = fields.next()?;
            (fields.next()? == "cgroup2").then_some(point)
        });
        let mount = points.next().context("cgroup version 2 is not mounted")?;
        let name = format!("portcullis-soak-{}", std::process::id());
        let cgroup = Path::new(mount).join(name);
        fs::create_dir(&cgroup)
            .with_context(|| format!("making {}, which takes root", cgroup.display()))?;
        let topology = Topology {
            gateway_host: Namespace::new(),
            agents_host: Namespace::new(),
            cgroup,
        };
        topology.connect();
        Ok(topology)
    }

    /// Joins the hosts.
    pub fn connect(&self) {
        let last = (11..40).chain(101..104);
        let addresses: Vec<String> = last.map(|last| format!("192.0.2.{last}/24")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.agents_host.connect(
            AGENTS_INTERFACE,
            &addresses,
            &self.gateway_host,
            GATEWAY_INTERFACE,
            &["192.0.2.2/24"],
        );
    }

    /// Makes every program on the gateway's host use the resolver of this file.
    pub(super) fn use_resolver(&self, file: &Path) -> Result<()> {
        let [program, arguments @ ..] = &self.gateway_host.enter_arguments();
        let status = Command::new(program)
            .args(arguments)
            .args(["mount", "--bind"])
            .arg(file)
            .arg("/etc/resolv.conf")
            .status()?;
        ensure!(status.success(), "cannot mount a resolv.conf: {status}");
        Ok(())
    }

    /// A program on the gateway's host, in a cgroup of its own. It dies with the thread that starts it.
    pub(super) fn program(&self, variables: &[String], program: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.cgroup)
            .args(self.gateway_host.enter_arguments())
            .args(["setpriv", "--pdeathsig", "KILL", "--", "env"])
            .args(variables)
            .arg(program);
        command
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        // The kernel takes a moment to let go of processes that have ended.
        for _ in 0..500 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is still in use", self.cgroup.display());
    }
}

/// TLS of a server that asks the gateway for a certificate.
pub fn server_settings(gateways: &Authority, own: &Credentials) -> Result<Arc<ServerConfig>> {
    let mut roots = RootCertStore::empty();
    for root in chain(&gateways.certificate())? {
        roots.add(root)?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let key = PrivateKeyDer::from_pem_file(&own.key).context("the server's key")?;
    let settings = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(&own.certificate)?, key)?;
    Ok(Arc::new(settings))
}
