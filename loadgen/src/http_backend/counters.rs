//! What a backend has seen. In: connections and requests. Out: `HttpBackendStats`, at any time. Bounded: what comes in
//! from outside, such as names of tenants, is counted apart only so far.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::Received;
use crate::limits::RECEIVER_KEYS_MAX;
use crate::request::arrivals::ArrivedRequests;
use crate::request::read_content;

/// The type of content that is no format of telemetry.
const POSTED: &[u8] = b"application/octet-stream";

/// What a backend has seen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HttpBackendStats {
    /// Connections that spoke; after TLS, where there is TLS.
    pub connections: u64,
    /// Connections whose TLS handshake failed.
    pub refused_connections: u64,
    /// Requests whose header section has come.
    pub requests: u64,
    /// Requests that came whole and were answered.
    pub answered: u64,
    /// Of each connection how many requests came on it, in the order of the connections.
    pub requests_by_connection: Vec<u64>,
    /// Requests by the values of X-Scope-OrgID, several of one request with commas; `(none)` without one.
    pub tenants: BTreeMap<String, u64>,
    /// Bytes of content that came.
    pub content_bytes: u64,
    /// Requests whose content could not be read, or was not what the load generator sends; null unless content is read.
    pub unreadable: Option<u64>,
    /// The numbers that arrived, of each sender; null unless content is read.
    pub arrivals: Option<ArrivedRequests>,
}

/// The counts of a running backend.
#[derive(Debug)]
pub(super) struct HttpCounters {
    inner: Mutex<HttpBackendStats>,
    reads_content: bool,
    store: Option<Mutex<File>>,
}

impl HttpCounters {
    /// Begins with what the store holds.
    pub(super) fn new(reads_content: bool, store: Option<&Path>) -> io::Result<Self> {
        let mut stored = ArrivedRequests::default();
        let store = store
            .map(|file| {
                let mut file = File::options()
                    .read(true)
                    .append(true)
                    .create(true)
                    .open(file)?;
                let mut lines = String::new();
                file.read_to_string(&mut lines)?;
                stored = ArrivedRequests::from_lines(&lines);
                io::Result::Ok(Mutex::new(file))
            })
            .transpose()?;
        let stats = HttpBackendStats {
            unreadable: reads_content.then_some(0),
            arrivals: reads_content.then_some(stored),
            ..HttpBackendStats::default()
        };
        Ok(Self {
            inner: Mutex::new(stats),
            reads_content,
            store,
        })
    }

    /// Whether the content of requests is to be kept until it is counted.
    pub(super) fn reads_content(&self) -> bool {
        self.reads_content
    }

    /// Counts a connection and returns its place among them.
    pub(super) fn connection(&self) -> usize {
        let mut inner = self.lock();
        inner.connections += 1;
        if inner.requests_by_connection.len() < RECEIVER_KEYS_MAX {
            inner.requests_by_connection.push(0);
        }
        inner.requests_by_connection.len() - 1
    }

    pub(super) fn refused(&self) {
        self.lock().refused_connections += 1;
    }

    /// Counts a request whose header section has come.
    pub(super) fn request(&self, connection: usize, fields: &HeaderMap) {
        let mut inner = self.lock();
        inner.requests += 1;
        inner.requests_by_connection[connection] += 1;
        let mut values = fields.get_all("x-scope-orgid").iter();
        let first = values.next().map(|value| value.as_bytes());
        let tenant = String::from_utf8_lossy(first.unwrap_or(b"(none)"));
        match (inner.tenants.get_mut(tenant.as_ref()), values.next()) {
            (Some(count), None) => *count += 1,
            _ => inner.count_tenants(fields),
        }
    }

    pub(super) fn content(&self, bytes: usize) {
        self.lock().content_bytes += bytes as u64;
    }

    /// Counts a request that has come whole, and stores its numbers. It may be answered only if that succeeds.
    pub(super) fn whole(&self, received: &Received<'_>) -> io::Result<()> {
        let mut inner = self.lock();
        inner.answered += 1;
        if !self.reads_content {
            return Ok(());
        }
        let content_type = received
            .fields
            .get(CONTENT_TYPE)
            .map_or(&b""[..], |value| value.as_bytes());
        // Only posts are so long that they have a part which is compared.
        let is_altered = content_type == POSTED && received.content.is_altered;
        let content = &received.content.beginning;
        match read_content(content_type, content).filter(|_| !is_altered) {
            None => *inner.unreadable.get_or_insert_default() += 1,
            Some((sender, numbers)) => {
                if let Some(store) = &self.store {
                    let lines: String = numbers
                        .iter()
                        .map(|number| format!("{number} {sender}\n"))
                        .collect();
                    store
                        .lock()
                        .expect("nothing panics while it holds the store")
                        .write_all(lines.as_bytes())?;
                }
                let arrivals = inner.arrivals.get_or_insert_default();
                for number in numbers {
                    arrivals.add(&sender, number);
                }
            }
        }
        Ok(())
    }

    pub(super) fn stats(&self) -> HttpBackendStats {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HttpBackendStats> {
        self.inner
            .lock()
            .expect("nothing panics while it holds the counts")
    }
}

impl HttpBackendStats {
    /// A tenant that is new, or several in one request.
    fn count_tenants(&mut self, fields: &HeaderMap) {
        let values: Vec<_> = fields
            .get_all("x-scope-orgid")
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        let mut name = match values.as_slice() {
            [] => "(none)".to_owned(),
            values => values.join(", "),
        };
        if self.tenants.len() >= RECEIVER_KEYS_MAX && !self.tenants.contains_key(&name) {
            name = "(more)".to_owned();
        }
        *self.tenants.entry(name).or_default() += 1;
    }
}
