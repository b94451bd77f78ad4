//! `[[backend]]` and what belongs to it, as written. In: a parsed TOML table. Out: a struct per section. Nothing is checked here.

use toml::de::DeValue;

use super::{RawLists, Text, Texts, texts_or_tables};
use crate::config::diagnostics::{Diagnostics, Location};
use crate::config::value::{BoolOrText, Field, Section, Spanned, Table, TextOrTable, Value};

section! {
    /// `[[backend]]`.
    RawBackend {
        "name" => name: Text,
        "servers" => servers: RawServers,
        "tls" => tls: RawBackendTls,
        "dangerous_plaintext" => dangerous_plaintext: bool,
        "proxy_protocol" => proxy_protocol: BoolOrText,
        "dangerous_proxy_protocol_outside" => dangerous_proxy_protocol_outside: bool,
        "connect_timeout" => connect_timeout: Text,
        "protocol" => protocol: Text,
        "patience" => patience: Text,
        "response_timeout" => response_timeout: Text,
        "stream_idle_timeout" => stream_idle_timeout: Text,
        "ping_interval" => ping_interval: Text,
        "max_connections" => max_connections: i64,
        "max_requests" => max_requests: i64,
        "hash" => hash: TextOrTable<RawHashHeader>,
        "slow_start" => slow_start: Text,
        "health" => health: RawHealth,
        "ejection" => ejection: RawEjection,
    }
}

section! {
    /// A backend's `tls`.
    RawBackendTls {
        "ca" => ca: Texts,
        "certificate" => certificate: Text,
        "key" => key: Text,
        "server_name" => server_name: Text,
        "alpn" => alpn: Texts,
        "crl" => crl: RawLists,
        "crl_grace" => crl_grace: Text,
        "dangerous_accept_stale_crl" => dangerous_accept_stale_crl: bool,
    }
}

/// An element of `servers`: an address, or a table that says how the server takes its share of requests.
#[derive(Debug, Clone)]
pub enum RawServerEntry {
    /// `"10.0.0.11:4317"`.
    Address(Spanned<String>),
    /// `{ address = "10.0.0.11:4317", weight = 2 }`.
    Table(RawServer),
}

/// The elements of `servers`.
pub type RawServers = Vec<RawServerEntry>;

impl Value for RawServers {
    const EXPECTED: &'static str = "must be an array of addresses, or of tables such as { address = \"10.0.0.11:4317\", weight = 2 }";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        texts_or_tables(
            value,
            &location,
            diagnostics,
            RawServerEntry::Address,
            RawServerEntry::Table,
        )
    }
}

section! {
    /// An element of `servers` with a share of its own.
    RawServer {
        "address" => address: Text,
        "weight" => weight: i64,
        "backup" => backup: bool,
    }
}

section! {
    /// `[backend.health]`.
    RawHealth {
        "kind" => kind: Text,
        "path" => path: Text,
        "service" => service: Text,
        "interval" => interval: Text,
        "timeout" => timeout: Text,
        "healthy_after" => healthy_after: i64,
        "unhealthy_after" => unhealthy_after: i64,
    }
}

section! {
    /// `[backend.ejection]`.
    RawEjection {
        "enabled" => enabled: bool,
        "consecutive_failures" => consecutive_failures: i64,
        "failure_percent" => failure_percent: i64,
        "first" => first: Text,
        "longest" => longest: Text,
        "max_percent" => max_percent: i64,
    }
}

section! {
    /// `hash` of a backend, by a header.
    RawHashHeader {
        "header" => header: Text,
    }
}
