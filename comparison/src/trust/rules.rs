//! What rules for identities cost: CPU time of each full and each resumed handshake with ten and with ten thousand of
//! them, in turn. In: rounds. Out: medians, ranges and the ratio within each round, which is promised.

use anyhow::Result;
use serde_json::json;

use super::resume::{BOTH, HandshakeCost, server, take_turns};
use super::{Finding, TrustOptions};
use crate::figures::table;
use crate::gateway::{Gateway, Setup};
use crate::job::Job;
use crate::load;
use crate::workspace::Workspace;

/// Rules of the two gateways; the last one is the one that matches.
const FEW: usize = 10;
const MANY: usize = 10_000;

/// The most that many may cost over few.
const RATIO_MAX: f64 = 1.03;

/// Measures.
pub fn measure(workspace: &Workspace, options: &TrustOptions) -> Result<Finding> {
    let (_backend, backend) = load::backend(workspace)?;
    let start = |name, rules: usize| {
        Gateway::start(
            workspace,
            &Setup {
                name,
                program: &workspace.gateway,
                job: Job::Relay,
                backend,
                crl: None,
                provider: None,
                other_rules: rules - 1,
                has_tenants: false,
            },
        )
    };
    let (few, many) = (start("few", FEW)?, start("many", MANY)?);
    let servers = [
        server("few", &few.process, few.port, BOTH),
        server("many", &many.process, many.port, BOTH),
    ];
    let costs = take_turns(workspace, &servers, options.rounds)?;
    Ok(conclude(&costs, options.rounds))
}

fn conclude(costs: &[HandshakeCost], rounds: u32) -> Finding {
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    let mut broken = Vec::new();
    for &mode in BOTH {
        let of = |name: &str| {
            let mut found = costs.iter().filter(|cost| cost.mode == mode);
            let cost = found.find(|cost| cost.name == name);
            &cost.expect("each takes its turn").cpu
        };
        let ratio = of("many").over(of("few"));
        rows.push(vec![
            mode.to_owned(),
            of("few").shown(0),
            of("many").shown(0),
            ratio.shown(3),
        ]);
        if ratio.median() > RATIO_MAX {
            broken.push(format!(
                "{MANY} rules cost a {mode} handshake at most {RATIO_MAX} times what {FEW} do: {:.3}",
                ratio.median()
            ));
        }
        figures.push(json!({
            "handshake": mode,
            "few_us": of("few").json(),
            "many_us": of("many").json(),
            "many_over_few": ratio.json(),
        }));
    }
    table(
        &format!("CPU of the gateway for each handshake, median (range) of {rounds} rounds"),
        &[
            "",
            &format!("{FEW} rules, us"),
            &format!("{MANY} rules, us"),
            "ratio",
        ],
        &rows,
    );
    Finding {
        figures: json!(figures),
        broken,
    }
}
