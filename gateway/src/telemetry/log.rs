//! The log: `tracing` events as text or JSON lines on standard error.
//! In: events from every thread. Out: lines, written by a thread of their own. A worker never waits for the log: when its
//! reader is too slow, lines are dropped. Lines for the systemd journal begin with their priority.

use std::ffi::OsStr;
use std::fmt;

use gateway_core::limits;
use gateway_core::visible;
use rustix::fs::fstat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::log_queue::LogQueue;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes what is still queued when dropped.
#[derive(Debug)]
pub struct LogGuard(LogQueue);

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.finish(limits::LOG_FINISH_TIMEOUT);
    }
}

/// What is logged: a level (`info`), or a list of levels and `module=level` directives.
#[derive(Debug, Clone)]
pub struct LogFilter(String);

impl LogFilter {
    /// Reads a filter. The library takes a word that is no level for the name of a module, and would log nothing else.
    ///
    /// # Errors
    /// What a filter looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_directive = |directive: &str| match directive.split_once('=') {
            Some(_) => true,
            None => !directive.is_empty() && directive.parse::<LevelFilter>().is_ok(),
        };
        let is_known = text.split(',').map(str::trim).all(is_directive);
        match is_known && EnvFilter::builder().parse(text).is_ok() {
            true => Ok(LogFilter(text.to_owned())),
            false => Err(
                "must be error, warn, info, debug, trace or off, or MODULE=LEVEL as in gateway=debug"
                    .to_owned(),
            ),
        }
    }
}

/// Starts the log of this process.
pub fn start_log(format: LogFormat, filter: &LogFilter) -> anyhow::Result<LogGuard> {
    let tell_dropped = |lines| {
        tracing::warn!(
            lines,
            "log lines were dropped: they came faster than standard error was read"
        );
    };
    let queue = LogQueue::start(limits::LOG_QUEUE_BYTES_MAX, std::io::stderr(), tell_dropped)?;
    let filter = EnvFilter::builder().parse(&filter.0)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(queue.clone())
        .with_target(false);
    let for_journal = goes_to_journal(std::env::var_os("JOURNAL_STREAM").as_deref());
    let started = match format {
        LogFormat::Text => lines
            .with_ansi(false)
            .fmt_fields(Fields)
            .map_event_format(|line| Prioritized { line, for_journal })
            .try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .map_event_format(|line| Prioritized { line, for_journal })
            .try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    Ok(LogGuard(queue))
}

/// Whether standard error is the stream that systemd has connected to the journal: it names that one by device and inode in
/// `JOURNAL_STREAM` (systemd.exec(5)), and a program in between may have redirected ours.
fn goes_to_journal(stream: Option<&OsStr>) -> bool {
    let Ok(own) = fstat(std::io::stderr()) else {
        return false;
    };
    let own = format!("{}:{}", own.st_dev, own.st_ino);
    stream.is_some_and(|stream| stream == own.as_str())
}

/// Lines in which nothing is hidden, and that begin with their priority in angle brackets where the journal reads them
/// (sd-daemon(3)), so that `journalctl --priority warning` finds them.
struct Prioritized<F> {
    line: F,
    for_journal: bool,
}

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.for_journal {
            write!(writer, "<{}>", priority(*event.metadata().level()))?;
        }
        let mut line = String::new();
        self.line
            .format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&visible::escape(&line))
    }
}

/// The fields of a line of text: the message as it is, and each value in quotes unless it is a single word, so that a reader
/// can tell where it ends.
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = FieldsWriter {
            writer,
            is_first: true,
            written: Ok(()),
        };
        fields.record(&mut line);
        line.written
    }
}

struct FieldsWriter<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    written: fmt::Result,
}

impl FieldsWriter<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let blank = if self.is_first { "" } else { " " };
        self.is_first = false;
        let writer = &mut self.writer;
        let written = match field.name() {
            "message" => write!(writer, "{blank}{value}"),
            name => write!(writer, "{blank}{name}={value}"),
        };
        self.written = self.written.and(written);
    }
}

impl Visit for FieldsWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{value:?}"));
    }

    /// Takes everything else: numbers, the message, and values by what they display.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let is_plain =
            |character: char| !character.is_whitespace() && !matches!(character, '"' | '=');
        let shown = format!("{value:?}");
        match field.name() == "message" || (!shown.is_empty() && shown.chars().all(is_plain)) {
            true => self.write(field, format_args!("{shown}")),
            false => self.write(field, format_args!("{shown:?}")),
        }
    }
}

/// The priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_value_of_several_words_stands_in_quotes_whatever_it_displays() {
        let lines = Lines::default();
        let to = lines.clone();
        let log = tracing_subscriber::fmt()
            .fmt_fields(Fields)
            .with_ansi(false);
        let log = log
            .without_time()
            .with_target(false)
            .with_writer(move || to.clone());
        tracing::subscriber::with_default(log.finish(), || {
            let cause = format_args!("SIGHUP of uid 0");
            let (whom, empty) = (format_args!("a=\"b\""), format_args!(""));
            let server = std::net::Ipv4Addr::LOCALHOST;
            tracing::info!(listener = "edge", %cause, %whom, %empty, %server, count = 3, "said = \"so\"");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let expected = "said = \"so\" listener=\"edge\" cause=\"SIGHUP of uid 0\" whom=\"a=\\\"b\\\"\" \
                        empty=\"\" server=127.0.0.1 count=3";
        assert_eq!(text.trim(), format!("INFO {expected}"));
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_and_not_taken_for_a_module() {
        for text in [
            "info",
            "WARN",
            "off",
            "info,gateway::tls=debug",
            "gateway=trace",
        ] {
            assert!(LogFilter::parse(text).is_ok(), "{text}");
        }
        for text in ["", "warning", "foo", "info,foo", "gateway=loud"] {
            assert!(LogFilter::parse(text).is_err(), "{text}");
        }
    }
}
