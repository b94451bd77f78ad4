//! Medians, percentiles, tables and the JSON file. In: numbers of several rounds. Out: what a reader sees.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

/// One figure, measured once in each round.
#[derive(Debug, Clone, Default)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// Adds a round.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle value, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    /// The smallest value such that at least this share is not greater.
    pub fn percentile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted
            .get(rank.max(1) - 1)
            .or(sorted.last())
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// Smallest and greatest.
    pub fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        (end(sorted.first()), end(sorted.last()))
    }

    /// Round by round, this series over another.
    pub fn over(&self, other: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(one, other)| one / other)
                .collect(),
        )
    }

    /// Median and range as text.
    pub fn shown(&self, digits: usize) -> String {
        let (low, high) = self.range();
        format!(
            "{:.digits$} ({low:.digits$} to {high:.digits$})",
            self.median()
        )
    }

    /// Median, range and every round.
    pub fn json(&self) -> Value {
        let (low, high) = self.range();
        json!({ "median": self.median(), "min": low, "max": high, "rounds": self.0 })
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// A table with a heading over each column.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row.iter().enumerate().map(|(index, text)| {
            Cell::new(text).set_alignment(match index {
                0 => CellAlignment::Left,
                _ => CellAlignment::Right,
            })
        }));
    }
    println!("\n{title}\n{table}");
}

/// Writes parts of a result into its file and keeps the parts that were not measured this time.
pub fn save(file: &Path, parts: Map<String, Value>) -> Result<()> {
    let mut all = match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: not a result of ours", file.display()))?,
        Err(_) => Map::new(),
    };
    all.extend(parts);
    fs::write(file, serde_json::to_string_pretty(&all)? + "\n")
        .with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_percentiles_and_ratios() {
        let odd = Series(vec![3.0, 1.0, 2.0]);
        let even = Series(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((odd.median(), even.median()), (2.0, 2.5));
        assert_eq!(even.range(), (1.0, 4.0));
        let hundred = Series((1..=100).map(f64::from).collect());
        assert_eq!(hundred.percentile(0.5), 50.0);
        assert_eq!(hundred.percentile(0.99), 99.0);
        assert_eq!(hundred.percentile(1.0), 100.0);
        assert_eq!(odd.over(&odd).0, [1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_part_measured_again_replaces_its_older_self_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("result.json");
        let part = |name: &str, value: i32| Map::from_iter([(name.to_owned(), json!(value))]);
        save(&file, part("a", 1)).unwrap();
        save(&file, part("b", 2)).unwrap();
        save(&file, part("a", 3)).unwrap();
        let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(saved, json!({ "a": 3, "b": 2 }));
    }
}
