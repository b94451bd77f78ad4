//! Identity rules in words, for `portcullis check`.
//! In: checked rules. Out: a table, and the parts of it that explain a single rule. Decides nothing.

use std::fmt::Display;

use bytesize::ByteSize;
use comfy_table::Table;
use gateway::config::Config;
use gateway_core::identity::{
    IdentityLimits, Rule, Rules, Tenant, TenantLimits, TenantPart, TenantSource,
};
use gateway_core::limits;

use super::enforced::http;

/// One row for each rule, in the order in which they are tried.
pub fn table(config: &Config, mut table: Table) -> Table {
    let has_rights = config
        .rules
        .as_slice()
        .iter()
        .any(|rule| rule.rights.is_some());
    let mut header = vec![" #", "MATCH", "LISTENERS", "TENANT", "LIMITS PER IDENTITY"];
    if has_rights {
        header.extend(["LIMITS PER TENANT", "MAY CALL", "HEADERS"]);
    }
    table.set_header(header);
    let rules = config.rules.as_slice();
    for (index, rule) in rules.iter().enumerate().take(limits::RULES_SHOWN_MAX) {
        let patterns = patterns(rule);
        let patterns: Vec<_> = patterns
            .iter()
            .map(|(key, pattern)| format!("{key} {pattern}"))
            .collect();
        let mut row = vec![
            format!(" {}", index + 1),
            patterns.join("\n"),
            listeners(rule, config),
            tenant(rule),
            limits(&rule.limits),
        ];
        if has_rights {
            row.push(tenant_limits(&rule.tenant_limits));
            let rights = rule.rights.as_deref();
            row.push(rights.map_or_else(String::new, http::rights));
            let told = rule.told.as_deref();
            row.push(told.map_or_else(String::new, |told| {
                http::fields(told, told.tenant.as_deref())
            }));
        }
        table.add_row(row);
    }
    if rules.len() > limits::RULES_SHOWN_MAX {
        let more = rules.len() - limits::RULES_SHOWN_MAX;
        table.add_row([" …".to_owned(), format!("{more} more rules")]);
    }
    table
}

/// The keys of the rule's `match` with their values, in the order in which they are compared.
pub fn patterns(rule: &Rule) -> Vec<(&'static str, String)> {
    fn shown(pattern: Option<&impl Display>) -> Option<String> {
        pattern.map(ToString::to_string)
    }
    // Whole, so that a new key does not compile before it is shown.
    let Rule {
        uri,
        dns,
        common_name,
        organizational_unit,
        issuer,
        trust_domain,
        ip_address,
        fingerprints,
        // What follows from a match: the other columns.
        listeners: _,
        tenant: _,
        limits: _,
        tenant_limits: _,
        rights: _,
        told: _,
    } = rule;
    let fingerprints = fingerprints.as_ref().map(|fingerprints| {
        let texts: Vec<_> = fingerprints.iter().map(ToString::to_string).collect();
        texts.join(" or ")
    });
    let all = [
        ("uri", shown(uri.as_ref())),
        ("dns", shown(dns.as_ref())),
        ("cn", shown(common_name.as_ref())),
        ("ou", shown(organizational_unit.as_ref())),
        ("issuer", shown(issuer.as_ref())),
        ("trust_domain", shown(trust_domain.as_ref())),
        ("ip", shown(ip_address.as_ref())),
        ("fingerprint", fingerprints),
    ];
    all.into_iter()
        .filter_map(|(key, pattern)| Some((key, pattern?)))
        .collect()
}

/// What is behind the listener of `[admin.tls]`, and for which clients.
pub fn of_page(rules: &Rules) -> String {
    let rules = rules.as_slice().iter().map(|rule| {
        let patterns = patterns(rule).into_iter();
        let patterns: Vec<_> = patterns
            .map(|(key, pattern)| format!("{key} {pattern}"))
            .collect();
        patterns.join(" and ")
    });
    let rules: Vec<_> = rules.collect();
    format!("the metrics page, for:\n{}", rules.join("\n"))
}

/// The listeners a rule holds for.
pub fn listeners(rule: &Rule, config: &Config) -> String {
    let Some(positions) = &rule.listeners else {
        return "all".to_owned();
    };
    let names: Vec<_> = positions
        .iter()
        .filter_map(|position| config.listeners.get(*position))
        .map(|listener| listener.name.as_str())
        .collect();
    names.join(", ")
}

fn tenant(rule: &Rule) -> String {
    let (part, among) = match &rule.tenant {
        TenantSource::Nowhere => return "none".to_owned(),
        TenantSource::Literal(tenant) => return tenant.as_str().to_owned(),
        TenantSource::Request { tenants, default } => {
            let names: Vec<_> = tenants.iter().map(Tenant::as_str).collect();
            let default = default.as_ref();
            let default = default.map_or(String::new(), |tenant| {
                format!("\nor else {}", tenant.as_str())
            });
            return format!("as the request says, of:\n{}{default}", names.join("\n"));
        }
        TenantSource::Component => return "any: a component".to_owned(),
        TenantSource::Certificate { part, among } => (part, among),
    };
    let part = match part {
        TenantPart::Uri => "from uri",
        TenantPart::Dns => "from dns",
        TenantPart::CommonName => "from cn",
        TenantPart::OrganizationalUnit => "from ou",
    };
    let Some(among) = among else {
        return part.to_owned();
    };
    let names: Vec<_> = among.iter().map(Tenant::as_str).collect();
    format!("{part}, one of:\n{}", names.join("\n"))
}

/// What one identity may use.
pub fn limits(limits: &IdentityLimits) -> String {
    let IdentityLimits {
        max_connections,
        handshakes_per_second,
        bytes_per_second,
        bytes_burst,
        requests_per_second,
        max_requests_in_flight,
    } = limits;
    let connections = max_connections.map(|max| format!("{max} connections"));
    let handshakes = handshakes_per_second.map(|rate| format!("{rate} handshakes/s"));
    let bytes = bytes_per_second.map(|rate| format!("{}/s", ByteSize(rate)));
    let burst = bytes_burst.map(|burst| format!("{} at once", ByteSize(burst)));
    let requests = requests_per_second.map(|rate| format!("{rate} requests/s"));
    let in_flight = max_requests_in_flight.map(|max| format!("{max} requests in flight"));
    let all: Vec<_> = [connections, handshakes, bytes, burst, requests, in_flight]
        .into_iter()
        .flatten()
        .collect();
    match all.is_empty() {
        true => "none".to_owned(),
        false => all.join("\n"),
    }
}

/// What one tenant may use.
fn tenant_limits(limits: &TenantLimits) -> String {
    let TenantLimits {
        requests_per_second,
        bytes_per_second,
        bytes_burst,
    } = limits;
    let requests = requests_per_second.map(|rate| format!("{rate} requests/s"));
    let bytes = bytes_per_second.map(|rate| format!("{}/s", ByteSize(rate)));
    let burst = bytes_burst.map(|burst| format!("{} at once", ByteSize(burst)));
    let all: Vec<_> = [requests, bytes, burst].into_iter().flatten().collect();
    match all.is_empty() {
        true => "none".to_owned(),
        false => all.join("\n"),
    }
}
