//! What the parts of a measurement find. In: parts, in turn. Out: a JSON file, and an error when a promise that is given
//! as a figure was not kept.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use crate::{figures, machine, workspace};

/// What a part found.
pub struct Finding {
    /// For the JSON file.
    pub figures: Value,
    /// Promises that were not kept.
    pub broken: Vec<String>,
}

/// Measures parts in turn, each under its name in the file.
pub fn collect<P>(
    file: &str,
    parts: impl Iterator<Item = (String, P)>,
    measure: impl Fn(P) -> Result<Finding>,
) -> Result<()> {
    let file = workspace::results_folder().join(file);
    let mut broken = Vec::new();
    for (name, part) in parts {
        let finding = measure(part)?;
        broken.extend(finding.broken);
        // At once, so that a later part that fails does not take this one along.
        let parts = [("machine".to_owned(), machine()?), (name, finding.figures)];
        figures::save(&file, Map::from_iter(parts))?;
    }
    println!("\nwritten to {}", file.display());
    if !broken.is_empty() {
        bail!("promises that were not kept:\n  {}", broken.join("\n  "));
    }
    Ok(())
}
