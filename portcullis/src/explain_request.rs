//! `portcullis check --certificate --request`: what would become of a request of a client with this certificate, and why.
//! In: a listener, the client's admission, a request as written. Out: text, and whether a backend would get it. Asks the functions
//! that decide about real requests; decides nothing itself.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail, ensure};
use gateway::config::{BackendId, Config, HttpMode, Listener, Mode};
use gateway_core::certificate::Certificate;
use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::Client;
use gateway_core::http::message::{
    Field, HeaderList, Malformed, Request, TenantRefusal, is_name, is_value, read_request,
};
use gateway_core::http::policy::{
    CanaryShare, Decision, RequestContext, Rights, Route, RouteChoice, decide,
};
use gateway_core::identity::Admission;

use super::enforced::http as shown;

/// No share of a hundred has this one: what is shown is where most requests go.
const NO_CANARY: u32 = 99;

/// A request as an operator writes it.
#[derive(Debug)]
pub struct WrittenRequest {
    method: String,
    path: String,
    fields: Vec<(String, String)>,
    address: IpAddr,
}

impl WrittenRequest {
    /// Reads a method and a path, such as `POST /api/v1/push`, and headers, such as `X-Scope-OrgID: a`.
    pub fn parse(
        request: &str,
        headers: &[String],
        address: Option<IpAddr>,
    ) -> anyhow::Result<Self> {
        let parts: Vec<_> = request.split_whitespace().collect();
        let [method, path] = parts.as_slice() else {
            bail!("--request: must be a method and a path, such as \"POST /api/v1/push\"");
        };
        let field = |text: &String| {
            let (name, value) = text
                .split_once(':')
                .context("--header: must be a name and a value, such as \"X-Scope-OrgID: a\"")?;
            let name = name.trim().to_ascii_lowercase();
            let value = value.trim().to_owned();
            ensure!(
                is_name(name.as_bytes()) && is_value(value.as_bytes()),
                "--header: {text:?} is none that a request can have"
            );
            Ok((name, value))
        };
        Ok(WrittenRequest {
            method: (*method).to_owned(),
            path: (*path).to_owned(),
            fields: headers.iter().map(field).collect::<anyhow::Result<_>>()?,
            address: address.unwrap_or(Ipv4Addr::LOCALHOST.into()),
        })
    }

    /// The header section that a client would send.
    fn list(&self, mode: &HttpMode) -> HeaderList {
        let mut list = HeaderList::new(mode.max_request_headers);
        let pseudo = [
            (":method", self.method.as_str()),
            (":scheme", "https"),
            (":path", &self.path),
        ];
        let own = self.fields.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in pseudo.into_iter().chain(own) {
            list.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        list
    }
}

/// What a listener would make of the request, of a client that it admits; and whether a backend would get it.
pub fn explain(
    config: &Config,
    listener: &Listener,
    (admission, certificate): (&Admission, &Certificate),
    written: &WrittenRequest,
) -> (String, bool) {
    let WrittenRequest { method, path, .. } = written;
    let title = format!("  request      {method} {path}\n");
    let Mode::Http(mode) = &listener.mode else {
        let text = "    is not looked at: the mode is \"stream\", which passes all bytes of admitted clients\n";
        return (title + text, true);
    };
    let rule = &config.rules_of(listener).as_slice()[admission.rule];
    let identity = (&admission.identity, admission.tenant.as_ref());
    let (client, rights) = mode.client(rule, identity, certificate, written.address);
    let list = written.list(mode);
    let found = match read_request(&list) {
        Ok(request) => Case {
            config,
            mode,
            list: &list,
            request: &request,
            client: &client,
            rights: &rights,
            address: written.address,
        }
        .decide(),
        Err(malformed) => Err(of_malformed(malformed)),
    };
    match found {
        Ok(text) => (title + &text, true),
        Err(text) => (title + &text, false),
    }
}

fn of_malformed(malformed: Malformed) -> String {
    let label = malformed.label();
    format!("    REFUSED: it is malformed ({label}): 400, in HTTP/2 a reset by PROTOCOL_ERROR\n")
}

/// A request at a listener, with all that decides about it.
struct Case<'a> {
    config: &'a Config,
    mode: &'a HttpMode,
    list: &'a HeaderList,
    request: &'a Request<'a>,
    client: &'a Client,
    rights: &'a Rights,
    address: IpAddr,
}

impl Case<'_> {
    /// Where it goes, as an `Err` why not.
    fn decide(&self) -> Result<String, String> {
        let client = self.client;
        let tenant = client.tenants.of_request(self.list, &client.tenant_name);
        let tenant = tenant.map_err(|refusal| self.of_tenant(refusal))?;
        let context = RequestContext {
            request: self.request,
            list: self.list,
            told: &client.told,
            tenant,
            address: self.address,
            draw: NO_CANARY,
        };
        let mut path = Vec::new();
        let decision = decide(&self.mode.routes, self.rights, &context, &mut path);
        match decision {
            Ok(decision) => Ok(self.passes(&decision, tenant, &path)),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    fn of_tenant(&self, refusal: TenantRefusal) -> String {
        let name = self.client.tenant_name.escape_ascii();
        let why = match refusal {
            TenantRefusal::Missing => {
                format!("its rule has several tenants, and it names none in {name}")
            }
            TenantRefusal::NotAllowed => {
                format!("its rule does not have the tenant that it names in {name}")
            }
            TenantRefusal::Ambiguous => {
                format!("it names a tenant twice, or in another spelling than {name}")
            }
        };
        format!(
            "{}    because      {why}\n",
            refused(RequestRefusal::TenantNotAllowed)
        )
    }

    fn refused(&self, refusal: RequestRefusal) -> String {
        let mut text = refused(refusal);
        if refusal == RequestRefusal::NotAllowed {
            let allowed = self.rights.grants().iter().map(shown::grant);
            let allowed: Vec<_> = allowed.collect();
            text += &format!("    allowed is   {}\n", allowed.join("; "));
        }
        text
    }

    /// The way of a request that is allowed, and what the backend gets.
    fn passes(&self, decision: &Decision<'_>, tenant: Option<&[u8]>, path: &[u8]) -> String {
        let Decision { choice, grant } = *decision;
        let grant = &self.rights.grants()[grant];
        let name = |position| shown::backend_name(BackendId(position), self.config).to_owned();
        let route = choice.route.map(|at| (at, &self.mode.routes.routes()[at]));
        let route = match route {
            None => "none: the listener's own backend".to_owned(),
            Some((at, route)) => {
                format!("{}{}{}", at + 1, canary(route, name), mirror(route, name))
            }
        };
        let tenant = tenant.map(|tenant| tenant.escape_ascii().to_string());
        let mut text = format!(
            "    allowed by   {}\n    tenant       {}\n    route        {route}\n    backend      {}\n",
            shown::grant(grant),
            tenant.as_deref().unwrap_or("none"),
            name(choice.backend),
        );
        for (name, value) in self.sent(&choice, tenant.as_deref(), path) {
            text += &format!("    sent         {name}: {value}\n");
        }
        for name in self.removed() {
            text += &format!("    removed      {name}\n");
        }
        text
    }

    /// The header section that the backend gets.
    fn sent(
        &self,
        choice: &RouteChoice<'_>,
        tenant: Option<&str>,
        path: &[u8],
    ) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let client = self.client;
        let path = if path.is_empty() {
            self.request.path
        } else {
            path
        };
        let authority = choice.authority.or(self.request.authority);
        let mut sent = vec![
            (":method".to_owned(), text(self.request.method)),
            (":path".to_owned(), text(path)),
        ];
        sent.extend(authority.map(|host| (":authority".to_owned(), text(host))));
        let own = self.list.iter().filter(|field| {
            !field.name.starts_with(b":") && client.reserved.lets_pass_in_headers(*field)
        });
        for field in own.chain(client.told.iter()) {
            let value = match field.is_never_indexed {
                true => "(what its file holds)".to_owned(),
                false => text(field.value),
            };
            sent.push((text(field.name), value));
        }
        sent.extend(tenant.map(|tenant| (text(&client.tenant_name), tenant.to_owned())));
        sent
    }

    /// Names of the client's that only the gateway may use.
    fn removed(&self) -> Vec<String> {
        let reserved = &self.client.reserved;
        let removed = self
            .list
            .iter()
            .filter(|field| reserved.contains(field.name));
        removed
            .map(|field| field.name.escape_ascii().to_string())
            .collect()
    }
}

/// What the client gets instead of a response of a backend.
fn refused(refusal: RequestRefusal) -> String {
    format!(
        "    REFUSED: {}, in gRPC {}: {}\n",
        refusal.http_status(),
        refusal.grpc_status().label(),
        refusal.message()
    )
}

/// Where copies of a route's requests go.
fn mirror(route: &Route, name: impl Fn(usize) -> String) -> String {
    route.mirror.map_or(String::new(), |mirror| {
        format!(", {} % copied to {}", mirror.percent, name(mirror.backend))
    })
}

/// The other way of some requests of a route.
fn canary(route: &Route, name: impl Fn(usize) -> String) -> String {
    let Some(canary) = &route.canary else {
        return String::new();
    };
    match &canary.share {
        CanaryShare::Percent(percent) => format!(", but {percent} % to {}", name(canary.backend)),
        CanaryShare::Tenants(_) => String::new(),
    }
}
