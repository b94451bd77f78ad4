//! What the guard tells of itself, against the pages that describe it: metrics and audit lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::eventually;

use crate::topology::{ATTACKER, BAD, Guarded, Privileges, Topology};

const ENFORCE: &str = "mode = \"enforce\"\ninterfaces = [\"gate0\"]";

fn families(guarded: &Guarded<'_>) -> BTreeSet<String> {
    let page = guarded.metrics_page();
    let family = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        let suffix = if kind == "counter" { "_total" } else { "" };
        name.starts_with("portcullis_guard_")
            .then(|| format!("{name}{suffix}"))
    };
    page.lines().filter_map(family).collect()
}

#[test]
fn every_metric_of_the_guard_is_in_the_reference_and_the_other_way_round() {
    let topology = Topology::new();
    let by_kernel = topology.start(ENFORCE);
    let mut there = families(&by_kernel);
    by_kernel.stop();
    let nothing = Privileges {
        setpriv: &["--bounding-set=-all", "--inh-caps=-all"],
        ..Privileges::default()
    };
    there.extend(families(&topology.start_configured("portcullis", nothing)));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let page = fs::read_to_string(page).expect("it is there");
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `portcullis_guard_")?.split_once("` |"))
        .map(|(name, _)| format!("portcullis_guard_{name}"))
        .collect();
    assert_eq!(there, documented);
}

#[test]
fn bans_are_audited_with_the_fields_that_the_page_describes() {
    let topology = Topology::new();
    let guarded = topology.start(&format!("{ENFORCE}\nban_first = \"1s\""));
    topology.flood(&["badcert"], &BAD);
    let lines = eventually("the ban and its end are audited", || {
        let lines = audit_lines(&topology);
        (lines.len() == 2).then_some(lines)
    });
    let [banned, over] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    for line in [banned, over] {
        assert_eq!(line["source"], ATTACKER);
        assert_eq!(line["reason"], "unknown_issuer");
        assert_eq!(line["by"], "guard");
        assert_eq!(line["lasts_seconds"], 1);
        assert!(line["time"].is_string(), "{line}");
    }
    assert_eq!(banned["outcome"], "banned");
    assert_eq!(banned["port"], 4317);
    assert_eq!(over["outcome"], "over");
    assert_eq!(over["port"], Value::Null);
    guarded.stop();
}

fn audit_lines(topology: &Topology) -> Vec<Value> {
    let log = fs::read_to_string(topology.workspace.folder().join("portcullis.audit"))
        .expect("it is there");
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
    lines.filter(|line| line["event"] == "guard_ban").collect()
}
