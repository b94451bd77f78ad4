//! The configuration as written: one struct per section, every key once. In: TOML text. Out: fields that are typed but not checked.
//! This is the only list of keys: reading, the check for unknown keys and the test of the reference all use it.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, Location};
use super::value::{
    self, Anything, Field, OneOrMore, Pairs, Section, Sections, Spanned, Table, TextOrTable, Value,
};

/// Text, most often with a format of its own that is checked later.
pub type Text = String;
/// Several texts, each with its line.
pub type Texts = Vec<Spanned<String>>;

/// Declares a section: its struct, its keys, and how it is read.
macro_rules! section {
    ($(#[$about:meta])* $name:ident { $($key:literal => $field:ident: $type:ty,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        pub struct $name {
            /// Where the section stands.
            pub location: Location,
            $(#[doc = concat!("`", $key, "`.")] pub $field: Field<$type>,)+
        }

        impl Section for $name {
            const KEYS: &'static [&'static str] = &[$($key),+];

            fn read(table: &mut Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Self {
                $name { location: table.location(), $($field: table.take($key, diagnostics),)+ }
            }
        }
    };
}

mod backend;

pub use backend::*;

section! {
    /// The whole file.
    RawConfig {
        "name" => name: Text,
        "drain_timeout" => drain_timeout: Text,
        "observe" => observe: Text,
        "close_spread" => close_spread: Text,
        "workers" => workers: RawWorkers,
        "admin" => admin: RawAdmin,
        "tls" => tls: RawTls,
        "guard" => guard: RawGuard,
        "paths" => paths: RawPaths,
        "blocks" => blocks: Anything,
        "defaults" => defaults: RawDefaults,
        "listener" => listener: Sections<RawListener>,
        "route" => route: Sections<RawRoute>,
        "backend" => backend: Sections<RawBackend>,
        "identity" => identity: Sections<RawIdentity>,
        "include" => include: Texts,
        "audit" => audit: RawAudit,
        "outbound" => outbound: Anything,
    }
}

section! {
    /// A file of rules that `include` names.
    RawRules {
        "identity" => identity: Sections<RawIdentity>,
    }
}

section! {
    /// `[workers]`.
    RawWorkers {
        "count" => count: i64,
    }
}

section! {
    /// `[admin]`.
    RawAdmin {
        "address" => address: Text,
        "tls" => tls: RawAdminTls,
    }
}

section! {
    /// `[admin.tls]`.
    RawAdminTls {
        "address" => address: Text,
        "certificate" => certificate: Text,
        "key" => key: Text,
        "client_ca" => client_ca: RawAuthorities,
        "crl" => crl: RawLists,
        "crl_grace" => crl_grace: Text,
        "dangerous_accept_stale_crl" => dangerous_accept_stale_crl: bool,
        "allow" => allow: Sections<RawMatch>,
    }
}

section! {
    /// `[tls]`.
    RawTls {
        "provider" => provider: Text,
        "cipher_suites" => cipher_suites: Texts,
        "groups" => groups: Texts,
        "client_keys" => client_keys: Texts,
        "client_signatures" => client_signatures: Texts,
        "max_chain_depth" => max_chain_depth: i64,
        "resumption" => resumption: RawResumption,
    }
}

section! {
    /// `[tls.resumption]`.
    RawResumption {
        "enabled" => enabled: bool,
        "key_file" => key_file: Text,
        "max_authentication_age" => max_authentication_age: Text,
    }
}

section! {
    /// `[guard]`.
    RawGuard {
        "mode" => mode: Text,
        "interfaces" => interfaces: Texts,
        "required" => required: bool,
        "allow" => allow: Texts,
        "deny" => deny: Texts,
        "max_pending" => max_pending: i64,
        "byte_budget" => byte_budget: Text,
        "ban_threshold" => ban_threshold: i64,
        "point_lifetime" => point_lifetime: Text,
        "ban_first" => ban_first: Text,
        "ban_longest" => ban_longest: Text,
        "weights" => weights: Weights,
    }
}

/// `weights` of the guard: points by reason, as written.
#[derive(Debug, Clone)]
pub struct Weights(pub Vec<(String, Spanned<Option<i64>>)>);

impl Value for Weights {
    const EXPECTED: &'static str = "must be a table of points by reason, such as { no_data = 1 }";

    fn read(value: &DeValue<'_>, _: Location, diagnostics: &mut Diagnostics<'_>) -> Option<Self> {
        let weight = |(key, value): (&toml::Spanned<Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
            let number = value.get_ref().as_integer();
            let number =
                number.and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
            let item = value::spanned(number, value.span(), diagnostics);
            (key.get_ref().to_string(), item)
        };
        Some(Weights(value.as_table()?.iter().map(weight).collect()))
    }
}

/// An element of `client_ca`: a path, or a table that says what the CAs in the file may speak for.
#[derive(Debug, Clone)]
pub enum RawAuthorityEntry {
    /// `"agents-ca.pem"`.
    Path(Spanned<String>),
    /// `{ file = "spire.pem", trust_domain = "example.org" }`.
    Table(RawAuthority),
}

/// The elements of `client_ca`.
pub type RawAuthorities = Vec<RawAuthorityEntry>;

impl Value for RawAuthorities {
    const EXPECTED: &'static str = "must be an array of paths, or of tables such as { file = \"spire.pem\", trust_domain = \"example.org\" }";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        texts_or_tables(
            value,
            &location,
            diagnostics,
            RawAuthorityEntry::Path,
            RawAuthorityEntry::Table,
        )
    }
}

/// Reads an array whose elements are texts, or tables that say more.
fn texts_or_tables<T: Section, E>(
    value: &DeValue<'_>,
    location: &Location,
    diagnostics: &mut Diagnostics<'_>,
    text: impl Fn(Spanned<String>) -> E,
    table: impl Fn(T) -> E,
) -> Option<Vec<E>> {
    let mut elements = Vec::new();
    for element in value.as_array()? {
        let item = value::spanned((), element.span(), diagnostics);
        elements.push(match element.get_ref() {
            DeValue::String(found) => text(Spanned {
                value: found.to_string(),
                written: item.written,
                line: item.line,
            }),
            DeValue::Table(written) => {
                let location = Location {
                    line: item.line,
                    ..location.clone()
                };
                table(value::section(written, location, diagnostics))
            }
            _ => return None,
        });
    }
    Some(elements)
}

section! {
    /// An element of `client_ca` that is bound to a trust domain.
    RawAuthority {
        "file" => file: Text,
        "trust_domain" => trust_domain: Text,
        "dns" => dns: Texts,
    }
}

/// An element of `crl`: a path, or a table with a policy of its own.
#[derive(Debug, Clone)]
pub enum RawListEntry {
    /// `"agents.crl"`.
    Path(Spanned<String>),
    /// `{ file = "agents.crl", grace = "24h" }`.
    Table(RawList),
}

/// The elements of `crl`.
pub type RawLists = Vec<RawListEntry>;

impl Value for RawLists {
    const EXPECTED: &'static str = "must be an array of paths, or of tables such as { file = \"agents.crl\", grace = \"24h\" }";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        texts_or_tables(
            value,
            &location,
            diagnostics,
            RawListEntry::Path,
            RawListEntry::Table,
        )
    }
}

section! {
    /// An element of `crl` with a policy of its own.
    RawList {
        "file" => file: Text,
        "grace" => grace: Text,
        "dangerous_accept_stale" => dangerous_accept_stale: bool,
    }
}

section! {
    /// `[paths]`.
    RawPaths {
        "state" => state: Text,
        "run" => run: Text,
    }
}

section! {
    /// `[audit]`.
    RawAudit {
        "file" => file: Text,
        "requests" => requests: Text,
    }
}

section! {
    /// `[defaults]`: what listeners have in common.
    RawDefaults {
        "mode" => mode: Text,
        "alpn" => alpn: Texts,
        "certificate" => certificate: Text,
        "key" => key: Text,
        "sni" => sni: Sections<RawSni>,
        "client_ca" => client_ca: RawAuthorities,
        "crl" => crl: RawLists,
        "crl_grace" => crl_grace: Text,
        "dangerous_accept_stale_crl" => dangerous_accept_stale_crl: bool,
        "resumption" => resumption: bool,
        "backend" => backend: Text,
        "first_byte_timeout" => first_byte_timeout: Text,
        "handshake_timeout" => handshake_timeout: Text,
        "idle_timeout" => idle_timeout: Text,
        "quiet_timeout" => quiet_timeout: Text,
        "max_connections" => max_connections: i64,
        "max_handshakes" => max_handshakes: i64,
        "max_connection_age" => max_connection_age: Text,
        "max_connection_age_grace" => max_connection_age_grace: Text,
        "at_expiry" => at_expiry: Text,
        "expiry_drain" => expiry_drain: Text,
        "header_timeout" => header_timeout: Text,
        "request_idle_timeout" => request_idle_timeout: Text,
        "max_request_headers" => max_request_headers: Text,
        "max_request_body" => max_request_body: Text,
        "max_streams" => max_streams: i64,
        "grpc_health" => grpc_health: bool,
        "headers" => headers: RawHeaders,
    }
}

section! {
    /// `[[listener]]`.
    RawListener {
        "name" => name: Text,
        "address" => address: Text,
        "mode" => mode: Text,
        "alpn" => alpn: Texts,
        "certificate" => certificate: Text,
        "key" => key: Text,
        "sni" => sni: Sections<RawSni>,
        "client_ca" => client_ca: RawAuthorities,
        "crl" => crl: RawLists,
        "crl_grace" => crl_grace: Text,
        "dangerous_accept_stale_crl" => dangerous_accept_stale_crl: bool,
        "resumption" => resumption: bool,
        "backend" => backend: Text,
        "first_byte_timeout" => first_byte_timeout: Text,
        "handshake_timeout" => handshake_timeout: Text,
        "idle_timeout" => idle_timeout: Text,
        "quiet_timeout" => quiet_timeout: Text,
        "max_connections" => max_connections: i64,
        "max_handshakes" => max_handshakes: i64,
        "max_connection_age" => max_connection_age: Text,
        "max_connection_age_grace" => max_connection_age_grace: Text,
        "at_expiry" => at_expiry: Text,
        "expiry_drain" => expiry_drain: Text,
        "header_timeout" => header_timeout: Text,
        "request_idle_timeout" => request_idle_timeout: Text,
        "max_request_headers" => max_request_headers: Text,
        "max_request_body" => max_request_body: Text,
        "max_streams" => max_streams: i64,
        "grpc_health" => grpc_health: bool,
        "headers" => headers: RawHeaders,
    }
}

section! {
    /// `headers` of a listener or a rule.
    RawHeaders {
        "tenant" => tenant: Text,
        "identity" => identity: Text,
        "certificate" => certificate: Text,
        "forwarded" => forwarded: Text,
        "uri" => uri: Text,
        "dns" => dns: Text,
        "cn" => cn: Text,
        "ou" => ou: Text,
        "issuer" => issuer: Text,
        "fingerprint" => fingerprint: Text,
        "set" => set: Pairs<TextOrTable<RawHeaderFile>>,
    }
}

section! {
    /// A value of `headers.set` that stands in a file.
    RawHeaderFile {
        "file" => file: Text,
    }
}

section! {
    /// `[[route]]`.
    RawRoute {
        "listener" => listener: OneOrMore,
        "host" => host: OneOrMore,
        "alpn" => alpn: OneOrMore,
        "identity" => identity: OneOrMore,
        "tenants" => tenants: OneOrMore,
        "path" => path: OneOrMore,
        "service" => service: OneOrMore,
        "methods" => methods: Texts,
        "header" => header: Pairs<String>,
        "backend" => backend: Text,
        "canary" => canary: RawCanary,
        "mirror" => mirror: RawMirror,
        "replace_prefix" => replace_prefix: Text,
        "replace_host" => replace_host: Text,
    }
}

section! {
    /// A route's `mirror`.
    RawMirror {
        "backend" => backend: Text,
        "percent" => percent: i64,
    }
}

section! {
    /// A route's `canary`.
    RawCanary {
        "backend" => backend: Text,
        "percent" => percent: i64,
        "tenants" => tenants: OneOrMore,
    }
}

section! {
    /// An element of a listener's `sni`.
    RawSni {
        "certificate" => certificate: Text,
        "key" => key: Text,
    }
}

/// An element of `allow` of a rule: a ready set by its name, or a table.
#[derive(Debug, Clone)]
pub enum RawAllowEntry {
    /// `"otlp"`.
    Set(Spanned<String>),
    /// `{ methods = ["POST"], path = "/api/v1/push" }`.
    Table(Box<RawGrant>),
}

/// The elements of `allow`.
pub type RawAllow = Vec<RawAllowEntry>;

impl Value for RawAllow {
    const EXPECTED: &'static str = "must be an array of ready sets such as \"otlp\", or of tables such as { methods = [\"POST\"], path = \"/api/v1/push\" }";

    fn read(
        value: &DeValue<'_>,
        location: Location,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        texts_or_tables(value, &location, diagnostics, RawAllowEntry::Set, |grant| {
            RawAllowEntry::Table(Box::new(grant))
        })
    }
}

section! {
    /// An element of `allow` of a rule.
    RawGrant {
        "set" => set: Text,
        "from" => from: OneOrMore,
        "host" => host: OneOrMore,
        "methods" => methods: Texts,
        "path" => path: OneOrMore,
        "service" => service: OneOrMore,
    }
}

section! {
    /// `[[identity]]`.
    RawIdentity {
        "match" => patterns: RawMatch,
        "listeners" => listeners: Texts,
        "tenant" => tenant: Text,
        "tenant_from" => tenant_from: Text,
        "tenants" => tenants: Texts,
        "max_connections" => max_connections: i64,
        "handshakes_per_second" => handshakes_per_second: i64,
        "bytes_per_second" => bytes_per_second: Text,
        "bytes_burst" => bytes_burst: Text,
        "allow" => allow: RawAllow,
        "default_tenant" => default_tenant: Text,
        "component" => component: bool,
        "headers" => headers: RawHeaders,
        "requests_per_second" => requests_per_second: i64,
        "max_requests_in_flight" => max_requests_in_flight: i64,
        "per_tenant" => per_tenant: RawTenantLimits,
    }
}

section! {
    /// A rule's `per_tenant`.
    RawTenantLimits {
        "requests_per_second" => requests_per_second: i64,
        "bytes_per_second" => bytes_per_second: Text,
        "bytes_burst" => bytes_burst: Text,
    }
}

section! {
    /// A rule's `match`.
    RawMatch {
        "uri" => uri: Text,
        "dns" => dns: Text,
        "cn" => cn: Text,
        "ou" => ou: Text,
        "ip" => ip: Text,
        "issuer" => issuer: Text,
        "trust_domain" => trust_domain: Text,
        "fingerprint" => fingerprint: OneOrMore,
    }
}

/// Every section as the reference names it, with its keys.
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("top level", RawConfig::KEYS),
    ("[workers]", RawWorkers::KEYS),
    ("[admin]", RawAdmin::KEYS),
    ("[admin.tls]", RawAdminTls::KEYS),
    ("[tls]", RawTls::KEYS),
    ("[tls.resumption]", RawResumption::KEYS),
    ("[guard]", RawGuard::KEYS),
    ("[paths]", RawPaths::KEYS),
    ("[audit]", RawAudit::KEYS),
    ("[defaults]", RawDefaults::KEYS),
    ("[[listener]]", RawListener::KEYS),
    ("[[listener.sni]]", RawSni::KEYS),
    ("[[listener.client_ca]]", RawAuthority::KEYS),
    ("[[listener.crl]]", RawList::KEYS),
    ("[listener.headers]", RawHeaders::KEYS),
    ("[listener.headers.set]", RawHeaderFile::KEYS),
    ("[[route]]", RawRoute::KEYS),
    ("[route.canary]", RawCanary::KEYS),
    ("[route.mirror]", RawMirror::KEYS),
    ("[[backend]]", RawBackend::KEYS),
    ("[[backend.servers]]", RawServer::KEYS),
    ("[backend.hash]", RawHashHeader::KEYS),
    ("[backend.health]", RawHealth::KEYS),
    ("[backend.ejection]", RawEjection::KEYS),
    ("[backend.tls]", RawBackendTls::KEYS),
    ("[[identity]]", RawIdentity::KEYS),
    ("[identity.match]", RawMatch::KEYS),
    ("[identity.per_tenant]", RawTenantLimits::KEYS),
    ("[[identity.allow]]", RawGrant::KEYS),
];

/// Reads the text of a configuration.
pub(super) fn parse(text: &str, diagnostics: &mut Diagnostics<'_>) -> Option<RawConfig> {
    parse_as(text, diagnostics)
}

/// Reads the text of a file of rules, or a piece of it.
pub(super) fn parse_rules(text: &str, diagnostics: &mut Diagnostics<'_>) -> Option<RawRules> {
    parse_as(text, diagnostics)
}

/// Reads the text. Text that is not TOML is reported, every broken line of it, and read no further.
fn parse_as<S: Section>(text: &str, diagnostics: &mut Diagnostics<'_>) -> Option<S> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut last_line = 0;
    for error in &errors {
        let line = diagnostics.line(error.span().map_or(0, |span| span.start));
        // What follows on the same line most often follows from the first error.
        if line != last_line {
            let message = error.message().replace('\n', ", ");
            diagnostics.refuse(line, String::new(), format_args!("not TOML: {message}"));
        }
        last_line = line;
    }
    if !errors.is_empty() {
        return None;
    }
    let location = Location {
        label: String::new(),
        line: 1,
    };
    Some(value::section(table.get_ref(), location, diagnostics))
}
