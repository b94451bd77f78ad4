//! `[[backend]]`: where accepted connections go, and how that hop is protected.
//! In: the sections as written. Out: checked backends. A hop that leaves this host unprotected is refused unless the file says so.

use std::sync::Arc;

use gateway_core::limits;
use gateway_core::names::Name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;

use super::checked::{
    Backend, BackendTls, BackendTransport, Listener, ProxyProtocol, ServerAddress,
};
use super::credentials::{self, Role};
use super::diagnostics::{Diagnostics, Location};
use super::http_backend::{self, BackendUsage, RawHttpBackend};
use super::ids::BackendId;
use super::listener::{self, CheckedListener};
use super::raw::{RawBackend, RawBackendTls, Text};
use super::value::{BoolOrText, Field, Sections, Spanned};
use super::{health, http_mode, revocation, scalar, servers};

/// A section with what later checks need to know of it, even if it is wrong.
#[derive(Debug)]
pub struct CheckedBackend {
    /// Where it stands.
    pub location: Location,
    name: Option<Spanned<String>>,
    /// Its keys for HTTP listeners, and where they stand.
    pub http_keys: Vec<(&'static str, Spanned<()>)>,
    /// Where `alpn` of its `tls` stands.
    pub alpn: Option<Spanned<()>>,
    /// The backend, unless something is wrong with it.
    pub checked: Option<Backend>,
}

/// The names of all backends, in order.
#[derive(Debug)]
pub struct Names(Vec<Option<String>>);

impl Names {
    /// Takes the names in the order of the file.
    pub fn new(backends: &[CheckedBackend]) -> Self {
        Names(
            backends
                .iter()
                .map(|backend| backend.name.as_ref().map(|name| name.value.clone()))
                .collect(),
        )
    }

    /// The backend of this name, or what there is instead.
    pub fn find(&self, name: &str) -> Result<BackendId, String> {
        if let Some(found) = self
            .0
            .iter()
            .position(|known| known.as_deref() == Some(name))
        {
            return Ok(BackendId(found));
        }
        let known: Vec<&str> = self.0.iter().flatten().map(String::as_str).collect();
        Err(match known.is_empty() {
            true => "must be the name of a [[backend]], and there is none".to_owned(),
            false => format!("must be the name of a [[backend]]: {}", known.join(", ")),
        })
    }
}

/// Checks all backends.
pub fn check_all(
    location: &Location,
    field: Field<Sections<RawBackend>>,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<CheckedBackend> {
    let sections = field.sections();
    if sections.as_ref().is_some_and(Vec::is_empty) {
        diagnostics.missing(
            location,
            "backend",
            "there must be a [[backend]] to forward to",
        );
    }
    let mut checked: Vec<CheckedBackend> = Vec::new();
    for raw in sections.unwrap_or_default() {
        let backend = check(raw, provider, diagnostics);
        for other in &checked {
            refuse_twin(&backend, other, diagnostics);
        }
        checked.push(backend);
    }
    checked
}

fn refuse_twin(
    backend: &CheckedBackend,
    other: &CheckedBackend,
    diagnostics: &mut Diagnostics<'_>,
) {
    if let (Some(name), Some(other)) = (&backend.name, &other.name)
        && name.value == other.value
    {
        let text = format_args!("must be unique: the backend at line {} has it", other.line);
        diagnostics.wrong(&backend.location, "name", name, text);
    }
}

/// Tells of backends that nothing is sent to, and refuses keys that are for other listeners than those that use them.
pub fn check_usage(
    backends: &[CheckedBackend],
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) {
    for (index, backend) in backends.iter().enumerate() {
        let id = BackendId(index);
        let using = listeners.iter().filter(|listener| {
            let routed = listener.checked.as_ref().map(Listener::backends);
            listener.backend == Some(id) || routed.is_some_and(|routed| routed.contains(&id))
        });
        let usage = using.fold(BackendUsage::default(), |usage, listener| BackendUsage {
            by_http: usage.by_http || listener.is_http != Some(false),
            by_stream: usage.by_stream || listener.is_http != Some(true),
        });
        if !usage.by_http && !usage.by_stream {
            diagnostics.warn(
                backend.location.line,
                &backend.location.label,
                "no listener uses it",
            );
        }
        http_backend::refuse_useless(backend, usage, diagnostics);
    }
}

fn check(
    mut raw: RawBackend,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> CheckedBackend {
    let location = raw.location.clone();
    let of_http = RawHttpBackend::of(&mut raw);
    let mut http_keys = of_http.marks();
    let written_name = raw.name.clone().given();
    let name = diagnostics.required(
        &location,
        "name",
        raw.name,
        "listeners refer to it",
        |text| scalar::name(text),
    );
    let servers = servers::check(&location, raw.servers, diagnostics);
    let (servers, shares) = match servers {
        Some(servers) => {
            http_keys.extend(servers.marks);
            (Some(servers.addresses), servers.shares)
        }
        None => (None, Vec::new()),
    };
    let http = http_backend::check(&location, of_http, shares, diagnostics);
    let dangerous = raw.dangerous_plaintext.given();
    let mut alpn = None;
    let tls = match raw.tls {
        Field::Absent => Some(None),
        given => given.given().map(|item| {
            alpn = http_mode::mark(&item.value.alpn);
            Some(tls(item.value, provider, diagnostics))
        }),
    };
    let transport = transport(&location, tls, servers.as_deref(), dangerous, diagnostics);
    if let (Some(http), Some(transport)) = (&http, &transport) {
        health::check_protocol(&location, http, transport, diagnostics);
    }
    let dangerous = raw.dangerous_proxy_protocol_outside.given();
    let proxy_protocol = transport
        .as_ref()
        .zip(servers.as_deref())
        .and_then(|hop| proxy_protocol(&location, raw.proxy_protocol, dangerous, hop, diagnostics));
    let timeout = |text: &Text| scalar::duration(text, &limits::CONNECT_TIMEOUT, "");
    let connect_timeout =
        diagnostics.optional(&location, "connect_timeout", raw.connect_timeout, timeout);
    let assemble = || {
        Some(Backend {
            name: name?,
            servers: servers?,
            transport: transport?,
            proxy_protocol: proxy_protocol?,
            connect_timeout: connect_timeout?.unwrap_or(limits::CONNECT_TIMEOUT_DEFAULT),
            http: http?,
        })
    };
    let checked = assemble();
    CheckedBackend {
        location,
        name: written_name,
        http_keys,
        alpn,
        checked,
    }
}

/// Where the header goes. Outside TLS it is sent before the server has proven its name, to any server that is there, and a
/// host on the way can change it.
fn proxy_protocol(
    location: &Location,
    field: Field<BoolOrText>,
    dangerous: Option<Spanned<bool>>,
    (transport, servers): (&BackendTransport, &[ServerAddress]),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<ProxyProtocol> {
    let over_tls = matches!(transport, BackendTransport::Tls(_));
    let leaves_host = over_tls && !servers.iter().all(is_this_host);
    let wants_outside = dangerous.as_ref().filter(|item| item.value);
    let parse = |written: &BoolOrText| {
        match written {
        BoolOrText::Bool(false) => Ok(ProxyProtocol::Off),
        BoolOrText::Text(text) if text == "inside" => match over_tls {
            true => Ok(ProxyProtocol::Inside),
            false => Err("needs tls: without it there is no inside".to_owned()),
        },
        BoolOrText::Text(text) if text != "outside" => {
            Err("must be true, false, \"inside\" or \"outside\"".to_owned())
        }
        BoolOrText::Bool(true) | BoolOrText::Text(_) => match leaves_host && wants_outside.is_none() {
            true => Err("must be \"inside\": outside TLS the header goes out in clear, before the server has proven \
                         its name, and any host on the path can change identity and tenant (or \
                         dangerous_proxy_protocol_outside = true)"
                .to_owned()),
            false => Ok(ProxyProtocol::Outside),
        },
    }
    };
    let way = diagnostics.optional(location, "proxy_protocol", field, parse)?;
    let way = way.unwrap_or(ProxyProtocol::Off);
    if let Some(item) = wants_outside {
        let key = location.key("dangerous_proxy_protocol_outside");
        let text = match leaves_host && way == ProxyProtocol::Outside {
            true => {
                "any host on the path can read and change the identity and the tenant that the backend is told"
            }
            false => "has no effect: no header leaves this host outside TLS",
        };
        diagnostics.warn(item.line, &key, text);
    }
    Some(way)
}

/// Decides how the hop is protected. `tls` is `None` when the section is wrong, `Some(None)` when there is none.
fn transport(
    location: &Location,
    tls: Option<Option<Option<BackendTls>>>,
    servers: Option<&[ServerAddress]>,
    dangerous: Option<Spanned<bool>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<BackendTransport> {
    let wants_plaintext = dangerous.as_ref().filter(|item| item.value);
    match (tls?, wants_plaintext) {
        (Some(_), Some(item)) => {
            diagnostics.wrong(
                location,
                "dangerous_plaintext",
                item,
                "must be false beside tls: choose one of the two",
            );
            None
        }
        (Some(tls), None) => tls.map(BackendTransport::Tls),
        (None, wants_plaintext) => plaintext(location, servers?, wants_plaintext, diagnostics),
    }
}

fn plaintext(
    location: &Location,
    servers: &[ServerAddress],
    wanted: Option<&Spanned<bool>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<BackendTransport> {
    let elsewhere = servers.iter().find(|server| !is_this_host(server));
    match (elsewhere, wanted) {
        (None, None) => Some(BackendTransport::LoopbackPlaintext),
        (None, Some(item)) => {
            let key = location.key("dangerous_plaintext");
            diagnostics.warn(
                item.line,
                &key,
                "has no effect: all servers are on this host",
            );
            Some(BackendTransport::LoopbackPlaintext)
        }
        (Some(_), Some(item)) => {
            let key = location.key("dangerous_plaintext");
            diagnostics.warn(
                item.line,
                &key,
                "telemetry leaves this host in plain text, and the backend cannot tell the \
                 gateway from other clients",
            );
            Some(BackendTransport::DangerousPlaintext)
        }
        (Some(server), None) => {
            let text = format!(
                "{server} is not on this host: must have tls, or dangerous_plaintext = true"
            );
            diagnostics.missing(location, "tls", &text);
            None
        }
    }
}

/// Whether a server is on this host for certain. Any other name than `localhost` may come to mean another host.
fn is_this_host(server: &ServerAddress) -> bool {
    match server {
        ServerAddress::Address(address) => address.is_this_host(),
        ServerAddress::Name(Name::Host { host, .. }) => host == "localhost",
        ServerAddress::Name(Name::Service(_)) => false,
    }
}

fn tls(
    raw: RawBackendTls,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<BackendTls> {
    let location = raw.location;
    let mut authorities = super::authorities::read(&location, "ca", raw.ca, diagnostics);
    let written = revocation::RawRevocation {
        authorities_key: "ca",
        crl: raw.crl,
        grace: raw.crl_grace,
        dangerous_accept_stale: raw.dangerous_accept_stale_crl,
    };
    let revocation = authorities.as_mut().and_then(|authorities| {
        revocation::check(&location, written, authorities, provider, diagnostics)
    });
    let roots = authorities.map(|authorities| Arc::new(authorities.into_roots()));
    let own = credentials::own(
        &location,
        (raw.certificate, raw.key),
        Role::Client,
        provider,
        diagnostics,
    );
    let expectation = "give the name that must stand in the servers' certificates";
    let server_name = diagnostics.required(
        &location,
        "server_name",
        raw.server_name,
        expectation,
        |text| {
            ServerName::try_from(text.clone()).map_err(|_| {
                "must be a DNS name or IP address, such as \"collector.example.org\"".to_owned()
            })
        },
    );
    let alpn = listener::alpn(&location, raw.alpn, diagnostics);
    let (revocation, revoking) = revocation?;
    Some(BackendTls {
        alpn: alpn?,
        roots: roots?,
        revocation,
        revoking: Arc::new(revoking),
        key: own?.key,
        server_name: server_name?,
    })
}
