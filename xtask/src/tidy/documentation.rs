//! Tidy rules about the pages: the commands they name exist, and so do the files they point to.
//! In: every Markdown page. Out: complaints with page and line.

use std::path::Path;

use clap::CommandFactory;

use super::paths::identifier;
use super::{FOREIGN, TextFile, assert_none, text_files};
use crate::Arguments;
use crate::house::source::crates;
use command::root;

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
fn every_task_has_a_row_among_the_commands() {
    let page = page("CONTRIBUTING.md");
    let rows = first_column(&page.text, "command");
    let command = Arguments::command();
    let names = command.get_subcommands().map(clap::Command::get_name);
    let complaints: Vec<String> = names
        .filter(|name| {
            let task = format!("cargo xtask {name}");
            let is_row_of = |row: &&str| {
                let rest = row.strip_prefix(&task);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            };
            !rows.iter().any(is_row_of)
        })
        .map(str::to_owned)
        .collect();
    assert!(rows.len() > 10, "the table has {} commands", rows.len());
    assert_none("a task has a row in CONTRIBUTING.md", &complaints);
}

/// Pages that name modules as code does, `gateway_core::trust`.
const PAGES_WITH_MODULES: [&str; 2] = ["CONTRIBUTING.md", "docs/architecture.md"];

#[test]
fn every_module_that_a_page_names_exists() {
    let crates = crates(&root()).unwrap();
    let mut complaints = Vec::new();
    let mut named = 0;
    for page in PAGES_WITH_MODULES.map(page) {
        for name in page.text.split('`').skip(1).step_by(2) {
            let mut parts = name.split("::");
            let first = parts.next().unwrap_or_default();
            let one = crates.iter().find(|one| identifier(&one.name) == first);
            let exists = match (one, parts.next()) {
                (Some(one), Some(module)) => one.files.iter().any(|file| file.module == module),
                (Some(_), None) => true,
                (None, _) if first.starts_with("gateway_") => false,
                (None, _) => continue,
            };
            named += 1;
            if !exists {
                complaints.push(format!("{}: {name}", page.path));
            }
        }
    }
    assert!(named > 3, "the pages name {named} modules");
    assert_none("a page names only modules that exist", &complaints);
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

#[test]
fn every_link_to_a_part_of_a_page_leads_to_a_heading() {
    let pages = pages();
    let mut complaints = Vec::new();
    let mut followed = 0;
    for file in &pages {
        let folder = Path::new(&file.path).parent().unwrap();
        for target in links(&file.text) {
            let Some((path, anchor)) = target.split_once('#') else {
                continue;
            };
            let path = if path.is_empty() {
                file.path.clone()
            } else {
                without_dots(&folder.join(path))
            };
            // A link to another site names no page of ours.
            let Some(page) = pages.iter().find(|page| page.path == path) else {
                continue;
            };
            followed += 1;
            if !headings(&page.text).contains(&anchor.to_owned()) {
                complaints.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert!(followed > 50, "the pages link to {followed} headings");
    assert_none("a link leads to a heading", &complaints);
}

/// The path without `..`, from the root of the repository.
fn without_dots(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap().split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// The anchors of a page's headings, as the usual renderers make them.
fn headings(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut anchors = Vec::new();
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if !in_code && title.len() < line.len() && title.starts_with(' ') {
            anchors.push(anchor(title.trim()));
        }
    }
    anchors
}

fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn pages() -> Vec<TextFile> {
    let mut files = text_files();
    files.retain(|file| file.path.ends_with(".md"));
    files
}

fn page(path: &str) -> TextFile {
    let mut pages = pages().into_iter();
    pages.find(|page| page.path == path).unwrap()
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
fn anchors_are_made_as_renderers_make_them() {
    let page =
        "# Replace a CA, without an outage\n```sh\n# no heading\n```\n### `[admin.tls]`\n#none\n";
    assert_eq!(
        headings(page),
        ["replace-a-ca-without-an-outage", "admintls"]
    );
    assert_eq!(without_dots(Path::new("docs/../README.md")), "README.md");
}

/// Characters that a line of a page may have.
const COLUMNS_MAX: usize = 120;

#[test]
fn no_line_of_a_page_is_too_long() {
    let complaints: Vec<String> = pages()
        .iter()
        .flat_map(|file| {
            long_lines(&file.text)
                .into_iter()
                .map(|number| format!("{}:{number}", file.path))
        })
        .collect();
    let rule = format!("a line of a page has at most {COLUMNS_MAX} characters");
    assert_none(&rule, &complaints);
}

/// Numbers of the lines that are too long. A row of a table and an object of JSON Lines cannot be broken.
fn long_lines(text: &str) -> Vec<usize> {
    let mut in_json = false;
    let mut numbers = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("```") {
            in_json = line == "```json";
        }
        if line.chars().count() > COLUMNS_MAX && !in_json && !line.starts_with('|') {
            numbers.push(number);
        }
    }
    numbers
}

#[test]
fn lines_that_are_too_long_are_found() {
    let long = "x ".repeat(COLUMNS_MAX);
    let page = format!("{long}\n| {long} |\n```json\n{long}\n```\n```sh\n{long}\n```\n");
    assert_eq!(long_lines(&page), [1, 7]);
}

#[test]
fn the_table_of_fuzz_targets_has_every_target_and_no_other() {
    let files = text_files();
    let targets = files
        .iter()
        .filter_map(|file| file.path.strip_prefix("fuzz/targets/"));
    let targets: Vec<&str> = targets
        .filter_map(|file| file.strip_suffix(".rs"))
        .collect();
    let page = files.iter().find(|file| file.path == "CONTRIBUTING.md");
    let mut named = first_column(&page.unwrap().text, "target");
    named.sort_unstable();
    assert_eq!(
        named, targets,
        "the targets in CONTRIBUTING.md and in fuzz/targets"
    );
}

/// What the first column of a table holds that begins with `head`, without its backticks.
fn first_column<'a>(page: &'a str, head: &str) -> Vec<&'a str> {
    let head = format!("| {head} |");
    let lines = page.lines().skip_while(|line| !line.starts_with(&head));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.map(|cell| cell.trim().trim_matches('`')).collect()
}

#[test]
fn every_file_of_the_repository_that_a_page_names_exists() {
    let mut complaints = Vec::new();
    let mut named = 0;
    for file in pages() {
        // What was once is told in the changelog.
        if file.path == "CHANGELOG.md" {
            continue;
        }
        for name in file.text.split('`').skip(1).step_by(2) {
            let Some((folder, _)) = name.split_once('/') else {
                continue;
            };
            let is_path = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
            let is_made = name.split('/').any(|part| FOREIGN.contains(&part));
            if !is_path || is_made || folder.is_empty() || !root().join(folder).is_dir() {
                continue;
            }
            named += 1;
            if !root().join(name).exists() {
                complaints.push(format!("{}: {name}", file.path));
            }
        }
    }
    assert!(named > 10, "the pages name {named} files");
    assert_none("a page names only files that exist", &complaints);
}

/// The part of docs/security.md below each of these headings is a table whose rows end with the tests that hold them.
const CLAIMS: [&str; 2] = [
    "## Claims\n",
    "## What went wrong elsewhere, and what is done here\n",
];

#[test]
fn every_claim_of_the_security_page_names_tests_that_exist() {
    let files = text_files();
    let page = files
        .iter()
        .find(|file| file.path == "docs/security.md")
        .unwrap();
    let mut complaints = Vec::new();
    let mut claims = 0;
    for heading in CLAIMS {
        let (_, part) = page.text.split_once(heading).unwrap();
        let part = part.split("\n## ").next().unwrap();
        let rows = part.lines().filter(|line| line.starts_with("| "));
        for row in rows.filter(|row| !row.starts_with("| ---") && !row.ends_with("| test |")) {
            claims += 1;
            let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let mut named = tests.split('`').skip(1).step_by(2).peekable();
            if named.peek().is_none() {
                complaints.push(format!("no test: {row}"));
            }
            for name in named.filter(|name| !is_test(&files, name)) {
                complaints.push(format!("{name}: {row:.60}"));
            }
        }
    }
    assert!(claims > 50, "the page makes {claims} claims");
    assert_none("a claim names a test that exists", &complaints);
}

/// Whether `module::name` is a test against the program, or a path that of a file with unit tests.
fn is_test(files: &[TextFile], name: &str) -> bool {
    let has = |path: &str, text: &str| {
        let mut files = files.iter();
        files.any(|file| file.path == path && file.text.contains(text))
    };
    match name.rsplit_once("::") {
        Some((module, test)) => ["end_to_end", "guard", "kernel"].iter().any(|set| {
            let module = module.replace("::", "/");
            let test = format!("#[test]\nfn {test}()");
            has(&format!("tests/tests/{set}/{module}.rs"), &test)
                || has(&format!("tests/tests/{set}/{module}/mod.rs"), &test)
        }),
        None => has(name, "#[test]"),
    }
}
