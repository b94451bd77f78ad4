//! Tidy: rules of the project that no compiler checks, as ordinary tests over the working tree.
//! In: the files of the repository. Out: one message that names every place that breaks a rule.

mod closed_lists;
mod dependencies;
mod documentation;
mod folders;
mod functions;
mod names;
mod paths;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use command::root;

/// Folders that are not part of the project.
const FOREIGN: [&str; 6] = [
    "target",
    ".git",
    ".tools",
    "node_modules",
    "artifacts",
    "corpus",
];

/// A text file of the repository.
struct TextFile {
    /// Path from the root.
    path: String,
    text: String,
}

/// Every text file, sorted.
fn text_files() -> Vec<TextFile> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let files: Vec<TextFile> = paths
        .into_iter()
        .filter_map(|path| {
            // What is not UTF-8 is not text: the kernel program's object, for one.
            let text = fs::read_to_string(&path).ok()?;
            let path = path
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            Some(TextFile { path, text })
        })
        .collect();
    // A walk that finds next to nothing would let every rule pass.
    assert!(
        files.len() > 50,
        "only {} files below {}",
        files.len(),
        root.display()
    );
    files
}

fn rust_files() -> Vec<TextFile> {
    let mut files = text_files();
    files.retain(|file| file.path.ends_with(".rs"));
    files
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if FOREIGN.iter().any(|foreign| name == *foreign) {
            continue;
        }
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), paths);
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
}

/// The text of a file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with every complaint at once.
fn assert_none(rule: &str, complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{rule}:\n  {}",
        complaints.join("\n  ")
    );
}
