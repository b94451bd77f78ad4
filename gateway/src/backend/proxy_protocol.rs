//! The PROXY protocol version 2 header, for backends that ask for it.
//! In: the client, with its `VerifiedPeer`. Out: the bytes that go first, before TLS. Encoded by a library.

use std::net::SocketAddr;

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use super::Client;

/// Our own type (the range 0xE0 to 0xEF is for applications): the tenant.
const TLV_TENANT: u8 = 0xE0;
/// Our own type: the first URI of the client's certificate.
const TLV_URI: u8 = 0xE1;

/// Encodes the header: addresses, `PP2_TYPE_SSL` with version, common name and cipher, tenant and URI.
pub(super) fn header(client: &Client<'_>) -> Result<Vec<u8>, proxy_header::Error> {
    let peer = client.peer;
    // A listener on `[::]` sees IPv4 clients as mapped addresses; the backend should not.
    let address = ProxiedAddress::stream(
        canonical(client.address),
        canonical(client.listener_address),
    );
    let mut header = ProxyHeader::with_address(address);
    // Over TLS; with a certificate on this connection, or earlier in its session; 0: it verified.
    let mut tls = SslInfo::new(true, !client.is_resumed, true, 0);
    tls.append_tlv(Tlv::SslVersion("TLSv1.3".into()));
    if let Some(common_name) = &peer.certificate().common_name {
        tls.append_tlv(Tlv::SslCn(common_name.as_str().into()));
    }
    tls.append_tlv(Tlv::SslCipher(client.cipher_suite.into()));
    header.append_tlv(Tlv::Ssl(tls));
    if let Some(tenant) = peer.tenant() {
        header.append_tlv(Tlv::Custom(TLV_TENANT, tenant.as_str().as_bytes().into()));
    }
    if let Some(uri) = peer.certificate().uris.first() {
        header.append_tlv(Tlv::Custom(TLV_URI, uri.as_bytes().into()));
    }
    if let Some(protocol) = client.protocol {
        header.append_tlv(Tlv::Alpn(protocol.into()));
    }
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes)?;
    Ok(bytes)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
