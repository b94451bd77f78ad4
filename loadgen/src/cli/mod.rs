//! The command line of `portcullis-loadgen`: arguments to plans, reports to standard output.
//! In: `Arguments`. Out: whether everything succeeded. On the main thread; checks every bound before any load.

mod adverse;
mod arguments;
mod flood;
mod identity_plan;
mod request;
mod services;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::client::ensure_descriptors;
use crate::issuer::{Authority, Entries};
use crate::limits;
use crate::otlp::Signal;
use crate::report::Report;
use crate::run::Plan;
use crate::scenario::{self, handshake::Mode};

use identity_plan::{rotating_target, target};

pub use arguments::Arguments;
use arguments::{
    BackendArguments, Command, CommonArguments, CrlArguments, EchoArguments, HandshakeArguments,
    HoldArguments, IdleArguments, LoadArguments, OtlpArguments, OutputArguments, PaceArguments,
    SpanArguments, StreamArguments,
};

/// Runs the command. `false` when the load ran and not all of it succeeded.
pub fn run(arguments: Arguments) -> Result<bool> {
    match arguments.command {
        Command::Handshake(arguments) => handshake(arguments),
        Command::Stream(arguments) => stream(&arguments),
        Command::Echo(arguments) => echo(&arguments),
        Command::Idle(arguments) => idle(&arguments),
        Command::Hold(arguments) => hold(arguments),
        Command::Flood(arguments) => flood::run(arguments),
        Command::Crl(arguments) => crl(&arguments),
        Command::Otlp(arguments) => otlp(arguments),
        Command::Adverse(arguments) => adverse::run(arguments),
        Command::H1(arguments) => request::h1(arguments),
        Command::H2(arguments) => request::h2(arguments),
        Command::Backend(arguments) => backend(&arguments),
        Command::Receiver(arguments) => services::receiver(
            arguments.grpc,
            arguments.http,
            arguments.stats.as_deref(),
            checked_span(&arguments.span, limits::SPAN_MAX)?,
        ),
    }
}

fn handshake(arguments: HandshakeArguments) -> Result<bool> {
    let plan = plan(&arguments.common, Some(&arguments.pace))?;
    let resume_ratio = arguments.resume_ratio.unwrap_or(match arguments.mode {
        Mode::Full => 0.0,
        Mode::Resumed => 1.0,
    });
    ensure!(
        (0.0..=1.0).contains(&resume_ratio),
        "--resume-ratio {resume_ratio}: must be 0 to 1"
    );
    let options = scenario::handshake::HandshakeOptions {
        resume_ratio,
        verify_resumed: arguments.verify_resumed,
        confirm: arguments.confirm,
    };
    let mut target = rotating_target(&arguments.common, &plan, &arguments.rotation)?;
    if arguments.identity_per_handshake {
        ensure!(
            resume_ratio == 0.0,
            "--identity-per-handshake: tickets belong to one identity; only for full handshakes"
        );
        target = target.with_identity_per_handshake();
    }
    let report = scenario::handshake::run(&target, &plan, options)?;
    arguments.common.output.show(&report)
}

fn stream(arguments: &StreamArguments) -> Result<bool> {
    let bytes = checked_size("--bytes", arguments.bytes, limits::STREAM_BYTES_MAX)?;
    let plan = plan(&arguments.common, None)?;
    let target = target(&arguments.common, &plan)?;
    let report = scenario::stream::run(&target, &plan, arguments.direction, bytes)?;
    arguments.common.output.show(&report)
}

fn echo(arguments: &EchoArguments) -> Result<bool> {
    let size = checked_size("--size", arguments.size, limits::ECHO_SIZE_MAX)?;
    let plan = plan(&arguments.common, Some(&arguments.pace))?;
    let target = rotating_target(&arguments.common, &plan, &arguments.rotation)?;
    let report = scenario::echo::run(&target, &plan, usize::try_from(size)?)?;
    arguments.common.output.show(&report)
}

fn idle(arguments: &IdleArguments) -> Result<bool> {
    let plan = plan(&arguments.common, None)?;
    let target = target(&arguments.common, &plan)?;
    let report = scenario::idle::run(&target, &plan, arguments.echo_first)?;
    arguments.common.output.show(&report)
}

fn hold(arguments: HoldArguments) -> Result<bool> {
    let plan = plan(&arguments.common, None)?;
    let beat = arguments.beat.map(Duration::from);
    if let Some(beat) = beat {
        ensure!(
            limits::BEAT.contains(&beat),
            "--beat {}: must be {} to {}",
            humantime::format_duration(beat),
            humantime::format_duration(*limits::BEAT.start()),
            humantime::format_duration(*limits::BEAT.end())
        );
    }
    let options = scenario::hold::HoldOptions {
        beat,
        come_back: arguments.come_back,
        journal: arguments.journal,
    };
    let target = target(&arguments.common, &plan)?;
    let report = scenario::hold::run(&target, &plan, &options)?;
    arguments.common.output.show(&report)
}

fn crl(arguments: &CrlArguments) -> Result<bool> {
    let total = arguments.identities.saturating_add(arguments.others);
    ensure!(
        total <= limits::CRL_ENTRIES_MAX,
        "--identities and --others: must be at most {} together",
        limits::CRL_ENTRIES_MAX
    );
    let list = Authority::load(&arguments.authority, &arguments.authority_key)?.revocation_list(
        Entries {
            identities: arguments.identities,
            others: arguments.others,
        },
    )?;
    std::fs::write(&arguments.out, &list)
        .with_context(|| format!("writing {}", arguments.out.display()))?;
    println!(
        "{}: {total} entries, {} bytes",
        arguments.out.display(),
        list.len()
    );
    Ok(true)
}

fn otlp(arguments: OtlpArguments) -> Result<bool> {
    ensure!(
        (1..=limits::RECORDS_MAX).contains(&arguments.records),
        "--records {}: must be 1 to {}",
        arguments.records,
        limits::RECORDS_MAX
    );
    let plan = plan(&arguments.common, Some(&arguments.pace))?;
    let mut target = rotating_target(&arguments.common, &plan, &arguments.rotation)?;
    if arguments.common.client.alpn.is_empty() {
        target = target.with_alpn(&[arguments.protocol.alpn()]);
    }
    let signals = if arguments.signals.is_empty() {
        Signal::ALL.to_vec()
    } else {
        arguments.signals
    };
    let options = scenario::otlp::OtlpOptions {
        protocol: arguments.protocol,
        signals,
        records: arguments.records,
        service_name: arguments.service_name,
    };
    let report = scenario::otlp::run(&target, &plan, &options)?;
    arguments.common.output.show(&report)
}

fn backend(arguments: &BackendArguments) -> Result<bool> {
    let span = checked_span(&arguments.span, limits::SPAN_MAX)?;
    let delay = arguments.delay.map(Duration::from);
    match (arguments.http.options()?, arguments.kind) {
        (None, Some(kind)) => services::backend(kind, delay, arguments.listen, span),
        (Some(options), None) => {
            ensure!(
                delay.is_none(),
                "--delay: only `backend echo` has one; a path of HTTP says its own"
            );
            let stats = arguments.http.stats_listen;
            services::http_backend(options, arguments.listen, stats, span)
        }
        _ => bail!("one of KIND and --protocol"),
    }
}

impl OutputArguments {
    /// Prints the report; `true` when it calls for exit code 0.
    fn show(&self, report: &Report) -> Result<bool> {
        if let Some(file) = &self.html {
            std::fs::write(file, report.to_html())
                .with_context(|| format!("writing {}", file.display()))?;
        }
        if self.json {
            println!("{}", report.to_json());
        } else {
            println!("{report}");
        }
        let is_trusted = report.generator.is_trustworthy || !self.fail_when_untrusted;
        Ok((report.is_good() || self.allow_failures) && is_trusted)
    }
}

fn plan(common: &CommonArguments, pace: Option<&PaceArguments>) -> Result<Plan> {
    checked_plan(&common.load, pace, &common.span, &common.output)
}

fn checked_plan(
    load: &LoadArguments,
    pace: Option<&PaceArguments>,
    span: &SpanArguments,
    output: &OutputArguments,
) -> Result<Plan> {
    ensure!(
        (1..=limits::CONNECTIONS_MAX).contains(&load.connections),
        "--connections {}: must be 1 to {}",
        load.connections,
        limits::CONNECTIONS_MAX
    );
    ensure!(
        (1..=limits::THREADS_MAX).contains(&load.threads),
        "--threads {}: must be 1 to {}",
        load.threads,
        limits::THREADS_MAX
    );
    let rate = pace.and_then(|pace| pace.rate);
    if let Some(rate) = rate {
        ensure!(
            rate > 0.0 && rate <= limits::RATE_MAX,
            "--rate {rate}: must be more than 0 and at most {}",
            limits::RATE_MAX
        );
    }
    let count = pace.and_then(|pace| pace.count);
    if let Some(count) = count {
        ensure!(
            (1..=limits::COUNT_MAX).contains(&count),
            "--count {count}: must be 1 to {}",
            limits::COUNT_MAX
        );
    }
    // An open loop has a kernel timer for each connection.
    ensure_descriptors(load.connections, if rate.is_some() { 2 } else { 1 })?;
    let default = if count.is_some() {
        limits::SPAN_WITH_COUNT
    } else {
        limits::SPAN_DEFAULT
    };
    Ok(Plan {
        connections: load.connections,
        threads: load.threads.min(load.connections),
        rate,
        count,
        span: checked_span(span, default)?,
        server_pids: output.server_pid.clone(),
        progress: true,
    })
}

fn checked_span(span: &SpanArguments, default: Duration) -> Result<Duration> {
    let chosen = span.duration.map_or(default, Into::into);
    ensure!(
        !chosen.is_zero() && chosen <= limits::SPAN_MAX,
        "--for {}: must be more than 0 and at most {}",
        humantime::format_duration(chosen),
        humantime::format_duration(limits::SPAN_MAX)
    );
    Ok(chosen)
}

fn checked_size(option: &str, size: bytesize::ByteSize, maximum: u64) -> Result<u64> {
    ensure!(
        (1..=maximum).contains(&size.0),
        "{option} {size}: must be 1 B to {}",
        bytesize::ByteSize(maximum)
    );
    Ok(size.0)
}

/// The address a service listens on, as given.
fn parse_listen(text: &str) -> Result<std::net::SocketAddr> {
    text.parse()
        .with_context(|| format!("{text:?}: must be ADDRESS:PORT, for example 127.0.0.1:9000"))
}
