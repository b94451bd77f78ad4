//! The protocol between agents and servers, and an agent's end of it over TLS.
//! In: a socket to the gateway, a certificate. Out: exchanges that are checked byte for byte, and their end. Never
//! panics at what the gateway does, because the soak must report it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::tests::Credentials;
use anyhow::{Context, Result};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use socket2::SockRef;

/// First bytes of every connection: then the visit's number, the length of the client's SPIFFE ID, and the ID.
pub const GREETING: &[u8; 4] = b"SOAK";
/// A frame that brings bytes; the server answers with how many it has had.
pub const PUT: u8 = b'P';
/// A frame that asks for bytes.
pub const GET: u8 = b'G';

/// How long an agent waits for anything. Longer than every disturbance is given.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The name in the gateway's certificate.
pub const SERVER_NAME: &str = "gateway.test";

/// The byte at this offset of what a visit's client sends, or, for another number, of what it receives.
pub fn pattern(number: u64, offset: u64) -> u8 {
    let salt = (number.wrapping_mul(0x9e37_79b9) >> 16) as u8;
    salt.wrapping_add((offset ^ (offset >> 8)) as u8)
}

/// Bytes of the pattern.
pub fn patterned(number: u64, from: u64, count: u64) -> Vec<u8> {
    (from..from + count)
        .map(|offset| pattern(number, offset))
        .collect()
}

/// The number whose pattern is sent back in a visit.
pub fn answering(number: u64) -> u64 {
    !number
}

/// The certificate that a client presents.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// No certificate.
    Nothing,
    /// A certificate with its key.
    Own(&'a Credentials),
    /// Another client's certificate, with a key of its own.
    Copied(&'a Credentials),
}

/// A client's settings, which remember tickets.
///
/// # Errors
///
/// When a file cannot be read.
pub fn settings(roots: &Path, shown: Shown<'_>) -> Result<Arc<ClientConfig>> {
    let mut store = RootCertStore::empty();
    for root in chain(roots)? {
        store.add(root)?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(store);
    Ok(Arc::new(match shown {
        Shown::Nothing => builder.with_no_client_auth(),
        Shown::Own(credentials) => {
            let key = PrivateKeyDer::from_pem_file(&credentials.key).context("the agent's key")?;
            builder.with_client_auth_cert(chain(&credentials.certificate)?, key)?
        }
        Shown::Copied(credentials) => {
            let own = rcgen::KeyPair::generate().context("a key")?;
            let key = PrivateKeyDer::try_from(own.serialize_der()).map_err(anyhow::Error::msg)?;
            let key = ring::sign::any_supported_type(&key)?;
            let copied = CertifiedKey::new(chain(&credentials.certificate)?, key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(copied)))
        }
    }))
}

/// The certificates in a file.
///
/// # Errors
///
/// When it cannot be read.
pub fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>());
    certificates.with_context(|| format!("reading {}", file.display()))
}

/// The serial number of the first certificate in a file, as the audit log words it.
///
/// # Errors
///
/// When it cannot be read.
pub fn serial(file: &Path) -> Result<String> {
    let chain = chain(file)?;
    let first = chain.first().context("there is a certificate")?;
    let certificate = webpki::EndEntityCert::try_from(first)?;
    Ok(hexadecimal(certificate.serial()))
}

/// A number of DER in digits: the byte of zeros before a high bit says only that it is positive (X.690 section 8.3).
fn hexadecimal(number: &[u8]) -> String {
    let digits = match number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An agent's connection.
pub struct Line {
    stream: StreamOwned<ClientConnection, TcpStream>,
    number: u64,
    /// Bytes sent, the greeting and the heads of frames among them.
    pub sent: u64,
    /// Bytes that came back.
    pub received: u64,
    put: u64,
    got: u64,
}

/// The failure of a line.
#[derive(Debug)]
pub enum Broken {
    /// The gateway ended it between two exchanges, by FIN, as it does on purpose.
    Dismissed,
    /// Anything else.
    Lost(String),
    /// A wrong byte came.
    Corrupted(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Lost(format!("{:?}: {error}", error.kind()))
    }
}

impl Line {
    /// Does a handshake over a connected socket, and greets the server.
    ///
    /// # Errors
    ///
    /// How it failed. With TLS 1.3 a refusal shows at the first answer only.
    pub fn open(
        settings: &Arc<ClientConfig>,
        socket: TcpStream,
        number: u64,
        identity: &str,
    ) -> Result<Line, Broken> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).expect("it is a DNS name");
        let connection = ClientConnection::new(Arc::clone(settings), name)
            .map_err(|error| Broken::Lost(error.to_string()))?;
        let mut line = Line {
            stream: StreamOwned::new(connection, socket),
            number,
            sent: 0,
            received: 0,
            put: 0,
            got: 0,
        };
        let mut greeting = GREETING.to_vec();
        greeting.extend(number.to_be_bytes());
        greeting.push(identity.len() as u8);
        greeting.extend(identity.as_bytes());
        line.write(&greeting)?;
        Ok(line)
    }

    /// Brings bytes, and waits until the server has them all.
    ///
    /// # Errors
    ///
    /// How it failed.
    pub fn put(&mut self, count: u32) -> Result<(), Broken> {
        let mut frame = vec![PUT];
        frame.extend(count.to_be_bytes());
        frame.extend(patterned(self.number, self.put, count.into()));
        self.write(&frame)?;
        self.put += u64::from(count);
        let mut answer = [0; 8];
        self.read(&mut answer)?;
        match u64::from_be_bytes(answer) {
            had if had == self.put => Ok(()),
            had => Err(Broken::Corrupted(format!(
                "the server has {had} bytes of {}",
                self.put
            ))),
        }
    }

    /// Asks for bytes, waits before it reads them, and checks them.
    ///
    /// # Errors
    ///
    /// How it failed.
    pub fn get(&mut self, count: u32, stall: Duration) -> Result<(), Broken> {
        let mut frame = vec![GET];
        frame.extend(count.to_be_bytes());
        self.write(&frame)?;
        std::thread::sleep(stall);
        let mut bytes = vec![0; count as usize];
        self.read(&mut bytes)?;
        let wanted = patterned(answering(self.number), self.got, count.into());
        self.got += u64::from(count);
        match bytes == wanted {
            true => Ok(()),
            false => Err(Broken::Corrupted("other bytes came than were sent".into())),
        }
    }

    /// Changes the keys it sends with, and asks for others to receive with.
    ///
    /// # Errors
    ///
    /// How it failed.
    pub fn change_keys(&mut self) -> Result<(), Broken> {
        let changed = self.stream.conn.refresh_traffic_keys();
        changed.map_err(|error| Broken::Lost(error.to_string()))?;
        self.stream.flush()?;
        Ok(())
    }

    /// Says goodbye, and waits for the other side's.
    ///
    /// # Errors
    ///
    /// How it failed.
    pub fn finish(mut self) -> Result<Counts, (Counts, Broken)> {
        let counts = self.counts();
        self.stream.conn.send_close_notify();
        let ended = self.stream.flush().and_then(|()| {
            self.stream.sock.shutdown(Shutdown::Write)?;
            self.stream.read(&mut [0; 16])
        });
        match ended {
            Ok(0) => Ok(counts),
            Ok(_) => Err((
                counts,
                Broken::Corrupted("bytes that no server sent".into()),
            )),
            Err(error) => Err((counts, error.into())),
        }
    }

    /// Goes away by a reset.
    pub fn leave(self) -> Counts {
        let counts = self.counts();
        // Refused where the peer has reset it already, which is as good.
        let _ = SockRef::from(&self.stream.sock).set_linger(Some(Duration::ZERO));
        counts
    }

    /// What was moved so far.
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.sent,
            received: self.received,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(bytes)?;
        self.stream.flush()?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => return Err(Broken::Lost("close_notify in an exchange".into())),
                Ok(count) => filled += count,
                // FIN without close_notify is how the gateway says goodbye.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && filled == 0 => {
                    return Err(Broken::Dismissed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.received += filled as u64;
        Ok(())
    }
}

/// Bytes of a line, without TLS.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// From the agent.
    pub sent: u64,
    /// To the agent.
    pub received: u64,
}

#[cfg(test)]
mod tests {
    use super::hexadecimal;

    #[test]
    fn the_sign_of_a_serial_number_is_no_digit() {
        assert_eq!(hexadecimal(&[0, 0xce, 0x99]), "ce99");
        assert_eq!(hexadecimal(&[0x0a, 0x01]), "0a01");
        assert_eq!(hexadecimal(&[0]), "00");
    }
}
