//! `[[listener]]`: an address, the clients that may connect to it, and where that goes.
//! In: the sections as written. Out: checked listeners. None exists without authorities that clients are verified by.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::authority::TrustDomain;
use gateway_core::limits;
use gateway_core::revocation::Revocation;
use gateway_x509::Roots;
use rustls::crypto::CryptoProvider;

use super::backend::Names;
use super::bounds;
use super::checked::{Destination, Listener, Mode, ServerCertificate};
use super::client_ca::{self, Element, Scopes};
use super::closing;
use super::credentials::{self, Authorities, OwnCertificate, Role};
use super::diagnostics::{Diagnostics, Location};
use super::http_mode::{self, RawHttp};
use super::ids::BackendId;
use super::raw::{self, RawListener, RawSni, Texts};
use super::reread::Revoking;
use super::revocation;
use super::scalar;
use super::value::{Field, Sections, Spanned};
use crate::crypto::KeyPolicy;

/// A section with what later checks need to know of it, even if it is wrong.
#[derive(Debug)]
pub struct CheckedListener {
    /// Where it stands.
    pub location: Location,
    pub(super) name: Option<Spanned<String>>,
    pub(super) written_address: Option<Spanned<String>>,
    /// Its address, if that is right.
    pub address: Option<SocketAddr>,
    /// Its backend, if there is one.
    pub backend: Option<BackendId>,
    /// Whether it names one.
    pub has_backend: bool,
    /// Whether its mode is "http"; `None` if it has none that there is.
    pub is_http: Option<bool>,
    /// The files of its clients' CAs that are in use, unless something is wrong with them.
    pub authorities: Vec<Element>,
    /// It is that of `[admin.tls]`, for which `[[identity]]` rules do not hold.
    pub is_for_metrics: bool,
    /// The listener, unless something is wrong with it.
    pub checked: Option<Listener>,
}

impl CheckedListener {
    /// Whether some of its clients' authorities are bound to a trust domain.
    pub fn binds_authorities(&self) -> bool {
        let checked = self.checked.as_ref();
        checked.is_some_and(|listener| !listener.client_scopes.is_empty())
    }

    /// Whether one of them is bound to this one; also where that is not known.
    pub fn may_bind_to(&self, trust_domain: &TrustDomain) -> bool {
        self.checked.as_ref().is_none_or(|listener| {
            let mut scopes = listener.client_scopes.values();
            scopes.any(|scope| scope.trust_domain == *trust_domain)
        })
    }

    /// Its name as written, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.value.as_str())
    }
}

/// Checks all listeners.
pub fn check_all(
    location: &Location,
    field: Field<Sections<RawListener>>,
    provider: &CryptoProvider,
    backends: &Names,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<CheckedListener> {
    let sections = field.sections();
    if sections.as_ref().is_some_and(Vec::is_empty) {
        diagnostics.missing(
            location,
            "listener",
            "there must be a [[listener]] to connect to",
        );
    }
    let mut checked: Vec<CheckedListener> = Vec::new();
    for raw in sections.unwrap_or_default() {
        let listener = check(raw, provider, backends, diagnostics);
        add(&mut checked, listener, diagnostics);
    }
    checked
}

/// Adds a listener to those before it, none of which may be its twin.
pub(super) fn add(
    listeners: &mut Vec<CheckedListener>,
    listener: CheckedListener,
    diagnostics: &mut Diagnostics<'_>,
) {
    for other in listeners.iter() {
        refuse_twin(&listener, other, diagnostics);
    }
    listeners.push(listener);
}

/// Two listeners on one address would share its connections at random, each with its own authorities.
fn refuse_twin(
    listener: &CheckedListener,
    other: &CheckedListener,
    diagnostics: &mut Diagnostics<'_>,
) {
    if let (Some(name), Some(other)) = (&listener.name, &other.name)
        && name.value == other.value
    {
        let text = format_args!("must be unique: the listener at line {} has it", other.line);
        diagnostics.wrong(&listener.location, "name", name, text);
    }
    if let (Some(address), Some(written)) = (listener.address, &listener.written_address)
        && other.address == Some(address)
    {
        let text = format_args!(
            "must be unique: the listener at line {} has it",
            other.location.line
        );
        diagnostics.wrong(&listener.location, "address", written, text);
    }
}

fn check(
    mut raw: RawListener,
    provider: &CryptoProvider,
    backends: &Names,
    diagnostics: &mut Diagnostics<'_>,
) -> CheckedListener {
    let location = raw.location.clone();
    let written_name = raw.name.clone().given();
    let written_address = raw.address.clone().given();
    let name_for = "it stands in metrics and logs";
    let name = diagnostics.required(&location, "name", take(&mut raw.name), name_for, |text| {
        scalar::name(text)
    });
    let address_for = "give an IP address and a port, such as \"0.0.0.0:4317\"";
    let address = take(&mut raw.address);
    let address = diagnostics.required(&location, "address", address, address_for, |text| {
        scalar::socket_address(text)
    });
    let is_http = http_mode::is_http(&raw.mode);
    let of_http = RawHttp::of(&mut raw);
    let mode = mode(&location, take(&mut raw.mode), diagnostics).and_then(|()| {
        http_mode::check(&location, is_http, of_http, &raw.quiet_timeout, diagnostics)
    });
    let has_backend = !matches!(raw.backend, Field::Absent);
    let backend = take(&mut raw.backend);
    let backend = diagnostics.optional(&location, "backend", backend, |text| backends.find(text));
    let alpn = protocols(&mut raw, is_http, diagnostics);
    let first = (take(&mut raw.certificate), take(&mut raw.key));
    let first = credentials::own(&location, first, Role::Server, provider, diagnostics);
    let more = sni(&location, take(&mut raw.sni), provider, diagnostics);
    let mut clients = clients(&location, RawClients::of(&mut raw), provider, diagnostics);
    let authorities = clients.as_mut().map(ClientTrust::take_elements);
    let resumption = take(&mut raw.resumption);
    let resumption = diagnostics.optional(&location, "resumption", resumption, |on| Ok(*on));
    let at_expiry = (take(&mut raw.at_expiry), take(&mut raw.expiry_drain));
    let expiry_drain = closing::expiry_drain(&location, at_expiry, diagnostics);
    let protocols = alpn.as_deref().unwrap_or_default();
    let bounds = bounds::check(&location, raw, protocols, diagnostics);
    let assemble = || {
        let mode = mode?;
        let destination = destination(&mode, backend?);
        let bounds = bounds?;
        let clients = clients?;
        Some(Listener {
            name: name?,
            address: address?,
            alpn: alpn?,
            certificates: certificates(first?, more?),
            client_roots: clients.roots,
            client_scopes: clients.scopes,
            revocation: clients.revocation,
            revoking: clients.revoking,
            resumption: resumption?.unwrap_or(true),
            mode,
            destination,
            times: bounds.times,
            max_connections: bounds.max_connections,
            max_handshakes: bounds.max_handshakes,
            expiry_drain: expiry_drain?,
        })
    };
    let checked = assemble();
    CheckedListener {
        location,
        name: written_name,
        written_address,
        address,
        backend: backend.flatten(),
        has_backend,
        is_http,
        authorities: authorities.unwrap_or_default(),
        is_for_metrics: false,
        checked,
    }
}

/// What is behind a listener, but for its routes.
fn destination(mode: &Mode, backend: Option<BackendId>) -> Destination {
    match (mode, backend) {
        (Mode::Http(_), backend) => Destination::Routes(backend),
        (Mode::Stream, Some(backend)) => Destination::Backend(backend),
        (Mode::Stream, None) => Destination::Streams(Arc::default()),
    }
}

/// The keys that say which clients a listener takes, as written.
pub(super) struct RawClients {
    pub(super) client_ca: Field<raw::RawAuthorities>,
    pub(super) crl: Field<raw::RawLists>,
    pub(super) crl_grace: Field<raw::Text>,
    pub(super) dangerous_accept_stale_crl: Field<bool>,
}

impl RawClients {
    fn of(raw: &mut RawListener) -> Self {
        RawClients {
            client_ca: take(&mut raw.client_ca),
            crl: take(&mut raw.crl),
            crl_grace: take(&mut raw.crl_grace),
            dangerous_accept_stale_crl: take(&mut raw.dangerous_accept_stale_crl),
        }
    }
}

/// The clients that a listener trusts: by their CAs, and unless a list revokes them.
pub(super) struct ClientTrust {
    pub(super) elements: Vec<Element>,
    pub(super) roots: Arc<Roots>,
    pub(super) scopes: Arc<Scopes>,
    pub(super) revocation: Arc<Revocation>,
    pub(super) revoking: Arc<Revoking>,
}

impl ClientTrust {
    /// What is known of the files of the CAs, for warnings alone.
    pub(super) fn take_elements(&mut self) -> Vec<Element> {
        std::mem::take(&mut self.elements)
    }
}

/// Reads the CAs and lists of a listener.
pub(super) fn clients(
    location: &Location,
    written: RawClients,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<ClientTrust> {
    let (files, elements) = client_ca::split(location, written.client_ca, diagnostics);
    let mut authorities = authorities(location, files, provider, diagnostics);
    let scopes = authorities
        .as_ref()
        .zip(elements)
        .and_then(|(authorities, elements)| {
            client_ca::scopes(location, elements, authorities, diagnostics)
        });
    let written = revocation::RawRevocation {
        authorities_key: "client_ca",
        crl: written.crl,
        grace: written.crl_grace,
        dangerous_accept_stale: written.dangerous_accept_stale_crl,
    };
    let revocation = authorities.as_mut().and_then(|authorities| {
        revocation::check(location, written, authorities, provider, diagnostics)
    });
    let client_roots = authorities.map(|authorities| Arc::new(authorities.into_roots()));
    if let Some(roots) = &client_roots {
        warn_of_many_names(location, roots, diagnostics);
    }
    let (revocation, revoking) = revocation?;
    let (scopes, elements) = scopes?;
    Some(ClientTrust {
        elements,
        roots: client_roots?,
        scopes,
        revocation,
        revoking: Arc::new(revoking),
    })
}

/// Reads the clients' CAs. One whose signatures cannot be verified admits no client: its agents would be refused one by one,
/// for a reason found late.
fn authorities(
    location: &Location,
    field: Field<Texts>,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Authorities> {
    let authorities = super::authorities::read(location, "client_ca", field, diagnostics)?;
    for info in &authorities.infos {
        if let Err(found) = KeyPolicy::can_certify(provider, &info.public_key_der) {
            let text = format_args!(
                "the key of {} is {found}: no certificate below it can be verified",
                info.subject
            );
            diagnostics.refuse(location.line, location.key("client_ca"), text);
        }
    }
    Some(authorities)
}

/// Tells that clients are not told which CAs are trusted.
fn warn_of_many_names(location: &Location, roots: &Roots, diagnostics: &mut Diagnostics<'_>) {
    let bytes = roots.names_bytes();
    if bytes > limits::AUTHORITY_NAMES_BYTES_MAX {
        let text = format_args!(
            "the names of {} CAs take {bytes} bytes, so clients are not told them (RFC 8446 section 4.3.2): one with several \
             certificates has to know by itself which to show",
            roots.len()
        );
        diagnostics.warn(location.line, &location.key("client_ca"), text);
    }
}

/// Takes a field out of its section.
fn take<T>(field: &mut Field<T>) -> Field<T> {
    std::mem::replace(field, Field::Absent)
}

/// Checks that there is such a mode.
fn mode(
    location: &Location,
    field: Field<raw::Text>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<()> {
    let mode = diagnostics.optional(location, "mode", field, |text| match text.as_str() {
        "stream" | "http" => Ok(()),
        _ => Err("must be \"stream\" or \"http\"".to_owned()),
    });
    mode.map(|_| ())
}

/// The application protocols of a listener.
fn protocols(
    raw: &mut RawListener,
    is_http: Option<bool>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<Vec<u8>>> {
    let named = alpn(&raw.location, take(&mut raw.alpn), diagnostics)?;
    match is_http {
        Some(true) => http_mode::protocols(&raw.location, named, diagnostics),
        Some(false) | None => Some(named),
    }
}

/// Reads names of application protocols; none is an empty list.
pub(super) fn alpn(
    location: &Location,
    field: Field<Texts>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<Vec<u8>>> {
    let list = match field {
        Field::Absent => return Some(Vec::new()),
        given => given.given()?,
    };
    let mut protocols = Vec::new();
    for item in &list.value {
        match scalar::alpn(&item.value) {
            Ok(protocol) if protocols.contains(&protocol) => {
                diagnostics.wrong(location, "alpn", item, "is named twice")
            }
            Ok(protocol) => protocols.push(protocol),
            Err(expectation) => diagnostics.wrong(location, "alpn", item, expectation),
        }
    }
    Some(protocols)
}

/// The certificates that are chosen by the name a client asks for.
fn sni(
    location: &Location,
    field: Field<Sections<RawSni>>,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<OwnCertificate>> {
    let sections = match field {
        Field::Absent => return Some(Vec::new()),
        given => given.given()?.value.0,
    };
    let mut certificates = Vec::new();
    for raw in sections {
        let own = credentials::own(
            &raw.location,
            (raw.certificate, raw.key),
            Role::Server,
            provider,
            diagnostics,
        )?;
        if own.info.dns_names.is_empty() {
            let text = "must have a DNS name: no client could ask for it";
            diagnostics.refuse(own.line, raw.location.key("certificate"), text);
        }
        certificates.push(own);
    }
    warn_of_shadowed(location, &certificates, diagnostics);
    Some(certificates)
}

/// Tells of names that two of the certificates answer to: the first does.
fn warn_of_shadowed(
    location: &Location,
    certificates: &[OwnCertificate],
    diagnostics: &mut Diagnostics<'_>,
) {
    for (index, own) in certificates.iter().enumerate() {
        for name in &own.info.dns_names {
            if certificates[..index]
                .iter()
                .any(|earlier| earlier.info.dns_names.contains(name))
            {
                let text = format_args!("an earlier certificate answers to {name} already");
                diagnostics.warn(own.line, &location.key("sni"), text);
            }
        }
    }
}

/// The certificates of a listener: the first serves clients that name none.
pub(super) fn certificates(
    first: OwnCertificate,
    more: Vec<OwnCertificate>,
) -> Vec<ServerCertificate> {
    let server_certificate = |own: OwnCertificate| ServerCertificate {
        key: own.key,
        dns_names: own.info.dns_names,
    };
    std::iter::once(first)
        .chain(more)
        .map(server_certificate)
        .collect()
}
