//! The arguments as clap reads them. In: the command line. Out: `Arguments`. Their bounds are checked in `cli`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

use super::parse_listen;
use crate::backend;
use crate::limits::SOURCES;
use crate::otlp::{Protocol, Signal};
use crate::scenario::handshake::{Confirm, Mode};
use crate::scenario::stream::Direction;
use crate::sources::Sources;

/// Measures an mTLS server from the client's side.
///
/// Every load is bounded by time, and by count where that makes sense. The exit code is 0 when all work succeeded,
/// 1 when some failed, 2 when the load could not be run.
#[derive(Debug, Parser)]
#[command(name = "portcullis-loadgen", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Full or resumed handshakes, each proven to be accepted.
    Handshake(HandshakeArguments),
    /// Bulk data through each connection, every byte accounted for.
    Stream(StreamArguments),
    /// Small messages to `backend echo` and back over held connections.
    Echo(EchoArguments),
    /// Authenticated connections that are held and send nothing.
    Idle(IdleArguments),
    /// Connections that are held until the server closes them, with a journal of every close.
    Hold(HoldArguments),
    /// Clients that do not want in but keep the server busy. Only at loopback, or inside a network namespace.
    Flood(super::flood::FloodArguments),
    /// OTLP exports by several agents, each acknowledged or counted as failed.
    Otlp(OtlpArguments),
    /// Requests over HTTP/1.1, one at a time on each connection.
    H1(super::request::H1Arguments),
    /// Requests over HTTP/2, several at a time on each connection.
    H2(super::request::H2Arguments),
    /// Clients that the server admits, and that misuse HTTP/2. Only at loopback, or inside a network namespace.
    Adverse(super::adverse::AdverseArguments),
    /// A server to run behind the measured one: plain TCP, or HTTP with --protocol.
    Backend(BackendArguments),
    /// An OTLP receiver that counts what arrives; GET /stats on its HTTP port answers with JSON.
    Receiver(ReceiverArguments),
    /// A revocation list for measurements, of any length, in DER.
    Crl(CrlArguments),
}

#[derive(Debug, Args)]
pub(super) struct HandshakeArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    #[command(flatten)]
    pub(super) pace: PaceArguments,
    #[command(flatten)]
    pub(super) rotation: RotationArguments,
    /// Full handshakes, or resumed ones.
    #[arg(long, value_enum, default_value = "full")]
    pub(super) mode: Mode,
    /// Both kinds in one run: the share of the handshakes that are resumed, from 0 to 1. Each kind has its own figures.
    #[arg(long, value_name = "SHARE", conflicts_with = "mode")]
    pub(super) resume_ratio: Option<f64>,
    /// Present another identity in each handshake, in turn through all of them, so that every client is new to the
    /// server.
    #[arg(long, conflicts_with_all = ["resume_ratio", "rotate_at", "plaintext"])]
    pub(super) identity_per_handshake: bool,
    /// What proves that the server accepted the client; under TLS 1.3 a finished handshake does not.
    #[arg(long, value_enum, default_value = "close")]
    pub(super) confirm: Confirm,
    /// Count a resumed handshake as failed if it was a full one.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(super) verify_resumed: bool,
}

#[derive(Debug, Args)]
pub(super) struct StreamArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// Up needs `backend sink` behind the server, down `backend source`, both `backend echo`.
    #[arg(long, value_enum, default_value = "up")]
    pub(super) direction: Direction,
    /// Bytes each connection moves in each direction.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub(super) bytes: ByteSize,
}

#[derive(Debug, Args)]
pub(super) struct EchoArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    #[command(flatten)]
    pub(super) pace: PaceArguments,
    #[command(flatten)]
    pub(super) rotation: RotationArguments,
    /// Bytes in a message.
    #[arg(long, value_name = "SIZE", default_value = "1KiB")]
    pub(super) size: ByteSize,
}

#[derive(Debug, Args)]
pub(super) struct IdleArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// Move one KiB both ways before the silence; needs `backend echo`.
    #[arg(long)]
    pub(super) echo_first: bool,
}

#[derive(Debug, Args)]
pub(super) struct HoldArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// Send a small message this often on each connection and require it back; needs `backend echo`.
    #[arg(long, value_name = "DURATION")]
    pub(super) beat: Option<humantime::Duration>,
    /// At the end, connect once more as each client, with the ticket of its held connection.
    #[arg(long)]
    pub(super) come_back: bool,
    /// File for one line per close and return: what, identity, Unix time in microseconds, how. It is made when all
    /// connections are open and filled at the end.
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct OtlpArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    #[command(flatten)]
    pub(super) pace: PaceArguments,
    #[command(flatten)]
    pub(super) rotation: RotationArguments,
    /// Transport.
    #[arg(long, value_enum, default_value = "grpc")]
    pub(super) protocol: Protocol,
    /// What to send, in turn; all three by default.
    #[arg(long = "signal", value_enum, value_delimiter = ',')]
    pub(super) signals: Vec<Signal>,
    /// Spans, data points or log records in each request.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub(super) records: usize,
    /// Resource attribute service.name of all agents.
    #[arg(long, value_name = "NAME", default_value = "loadgen")]
    pub(super) service_name: String,
}

#[derive(Debug, Args)]
pub(super) struct BackendArguments {
    /// What it does with its connections over plain TCP.
    #[arg(
        value_enum,
        required_unless_present = "protocol",
        conflicts_with = "protocol"
    )]
    pub(super) kind: Option<backend::BackendKind>,
    /// Address to listen on; port 0 chooses one and prints it.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen)]
    pub(super) listen: SocketAddr,
    /// Delay each echo by this time: a server of known speed, to try the load generator itself.
    #[arg(long, value_name = "DURATION")]
    pub(super) delay: Option<humantime::Duration>,
    #[command(flatten)]
    pub(super) http: super::request::HttpBackendArguments,
    #[command(flatten)]
    pub(super) span: SpanArguments,
}

#[derive(Debug, Args)]
pub(super) struct ReceiverArguments {
    /// Address for OTLP over gRPC.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen, default_value = "127.0.0.1:4317")]
    pub(super) grpc: SocketAddr,
    /// Address for OTLP over HTTP.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen, default_value = "127.0.0.1:4318")]
    pub(super) http: SocketAddr,
    /// Write the final counts to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) stats: Option<PathBuf>,
    #[command(flatten)]
    pub(super) span: SpanArguments,
}

#[derive(Debug, Args)]
pub(super) struct CrlArguments {
    /// Certificate of the CA whose list it is, PEM.
    #[arg(long, value_name = "FILE")]
    pub(super) authority: PathBuf,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    pub(super) authority_key: PathBuf,
    /// Revoke this many of the identities that `--issue` makes, from the first on.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) identities: u64,
    /// Revoke this many serial numbers that no identity has.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) others: u64,
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
}

/// What all scenarios share.
#[derive(Debug, Args)]
pub(super) struct CommonArguments {
    #[command(flatten)]
    pub(super) client: ClientArguments,
    #[command(flatten)]
    pub(super) load: LoadArguments,
    #[command(flatten)]
    pub(super) span: SpanArguments,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

/// The servers, and the identities that connect to them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Client")]
pub(super) struct ClientArguments {
    /// Server under load; may be repeated, for several that serve the same. The connections take them in turn.
    #[arg(long, value_name = "HOST:PORT", required = true, value_delimiter = ',')]
    pub(super) target: Vec<String>,
    /// No TLS: the same work over plain TCP, to a server that expects it. The baseline that shows what TLS costs.
    #[arg(long, conflicts_with_all = ["ca", "certificate", "key", "identities", "issue", "server_name", "alpn", "cipher_suite", "group"])]
    pub(super) plaintext: bool,
    /// CA of the server's certificate, PEM; may be repeated.
    #[arg(long, value_name = "FILE", required_unless_present = "plaintext")]
    pub(super) ca: Vec<PathBuf>,
    /// Client certificate chain, PEM; may be repeated, once for each identity. None at all: no client certificate.
    #[arg(long, value_name = "FILE")]
    pub(super) certificate: Vec<PathBuf>,
    /// Key of the certificate at the same place.
    #[arg(long, value_name = "FILE")]
    pub(super) key: Vec<PathBuf>,
    /// Folder of identities: every NAME.pem that has a NAME.key beside it.
    #[arg(long, value_name = "FOLDER")]
    pub(super) identities: Option<PathBuf>,
    /// Issue this many identities, agent-1 and so on with serial numbers from 1, and use them in turn.
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "authority",
        requires = "authority_key"
    )]
    pub(super) issue: Option<usize>,
    /// Certificate of the CA that issues them, PEM.
    #[arg(long, value_name = "FILE", requires = "issue")]
    pub(super) authority: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "issue")]
    pub(super) authority_key: Option<PathBuf>,
    /// Name to expect in the server's certificate and to send as SNI; the target's host by default.
    #[arg(long, value_name = "NAME")]
    pub(super) server_name: Option<String>,
    /// Application protocols to offer, in order; may be repeated.
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    pub(super) alpn: Vec<String>,
    /// Offer only this cipher suite, by its IANA name; may be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) cipher_suite: Vec<String>,
    /// Offer only this key exchange group; may be repeated. X25519MLKEM768 is offered only if named.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) group: Vec<String>,
    /// Bound on each connection attempt, echo or export.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub(super) timeout: humantime::Duration,
    /// Accept the end of a connection without close_notify, for servers that do not answer ours. Missing bytes then
    /// show by their number alone.
    #[arg(long)]
    pub(super) allow_abrupt_end: bool,
    /// Source addresses, in turn: ADDRESS, FIRST-LAST, several with commas, all of them this host's own. A number N is
    /// the first N of 127.0.0.0/8 for a target there, for enough ports (32 by default).
    #[arg(long, value_name = "ADDRESSES")]
    pub(super) sources: Option<Origin>,
    #[command(flatten)]
    pub(super) refused: RefusedArguments,
}

/// Clients that the server must refuse, beside clients that it must accept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Refusals")]
pub(super) struct RefusedArguments {
    /// Share of the connections, from 0 to 1, that present revoked certificates: the first ones of --issue, the
    /// same share of them. `crl --identities` makes the revocation list for the server.
    #[arg(long, value_name = "SHARE", requires = "issue")]
    pub(super) revoked_share: Option<f64>,
    /// Share of the connections, from 0 to 1, that present expired certificates, made with --issue.
    #[arg(long, value_name = "SHARE", requires = "issue")]
    pub(super) expired_share: Option<f64>,
    /// The failure that a revoked client must get. Another failure or none fails the run.
    #[arg(
        long,
        value_name = "FAILURE",
        default_value = "alert_certificate_revoked"
    )]
    pub(super) revoked_as: String,
    /// The failure that an expired client must get.
    #[arg(
        long,
        value_name = "FAILURE",
        default_value = "alert_certificate_expired"
    )]
    pub(super) expired_as: String,
}

/// New identities in mid-run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rotation")]
pub(super) struct RotationArguments {
    /// Replace the identities this long after the start: each connection ends and opens again with its new identity.
    /// By default the new identities are those of --issue with new keys and certificates.
    #[arg(long, value_name = "DURATION", conflicts_with = "plaintext")]
    pub(super) rotate_at: Option<humantime::Duration>,
    /// The new identities: a folder as for --identities.
    #[arg(
        long,
        value_name = "FOLDER",
        requires = "rotate_at",
        conflicts_with = "rotate_authority"
    )]
    pub(super) rotate_identities: Option<PathBuf>,
    /// Certificate of another CA that issues the new identities, PEM.
    #[arg(
        long,
        value_name = "FILE",
        requires = "rotate_at",
        requires = "rotate_authority_key",
        requires = "issue"
    )]
    pub(super) rotate_authority: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "rotate_authority")]
    pub(super) rotate_authority_key: Option<PathBuf>,
}

/// The source addresses of connections, as given.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// This many addresses of the loopback network.
    Loopback(u8),
    /// These addresses.
    Addresses(Sources),
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Addresses(text.parse()?));
        }
        let number = text.parse().ok().filter(|number| SOURCES.contains(number));
        let number = number.with_context(|| {
            let (least, most) = SOURCES.into_inner();
            format!("{text:?}: must be {least} to {most}, or addresses")
        })?;
        Ok(Self::Loopback(number))
    }
}

/// How wide the load is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArguments {
    /// Connections at once. Identities are used in turn.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) connections: usize,
    /// Threads of the load generator.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) threads: usize,
}

/// How fast and how much.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct PaceArguments {
    /// Units of work per second over all connections (open loop): latency then counts from the intended start.
    /// Without it each connection starts the next unit when the last has ended (closed loop).
    #[arg(long, value_name = "PER_SECOND")]
    pub(super) rate: Option<f64>,
    /// End after this many units of work.
    #[arg(long, value_name = "NUMBER")]
    pub(super) count: Option<u64>,
}

/// How long.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct SpanArguments {
    /// End after this time, at most 1h. By default 10s, or 10m with --count; services end after 1h.
    #[arg(long = "for", value_name = "DURATION")]
    pub(super) duration: Option<humantime::Duration>,
}

/// What is measured and how it is printed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Result")]
pub(super) struct OutputArguments {
    /// Process of the server, for CPU time and memory per unit of work; may be repeated, and then they are added up.
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Vec<u32>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Write the report to this file as well, as a page with charts.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Exit with 1 also when the load generator was too busy or too late for trustworthy figures.
    #[arg(long)]
    pub(super) fail_when_untrusted: bool,
    /// Exit with 0 although units of work failed.
    #[arg(long)]
    pub(super) allow_failures: bool,
}
