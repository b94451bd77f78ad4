//! Ready sets: what a kind of client calls, by the names and paths of the systems themselves. In: a set's name. Out: its
//! targets. One table a set. `docs/http.md` says what each is for.

use gateway_common::closed_list;

use super::Target;
use crate::http::message::PathPrefix;

/// A row of a set: methods and a path prefix, or a gRPC service or method.
enum Row {
    Path(&'static [&'static str], &'static str),
    Service(&'static str),
}
use Row::{Path, Service};

const POST: &[&str] = &["POST"];

closed_list! {
    /// What a kind of client calls. Labels are their names in `allow`.
    pub enum ReadySet: &'static [Row] {
        /// Exporters of OTLP, over gRPC and HTTP.
        Otlp = "otlp", OTLP;
    }
}

const OTLP: &[Row] = &[
    Service("opentelemetry.proto.collector.trace.v1.TraceService"),
    Service("opentelemetry.proto.collector.metrics.v1.MetricsService"),
    Service("opentelemetry.proto.collector.logs.v1.LogsService"),
    Service("opentelemetry.proto.collector.profiles.v1development.ProfilesService"),
    Path(POST, "/v1/traces"),
    Path(POST, "/v1/metrics"),
    Path(POST, "/v1/logs"),
    Path(POST, "/v1development/profiles"),
];

impl ReadySet {
    /// The set of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.label() == name)
    }

    /// What it permits.
    pub fn targets(self) -> Vec<Target> {
        let target = |row: &Row| match row {
            Path(methods, prefix) => {
                let prefix = PathPrefix::parse(prefix).expect("a test reads every row");
                let methods = methods.iter().map(|method| method.as_bytes().into());
                Target::path(prefix, methods.collect())
            }
            Service(name) => Target::service(name).expect("a test reads every row"),
        };
        self.row().iter().map(target).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_read() {
        for set in ReadySet::ALL {
            assert!(!set.targets().is_empty(), "{}", set.label());
            assert_eq!(ReadySet::named(set.label()), Some(set));
        }
        assert_eq!(ReadySet::named("OTLP"), None);
    }
}
