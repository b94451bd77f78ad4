//! What many identities cost: CPU of the gateway for each request of ten thousand identities with a hundred tenants, and of
//! one, on as many connections, in turn. In: rounds. Out: medians, ranges and the ratio within each round, which is
//! promised.

use anyhow::Result;
use serde_json::json;

use super::{Finding, start};
use crate::figures::{Series, table};
use crate::gateway::Gateway;
use crate::load;
use crate::workspace::Workspace;

/// Connections of either load, and identities of one of them.
const CONNECTIONS: usize = 10_000;

/// Requests of one run: more than a second of CPU, which the kernel counts in steps of 10 ms.
const REQUESTS: u64 = 150_000;

/// The most that many may cost over one.
const RATIO_MAX: f64 = 1.05;

/// Measures.
pub fn measure(workspace: &Workspace, rounds: u32) -> Result<Finding> {
    let (_backend, gateway) = start(workspace, "identities", true)?;
    let (mut one, mut many) = (Series::default(), Series::default());
    for round in 1..=rounds {
        let of_one = request(workspace, &gateway, 1)?;
        let of_many = request(workspace, &gateway, CONNECTIONS)?;
        eprintln!("round {round}: {of_one:.1} us, {of_many:.1} us");
        one.push(of_one);
        many.push(of_many);
    }
    let ratio = many.over(&one);
    table(
        &format!("CPU of the gateway for each request, median (range) of {rounds} rounds"),
        &[
            "one identity, us",
            &format!("{CONNECTIONS} identities, us"),
            "ratio",
        ],
        &[vec![one.shown(2), many.shown(2), ratio.shown(3)]],
    );
    let mut broken = Vec::new();
    if ratio.median() > RATIO_MAX {
        broken.push(format!(
            "a request of one of {CONNECTIONS} identities costs at most {RATIO_MAX} times what one of the only identity does: {:.3}",
            ratio.median()
        ));
    }
    Ok(Finding {
        figures: json!({
            "connections": CONNECTIONS,
            "one_us": one.json(),
            "many_us": many.json(),
            "many_over_one": ratio.json(),
        }),
        broken,
    })
}

/// Microseconds of CPU for each request.
fn request(workspace: &Workspace, gateway: &Gateway, identities: usize) -> Result<f64> {
    let mut command = load::scenario(workspace, "h2", gateway.port, identities);
    command
        .args(["--connections", &CONNECTIONS.to_string()])
        .args(["--count", &REQUESTS.to_string(), "--timeout", "60s"])
        .args(["--server-pid", &gateway.process.pid().to_string()]);
    let log = workspace.path(&format!("identities-{identities}.load.log"));
    load::run(command, &log)?.number("/server/cpu_per_unit/value")
}
