//! A DNS resolver that answers, refuses or says nothing, as the test wishes, for one gateway alone.
//! In: questions over UDP on port 53 of the test's own address. Out: addresses, records of services, SERVFAIL, or silence. A program is made to
//! ask it by a resolv.conf of its own, in a mount namespace of its own.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::host::Host;

const HEADER_BYTES: usize = 12;

/// What the resolver does with a question.
#[derive(Debug, Clone)]
pub enum Answering {
    /// Nothing at all.
    Silent,
    /// It refuses, at once.
    Failing,
    /// It knows these names, and no other.
    With(HashMap<String, Vec<Ipv4Addr>>),
    /// It knows this service by the host, port and priority of each record, and every host at one address.
    Service(String, Vec<(&'static str, u16, u16)>, Ipv4Addr),
}

/// Type and data of a record.
type Record = (u8, Vec<u8>);

const A: u8 = 1;
const SRV: u8 = 33;

/// The record of a service.
fn service_record(host: &str, port: u16, priority: u16) -> Record {
    let weight = 1u16;
    let mut data: Vec<u8> = [priority, weight, port]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect();
    for label in host.split('.') {
        data.push(label.len() as u8);
        data.extend(label.as_bytes());
    }
    data.push(0);
    (SRV, data)
}

/// A resolver. Stops when dropped.
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    configuration: PathBuf,
}

#[derive(Debug)]
struct Shared {
    answering: Mutex<Answering>,
    asked: Mutex<Vec<String>>,
    is_stopped: AtomicBool,
}

impl Resolver {
    /// Listens on the test's address; its resolv.conf goes to `folder`.
    ///
    /// # Panics
    ///
    /// When port 53 cannot be bound, which takes root.
    pub fn start(host: &Host, folder: &Path, answering: Answering) -> Resolver {
        let socket = UdpSocket::bind(host.at(53)).expect("root may listen on port 53");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a time can be set");
        let configuration = folder.join("resolv.conf");
        fs::write(&configuration, format!("nameserver {}\n", host.address()))
            .expect("the test's folder can be written");
        let shared = Arc::new(Shared {
            answering: Mutex::new(answering),
            asked: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        });
        let running = Arc::clone(&shared);
        Resolver {
            shared,
            thread: Some(thread::spawn(move || running.run(&socket))),
            configuration,
        }
    }

    /// Answers so from now on.
    pub fn answer(&self, answering: Answering) {
        *locked(&self.shared.answering) = answering;
    }

    /// The names that were asked for so far, each as often as that was.
    pub fn asked(&self) -> Vec<String> {
        locked(&self.shared.asked).clone()
    }

    /// What starts a program so that it asks this resolver.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let words = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
        ];
        let configuration = self.configuration.display().to_string();
        let words = words.into_iter().map(str::to_owned);
        words.chain([configuration]).collect()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, socket: &UdpSocket) {
        let mut buffer = [0; 512];
        while !self.is_stopped.load(Ordering::SeqCst) {
            let Ok((count, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            self.serve(socket, &buffer[..count], from);
        }
    }

    fn serve(&self, socket: &UdpSocket, question: &[u8], from: SocketAddr) {
        let Some((name, end)) = read_name(question) else {
            return;
        };
        locked(&self.asked).push(name.clone());
        let answering = locked(&self.answering).clone();
        let is_for = |kind: u8| question.get(end..end + 2) == Some(&[0, kind]);
        let address = |address: &Ipv4Addr| (A, address.octets().to_vec());
        let (code, records): (u8, Vec<Record>) = match answering {
            Answering::Silent => return,
            Answering::Failing => (2, Vec::new()),
            Answering::With(known) => match known.get(&name) {
                Some(addresses) if is_for(A) => (0, addresses.iter().map(address).collect()),
                Some(_) => (0, Vec::new()),
                None => (3, Vec::new()),
            },
            Answering::Service(service, records, _) if name == service && is_for(SRV) => {
                let records = records.into_iter();
                let records =
                    records.map(|(host, port, priority)| service_record(host, port, priority));
                (0, records.collect())
            }
            Answering::Service(_, _, host) if is_for(A) => (0, vec![address(&host)]),
            Answering::Service(..) => (0, Vec::new()),
        };
        let Some(asked) = question.get(HEADER_BYTES..end + 4) else {
            return;
        };
        let mut answer = question[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        answer.extend(asked);
        for (kind, data) in records {
            // The name by a pointer; a record of class IN that may be kept for no time.
            let length = data.len() as u8;
            answer.extend([
                0xc0,
                HEADER_BYTES as u8,
                0,
                kind,
                0,
                1,
                0,
                0,
                0,
                0,
                0,
                length,
            ]);
            answer.extend(data);
        }
        let _ = socket.send_to(&answer, from);
    }
}

/// The name of the first question, and where it ends.
fn read_name(question: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut position = HEADER_BYTES;
    loop {
        let length = usize::from(*question.get(position)?);
        position += 1;
        if length == 0 {
            return Some((labels.join("."), position));
        }
        let label = question.get(position..position + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        position += length;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
