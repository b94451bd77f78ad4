//! Figures over several units, for machines. In: figures of a tally. Out: rates, percentiles, curves.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::Target;
use crate::tally::{ConnectionKind, Figures, Group, Phases, Tally};

/// Latency percentiles in microseconds, from the intended start of each unit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Latency {
    /// None when nothing was recorded.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        })
    }
}

/// Figures of some of the units.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Units that completed.
    pub completed: u64,
    /// Units that failed.
    pub failed: u64,
    /// Completed units per second of the whole run.
    pub per_second: f64,
    /// Latency of the completed ones.
    pub latency: Option<Latency>,
    /// Shares of the units with what they did not exceed in microseconds, for a chart.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

impl Part {
    fn new(figures: &Figures, elapsed: Duration) -> Self {
        Self {
            completed: figures.completed,
            failed: figures.failed,
            per_second: figures.completed as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            latency: Latency::of(&figures.latency),
            curve: curve(&figures.latency),
        }
    }

    fn none() -> Self {
        Self::new(&Figures::new(), Duration::ZERO)
    }
}

/// How long each phase of the connections took.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseTimes {
    /// TCP, up to the answer of the server's kernel.
    pub connect: Option<Latency>,
    /// TLS, up to our own Finished; null without TLS.
    pub handshake: Option<Latency>,
    /// From the first thing that we said on the connection to the first thing that came back.
    pub first_byte: Option<Latency>,
}

impl PhaseTimes {
    /// Each phase with its name.
    pub(super) fn each(&self) -> [(&'static str, Option<Latency>); 3] {
        [
            ("connect", self.connect),
            ("handshake", self.handshake),
            ("first byte", self.first_byte),
        ]
    }
}

impl From<&Phases> for PhaseTimes {
    fn from(phases: &Phases) -> Self {
        Self {
            connect: Latency::of(&phases.connect),
            handshake: Latency::of(&phases.handshake),
            first_byte: Latency::of(&phases.first_byte),
        }
    }
}

/// What became of a replacement of the identities in mid-run.
#[derive(Debug, Clone, Serialize)]
pub struct RotationReport {
    /// When, in seconds from the common start.
    pub after_seconds: f64,
    /// Connections that have changed their identity.
    pub connections: u64,
    /// Units of connections that had not yet.
    pub before: Part,
    /// Units of those that had.
    pub after: Part,
}

pub(super) fn handshakes(tally: &Tally, elapsed: Duration) -> BTreeMap<ConnectionKind, Part> {
    let parts = tally.groups.iter().filter_map(|(group, figures)| {
        if let Group::Handshake(kind) = group {
            Some((*kind, Part::new(figures, elapsed)))
        } else {
            None
        }
    });
    parts.collect()
}

pub(super) fn targets(target: &Target, tally: &Tally, elapsed: Duration) -> BTreeMap<String, Part> {
    let endpoints = target.endpoints().iter().enumerate();
    let parts = endpoints.map(|(index, endpoint)| {
        let part = tally
            .groups
            .get(&Group::Endpoint(index))
            .map_or_else(Part::none, |figures| Part::new(figures, elapsed));
        (endpoint.name.clone(), part)
    });
    match target.endpoints().len() {
        1 => BTreeMap::new(),
        _ => parts.collect(),
    }
}

pub(super) fn rotation(
    target: &Target,
    tally: &Tally,
    elapsed: Duration,
) -> Option<RotationReport> {
    let part = |group| {
        let figures = tally.groups.get(&group);
        figures.map_or_else(Part::none, |figures| Part::new(figures, elapsed))
    };
    target.rotate_after().map(|after| RotationReport {
        after_seconds: after.as_secs_f64(),
        connections: tally.rotated,
        before: part(Group::BeforeRotation),
        after: part(Group::AfterRotation),
    })
}

/// Points of the distribution, as far out as there are values for them.
pub(super) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    const TAIL: [f64; 10] = [
        0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999, 0.999999,
    ];
    if histogram.is_empty() {
        return Vec::new();
    }
    let finest = 1.0 - 1.0 / histogram.len() as f64;
    let body = (0..=18).map(|step| f64::from(step) / 20.0);
    body.chain(TAIL)
        .filter(|share| *share <= finest)
        .map(|share| {
            let value = histogram.value_at_quantile(share) as f64 / 1e3;
            (share, value)
        })
        .collect()
}
