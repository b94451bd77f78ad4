//! The alert rules of `deploy`: they fire when they should, on metrics that there are. In: the rules and their tests. Out:
//! what promtool says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::promtool;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn assert_passes(arguments: &[&str]) {
    let output = Command::new(promtool())
        .args(arguments)
        .current_dir(repository().join("deploy"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
}

#[test]
fn alerts_fire_when_they_should() {
    assert_passes(&["check", "rules", "alerts.yml"]);
    assert_passes(&["test", "rules", "alerts_test.yml"]);
}

/// Healthy clients end in every way that is named after the client.
#[test]
fn no_alert_rests_on_how_clients_end() {
    let rules = fs::read_to_string(repository().join("deploy/alerts.yml")).unwrap();
    for reason in ["finished", "client_truncated", "client_reset"] {
        assert!(!rules.contains(reason), "{reason}");
    }
}

#[test]
fn alerts_watch_metrics_that_there_are_and_each_has_a_test() {
    let rules = fs::read_to_string(repository().join("deploy/alerts.yml")).unwrap();
    let page = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let words =
        rules.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let metrics: BTreeSet<_> = words
        .filter(|word| word.starts_with("portcullis_"))
        .collect();
    assert!(metrics.len() > 5, "{metrics:?}");
    for metric in metrics {
        assert!(page.contains(&format!("| `{metric}` |")), "{metric}");
    }
    let tests = fs::read_to_string(repository().join("deploy/alerts_test.yml")).unwrap();
    for alert in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        let fires = tests.split("alertname: ").skip(1).any(|test| {
            let (name, rest) = test.split_once(['\n', ',']).unwrap();
            name == alert && rest.trim_start().starts_with("exp_alerts:\n")
        });
        assert!(fires, "no test in which {alert} fires");
    }
}
