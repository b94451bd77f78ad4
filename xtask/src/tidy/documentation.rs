//! Tidy rules about the pages: the commands they name exist, and so do the files they point to.
//! In: every Markdown page. Out: complaints with page and line.

use std::path::Path;

use clap::CommandFactory;

use super::{TextFile, assert_none, text_files};
use crate::Arguments;
use crate::command::root;

#[test]
fn every_task_that_a_page_names_exists() {
    let command = Arguments::command();
    let known: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    let mut complaints = Vec::new();
    let mut named = 0;
    for file in pages() {
        for line in file.text.lines() {
            for rest in line.split("cargo xtask ").skip(1) {
                let task: String = rest
                    .chars()
                    .take_while(char::is_ascii_alphanumeric)
                    .collect();
                named += 1;
                if !task.is_empty() && !known.contains(&task.as_str()) {
                    complaints.push(format!("{}: cargo xtask {task}", file.path));
                }
            }
        }
    }
    assert!(named > 5, "the pages name {named} tasks");
    assert_none("a page names only tasks that exist", &complaints);
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut complaints = Vec::new();
    for file in pages() {
        let folder = Path::new(&file.path).parent().unwrap();
        for target in links(&file.text) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !path.is_empty() && !root().join(folder).join(path).exists() {
                complaints.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert_none("a link leads to a file", &complaints);
}

fn pages() -> Vec<TextFile> {
    let mut files = text_files();
    files.retain(|file| file.path.ends_with(".md"));
    files
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

#[test]
fn link_targets_are_found() {
    assert_eq!(links("see [a](b.md#c), [d](e)"), ["b.md#c", "e"]);
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let files = text_files();
    let page = files
        .iter()
        .find(|file| file.path == "docs/security.md")
        .unwrap();
    let mut complaints = Vec::new();
    let mut named = 0;
    for name in page.text.split('`').skip(1).step_by(2) {
        let Some((module, test)) = name.split_once("::") else {
            continue;
        };
        named += 1;
        let sets = ["end_to_end", "guard", "kernel"];
        let paths = sets.map(|set| format!("tests/tests/{set}/{module}.rs"));
        let exists = files
            .iter()
            .any(|file| paths.contains(&file.path) && file.text.contains(&format!("fn {test}()")));
        if !exists {
            complaints.push(format!("{}: {name}", page.path));
        }
    }
    assert!(named > 10, "the page names {named} tests");
    assert_none("the security page names tests that exist", &complaints);
}
