//! Whether requests leave anything behind. In: a hundred thousand requests of one identity, then nine times as many. Out:
//! the gateway's memory after each.

use anyhow::Result;
use serde_json::json;

use super::{Finding, start};
use crate::figures::table;
use crate::load;
use crate::workspace::Workspace;

/// Requests before the first look, and before the second one.
const REQUESTS: [u64; 2] = [100_000, 900_000];

/// What the second load may leave: a page for every ten thousand requests, which would be found after a day.
const GROWTH_KIB_MAX: u64 = 360;

/// Measures.
pub fn measure(workspace: &Workspace) -> Result<Finding> {
    let (_backend, gateway) = start(workspace, "growth", false)?;
    let mut resident = Vec::new();
    for count in REQUESTS {
        let mut command = load::scenario(workspace, "h2", gateway.port, 1);
        command
            .args(["--connections", "4", "--streams", "16"])
            .args(["--count", &count.to_string()]);
        load::run(command, &workspace.path("growth.load.log"))?;
        resident.push(gateway.process.memory_kib("VmRSS")?);
    }
    let growth = resident[1].saturating_sub(resident[0]);
    table(
        "resident memory of the gateway, requests of one identity",
        &["requests", "KiB"],
        &[
            vec!["100,000".to_owned(), resident[0].to_string()],
            vec!["1,000,000".to_owned(), resident[1].to_string()],
        ],
    );
    let mut broken = Vec::new();
    if growth > GROWTH_KIB_MAX {
        broken.push(format!(
            "900,000 more requests leave at most {GROWTH_KIB_MAX} KiB: {growth}"
        ));
    }
    Ok(Finding {
        figures: json!({ "after_100_000_kib": resident[0], "after_1_000_000_kib": resident[1] }),
        broken,
    })
}
