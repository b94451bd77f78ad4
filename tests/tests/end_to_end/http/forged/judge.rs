//! What arrived of a request, by the bytes that the backend got.
//! In: the backend's tapes before and after. Out: clean, refused, or what is wrong.

use std::net::SocketAddr;
use std::time::Duration;

use tests::{ClientBuilder, Http2Client, HttpBackend, PATIENCE, Speaks, Taped, requests_of};

/// Names that the gateway alone may write, in lower case.
pub const RESERVED: [&str; 6] = [
    "x-scope-orgid",
    "x-scope-clientid",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-proto",
    "forwarded",
];

/// The path of requests that only show that others have passed.
const PROBE: &str = "/probe";

/// What every forged value contains.
const MARK: &str = "forged";

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It came once, as the client's own tenant.
    Clean,
    /// Nothing came, or not all of it.
    Refused,
    /// It came, and a server could take it for another tenant's.
    Forged(String),
    /// It came in a way that servers read in two ways, or as something else than was sent.
    Altered(String),
}

/// Looks at a backend.
pub struct Judge<'a> {
    backend: &'a HttpBackend,
    speaks: Speaks,
    tenant: &'a str,
    /// For so long an answer may take until the request counts as refused.
    pub answer_timeout: Duration,
}

impl<'a> Judge<'a> {
    /// Of this backend; requests are to come as this tenant's.
    pub fn new(backend: &'a HttpBackend, speaks: Speaks, tenant: &'a str) -> Self {
        Judge {
            backend,
            speaks,
            tenant,
            answer_timeout: PATIENCE / 4,
        }
    }

    /// How many bytes each connection has brought.
    pub fn before(&self) -> Vec<usize> {
        self.backend.tapes().iter().map(Vec::len).collect()
    }

    /// Waits until what was sent before has come, as far as it comes: behind it, on the gateway's one worker, comes this request.
    pub fn settle(&self, client: &ClientBuilder, gateway: SocketAddr) {
        let probe: [(&[u8], &[u8]); 4] = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", PROBE.as_bytes()),
            (b":authority", b"gateway.test"),
        ];
        let mut connection = Http2Client::connect(client, gateway);
        let stream = connection.request(&probe, b"");
        assert_eq!(connection.answer(stream).status(), Some(200));
    }

    /// What has come since.
    pub fn since(&self, before: &[usize], content: &[u8]) -> Outcome {
        let mut arrived = Vec::new();
        for (number, tape) in self.backend.tapes().iter().enumerate() {
            let length = before.get(number).copied().unwrap_or(0);
            if tape.len() == length {
                continue;
            }
            let old =
                requests_of(&tape[..length], self.speaks).map_or(0, |requests| requests.len());
            match requests_of(tape, self.speaks) {
                Ok(requests) => {
                    let new = requests.into_iter().skip(old);
                    arrived.extend(new.filter(|request| request.path() != PROBE));
                }
                Err(reason) => return Outcome::Altered(reason),
            }
        }
        for request in &arrived {
            if let Some(what) = self.forged(request) {
                return Outcome::Forged(what);
            }
        }
        let whole: Vec<&Taped> = arrived.iter().filter(|request| request.is_whole).collect();
        match whole[..] {
            [] => Outcome::Refused,
            [request] if !is_case(request.path()) => Outcome::Altered(request.path().to_owned()),
            [request] if request.content != content => Outcome::Altered(format!(
                "content {:?}",
                String::from_utf8_lossy(&request.content)
            )),
            [_] => Outcome::Clean,
            _ => Outcome::Altered(format!("{} requests", whole.len())),
        }
    }

    /// What a server takes for another tenant's.
    fn forged(&self, request: &Taped) -> Option<String> {
        for name in RESERVED {
            let spelled = request.spelled(name);
            if let Some((name, value)) = spelled.iter().find(|(_, value)| value.contains(MARK)) {
                return Some(format!("{name}: {value}"));
            }
        }
        let tenants = request.spelled(RESERVED[0]);
        match tenants[..] {
            [(_, value)] if value == self.tenant => None,
            _ => Some(format!("tenants {tenants:?}")),
        }
    }
}

/// Whether it is the path that rows ask for, in whichever of their spellings.
fn is_case(path: &str) -> bool {
    let path = path.replace("%61", "a");
    path.trim_start_matches('/').starts_with("case")
}
