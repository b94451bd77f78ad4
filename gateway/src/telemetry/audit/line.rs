//! Audit lines as JSON: every event with its fields, as docs/audit.md describes them.
//! In: events and what they speak of. Out: one line of JSON, its line break included. On the thread that has the event:
//! fields are borrowed, and a line made into a buffer that is used again costs less than a copy of its names would.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use gateway_core::certificate::Fingerprint;
use gateway_core::endpoint::Endpoint;
use gateway_core::revocation::Serial;
use gateway_core::visible;
use serde::{Serialize, Serializer};

use crate::connection::ConnectionId;

pub use crate::telemetry::text::BoundedText;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AuditLine<'a> {
    /// A handshake has ended, well or not.
    Handshake(HandshakeLine<'a>),
    /// A request is over.
    Request(RequestLine<'a>),
    /// A connection that had got in is over.
    End(EndLine<'a>),
    /// A connection is over because its task panicked.
    #[serde(rename = "end")]
    Panicked(PanickedLine<'a>),
    /// A client is in, or a request passed on, that the observed configuration would refuse.
    Foreseen(ForeseenLine<'a>),
    /// The gateway takes connections.
    Start(StartLine<'a>),
    /// The gateway has ended.
    Stop(StopLine),
    /// A new configuration was taken or refused.
    Reload(ReloadLine<'a>),
    /// An operator blocked or unblocked a client.
    Block(BlockLine<'a>),
    /// An operator accepted a revocation list that is older than one that was in force.
    CrlAccepted(CrlAcceptedLine<'a>),
    /// Another key seals tickets.
    Keys(KeysLine<'a>),
    /// A source of connections was banned, or is no more.
    GuardBan(GuardBanLine<'a>),
    /// The audit log goes on elsewhere, or nowhere.
    Continued(ContinuedLine<'a>),
}

/// Fields of `handshake`.
#[derive(Debug, Serialize)]
pub struct HandshakeLine<'a> {
    /// When.
    pub time: Time,
    /// `accepted` or `refused`.
    pub outcome: &'static str,
    /// The listener's name.
    pub listener: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
    /// The server name that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<BoundedText<'a>>,
    /// Why the ticket that the client came with was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_refused: Option<&'static str>,
    /// What became of it.
    #[serde(flatten)]
    pub how: HandshakeOutcome<'a>,
}

/// What became of a handshake.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum HandshakeOutcome<'a> {
    /// The client got in.
    Accepted(AcceptedFields<'a>),
    /// It did not.
    Refused(RefusedFields<'a>),
}

/// Fields of a `handshake` that was accepted.
#[derive(Debug, Serialize)]
pub struct AcceptedFields<'a> {
    /// Names the connection, in this process.
    pub connection: Shown<WorkerConnection>,
    /// `full` or `resumed`.
    pub kind: &'static str,
    /// The application protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<BoundedText<'a>>,
    /// Cipher suite.
    pub suite: &'static str,
    /// Key exchange group.
    pub group: &'static str,
    /// When the client last proved that it has the certificate's key.
    pub authenticated_at: Time,
    /// From accept to Finished.
    pub duration_microseconds: u64,
    /// Its identity.
    #[serde(flatten)]
    pub client: ClientFields<'a>,
    /// The issuer of the certificate.
    pub issuer: BoundedText<'a>,
    /// When the first certificate of its chain ends.
    pub not_after: Time,
}

/// Fields of a `handshake` that was refused.
#[derive(Debug, Serialize)]
pub struct RefusedFields<'a> {
    /// Why.
    pub reason: &'static str,
    /// The same in words.
    pub detail: BoundedText<'a>,
    /// What was presented, of which nothing is proven.
    #[serde(flatten)]
    pub presented: Option<PresentedFields<'a>>,
}

/// A certificate that the client may have copied.
#[derive(Debug, Serialize)]
pub struct PresentedFields<'a> {
    /// Its name, as `identity` would be.
    #[serde(rename = "presented_identity", skip_serializing_if = "Option::is_none")]
    pub identity: Option<BoundedText<'a>>,
    /// What kind of name that is.
    #[serde(
        rename = "presented_identity_kind",
        skip_serializing_if = "Option::is_none"
    )]
    pub kind: Option<&'static str>,
    /// SHA-256 of it.
    #[serde(rename = "presented_fingerprint")]
    pub fingerprint: Shown<Fingerprint>,
    /// Its number at the issuer it names.
    #[serde(rename = "presented_serial", skip_serializing_if = "Option::is_none")]
    pub serial: Option<Shown<Serial>>,
    /// The issuer it names.
    #[serde(rename = "presented_issuer")]
    pub issuer: BoundedText<'a>,
    /// When it has ended.
    #[serde(rename = "presented_not_after")]
    pub not_after: Time,
}

/// The identity that a client has proven.
#[derive(Debug, Serialize)]
pub struct IdentityFields<'a> {
    /// The name.
    pub identity: BoundedText<'a>,
    /// What kind of name it is.
    #[serde(rename = "identity_kind")]
    pub kind: &'static str,
    /// The trust domain that its authority is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<&'a str>,
}

/// A client that has proven its identity.
#[derive(Debug, Serialize)]
pub struct ClientFields<'a> {
    /// The name to show.
    #[serde(flatten)]
    pub identity: IdentityFields<'a>,
    /// The rule that admitted it, counted from 1.
    pub rule: usize,
    /// The tenant it sends as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<&'a str>,
    /// SHA-256 of its certificate.
    pub fingerprint: Shown<Fingerprint>,
    /// The certificate's number at its issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Shown<Serial>>,
}

/// Fields of `request`.
#[derive(Debug, Serialize)]
pub struct RequestLine<'a> {
    /// When it was over.
    pub time: Time,
    /// Names the connection, in this process.
    pub connection: Shown<WorkerConnection>,
    /// The listener's name.
    pub listener: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
    /// Its method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Wire<'a>>,
    /// Its path, without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Wire<'a>>,
    /// The status of the response, if one has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The status of gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u16>,
    /// Why the gateway has answered it, or broken it off, itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Whether the response came to its end.
    pub complete: bool,
    /// Content from the client.
    pub received_bytes: u64,
    /// Content to the client.
    pub sent_bytes: u64,
    /// From its header section to the end of the response.
    pub duration_microseconds: u64,
    /// From its header section to the moment at which a server got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_microseconds: Option<u64>,
    /// From that moment to the header section of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_microseconds: Option<u64>,
    /// The backend's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<&'a str>,
    /// The server that got it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Endpoint>,
    /// How often it was sent to another server.
    pub retries: u32,
    /// The trace that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    /// Who sent it.
    #[serde(flatten)]
    pub identity: IdentityFields<'a>,
    /// The rule that admitted the client, counted from 1.
    pub rule: usize,
    /// The tenant that the backend is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Wire<'a>>,
    /// SHA-256 of the client's certificate.
    pub fingerprint: Shown<Fingerprint>,
}

/// Bytes of a header section, as text.
#[derive(Debug, Clone, Copy)]
pub struct Wire<'a>(pub &'a [u8]);

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BoundedText(&String::from_utf8_lossy(self.0)).serialize(serializer)
    }
}

/// Fields of `end`.
#[derive(Debug, Serialize)]
pub struct EndLine<'a> {
    /// When.
    pub time: Time,
    /// Names the connection, in this process.
    pub connection: Shown<WorkerConnection>,
    /// The listener's name.
    pub listener: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
    /// Why.
    pub reason: &'static str,
    /// From the client to the backend.
    pub received_bytes: u64,
    /// From the backend to the client.
    pub sent_bytes: u64,
    /// Since the handshake.
    pub duration_microseconds: u64,
    /// Who it was.
    #[serde(flatten)]
    pub client: ClientFields<'a>,
}

/// Fields of an `end` by a fault of ours: whose connection it was stands in its `handshake`, if there was one.
#[derive(Debug, Serialize)]
pub struct PanickedLine<'a> {
    /// When.
    pub time: Time,
    /// Names the connection, in this process.
    pub connection: Shown<WorkerConnection>,
    /// The listener's name.
    pub listener: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
    /// Why.
    pub reason: &'static str,
}

/// Fields of `foreseen`.
#[derive(Debug, Serialize)]
pub struct ForeseenLine<'a> {
    /// When.
    pub time: Time,
    /// The listener's name.
    pub listener: &'a str,
    /// The method of the request, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Wire<'a>>,
    /// Its path, without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Wire<'a>>,
    /// Why it would be refused.
    pub reason: &'static str,
    /// The same in words.
    pub detail: BoundedText<'a>,
    /// Its identity.
    #[serde(flatten)]
    pub identity: IdentityFields<'a>,
    /// By which certificate.
    pub fingerprint: Shown<Fingerprint>,
}

/// Fields of `start`.
#[derive(Debug, Serialize)]
pub struct StartLine<'a> {
    /// When.
    pub time: Time,
    /// The program's version.
    pub version: &'static str,
    /// Number of the process.
    pub process: u32,
    /// The configuration file.
    pub configuration: BoundedText<'a>,
}

/// Fields of `stop`.
#[derive(Debug, Serialize)]
pub struct StopLine {
    /// When.
    pub time: Time,
}

/// Fields of `reload`.
#[derive(Debug, Serialize)]
pub struct ReloadLine<'a> {
    /// When.
    pub time: Time,
    /// `taken` or `refused`.
    pub outcome: &'static str,
    /// What it was for: a signal, a change.
    pub cause: BoundedText<'a>,
    /// The files that had changed, where that is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<BoundedText<'a>>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<BoundedText<'a>>,
}

/// Fields of `block`.
#[derive(Debug, Serialize)]
pub struct BlockLine<'a> {
    /// When.
    pub time: Time,
    /// `blocked` or `unblocked`.
    pub outcome: &'static str,
    /// `serial`, `fingerprint` or `identity`.
    pub kind: &'static str,
    /// Whom it means.
    pub whom: BoundedText<'a>,
    /// What kind of name it is, where the entry says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_kind: Option<&'static str>,
    /// The trust domain that it is limited to, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<BoundedText<'a>>,
    /// Who did it.
    pub by: BoundedText<'a>,
    /// Why, in their words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<BoundedText<'a>>,
}

/// Fields of `crl_accepted`.
#[derive(Debug, Serialize)]
pub struct CrlAcceptedLine<'a> {
    /// When.
    pub time: Time,
    /// The CA.
    pub issuer: BoundedText<'a>,
    /// Number and time of the list.
    pub list: BoundedText<'a>,
    /// Number and time of the one that was in force.
    pub before: BoundedText<'a>,
    /// Who did it.
    pub by: BoundedText<'a>,
}

/// Fields of `keys`.
#[derive(Debug, Serialize)]
pub struct KeysLine<'a> {
    /// When.
    pub time: Time,
    /// Keys that open tickets, the new one among them.
    pub keys: usize,
    /// The policy epoch.
    pub epoch: u64,
    /// Who made the new one.
    pub by: BoundedText<'a>,
    /// Whether it was raised, so that no earlier ticket opens.
    pub outcome: &'static str,
}

/// Fields of `guard_ban`.
#[derive(Debug, Serialize)]
pub struct GuardBanLine<'a> {
    /// When.
    pub time: Time,
    /// `banned`, `over` or `lifted`.
    pub outcome: &'static str,
    /// The address, or the first of an IPv6 /64.
    pub source: IpAddr,
    /// The failure that was one too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// `guard`, or the number of the user who ordered it.
    pub by: BoundedText<'a>,
    /// How long it lasts from its beginning.
    pub lasts_seconds: u64,
    /// The port where the last failure was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Fields of `continued`.
#[derive(Debug, Serialize)]
pub struct ContinuedLine<'a> {
    /// When.
    pub time: Time,
    /// The other file, `stdout`, or `off`.
    pub target: BoundedText<'a>,
}

/// Names a connection in this process.
#[derive(Debug, Clone, Copy)]
pub struct WorkerConnection {
    /// Number of the worker.
    pub worker: usize,
    /// The connection there.
    pub connection: ConnectionId,
}

impl fmt::Display for WorkerConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.worker, self.connection)
    }
}

impl AuditLine<'_> {
    /// Writes the line over what is in `buffer`.
    pub fn write(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        serde_json::to_writer(&mut *buffer, self)
            .expect("a line has nothing that JSON cannot say, and a Vec takes any number of bytes");
        // JSON lets these stand in a text; a reader's terminal must not.
        let line = std::str::from_utf8(buffer).expect("JSON is UTF-8");
        if let Cow::Owned(escaped) = visible::escape(line) {
            buffer.clear();
            buffer.extend_from_slice(escaped.as_bytes());
        }
        buffer.push(b'\n');
    }
}

/// Something as it is printed.
#[derive(Debug, Clone, Copy)]
pub struct Shown<T>(pub T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A moment: RFC 3339, UTC, microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Time(pub SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // RFC 3339 ends with the year 9999; "no end" of RFC 5280 section 4.1.2.5 is its last second.
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let moment = self.0.clamp(SystemTime::UNIX_EPOCH, last);
        serializer.collect_str(&humantime::format_rfc3339_micros(moment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::limits;

    fn text<T: Serialize>(value: T) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn times_are_rfc_3339_with_microseconds() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_792_000_000_000_007);
        assert_eq!(text(Time(moment)), "\"2026-10-14T17:46:40.000007Z\"");
        let never = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert_eq!(text(Time(never)), "\"9999-12-31T23:59:59.000000Z\"");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = "ä".repeat(limits::TEXT_BYTES_MAX);
        let cut = text(BoundedText(&long));
        assert_eq!(
            cut,
            format!("\"{}…\"", "ä".repeat(limits::TEXT_BYTES_MAX / 2))
        );
        assert_eq!(text(BoundedText("a\"b\n\u{7}")), "\"a\\\"b\\n\\u0007\"");
    }
}
