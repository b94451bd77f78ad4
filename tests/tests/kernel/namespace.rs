//! Network namespaces for one test. In: commands and closures to run inside. Out: what they return.
//! A namespace has no name and no mount: it lives as long as a holder process, which dies with the thread that started
//! it, so even a killed test leaves nothing behind.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Longest life of a holder, should everything else fail.
const HOLDER_SECONDS: &str = "90000";

/// A network namespace of its own, empty but for a loopback interface, which is up; and a mount namespace, in which
/// mounts are nobody else's business.
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    pub fn new() -> Self {
        let holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "unshare", "--net"])
            .args(["--mount", "--propagation", "private", "--"])
            .args(["sleep", HOLDER_SECONDS])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("setpriv and unshare of util-linux are installed");
        let mut namespace = Self { holder };
        namespace.wait_until_it_is_one();
        namespace.hide_bpffs();
        namespace.ip(&["link", "set", "dev", "lo", "up"]);
        namespace
    }

    /// Unmounts the host's bpffs in here. A mount namespace copies mounts, not what is in them: pins of this test would lie
    /// beside those of all others, and of the host's own gateway.
    fn hide_bpffs(&self) {
        let table = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let mounts = table.lines().filter_map(|line| {
            let mut fields = line.split(' ');
            let point = fields.nth(1)?;
            (fields.next()? == "bpf").then_some(point)
        });
        for point in mounts {
            let [nsenter, arguments @ ..] = self.enter_arguments();
            let status = Command::new(nsenter)
                .args(arguments)
                .args(["umount", "--lazy", point])
                .status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "cannot unmount {point} in a namespace"
            );
        }
    }

    fn wait_until_it_is_one(&mut self) {
        let ours = fs::read_link("/proc/self/ns/net").expect("/proc is mounted");
        let start = Instant::now();
        loop {
            if let Some(status) = self.holder.try_wait().expect("the holder is our child") {
                panic!(
                    "cannot make a network namespace, which takes root: unshare ended with {status}"
                );
            }
            if fs::read_link(self.path()).is_ok_and(|theirs| theirs != ours) {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "unshare does not get on"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn path(&self) -> PathBuf {
        self.namespaces().join("net")
    }

    fn namespaces(&self) -> PathBuf {
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("ns")
    }

    /// The network namespace, for `nsenter --net`.
    #[allow(dead_code, reason = "not every set of tests starts programs inside")]
    pub fn network(&self) -> PathBuf {
        self.path()
    }

    /// A command that runs what comes behind it inside.
    pub fn enter_arguments(&self) -> [String; 4] {
        let namespaces = self.namespaces();
        [
            "nsenter".to_owned(),
            format!("--net={}", namespaces.join("net").display()),
            format!("--mount={}", namespaces.join("mnt").display()),
            "--".to_owned(),
        ]
    }

    /// Runs `ip` inside; returns what it prints.
    pub fn ip(&self, arguments: &[&str]) -> String {
        let mut inside = std::ffi::OsString::from("--net=");
        inside.push(self.path());
        let output = Command::new("nsenter")
            .arg(inside)
            .args(["--", "ip"])
            .args(arguments)
            .output()
            .expect("nsenter of util-linux is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "ip {}: {error}",
            arguments.join(" ")
        );
        String::from_utf8(output.stdout).expect("ip prints UTF-8")
    }

    /// Connects this namespace to `other` by a veth pair; both ends are up and have addresses at once.
    pub fn connect(
        &self,
        interface: &str,
        addresses: &[&str],
        other: &Self,
        peer: &str,
        peer_addresses: &[&str],
    ) {
        let other_process = other.holder.id().to_string();
        self.ip(&[
            "link",
            "add",
            interface,
            "type",
            "veth",
            "peer",
            "name",
            peer,
            "netns",
            &other_process,
        ]);
        self.bring_up(interface, addresses);
        other.bring_up(peer, peer_addresses);
    }

    /// Gives an interface its addresses and sets it up.
    pub fn bring_up(&self, interface: &str, addresses: &[&str]) {
        for address in addresses {
            // Duplicate address detection would keep an IPv6 address unusable for a second.
            let optimistic: &[&str] = if address.contains(':') {
                &["nodad"]
            } else {
                &[]
            };
            self.ip(&[&["address", "add", address, "dev", interface], optimistic].concat());
        }
        self.ip(&["link", "set", "dev", interface, "up"]);
    }

    /// The XDP program on an interface: 1 is native, 2 generic (linux/if_link.h), `None` if there is none.
    #[allow(dead_code, reason = "not every set of tests looks at interfaces")]
    pub fn xdp_mode(&self, interface: &str) -> Option<u64> {
        let shown = self.ip(&["-details", "-json", "link", "show", "dev", interface]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("ip prints JSON");
        let xdp = shown[0].get("xdp")?;
        Some(xdp["mode"].as_u64().expect("the mode is a number"))
    }

    /// Runs `inside` on a thread of its own in this namespace. Sockets made there stay in it.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(self.path()).expect("the holder lives");
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter a namespace");
                inside()
            });
            match worker.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have reached its limit; there is nothing else that could go wrong.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
