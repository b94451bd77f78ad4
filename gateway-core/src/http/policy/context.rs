//! A request as rights and routes see it, and what they compare of it. In: a request, its client. Out: hosts, values of
//! fields. Pure.

use std::net::IpAddr;

use crate::http::message::{HeaderList, Request};

/// A request, and what is known of its client.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// What it says.
    pub request: &'a Request<'a>,
    /// Its header section.
    pub list: &'a HeaderList,
    /// What the backend is told of the client with every request.
    pub told: &'a HeaderList,
    /// The tenant that the backend is told.
    pub tenant: Option<&'a [u8]>,
    /// The client's address.
    pub address: IpAddr,
    /// A number of even distribution, for shares: of each request its own.
    pub draw: u32,
}

/// Whose word a field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldSource {
    /// The tenant, as the backend is told it.
    Tenant,
    /// Ours: a field of this name that tells of the client.
    Told(Box<[u8]>),
    /// The client's: the first field of this name. A client can write anything there.
    Sent(Box<[u8]>),
}

impl FieldSource {
    /// The value that a request has there.
    pub fn value<'a>(&self, call: &RequestContext<'a>) -> Option<&'a [u8]> {
        let first = |list: &'a HeaderList, name: &[u8]| {
            let mut fields = list.iter();
            fields
                .find(|field| field.name == name)
                .map(|field| field.value)
        };
        match self {
            FieldSource::Tenant => call.tenant,
            FieldSource::Told(name) => first(call.told, name),
            FieldSource::Sent(name) => first(call.list, name),
        }
    }
}

/// The hosts of an authority: one, or all below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case; of `*.example.org`, `.example.org`.
    name: Box<[u8]>,
    is_domain: bool,
}

/// The text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a host without a port, such as \"otlp.example.org\", or \"*.example.org\" for all hosts below a domain"
)]
pub struct HostPatternError;

impl HostPattern {
    /// Reads a host, or `*.` and a domain.
    ///
    /// # Errors
    ///
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let (name, is_domain) = match text.strip_prefix('*') {
            Some(domain) => (domain, true),
            None => (text, false),
        };
        let is_bracketed = name.starts_with('[') && name.ends_with(']');
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = name.bytes().all(is_of_name);
        let is_good = match is_domain {
            true => is_name && name.starts_with('.') && name.len() > 1,
            false => !name.is_empty() && (is_name || is_bracketed) && !name.starts_with('.'),
        };
        match is_good {
            true => Ok(HostPattern {
                name: name.to_ascii_lowercase().as_bytes().into(),
                is_domain,
            }),
            false => Err(HostPatternError),
        }
    }

    /// Whether all hosts of another pattern are of this one.
    pub(super) fn covers(&self, other: &HostPattern) -> bool {
        self == other || (self.is_domain && self.matches(&other.name))
    }

    /// Whether the host of an authority is one of these. The port says nothing.
    pub fn matches(&self, authority: &[u8]) -> bool {
        let host = without_port(authority);
        match self.is_domain {
            false => host.eq_ignore_ascii_case(&self.name),
            true => host.len().checked_sub(self.name.len()).is_some_and(|at| {
                // At least one label, and none that is empty.
                at > 0 && host[at - 1] != b'.' && host[at..].eq_ignore_ascii_case(&self.name)
            }),
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let star = if self.is_domain { "*" } else { "" };
        write!(formatter, "{star}{}", self.name.escape_ascii())
    }
}

/// The host of an authority (RFC 3986 section 3.2).
fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    match colon {
        // In brackets, a colon is the address's own.
        Some(colon) if !authority[colon..].contains(&b']') => &authority[..colon],
        Some(_) | None => authority,
    }
}

/// Whether one of the hosts is the authority's; without hosts, any is. A request without an authority has none of them.
pub(super) fn any_host(hosts: &[HostPattern], authority: Option<&[u8]>) -> bool {
    hosts.is_empty()
        || authority.is_some_and(|authority| hosts.iter().any(|host| host.matches(authority)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_name_or_all_below_a_domain() {
        for (pattern, authority, expected) in [
            ("otlp.example.org", "otlp.example.org", true),
            ("otlp.example.org", "OTLP.Example.org:4317", true),
            ("OTLP.example.org", "otlp.example.org", true),
            ("otlp.example.org", "xotlp.example.org", false),
            ("otlp.example.org", "otlp.example.org.evil.example", false),
            ("otlp.example.org", "otlp.example.org.", false),
            ("*.example.org", "a.example.org:1", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "a..example.org", false),
            ("*.example.org", "aexample.org", false),
            ("[2001:db8::1]", "[2001:DB8::1]:443", true),
            ("[2001:db8::1]", "[2001:db8::1]", true),
            ("[2001:db8::1]", "[2001:db8::2]:443", false),
            ("192.0.2.1", "192.0.2.1:80", true),
        ] {
            let pattern = HostPattern::parse(pattern).unwrap();
            let found = pattern.matches(authority.as_bytes());
            assert_eq!(found, expected, "{pattern} {authority}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "a*b",
            "*a.example",
            "a:80",
            ".a",
            "a b",
            "a/b",
        ] {
            assert_eq!(HostPattern::parse(text), Err(HostPatternError), "{text}");
        }
    }
}
