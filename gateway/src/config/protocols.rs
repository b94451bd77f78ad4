//! Application protocols on both sides of a listener: what cannot work, although each side by itself is right.
//! In: checked listeners and backends. Out: warnings. The gateway passes bytes on as they are; it makes no protocol of another.

use std::collections::BTreeSet;

use gateway_core::http::policy::{Grant, Rights, Target};
use gateway_core::identity::Rules;

use super::backend::CheckedBackend;
use super::checked::{Backend, BackendTransport, Listener, Mode};
use super::diagnostics::Diagnostics;
use super::http_backend::BackendProtocol;
use super::http_mode::HttpMode;
use super::ids::BackendId;
use super::listener::CheckedListener;

/// Ports whose clients speak gRPC by convention: OTLP, SkyWalking, the components of Cortex.
const GRPC_PORTS: [u16; 3] = [4317, 11_800, 9095];

/// Warns of listeners whose clients and servers will not understand each other.
pub fn warn_of_mismatches(
    listeners: &[CheckedListener],
    backends: &[CheckedBackend],
    rules: &Rules,
    diagnostics: &mut Diagnostics<'_>,
) {
    for (position, listener) in listeners.iter().enumerate() {
        let Some(checked) = &listener.checked else {
            continue;
        };
        if let Mode::Http(mode) = &checked.mode {
            let holding = rules.as_slice().iter();
            let holding = holding.filter(|rule| rule.holds_for(position));
            let rights = holding.filter_map(|rule| rule.rights.as_deref());
            let services = services(checked, rights);
            let called = services.filter_map(|service| mode.routes.backend_of(service));
            let called: BTreeSet<usize> = called.collect();
            warn_of_grpc_over_http1(listener, mode, (backends, &called), diagnostics);
            continue;
        }
        let location = &listener.location;
        let mut warn = |text: &str| diagnostics.warn(location.line, &location.key("alpn"), text);
        if checked.alpn.is_empty() && GRPC_PORTS.contains(&checked.address.port()) {
            let port = checked.address.port();
            warn(&format!(
                "is missing: clients of gRPC, which port {port} is used for, end a connection on which no protocol was chosen; \
                 write alpn = [\"h2\"]"
            ));
        }
        for BackendId(position) in checked.backends() {
            let backend = backends.get(position);
            if let Some(backend) = backend.and_then(|backend| backend.checked.as_ref()) {
                mismatches(checked, backend)
                    .iter()
                    .for_each(|text| warn(text));
            }
        }
    }
}

/// The gRPC that rules let clients of a listener call. Ready sets that have calls of HTTP as well count on ports of gRPC only:
/// elsewhere a listener may be for the others.
fn services<'r>(
    listener: &Listener,
    rights: impl Iterator<Item = &'r Rights>,
) -> impl Iterator<Item = &'r Target> {
    let speaks_http2 = listener.alpn.iter().any(|protocol| protocol == b"h2");
    let is_for_grpc = GRPC_PORTS.contains(&listener.address.port());
    let counts = move |grant: &&Grant| {
        grant.ready.is_none() || is_for_grpc || grant.targets.iter().all(Target::is_rpc)
    };
    rights
        .filter(move |_| speaks_http2)
        .flat_map(Rights::grants)
        .filter(counts)
        .flat_map(|grant| &grant.targets)
        .filter(|target| target.is_rpc())
}

/// Warns of gRPC that goes to servers that speak HTTP/1.1 only. Rules let clients call it at the backends of `called`.
fn warn_of_grpc_over_http1(
    listener: &CheckedListener,
    mode: &HttpMode,
    (backends, called): (&[CheckedBackend], &BTreeSet<usize>),
    diagnostics: &mut Diagnostics<'_>,
) {
    let is_http1 = |position: usize| {
        let backend = backends.get(position)?.checked.as_ref()?;
        let is_clear = !matches!(backend.transport, BackendTransport::Tls(_));
        let is_http1 = match backend.http.protocol {
            BackendProtocol::Http1 => true,
            BackendProtocol::Auto => is_clear,
            BackendProtocol::Http2 => false,
        };
        is_http1.then_some(backend)
    };
    let alpn = listener.checked.as_ref().map(|checked| &checked.alpn);
    let is_grpc_only = alpn.is_some_and(|alpn| *alpn == [b"h2"]);
    for position in mode.routes.backends() {
        let Some(backend) = is_http1(position) else {
            continue;
        };
        let mut routes = mode.routes.routes().iter();
        let is_routed = routes.any(|route| {
            let canary = route.canary.as_ref().map(|canary| canary.backend);
            (route.backend == position || canary == Some(position))
                && route.targets.iter().any(Target::is_rpc)
        });
        if is_routed || is_grpc_only || called.contains(&position) {
            let location = &listener.location;
            let text = format_args!(
                "sends gRPC to backend \"{}\", whose servers are spoken to in HTTP/1.1, which cannot carry it: clients get \
                 UNIMPLEMENTED; give the backend protocol = \"h2\", or, if no client speaks gRPC here, the listener alpn = \
                 [\"http/1.1\"]",
                backend.name
            );
            diagnostics.warn(location.line, &location.label, text);
        }
    }
}

fn mismatches(listener: &Listener, backend: &Backend) -> Vec<String> {
    let name = &backend.name;
    let BackendTransport::Tls(tls) = &backend.transport else {
        return match listener.alpn.as_slice() {
            [] | [_] => Vec::new(),
            several => vec![format!(
                "lets clients choose among {}, and backend \"{name}\", which has no tls, is not told what they chose: its \
                 servers must understand all of them on one port, which servers of plain HTTP/1.1 do not",
                shown(several)
            )],
        };
    };
    let own = &tls.alpn;
    match (listener.alpn.as_slice(), own.as_slice()) {
        ([], [_, _, ..]) => vec![format!(
            "is missing: the servers of backend \"{name}\" choose among {}, and no client is told what they chose",
            shown(own)
        )],
        (_, []) => Vec::new(),
        (protocols, own) => {
            let is_foreign = |protocol: &&Vec<u8>| !own.contains(protocol);
            let foreign: Vec<_> = protocols.iter().filter(is_foreign).cloned().collect();
            match foreign.is_empty() {
                true => Vec::new(),
                false => vec![format!(
                    "lets clients choose {}, and backend \"{name}\" is offered {} only (its tls alpn): they will not \
                     understand each other",
                    shown(&foreign),
                    shown(own)
                )],
            }
        }
    }
}

/// Names of protocols as text.
pub fn shown(protocols: &[Vec<u8>]) -> String {
    let names: Vec<String> = protocols
        .iter()
        .map(|protocol| protocol.escape_ascii().to_string())
        .collect();
    names.join(", ")
}
