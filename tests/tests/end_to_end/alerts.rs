//! The alert rules of `deploy`: they fire when they should, on metrics that there are. In: the rules and their tests. Out:
//! what promtool says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Backend, Behaviour, RevocationList, Workspace, promtool};

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
    let page = fs::read_to_string(repository().join("docs/reference.md")).unwrap();
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

/// The labels of each metric: as the page of a running gateway has them, and for what is not on it as the documents say.
fn labels_of_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let list = workspace.agents.revoke("agents", &RevocationList::of(&[]));
    let listener = format!("crl = [{list:?}]");
    let setup = workspace
        .setup()
        .tables("[audit]\nfile = \"audit.jsonl\"\n");
    let gateway = setup
        .route("edge", &listener, &[backend.address()], "")
        .start();
    let (_, page) = gateway.admin("/metrics").unwrap();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let known = labels.entry(name.to_owned()).or_default();
        known.extend(names_of_labels(line));
    }
    assert!(labels.len() > 30, "{labels:?}");
    let rows = fs::read_to_string(repository().join("docs/reference.md")).unwrap();
    for row in rows.lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        if let ["", metric, columns, ..] = cells[..]
            && let Some(metric) = metric.strip_prefix("`portcullis_")
        {
            let metric = format!("portcullis_{}", metric.trim_end_matches('`'));
            let words = columns.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            // One label or another one: this gateway may have only one of them.
            if columns.contains(" or ") || !labels.contains_key(&metric) {
                let known = labels.entry(metric).or_default();
                known.extend(words.map(str::to_owned));
            }
        }
    }
    labels
}

/// The names before each `="` or `=~"` of a selector or a sample.
fn names_of_labels(text: &str) -> BTreeSet<String> {
    let ends = ["=\"", "=~\"", "!=\"", "!~\""];
    let before = ends.iter().flat_map(|end| {
        let parts: Vec<_> = text.split(end).collect();
        parts[..parts.len() - 1].to_vec()
    });
    let name = |part: &str| {
        let letters = part.rfind(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        part[letters.map_or(0, |last| last + 1)..].to_owned()
    };
    before.map(name).filter(|name| !name.is_empty()).collect()
}

fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_of_name(letter));
    words
        .filter(|word| word.starts_with("portcullis_"))
        .collect()
}

/// A label that the metric does not have is empty in an alert, and its test invents it.
#[test]
fn alerts_and_their_tests_name_labels_that_the_metrics_have() {
    let known = labels_of_metrics();
    let of = |text: &str| -> BTreeSet<String> {
        let metrics = metrics_in(text).into_iter();
        let labels = metrics.filter_map(|metric| known.get(metric));
        // What Prometheus itself puts to every sample.
        let own = ["instance", "job"].map(str::to_owned);
        labels.flatten().cloned().chain(own).collect()
    };
    let rules = fs::read_to_string(repository().join("deploy/alerts.yml")).unwrap();
    for rule in rules.split("- alert: ").skip(1) {
        let grouped = rule.split(" by (").skip(1);
        let grouped = grouped.flat_map(|rest| rest.split(')').next().unwrap().split(", "));
        let told = rule.split("$labels.").skip(1);
        let told = told.map(|rest| rest.split([' ', '}']).next().unwrap());
        let used = grouped.chain(told).map(str::to_owned);
        let used: BTreeSet<_> = used.chain(names_of_labels(rule)).collect();
        let strange: Vec<_> = used.difference(&of(rule)).cloned().collect();
        assert!(strange.is_empty(), "{strange:?} in {rule}");
    }
    let tests = fs::read_to_string(repository().join("deploy/alerts_test.yml")).unwrap();
    let series = tests
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- series: portcullis_"));
    for series in series {
        let series = format!("portcullis_{series}");
        let used = names_of_labels(&series);
        let strange: Vec<_> = used.difference(&of(&series)).cloned().collect();
        assert!(strange.is_empty(), "{strange:?} in {series}");
    }
}
