//! The output of the demo. In: snapshots. Out: on a terminal a table redrawn in place, elsewhere a line a second; at
//! the end the table and the verdict. Never clears what it did not draw.

use std::io::{self, IsTerminal, Write, stdout};
use std::time::Duration;

use comfy_table::{Table, presets};
use rustix::termios::tcgetwinsize;

use crate::setup::DemoSetup;
use crate::snapshot::Snapshot;
use crate::summary::{findings, kernel_line};

/// Standard output and what was drawn on it.
pub struct Screen {
    terminal: bool,
    /// Lines of the table that is on the terminal now.
    drawn: usize,
}

impl Screen {
    pub fn new() -> Self {
        Self {
            terminal: stdout().is_terminal(),
            drawn: 0,
        }
    }

    /// Pause between two drawings.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(if self.terminal { 250 } else { 1000 })
    }

    /// What stands above the table.
    pub fn introduce(&mut self, setup: &DemoSetup) -> io::Result<()> {
        let (ports, reader) = (setup.ports(), setup.reader());
        let text = format!(
            "Portcullis demo: agents -> mTLS gateway on 127.0.0.1:{grpc} (OTLP/gRPC) and 127.0.0.1:{http} (OTLP/HTTP) -> receiver.\n\
             Its configuration: {configuration}\n\n\
             To join in with your own OpenTelemetry SDK, paste this in another terminal (for OTLP/HTTP use port {http}):\n\n\
             \x20 export OTEL_EXPORTER_OTLP_ENDPOINT=https://localhost:{grpc}\n\
             \x20 export OTEL_EXPORTER_OTLP_CERTIFICATE={authority}\n\
             \x20 export OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE={certificate}\n\
             \x20 export OTEL_EXPORTER_OTLP_CLIENT_KEY={key}\n\n",
            grpc = ports.grpc,
            http = ports.http,
            configuration = setup.configuration_file().display(),
            authority = setup.authority_file().display(),
            certificate = reader.certificate.display(),
            key = reader.key.display(),
        );
        let kernel = match setup.kernel_refusal() {
            Some(reason) => format!("The kernel does not count packets here: {reason}\n\n"),
            None => String::new(),
        };
        write(&format!("{text}{kernel}"))
    }

    /// Shows the state of things.
    pub fn draw(&mut self, now: &Snapshot) -> io::Result<()> {
        if !self.terminal {
            return write(&format!("{}\n", status_line(now)));
        }
        let lines: Vec<String> = table(now).lines().map(str::to_owned).collect();
        let Some((columns, rows)) = window() else {
            return self.redraw_line(&status_line(now), usize::MAX);
        };
        // A table that does not fit would scroll, and the next could not be drawn over it.
        if lines.len() >= rows {
            return self.redraw_line(&status_line(now), columns);
        }
        let text: String = lines
            .iter()
            .map(|line| clip(line, columns) + "\n")
            .collect();
        let over = self.over_the_last();
        self.drawn = lines.len();
        write(&format!("{over}{text}"))
    }

    /// The last table and the verdict.
    pub fn close(&mut self, last: &Snapshot) -> io::Result<()> {
        let mut text = self.over_the_last();
        self.drawn = 0;
        text.push_str(&table(last));
        let findings = findings(last);
        for finding in &findings {
            let mark = if finding.good { "ok    " } else { "FAILED" };
            text.push_str(&format!("\n{mark}  {}", finding.text));
        }
        let good = findings.iter().all(|finding| finding.good);
        text.push_str(if good {
            "\n\nEvery agent delivered, every impostor was refused.\n"
        } else {
            "\n\nThe demo failed: see the lines marked FAILED.\n"
        });
        write(&text)
    }

    fn redraw_line(&mut self, line: &str, columns: usize) -> io::Result<()> {
        let over = self.over_the_last();
        self.drawn = 1;
        write(&format!("{over}{}\n", clip(line, columns)))
    }

    /// Moves to the first line of what was drawn and clears from there (ECMA-48 CPL and ED).
    fn over_the_last(&self) -> String {
        match self.drawn {
            0 => String::new(),
            lines => format!("\x1b[{lines}F\x1b[J"),
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut output = stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Columns and rows of the terminal; `None` where it does not say.
fn window() -> Option<(usize, usize)> {
    let size = tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0)
        .then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// A wrapped line would count as two.
fn clip(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect()
}

fn status_line(now: &Snapshot) -> String {
    let acknowledged: u64 = now
        .agents
        .iter()
        .map(|agent| agent.state.acknowledged)
        .sum();
    format!(
        "{:>5.1} s  {} agents  {acknowledged} records acknowledged, {} arrived  {} handshakes  refused: {}  kernel: {}",
        now.elapsed.as_secs_f64(),
        now.agents.len(),
        now.arrived(),
        now.handshakes,
        refused_line(now),
        kernel_line(&now.kernel)
    )
}

fn refused_line(now: &Snapshot) -> String {
    let refused: Vec<_> = now
        .refused
        .iter()
        .map(|(reason, count)| format!("{} {count}", reason.label()))
        .collect();
    if refused.is_empty() {
        return "none".to_owned();
    }
    refused.join(", ")
}

fn table(now: &Snapshot) -> String {
    let parts = [agents_table(now), impostors_table(now), gateway_table(now)];
    let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    parts.join("\n") + "\n"
}

fn agents_table(now: &Snapshot) -> Table {
    let mut table = framed([
        "AGENT",
        "TENANT",
        "OVER",
        "RECORDS SENT",
        "ACKNOWLEDGED",
        "ARRIVED",
        "FAILED",
    ]);
    for agent in &now.agents {
        let state = &agent.state;
        table.add_row([
            state.name.clone(),
            agent.tenant.to_owned(),
            format!("{:?}", state.protocol).to_lowercase(),
            state.sent.to_string(),
            state.acknowledged.to_string(),
            agent.arrived.to_string(),
            state.failed_exports.to_string(),
        ]);
    }
    if now.reader_records > 0 {
        let arrived = now.reader_records.to_string();
        table.add_row(["you", "reader", "", "", "", &arrived, ""]);
    }
    table
}

fn impostors_table(now: &Snapshot) -> Table {
    let mut table = framed(["IMPOSTOR", "TRIED", "REFUSED", "COUNTED AS", "WAS TOLD"]);
    for impostor in &now.impostors {
        let counted = now.refused_for(impostor.reason);
        table.add_row([
            impostor.name.to_owned(),
            impostor.attempts.to_string(),
            impostor.refused.to_string(),
            format!("{} {counted}", impostor.reason.label()),
            impostor.said.clone(),
        ]);
    }
    table
}

fn gateway_table(now: &Snapshot) -> Table {
    let mut table = framed(["GATEWAY", ""]);
    let bytes = bytesize::ByteSize;
    table.add_row([
        "running for",
        &format!("{:.0} s", now.elapsed.as_secs_f64()),
    ]);
    table.add_row([
        "connections",
        &format!(
            "{} open, {} handshakes",
            now.connections_open, now.handshakes
        ),
    ]);
    table.add_row([
        "relayed",
        &format!(
            "{} to the receiver, {} back",
            bytes(now.received_bytes),
            bytes(now.sent_bytes)
        ),
    ]);
    table.add_row(["refused", &refused_line(now)]);
    table.add_row(["kernel", &kernel_line(&now.kernel)]);
    table
}

fn framed<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header);
    table
}
