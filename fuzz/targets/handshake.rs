//! Any bytes as everything that a client sends, over a real socket into the real server side of a listener.
//!
//! What must hold: no panic; nobody gets in; the reason is one that a client without keys can give, never our own
//! fault; what the client is answered is whole TLS records, with an alert at the end if the reason has one; and all of it takes
//! the worker no more CPU than fifty of its steps may, of which this build makes each dear.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use gateway::config;
use gateway::crypto::KeyRing;
use gateway::tls::{self, ServerConfigs};
use gateway_core::failure::Failure;
use gateway_rt::{AcceptStop, BufferPool, Listener, block_on};
use libfuzzer_sys::fuzz_target;

const CONFIGURATION: &str = r#"
[[listener]]
name = "edge"
address = "127.0.0.1:4317"
alpn = ["h2"]
certificate = "gateway.pem"
key = "gateway.key"
client_ca = ["agents-ca.pem"]
backend = "collector"

[[backend]]
name = "collector"
servers = ["127.0.0.1:14317"]

[[identity]]
match = { uri = "spiffe://example.org/*" }
"#;

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
const RECORD_HEADER_BYTES: usize = 5;

/// The reasons that bytes alone can be refused for: no certificate can be presented before keys are agreed on.
const REASONS: [Failure; 9] = [
    Failure::NotTls,
    Failure::Malformed,
    Failure::Version,
    Failure::CipherSuite,
    Failure::Group,
    Failure::Alpn,
    Failure::Sni,
    Failure::Reset,
    Failure::ClientRejectedServer,
];

/// How a client fared.
struct Outcome {
    failure: Failure,
    detail: String,
    answer: Vec<u8>,
    cpu: Duration,
}

/// CPU time that a flight may take. A step may take 5 ms (docs/architecture.md) in a release build; this one counts every branch, and
/// checks every overflow. What grows with the square of the bytes, or worse, is beyond all the same.
const CPU_MAX: Duration = Duration::from_millis(250);

/// A worker that lives as long as the process: it takes what a client sends and gives the reason and the answer.
struct Worker {
    flights: SyncSender<Vec<u8>>,
    outcomes: Receiver<Outcome>,
}

// Never dropped: a runtime that ends leaks a little, which would be told as a leak of the last input.
static WORKER: LazyLock<Mutex<Worker>> = LazyLock::new(|| Mutex::new(Worker::start()));

fuzz_target!(|flight: &[u8]| {
    let outcome = WORKER.lock().expect("one input at a time").serve(flight);
    let Outcome {
        failure,
        detail,
        answer,
        cpu,
    } = &outcome;
    assert!(*cpu <= CPU_MAX, "{cpu:?} for {failure:?}: {detail}");
    assert!(REASONS.contains(failure), "{failure:?}: {detail}");
    assert!(!detail.contains(char::is_control), "{detail:?}");
    if *failure == Failure::NotTls && answer.first().is_some_and(|kind| *kind != ALERT) {
        // A plain HTTP or gRPC client is told in its own protocol, in a few words.
        assert!(answer.len() <= 1024, "{detail}: {answer:02x?}");
        return;
    }
    let kinds = record_kinds(answer);
    let last_may_be_alert = matches!(kinds.last(), Some(&(ALERT | APPLICATION_DATA)));
    if failure.alert().is_some() {
        assert!(last_may_be_alert, "{failure:?}, {detail}: {kinds:?}");
    }
    if failure.alert().is_none() && !kinds.contains(&HANDSHAKE) {
        assert!(answer.is_empty(), "{failure:?}, {detail}: {answer:02x?}");
    }
});

impl Worker {
    fn start() -> Self {
        let (flights, taken) = sync_channel::<Vec<u8>>(1);
        let (told, outcomes) = sync_channel(1);
        thread::spawn(move || {
            let serving = block_on(async |_| {
                let bound = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
                let address = bound.local_addr().expect("it is bound");
                let listener = Listener::new(bound).expect("it listens");
                let config = server_configs();
                let pool = Rc::new(BufferPool::default());
                while let Ok(flight) = taken.recv() {
                    let outcome = serve(&flight, &listener, address, &config, &pool).await;
                    told.send(outcome).expect("the fuzzer waits for it");
                }
            });
            serving.expect("a runtime can be made");
        });
        Worker { flights, outcomes }
    }

    fn serve(&self, flight: &[u8]) -> Outcome {
        self.flights.send(flight.to_owned()).expect("it is running");
        self.outcomes.recv().expect("every flight has an outcome")
    }
}

fn server_configs() -> ServerConfigs {
    let folder = tempfile::tempdir().expect("a place for temporary files");
    fuzz::make_certificates(folder.path());
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, CONFIGURATION).expect("the folder takes files");
    let config = config::load(&file).expect("it is right").config;
    let trust = tls::listener_trust(&config, config::ListenerId(0), &Arc::default());
    let random = config.provider.secure_random;
    let keys = KeyRing::generate(SystemTime::now(), random).expect("there is randomness");
    tls::server_configs(&config, &config.listeners[0], &trust, Some(&keys)).expect("it was checked")
}

/// Nobody waits for a flight that was sent whole.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends `flight` and then nothing more, lets the gateway answer, and tells why it refused.
async fn serve(
    flight: &[u8],
    listener: &Listener,
    address: SocketAddr,
    config: &ServerConfigs,
    pool: &Rc<BufferPool>,
) -> Outcome {
    // The kernel completes the connection and keeps the bytes: one thread can play both ends.
    let mut client = TcpStream::connect(address).expect("the listener is there");
    client.write_all(flight).expect("it fits into the buffers");
    client.shutdown(Shutdown::Write).expect("it is connected");
    let stop = AcceptStop::new();
    let accepted = listener.accept(stop.handle()).await;
    let (socket, _) = accepted.expect("it was accepted").expect("nobody stops it");
    let before = cpu_time();
    let accepted = tls::accept(socket, config, Rc::clone(pool), PATIENCE).await;
    let cpu = cpu_time().saturating_sub(before);
    let Err((socket, refusal)) = accepted else {
        panic!("a client got in without a certificate");
    };
    let (failure, detail) = (refusal.failure, refusal.detail.clone());
    tls::refuse(socket, refusal.into_alert()).await;
    // All of it has arrived; how the connection ends is not looked at here.
    client.set_nonblocking(true).expect("it is a socket");
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    Outcome {
        failure,
        detail,
        answer,
        cpu,
    }
}

/// CPU time of this thread, by proc(5); none where the kernel does not count it.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Types of the records in `answer`, which holds nothing else.
fn record_kinds(mut answer: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while !answer.is_empty() {
        let (header, body) = answer
            .split_first_chunk::<RECORD_HEADER_BYTES>()
            .expect("a record has a whole header");
        let [kind, 3, 3, high, low] = *header else {
            panic!("no header of a record: {header:02x?}");
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        answer = body.get(length..).expect("a record is whole");
        kinds.push(kind);
    }
    kinds
}
