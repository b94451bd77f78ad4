//! The PROXY protocol version 2 header, for backends that ask for it.
//! In: the origin of a connection. Out: the bytes that go first, before TLS or inside it. Encoded by a library.

use std::io;
use std::net::SocketAddr;

use gateway_core::certificate::{Certificate, Identity, NameKind};
use gateway_core::identity::Tenant;
use gateway_rt::{Buffer, BufferPool, Socket};
use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use super::Origin;
use crate::tls::{TlsStream, sealable};

/// Our own type (the range 0xE0 to 0xEF is for applications): the tenant.
const TLV_TENANT: u8 = 0xE0;
/// Our own type: the URI of the client's certificate that its rule matched.
const TLV_URI: u8 = 0xE1;

/// What a header says of a client.
pub struct ProxiedConnection<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub listener_address: SocketAddr,
    /// Whether its certificate was presented earlier in its session.
    pub is_resumed: bool,
    /// Its cipher suite.
    pub cipher_suite: &'a str,
    /// The application protocol it chose.
    pub protocol: Option<&'a [u8]>,
    /// Its certificate.
    pub certificate: &'a Certificate,
    /// What it goes by.
    pub identity: &'a Identity,
    /// The tenant it sends as.
    pub tenant: Option<&'a Tenant>,
}

/// Sends the header in clear, first of all.
pub(super) async fn send_outside(socket: &Socket, header: &[u8]) -> io::Result<()> {
    let mut buffer = Buffer::with_capacity(0);
    buffer.append(header);
    socket.write_all(&mut buffer).await
}

/// Sends the header as the first bytes inside TLS: the server has proven its name by then.
pub(super) async fn send_inside(
    stream: &TlsStream,
    pool: &BufferPool,
    header: &[u8],
) -> io::Result<()> {
    let mut buffer = sealable(pool);
    buffer.append(header);
    stream.seal(&mut buffer).map_err(io::Error::other)?;
    stream.socket().write_all(&mut buffer).await?;
    stream.give_back(buffer);
    Ok(())
}

/// The header for a client whose certificate was verified.
pub(super) fn header(origin: &Origin<'_>) -> Result<Vec<u8>, proxy_header::Error> {
    let (peer, connection) = (origin.verified_peer(), origin.connection());
    encode(&ProxiedConnection {
        address: connection.address,
        listener_address: connection.listener_address,
        is_resumed: connection.is_resumed,
        cipher_suite: connection.cipher_suite,
        protocol: connection.protocol,
        certificate: peer.certificate(),
        identity: peer.identity(),
        tenant: peer.tenant(),
    })
}

/// Encodes the header: addresses, `PP2_TYPE_SSL` with version, common name and cipher, tenant and URI.
pub fn encode(proxied: &ProxiedConnection<'_>) -> Result<Vec<u8>, proxy_header::Error> {
    // A listener on `[::]` sees IPv4 clients as mapped addresses; the backend should not.
    let address = ProxiedAddress::stream(
        canonical(proxied.address),
        canonical(proxied.listener_address),
    );
    let mut header = ProxyHeader::with_address(address);
    // Over TLS; with a certificate on this connection, or earlier in its session; 0: it verified.
    let mut tls = SslInfo::new(true, !proxied.is_resumed, true, 0);
    tls.append_tlv(Tlv::SslVersion("TLSv1.3".into()));
    if let Some(common_name) = common_name(proxied) {
        tls.append_tlv(Tlv::SslCn(common_name.into()));
    }
    tls.append_tlv(Tlv::SslCipher(proxied.cipher_suite.into()));
    header.append_tlv(Tlv::Ssl(tls));
    if let Some(tenant) = proxied.tenant {
        header.append_tlv(Tlv::Custom(TLV_TENANT, tenant.as_str().as_bytes().into()));
    }
    if let Some(uri) = uri(proxied) {
        header.append_tlv(Tlv::Custom(TLV_URI, uri.as_bytes().into()));
    }
    if let Some(protocol) = proxied.protocol {
        header.append_tlv(Tlv::Alpn(protocol.into()));
    }
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes)?;
    Ok(bytes)
}

/// The URI that a rule matched; else the only one there is. Of several that no rule has looked at none is meant.
fn uri<'f>(proxied: &ProxiedConnection<'f>) -> Option<&'f str> {
    match (proxied.identity.kind, proxied.certificate.uris.as_slice()) {
        (NameKind::Uri, _) => Some(&proxied.identity.name),
        (_, [only]) => Some(only),
        _ => None,
    }
}

/// The common name, unless it is not its authority's to give: one that is bound to a trust domain speaks for URIs and listed
/// DNS names.
fn common_name<'f>(proxied: &ProxiedConnection<'f>) -> Option<&'f str> {
    let is_heard =
        proxied.identity.trust_domain.is_none() || proxied.identity.kind == NameKind::CommonName;
    let common_name = proxied.certificate.common_name.as_deref();
    common_name.filter(|_| is_heard)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
