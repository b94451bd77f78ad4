//! A TLS client whose every step the test decides: what it offers, presents, sends, and how it leaves.
//! In: credentials and an address. Out: bytes, and exactly how the gateway ended the connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CipherSuite, ClientConfig, ClientConnection, NamedGroup, RootCertStore,
    version,
};
use socket2::SockRef;

use crate::authority::Credentials;
use crate::wait::PATIENCE;
use crate::wire::Secrets;

/// What a client offers and presents.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    roots: PathBuf,
    credentials: Option<Credentials>,
    server_name: String,
    alpn: Vec<Vec<u8>>,
    suites: Option<Vec<CipherSuite>>,
    groups: Option<Vec<NamedGroup>>,
    with_key: bool,
    appended: Vec<CertificateDer<'static>>,
    /// Set where tickets are remembered from one connection to the next.
    remembered: Option<Arc<ClientConfig>>,
}

/// An open connection.
#[derive(Debug)]
pub struct Client {
    connection: ClientConnection,
    socket: TcpStream,
}

/// How the gateway ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// With close_notify: complete.
    CloseNotify,
    /// By FIN without close_notify: cut short.
    Truncated,
    /// By RST.
    Reset,
    /// With an alert.
    Alert(AlertDescription),
}

/// Why there is no connection.
#[derive(Debug)]
pub enum TlsFailure {
    /// The gateway ended it.
    Closed(Closing),
    /// The client did not want it.
    Ours(rustls::Error),
}

impl ClientBuilder {
    /// Trusts the roots in a file, and presents nothing.
    pub fn new(roots: PathBuf, server_name: &str) -> ClientBuilder {
        ClientBuilder {
            roots,
            credentials: None,
            server_name: server_name.to_owned(),
            alpn: Vec::new(),
            suites: None,
            groups: None,
            with_key: true,
            appended: Vec::new(),
            remembered: None,
        }
    }

    /// Trusts other roots.
    pub fn roots(mut self, roots: PathBuf) -> Self {
        self.roots = roots;
        self
    }

    /// Presents a certificate.
    pub fn credentials(mut self, credentials: &Credentials) -> Self {
        self.credentials = Some(credentials.clone());
        self
    }

    /// Presents the certificate, whatever kinds of key it is asked for, and holds a key of its own making in place of
    /// the certificate's.
    pub fn without_its_key(mut self) -> Self {
        self.with_key = false;
        self
    }

    /// Sends these behind the certificates of its file.
    pub fn appending(mut self, certificates: &[CertificateDer<'static>]) -> Self {
        self.appended.extend_from_slice(certificates);
        self
    }

    /// Presents nothing.
    pub fn without_certificate(mut self) -> Self {
        self.credentials = None;
        self
    }

    /// Asks for another name; an IP address is not sent (RFC 6066 section 3).
    pub fn server_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.server_name);
        self
    }

    /// Offers an application protocol.
    pub fn alpn(mut self, protocol: &str) -> Self {
        self.alpn.push(protocol.as_bytes().to_vec());
        self
    }

    /// Offers this suite only.
    pub fn only_suite(mut self, suite: CipherSuite) -> Self {
        self.suites = Some(vec![suite]);
        self
    }

    /// Offers this group only.
    pub fn only_group(mut self, group: NamedGroup) -> Self {
        self.groups = Some(vec![group]);
        self
    }

    /// Remembers tickets from one connection to the next. To be called last: what is offered stays as it is.
    pub fn remembering(mut self) -> Self {
        self.remembered = Some(Arc::new(self.config()));
        self
    }

    fn provider(&self) -> CryptoProvider {
        // The post-quantum group is in AWS-LC only.
        let post_quantum = self
            .groups
            .as_ref()
            .is_some_and(|groups| groups.contains(&NamedGroup::X25519MLKEM768));
        let mut provider = if post_quantum {
            aws_lc_rs::default_provider()
        } else {
            ring::default_provider()
        };
        if let Some(suites) = &self.suites {
            provider
                .cipher_suites
                .retain(|suite| suites.contains(&suite.suite()));
        }
        if let Some(groups) = &self.groups {
            provider
                .kx_groups
                .retain(|group| groups.contains(&group.name()));
        }
        provider
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(&self.roots).expect("the roots can be read")
        {
            let certificate = certificate.expect("the roots are PEM");
            roots.add(certificate).expect("a root is a certificate");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider()))
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_root_certificates(roots);
        let mut config = match &self.credentials {
            None => builder.with_no_client_auth(),
            Some(credentials) if !self.with_key => {
                let chain = self.chain(credentials);
                let own = rcgen::KeyPair::generate().expect("a key can be made");
                let key = PrivateKeyDer::try_from(own.serialize_der()).expect("it is PKCS #8");
                let key = ring::sign::any_supported_type(&key).expect("ring has P-256");
                let copied = CertifiedKey::new(chain, key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(copied)))
            }
            Some(credentials) => {
                let chain = self.chain(credentials);
                let key =
                    PrivateKeyDer::from_pem_file(&credentials.key).expect("the key can be read");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("the key belongs to the certificate")
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }

    /// What is sent: the certificates of the file, and what was appended.
    fn chain(&self, credentials: &Credentials) -> Vec<CertificateDer<'static>> {
        let mut chain = CertificateDer::pem_file_iter(&credentials.certificate)
            .expect("the certificate can be read")
            .collect::<Result<Vec<_>, _>>()
            .expect("the certificate is PEM");
        chain.extend_from_slice(&self.appended);
        chain
    }

    /// The configuration and the server's name, for those that drive rustls themselves.
    pub(crate) fn tls(&self) -> (Arc<ClientConfig>, ServerName<'static>) {
        let name = ServerName::try_from(self.server_name.clone());
        (
            Arc::new(self.config()),
            name.expect("the server name is valid"),
        )
    }

    fn connection(&self) -> ClientConnection {
        let name =
            ServerName::try_from(self.server_name.clone()).expect("the server name is valid");
        let remembered = self.remembered.clone();
        let config = remembered.unwrap_or_else(|| Arc::new(self.config()));
        ClientConnection::new(config, name).expect("the configuration is complete")
    }

    /// A connection that tells its secrets.
    pub(crate) fn logged_connection(&self, secrets: &Arc<Secrets>) -> ClientConnection {
        let mut config = self.config();
        config.key_log = secrets.clone();
        let name =
            ServerName::try_from(self.server_name.clone()).expect("the server name is valid");
        ClientConnection::new(Arc::new(config), name).expect("the configuration is complete")
    }

    /// The bytes of a first flight, for tests that send it their own way.
    pub fn client_hello(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.connection()
            .write_tls(&mut bytes)
            .expect("a vector takes any number of bytes");
        bytes
    }

    /// Connects and shakes hands. Under TLS 1.3 this says nothing yet about the gateway's opinion of our certificate.
    ///
    /// # Errors
    ///
    /// How the handshake failed.
    pub fn connect(&self, address: SocketAddr) -> Result<Client, TlsFailure> {
        let socket = TcpStream::connect(address).expect("the gateway listens");
        self.connect_over(socket)
    }

    /// Shakes hands over a connected socket.
    ///
    /// # Errors
    ///
    /// How the handshake failed.
    pub fn connect_over(&self, socket: TcpStream) -> Result<Client, TlsFailure> {
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        socket.set_nodelay(true).expect("an option can be set");
        let mut client = Client {
            connection: self.connection(),
            socket,
        };
        while client.connection.is_handshaking() {
            if let Err(error) = client.connection.complete_io(&mut client.socket) {
                return Err(failure(error));
            }
        }
        client.flush().map_err(failure)?;
        Ok(client)
    }

    /// Connects and waits to be refused.
    ///
    /// # Panics
    ///
    /// When the gateway sends data instead.
    pub fn refused(&self, address: SocketAddr) -> TlsFailure {
        match self.connect(address) {
            Err(failure) => failure,
            Ok(mut client) => {
                let (bytes, closing) = client.receive_to_end();
                assert!(
                    bytes.is_empty(),
                    "a refused client was sent {} bytes",
                    bytes.len()
                );
                TlsFailure::Closed(closing)
            }
        }
    }
}

impl Client {
    /// What was agreed on.
    pub fn connection(&self) -> &ClientConnection {
        &self.connection
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends all of it.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(16 * 1024) {
            self.connection.writer().write_all(chunk)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Receives exactly so many bytes.
    ///
    /// # Errors
    ///
    /// How the connection ended before.
    pub fn receive(&mut self, count: usize) -> Result<Vec<u8>, Closing> {
        let mut received = vec![0; count];
        let mut filled = 0;
        while filled < count {
            filled += self.receive_some(&mut received[filled..])?;
        }
        Ok(received)
    }

    /// Receives until the end.
    pub fn receive_to_end(&mut self) -> (Vec<u8>, Closing) {
        let mut received = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.receive_some(&mut buffer) {
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(closing) => return (received, closing),
            }
        }
    }

    /// Receives what there is, at least one byte.
    ///
    /// # Errors
    ///
    /// How the connection ended.
    pub fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize, Closing> {
        loop {
            if let Some(count) = self.receive_once(buffer)? {
                return Ok(count);
            }
        }
    }

    /// Receives what is decrypted, else reads the socket once, which may bring no data.
    ///
    /// # Errors
    ///
    /// How the connection ended.
    pub fn receive_once(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Closing> {
        match self.connection.reader().read(buffer) {
            Ok(0) => return Err(Closing::CloseNotify),
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Closing::Truncated),
        }
        self.connection
            .read_tls(&mut self.socket)
            .map_err(|error| closing(&error))?;
        let processed = self.connection.process_new_packets();
        // A key update asks for an answer; a gateway that has gone away does not want it any more.
        let _ = self.flush();
        match processed {
            Ok(_) => Ok(None),
            Err(rustls::Error::AlertReceived(alert)) => Err(Closing::Alert(alert)),
            Err(error) => panic!("the gateway broke the protocol: {error}"),
        }
    }

    /// Waits until there is something to receive, at most until then. Whether there is.
    pub fn is_readable_before(&mut self, deadline: Instant) -> bool {
        // What is decrypted already, or an end, is in rustls and not in the socket.
        let state = self.connection.process_new_packets();
        if !state
            .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
        {
            return true;
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(remaining).expect("a timeout is short");
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut sockets, Some(&timeout)).is_ok_and(|count| count > 0)
    }

    /// Says that nothing more will come, properly: close_notify, then FIN.
    pub fn finish(&mut self) {
        self.connection.send_close_notify();
        self.flush().expect("the gateway still listens");
        self.vanish();
    }

    /// FIN without close_notify: what a cut connection looks like.
    pub fn vanish(&mut self) {
        end_writing(&self.socket);
    }

    /// RST.
    pub fn abort(self) {
        abort(self.socket);
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

/// Sends FIN. The gateway may have reset the connection meanwhile, for what the backend has done.
pub(crate) fn end_writing(socket: &TcpStream) {
    match socket.shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
        result => result.expect("an open socket can be shut down"),
    }
}

/// Ends a connection by RST.
pub fn abort(socket: TcpStream) {
    SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .expect("an option can be set");
}

fn failure(error: io::Error) -> TlsFailure {
    let ours = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match ours {
        Some(rustls::Error::AlertReceived(alert)) => TlsFailure::Closed(Closing::Alert(*alert)),
        Some(error) => TlsFailure::Ours(error.clone()),
        None => TlsFailure::Closed(closing(&error)),
    }
}

fn closing(error: &io::Error) -> Closing {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Closing::Reset,
        io::ErrorKind::UnexpectedEof => Closing::Truncated,
        kind => panic!("{kind:?}: {error}"),
    }
}
