//! `portcullis check --certificate`: what each listener would say to a client with this certificate, and which rule why.
//! In: a checked configuration, the block list, a file with a certificate and its chain. Out: text, and whether the
//! client would get in. Asks the verifier of real handshakes; decides nothing itself.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use gateway::config::{self, Config, Listener, ListenerId};
use gateway::tls::{self, Admissible};
use gateway_core::authority::TrustDomain;
use gateway_core::block::BlockList;
use gateway_core::certificate::{Certificate, last_second};
use gateway_core::identity::{KeyMatch, Rule, Tenant};
use gateway_core::limits;
use gateway_x509::certificate::CertificateInfo;
use gateway_x509::client_certificate;
use gateway_x509::file;
use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::explain_request::{self, WrittenRequest};
use super::rules;

/// What was found.
#[derive(Debug)]
pub struct Explanation {
    /// All of it, for people.
    pub text: String,
    /// Whether a listener that was asked about would admit the client, and let its request through.
    pub admitted: bool,
}

/// What is asked about a certificate.
#[derive(Debug, Default)]
pub struct Asked<'a> {
    /// The name of the listener; `None` for all.
    pub listener: Option<&'a str>,
    /// A request of its client.
    pub request: Option<WrittenRequest>,
}

/// Explains what listeners would make of the certificate in `file`.
pub fn explain(
    config: &Config,
    blocks: &Arc<BlockList>,
    file: &Path,
    asked: &Asked<'_>,
    now: SystemTime,
) -> anyhow::Result<Explanation> {
    let listeners = asked_about(config, asked.listener)?;
    let chain = file::certificates(file).with_context(|| file.display().to_string())?;
    let leaf = chain.first().context("there is no certificate in it")?;
    let parsed = client_certificate::parse(leaf).with_context(|| file.display().to_string())?;
    let info = CertificateInfo::parse(leaf).with_context(|| file.display().to_string())?;
    let mut text = describe(&parsed.certificate, &info, &chain, now);
    let mut admitted = false;
    for (position, listener) in listeners {
        let outcome = tls::simulate(config, ListenerId(position), blocks, &chain, now);
        text += &match &outcome {
            Ok(admissible) => welcome(listener, admissible, now),
            Err(refusal) => format!(
                "\nListener {}: REFUSED, {}\n  {}\n",
                listener.name, refusal.failure, refusal.detail
            ),
        };
        let trust_domain = trust_domain(listener, &chain);
        text += &rules_tried(config, position, &parsed.certificate, trust_domain);
        let Ok(Admissible { admission, .. }) = &outcome else {
            continue;
        };
        let passes = asked.request.as_ref().is_none_or(|request| {
            let client = (admission, &parsed.certificate);
            let (found, passes) = explain_request::explain(config, listener, client, request);
            text += &found;
            passes
        });
        admitted |= passes;
    }
    text += "\nA client also has to prove that it has the key.\n";
    Ok(Explanation { text, admitted })
}

/// The listeners to ask, with their positions.
fn asked_about<'c>(
    config: &'c Config,
    name: Option<&str>,
) -> anyhow::Result<Vec<(usize, &'c Listener)>> {
    let all = config.listeners.iter().enumerate();
    let asked: Vec<_> = all
        .filter(|(_, listener)| name.is_none_or(|name| listener.name == name))
        .map(|(position, listener)| (position, &**listener))
        .collect();
    if asked.is_empty() {
        let known: Vec<_> = config.listeners.iter().map(|l| l.name.as_str()).collect();
        bail!("--listener: must name a [[listener]]: {}", known.join(", "));
    }
    Ok(asked)
}

fn describe(
    certificate: &Certificate,
    info: &CertificateInfo,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> String {
    format!(
        "Certificate\n  subject      {}\n  names        {}\n  issuer       {}\n  serial       {}\n  \
         fingerprint  {}\n  ends         {}\n  sent with    {} of its chain\n",
        info.subject,
        client_certificate::describe(certificate),
        certificate.issuer,
        info.serial,
        certificate.fingerprint,
        config::shown_time(info.not_after, now),
        chain.len().saturating_sub(1),
    )
}

fn welcome(listener: &Listener, admissible: &Admissible, now: SystemTime) -> String {
    let Admissible { admission, chain } = admissible;
    let identity = &admission.identity;
    let tenant = admission.tenant.as_ref().map_or("none", Tenant::as_str);
    format!(
        "\nListener {}: ADMITTED by rule {}\n  goes by      {} {:?}\n  tenant       {tenant}\n  limits       {}\n  \
         until        {}\n",
        listener.name,
        admission.rule + 1,
        identity.kind.label(),
        identity.name,
        rules::limits(&admission.limits()).replace('\n', ", "),
        config::shown_time(last_second(chain.not_after), now),
    )
}

/// The trust domain that the lowest authority of the chain that is bound is bound to, by the issuers' names and the keys that were
/// sent: nothing has to be verified to say why a rule does not match.
fn trust_domain<'l>(
    listener: &'l Listener,
    chain: &[CertificateDer<'_>],
) -> Option<&'l TrustDomain> {
    let scope_of = |anchor: &TrustAnchor<'_>| {
        let scopes = &listener.client_scopes;
        scopes.get(&gateway_x509::authority_key(anchor))
    };
    let scope_above = |der: &CertificateDer<'_>| {
        let issuer = CertificateInfo::parse(der).ok()?.issuer_der;
        let mut roots = listener.client_roots.iter().filter(|root| {
            let subject = DistinguishedName::in_sequence(root.anchor.subject.as_ref());
            issuer[..] == *subject.as_ref()
        });
        roots.find_map(|root| scope_of(&root.anchor))
    };
    let scope = chain.iter().enumerate().find_map(|(position, der)| {
        let own = (position > 0)
            .then(|| webpki::anchor_from_trusted_cert(der).ok())
            .flatten();
        let own = own.and_then(|anchor| scope_of(&anchor));
        own.or_else(|| scope_above(der))
    })?;
    Some(&scope.trust_domain)
}

/// Every rule up to the one that matches, and what speaks against those before it.
fn rules_tried(
    config: &Config,
    position: usize,
    certificate: &Certificate,
    trust_domain: Option<&TrustDomain>,
) -> String {
    let mut text = String::new();
    let rules = config.rules_of(&config.listeners[position]);
    for (index, rule) in rules.as_slice().iter().enumerate() {
        let against = against(rule, config, position, (certificate, trust_domain));
        let matches = against.is_empty();
        if !matches && index >= limits::RULES_SHOWN_MAX {
            continue;
        }
        let outcome = match matches {
            true => "matches".to_owned(),
            false => format!("does not match: {}", against.join("; ")),
        };
        text += &format!("  rule {:<8}{outcome}\n", index + 1);
        if matches {
            return text;
        }
    }
    text + "  no rule is left\n"
}

/// What keeps a rule from matching.
fn against(
    rule: &Rule,
    config: &Config,
    position: usize,
    (certificate, trust_domain): (&Certificate, Option<&TrustDomain>),
) -> Vec<String> {
    if !rule.holds_for(position) {
        return vec![format!("holds on {} only", rules::listeners(rule, config))];
    }
    let patterns = rules::patterns(rule);
    let wanted = |key: &str| {
        let found = patterns.iter().find(|(known, _)| *known == key);
        found.map_or("", |(_, pattern)| pattern.as_str())
    };
    rule.keys(certificate, trust_domain)
        .filter(|key| !key.matches)
        .map(|KeyMatch { key, .. }| {
            let found = match (key, trust_domain) {
                ("trust_domain", None) => "there: its CA is bound to none".to_owned(),
                ("trust_domain", Some(domain)) => domain.to_string(),
                ("cn" | "ou" | "issuer" | "ip", Some(domain)) if rule.trust_domain.is_none() => {
                    format!("looked at: its CA is bound to {domain}, and the rule is not")
                }
                _ => found(key, certificate),
            };
            format!("{key} {} is not {found}", wanted(key))
        })
        .collect()
}

/// What the certificate has under a key of a rule.
fn found(key: &str, certificate: &Certificate) -> String {
    let shown = |names: &[String]| match names {
        [] => "there".to_owned(),
        names => {
            let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
            names.join(" or ")
        }
    };
    match key {
        "uri" => shown(&certificate.uris),
        "dns" => shown(&certificate.dns_names),
        "cn" => shown(certificate.common_name.as_slice()),
        "ou" => shown(&certificate.organizational_units),
        "issuer" => shown(std::slice::from_ref(&certificate.issuer)),
        "ip" => {
            let addresses = certificate.ip_addresses.iter();
            shown(&addresses.map(ToString::to_string).collect::<Vec<_>>())
        }
        _ => certificate.fingerprint.to_string(),
    }
}
