//! The arguments of `h1` and `h2`, and of the backend that answers them. In: the command line. Out: whether everything
//! succeeded. Checks every bound before any load.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use clap::Args;
use http::{HeaderName, HeaderValue};

use super::arguments::{CommonArguments, PaceArguments};
use super::identity_plan::target;
use super::{checked_size, parse_listen, plan};
use crate::client::ensure_descriptors;
use crate::http_backend::{HttpBackendOptions, ServerIdentity};
use crate::limits;
use crate::request::{HttpVersion, RequestKind};
use crate::scenario::request::{self, RequestOptions};

#[derive(Debug, Args)]
pub(super) struct H1Arguments {
    #[command(flatten)]
    requests: RequestArguments,
}

#[derive(Debug, Args)]
pub(super) struct H2Arguments {
    #[command(flatten)]
    requests: RequestArguments,
    /// Requests at once on each connection.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 1,
        help_heading = "Load"
    )]
    streams: usize,
    /// Messages of each request of kind grpc-stream.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    messages: u32,
}

#[derive(Debug, Args)]
struct RequestArguments {
    #[command(flatten)]
    common: CommonArguments,
    #[command(flatten)]
    pace: PaceArguments,
    /// What each request carries; otlp by default with `h1`, grpc with `h2`.
    #[arg(long, value_enum)]
    kind: Option<RequestKind>,
    /// Bytes of content of each request, or of each message of a stream; before compression.
    #[arg(long, value_name = "SIZE", default_value = "526B")]
    size: ByteSize,
    /// Path; by default where servers expect that kind.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Authority that requests name; by default the target.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// A further header field, such as x-scope-orgid=forged; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_field)]
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Send one request on each connection, then hold it in silence: what does an idle one cost?
    #[arg(long)]
    hold: bool,
    /// Ask the backend whose --stats-listen this is what has arrived, and fail if something was acknowledged that did
    /// not; may be repeated. The backend has to --read.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen)]
    arrivals: Vec<SocketAddr>,
}

/// What makes a backend one of HTTP.
#[derive(Debug, Args)]
#[command(next_help_heading = "HTTP")]
pub(super) struct HttpBackendArguments {
    /// Answer requests in this version of HTTP. A path may say how, see the documentation.
    #[arg(long, value_enum)]
    pub(super) protocol: Option<HttpVersion>,
    /// Serve TLS with this certificate chain, PEM.
    #[arg(
        long,
        value_name = "FILE",
        requires = "server_key",
        requires = "client_ca"
    )]
    server_certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "server_certificate")]
    server_key: Option<PathBuf>,
    /// CA that client certificates must come from, PEM; may be repeated.
    #[arg(long, value_name = "FILE", requires = "server_certificate")]
    client_ca: Vec<PathBuf>,
    /// Read the content of requests and note which numbers have arrived. Costs more than the rest of the answer.
    #[arg(long, requires = "protocol")]
    read: bool,
    /// Keep the numbers in this file too, before the answer: they outlast SIGKILL, and a backend that is started with
    /// the file of another one begins with what that has got.
    #[arg(long, value_name = "FILE", requires = "read")]
    store: Option<PathBuf>,
    /// Most streams at once on a connection.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 1000,
        requires = "protocol"
    )]
    max_streams: u32,
    /// Answer GET /stats here with JSON; in clear, over HTTP/1.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen, requires = "protocol")]
    pub(super) stats_listen: Option<SocketAddr>,
}

impl HttpBackendArguments {
    /// What to serve, if it is HTTP.
    pub(super) fn options(&self) -> Result<Option<HttpBackendOptions>> {
        let Some(version) = self.protocol else {
            ensure!(
                self.server_certificate.is_none(),
                "--server-certificate: only with --protocol"
            );
            return Ok(None);
        };
        let identity = match (&self.server_certificate, &self.server_key) {
            (Some(certificate), Some(key)) => Some(ServerIdentity::load(
                certificate,
                key,
                &self.client_ca,
                version,
            )?),
            _ => None,
        };
        Ok(Some(HttpBackendOptions {
            version,
            identity,
            reads_content: self.read,
            streams_max: self.max_streams,
            store: self.store.clone(),
        }))
    }
}

pub(super) fn h1(arguments: H1Arguments) -> Result<bool> {
    run(HttpVersion::H1, arguments.requests, 1, 1)
}

pub(super) fn h2(arguments: H2Arguments) -> Result<bool> {
    ensure!(
        (1..=limits::STREAMS_MAX).contains(&arguments.streams),
        "--streams {}: must be 1 to {}",
        arguments.streams,
        limits::STREAMS_MAX
    );
    run(
        HttpVersion::H2,
        arguments.requests,
        arguments.streams,
        arguments.messages,
    )
}

fn run(
    version: HttpVersion,
    arguments: RequestArguments,
    streams: usize,
    messages: u32,
) -> Result<bool> {
    let kind = arguments.kind.unwrap_or(match version {
        HttpVersion::H1 => RequestKind::Otlp,
        HttpVersion::H2 => RequestKind::Grpc,
    });
    ensure!(
        version == HttpVersion::H2 || !kind.is_grpc(),
        "--kind {}: gRPC needs HTTP/2, so `h2`",
        kind.name()
    );
    ensure!(
        messages == 1 || kind == RequestKind::GrpcStream,
        "--messages: only --kind grpc-stream has several"
    );
    if let Some(path) = &arguments.path {
        ensure!(
            path.starts_with('/'),
            "--path {path:?}: must begin with a slash"
        );
    }
    let size = checked_size("--size", arguments.size, limits::CONTENT_MAX)?;
    let plan = plan(&arguments.common, Some(&arguments.pace))?;
    if plan.rate.is_some() {
        // An open loop has a kernel timer for each stream.
        ensure_descriptors(plan.connections, 1 + streams as u64)?;
    }
    let mut target = target(&arguments.common, &plan)?;
    if arguments.common.client.alpn.is_empty() {
        target = target.with_alpn(&[version.alpn()]);
    }
    let options = RequestOptions {
        version,
        kind,
        streams,
        size,
        messages,
        path: arguments.path,
        host: arguments.host,
        fields: arguments.fields,
        hold: arguments.hold,
        arrivals: arguments.arrivals,
    };
    let report = request::run(&target, &plan, options)?;
    arguments.common.output.show(&report)
}

fn parse_field(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let Some((name, value)) = text.split_once('=') else {
        bail!("{text:?}: must be NAME=VALUE");
    };
    let name = name
        .parse()
        .with_context(|| format!("{name:?}: no header name"))?;
    let value = value
        .parse()
        .with_context(|| format!("{value:?}: no header value"))?;
    Ok((name, value))
}
