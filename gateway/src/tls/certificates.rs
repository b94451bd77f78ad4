//! Looks at a ClientHello before anything else: is there a protocol in common (RFC 7301), and a certificate for the server
//! name (SNI, RFC 6066 section 3)?
//! In: the ClientHello. Out: a certificate that covers the name, or a refusal in the handshake's context. A client that
//! connects to an address sends no name and gets the listener's first certificate; one that offers no protocol counts as
//! one of HTTP/1.1.

use std::sync::Arc;

use gateway_core::alpn::{self, Choice};
use gateway_core::failure::Failure;
use gateway_core::limits;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::handshake_context;
use crate::config::ServerCertificate;

/// The certificates of one listener, and its protocols.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) certificates: Vec<ServerCertificate>,
    pub(super) protocols: Vec<Vec<u8>>,
}

impl Certificates {
    fn choose(&self, server_name: Option<&str>) -> Option<&ServerCertificate> {
        match server_name {
            None => self.certificates.first(),
            Some(name) => self
                .certificates
                .iter()
                .find(|certificate| covers(&certificate.dns_names, name)),
        }
    }
}

impl Certificates {
    /// Decides about the protocols that the client offers. `None`: it is refused.
    fn negotiate(&self, client_hello: &ClientHello<'_>) -> Option<()> {
        let choice = alpn::choose(&self.protocols, client_hello.alpn());
        let offered = || client_hello.alpn().map(shown);
        match choice {
            Choice::Common | Choice::Unnamed => {}
            Choice::AssumedHttp1 => handshake_context::assume_protocol(alpn::HTTP_1_1),
            Choice::Ignored => handshake_context::ignore_protocols(offered().unwrap_or_default()),
            Choice::Refused => {
                let ours = shown(self.protocols.iter().map(Vec::as_slice));
                let detail = match offered() {
                    Some(offered) => {
                        format!("the client offers {offered}, the listener has {ours}")
                    }
                    None => format!(
                        "the client offers no application protocol and counts as one of http/1.1, the listener has {ours}"
                    ),
                };
                handshake_context::refuse(Failure::Alpn, detail);
                return None;
            }
        }
        Some(())
    }
}

/// Names of protocols as text for a log, of bounded length.
fn shown<'a>(protocols: impl Iterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for protocol in protocols {
        if text.len() > limits::SHOWN_PROTOCOLS_BYTES_MAX {
            text.push_str(", …");
            break;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        let end = protocol.len().min(limits::SHOWN_PROTOCOLS_BYTES_MAX);
        text.push_str(&protocol[..end].escape_ascii().to_string());
    }
    text
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let server_name = client_hello.server_name();
        server_name.into_iter().for_each(handshake_context::ask_for);
        self.negotiate(&client_hello)?;
        let Some(certificate) = self.choose(server_name) else {
            let name = server_name.unwrap_or_default();
            handshake_context::refuse(
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
