//! Tidy rules about source files: opening words, length, `unsafe`, words that must not stay, ignored tests.
//! In: the text of every file. Out: complaints with file and line.

use super::folders::unsafe_folders;
use super::{TextFile, assert_none, rust_files, text_files};

/// Lines a file may have without its tests.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with its reason.
const LONGER: [(&str, &str); 0] = [];

#[test]
fn every_file_opens_with_its_place_in_the_flow() {
    let complaints: Vec<_> = rust_files()
        .iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| format!("{}:1", file.path))
        .collect();
    assert_none("a file opens with `//!` and what it is for", &complaints);
}

#[test]
fn no_file_is_too_long() {
    let complaints: Vec<_> = rust_files()
        .iter()
        .filter(|file| !file.path.contains("/tests/"))
        .filter(|file| !LONGER.iter().any(|(path, _)| *path == file.path))
        .filter_map(|file| {
            let lines = lines_without_tests(&file.text);
            (lines > LINES_MAX).then(|| format!("{}: {lines} lines", file.path))
        })
        .collect();
    assert_none(
        "a file has at most 600 lines without its tests",
        &complaints,
    );
}

fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "))
        .unwrap_or(lines.len())
}

#[test]
fn the_unsafe_keyword_stands_in_named_folders_only() {
    let folders = unsafe_folders();
    let mut complaints = Vec::new();
    for file in rust_files() {
        if folders.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        complaints.extend(places(&file, |line| {
            let code = line.split("//").next().unwrap_or_default();
            let words: Vec<&str> = code.split_whitespace().collect();
            words.windows(2).any(|pair| {
                pair[0].ends_with("unsafe")
                    && matches!(pair[1], "{" | "fn" | "impl" | "extern" | "trait")
            })
        }));
    }
    assert_none(
        "`unsafe` lives in the folders that the table in CONTRIBUTING.md gives it to",
        &complaints,
    );
}

#[test]
fn nothing_unfinished_and_nothing_of_one_machine_stays() {
    // In two halves each, or this file would complain about itself.
    let banned = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("todo", "!("),
        concat!("unimple", "mented!("),
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("npmjs", ".org"),
        concat!("static.crates", ".io"),
        concat!("index.crates", ".io"),
        concat!("deb.debian", ".org"),
    ];
    let mut complaints = Vec::new();
    // The licence is not ours to word.
    for file in text_files()
        .iter()
        .filter(|file| file.path != "LICENSE-APACHE")
    {
        complaints.extend(places(file, |line| {
            banned.iter().any(|word| line.contains(word))
        }));
    }
    assert_none("words that must not stay", &complaints);
}

/// Written by `Debug`, a duration is text with a unit of its own choice ("1.5s", "12ms"), which nobody can add up or compare.
#[test]
fn log_fields_are_numbers_or_text_meant_for_reading_and_never_debugging_output() {
    let mut complaints = Vec::new();
    for file in rust_files() {
        if !file.path.starts_with("gateway") || file.path.contains("/tests/") {
            continue;
        }
        for (start, _) in file.text.match_indices(concat!("tracing", "::")) {
            let Some((name, arguments)) = file.text[start..].split_once("!(") else {
                continue;
            };
            if name.contains(|character: char| character.is_whitespace() || character == '(') {
                continue;
            }
            let fields = arguments.split(");").next().unwrap_or_default();
            let words =
                fields.split(|character: char| character.is_whitespace() || character == '(');
            if words.into_iter().any(|word| word.starts_with('?')) {
                let line = file.text[..start].lines().count();
                complaints.push(format!("{}:{line}", file.path));
            }
        }
    }
    assert_none(
        "a log field is a number with its unit in its name, or text by `%`; never `?`",
        &complaints,
    );
}

#[test]
fn every_ignored_test_has_its_reason() {
    let bare = concat!("#[ig", "nore]");
    let mut complaints = Vec::new();
    for file in rust_files() {
        complaints.extend(places(&file, |line| line.contains(bare)));
    }
    assert_none("an ignored test says why", &complaints);
}

/// Clippy reads the nearest clippy.toml and no other.
#[test]
fn a_crates_own_clippy_settings_repeat_those_of_the_workspace() {
    let parse = |file: &TextFile| -> toml::Table { toml::from_str(&file.text).unwrap() };
    let (of_all, own): (Vec<_>, Vec<_>) = text_files()
        .into_iter()
        .filter(|file| file.path.ends_with("clippy.toml"))
        .partition(|file| file.path == "clippy.toml");
    let of_all = parse(&of_all[0]);
    let mut complaints = Vec::new();
    for file in &own {
        let settings = parse(file);
        let missing = of_all
            .iter()
            .filter(|(key, value)| settings.get(*key) != Some(value));
        complaints.extend(missing.map(|(key, value)| format!("{}: {key} = {value}", file.path)));
    }
    assert_none(
        "a crate's clippy.toml has the settings of the workspace too",
        &complaints,
    );
}

/// Every line of a file that the rule catches.
fn places(file: &TextFile, rule: impl Fn(&str) -> bool) -> Vec<String> {
    file.text
        .lines()
        .enumerate()
        .filter(|(_, line)| rule(line))
        .map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim()))
        .collect()
}

#[test]
fn tests_at_the_end_of_a_file_do_not_count_for_its_length() {
    assert_eq!(
        lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"),
        2
    );
    assert_eq!(lines_without_tests("a\n#[cfg(test)]\nuse b;\nc\n"), 4);
}
