//! Chooses the server certificate by the name the client asks for (SNI, RFC 6066 section 3).
//! In: the ClientHello's server name. Out: a certificate that covers it, or a noted refusal. A client that sends no
//! name, because it connects to an address, gets the listener's first certificate.

use std::sync::Arc;

use gateway_core::failure::Failure;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::scratch;
use crate::config::ServerCertificate;

/// The certificates of one listener.
#[derive(Debug)]
pub(super) struct Certificates(pub(super) Vec<ServerCertificate>);

impl Certificates {
    fn choose(&self, server_name: Option<&str>) -> Option<&ServerCertificate> {
        match server_name {
            None => self.0.first(),
            Some(name) => self
                .0
                .iter()
                .find(|certificate| covers(&certificate.dns_names, name)),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let server_name = client_hello.server_name();
        server_name.into_iter().for_each(scratch::ask_for);
        let Some(certificate) = self.choose(server_name) else {
            let name = server_name.unwrap_or_default();
            scratch::refuse(
                Failure::Sni,
                format!("no certificate of the listener covers {name:?}"),
            );
            return None;
        };
        Some(Arc::clone(&certificate.key))
    }
}

/// Whether a DNS name is among `patterns`, of which one may stand for a whole first label: `*.example.org`
/// (RFC 9525 section 6.3). rustls hands names over in lower case; the configuration keeps them so.
fn covers(patterns: &[String], name: &str) -> bool {
    let parent = name.split_once('.').map(|(_, parent)| parent);
    patterns
        .iter()
        .any(|pattern| match pattern.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => pattern == name,
        })
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_wildcard_stands_for_exactly_one_first_label() {
        let patterns = [
            "otel.example.org".to_owned(),
            "*.agents.example.org".to_owned(),
        ];
        for covered in ["otel.example.org", "a.agents.example.org"] {
            assert!(covers(&patterns, covered), "{covered}");
        }
        for other in [
            "agents.example.org",
            "a.b.agents.example.org",
            "example.org",
            "xotel.example.org",
            "",
        ] {
            assert!(!covers(&patterns, other), "{other}");
        }
    }
}
