//! Diagnostics of a configuration: every error with file, line, key, value and expectation, and warnings.
//! In: findings, in any order. Out: `ConfigErrors`, by line. It also keeps what checks need to know of the file itself.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gateway_core::visible;
use gateway_files::FileSnapshot;
use gateway_x509::crl_ranks::KnownLists;

use super::checked::CertificateFile;
use super::reread::ListFiles;
use super::revocation::LoadedList;
use super::value::{Field, Spanned};
pub(super) use gateway_x509::misplaced::without_pem;

/// Longest part of a value that an error repeats, in characters.
const WRITTEN_CHARACTERS_MAX: usize = 80;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The configuration file.
    pub file: PathBuf,
    /// Line, counted from one; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// Section and key, such as `listener "edge": handshake_timeout`; empty where the file as a whole is meant.
    pub key: String,
    /// The value as written; `None` where there is none.
    pub written: Option<String>,
    /// What is wrong and what was expected.
    pub expectation: String,
    /// Two files do not go together that are replaced one after the other: it may be right in a moment.
    pub may_pass: bool,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = without_pem(self.file.display().to_string());
        write!(formatter, "{file}:")?;
        if let Some(line) = self.line {
            write!(formatter, "{line}:")?;
        }
        match (self.key.as_str(), &self.written) {
            ("", _) => {}
            (key, None) => write!(formatter, " {key}:")?,
            (key, Some(written)) => write!(formatter, " {key} = {written}:")?,
        }
        write!(formatter, " {}", on_one_line(&self.expectation))
    }
}

/// A path may hold anything; an error is one line that a terminal can show.
fn on_one_line(text: &str) -> String {
    let escape = |character: char| match visible::is_hidden(character) {
        true => character.escape_default().collect::<String>(),
        false => character.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Everything that is wrong, by line; at least one error.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    files: Vec<FileSnapshot>,
    again_at: Option<SystemTime>,
    lists: Vec<ListFiles>,
}

impl ConfigErrors {
    /// The errors.
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.errors
    }

    /// Every file that was read or should have been: a change of one of them may be the repair.
    pub fn files(&self) -> &[FileSnapshot] {
        &self.files
    }

    /// The revocation lists that it names, as far as it was understood: they may act although it is refused.
    pub fn lists(&self) -> &[ListFiles] {
        &self.lists
    }

    /// When a certificate or list that is refused today for its dates begins.
    pub fn again_at(&self) -> Option<SystemTime> {
        self.again_at
    }

    /// Whether all that is wrong may be right in a moment.
    pub fn may_pass(&self) -> bool {
        self.errors.iter().all(|error| error.may_pass)
    }

    /// The file itself cannot be used.
    pub(super) fn of_file(file: FileSnapshot, expectation: String) -> Self {
        let error = ConfigError {
            file: file.path().to_owned(),
            line: None,
            key: String::new(),
            written: None,
            expectation,
            may_pass: false,
        };
        ConfigErrors {
            errors: vec![error],
            files: vec![file],
            again_at: None,
            lists: Vec::new(),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Where a section stands.
#[derive(Debug, Clone)]
pub struct Location {
    /// How errors call it: `listener "edge"`; empty at the top of the file.
    pub label: String,
    /// Line of its heading.
    pub line: usize,
}

impl Location {
    /// The section's key, for an error.
    pub fn key(&self, key: &str) -> String {
        match self.label.as_str() {
            "" => key.to_owned(),
            label => format!("{label}: {key}"),
        }
    }
}

/// What was found in a part of a file.
#[derive(Debug)]
pub struct Findings {
    errors: Vec<ConfigError>,
    warnings: Vec<(usize, String)>,
    files: Vec<FileSnapshot>,
}

/// Collects what is found while a file is read and checked.
#[derive(Debug)]
pub struct Diagnostics<'a> {
    file: &'a Path,
    text: &'a str,
    /// The time that validity is evaluated at.
    pub now: SystemTime,
    /// Whether a certificate that has ended is taken like any other: `check --expiry` has to tell of it.
    pub takes_expired: bool,
    /// Whether this is the dry run of another configuration's `observe`.
    pub is_dry_run: bool,
    /// Sections of the file before the text.
    pub sections_before: usize,
    lines_before: usize,
    /// Line, value and text of each error of a value.
    said: HashSet<(usize, String, String)>,
    line_starts: Vec<usize>,
    errors: Vec<ConfigError>,
    warnings: Vec<(usize, String)>,
    certificates: Vec<CertificateFile>,
    files: Vec<FileSnapshot>,
    again_at: Option<SystemTime>,
    lists: Vec<ListFiles>,
    /// The newest lists that were in force before.
    pub known_lists: KnownLists,
    /// The lists that were found, to be compared with each other.
    pub loaded_lists: Vec<LoadedList>,
}

impl<'a> Diagnostics<'a> {
    /// Begins with no findings on `text`, which was read from `file`.
    pub fn new(file: &'a Path, text: &'a str, now: SystemTime) -> Self {
        let after_breaks = text.match_indices('\n').map(|(index, _)| index + 1);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        let (errors, warnings, certificates, files) = Default::default();
        Diagnostics {
            file,
            text,
            now,
            takes_expired: false,
            is_dry_run: false,
            sections_before: 0,
            lines_before: 0,
            said: HashSet::new(),
            line_starts,
            errors,
            warnings,
            certificates,
            files,
            again_at: None,
            lists: Vec::new(),
            known_lists: KnownLists::default(),
            loaded_lists: Vec::new(),
        }
    }

    /// Begins with no findings on a piece of another file, before which that has so many lines and sections.
    pub fn part<'p>(
        &self,
        file: &'p Path,
        text: &'p str,
        (lines_before, sections_before): (usize, usize),
    ) -> Diagnostics<'p> {
        Diagnostics {
            lines_before,
            sections_before,
            ..Diagnostics::new(file, text, self.now)
        }
    }

    /// How many errors there are.
    pub fn errors_count(&self) -> usize {
        self.errors.len()
    }

    /// What was found in a part.
    pub fn into_findings(self) -> Findings {
        Findings {
            errors: self.errors,
            warnings: self.warnings,
            files: self.files,
        }
    }

    /// Takes what was found in a part; it stands behind what is said of this file.
    pub fn absorb(&mut self, findings: Findings) {
        self.errors.extend(findings.errors);
        for file in findings.files {
            if self.files.iter().all(|known| known.path() != file.path()) {
                self.files.push(file);
            }
        }
        let warnings = findings.warnings.into_iter();
        self.warnings
            .extend(warnings.map(|(_, text)| (usize::MAX, text)));
    }

    /// As `warn`, of another file.
    pub fn warn_in(&mut self, file: &Path, line: usize, key: &str, text: impl fmt::Display) {
        let warning = format!("{}:{line}: {key}: {text}", file.display());
        let position = if file == self.file { line } else { usize::MAX };
        self.warnings.push((position, warning));
    }

    /// The configuration file.
    pub fn file(&self) -> &Path {
        self.file
    }

    /// Its text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Line of a byte of the text, counted from one.
    pub fn line(&self, offset: usize) -> usize {
        self.lines_before + self.line_starts.partition_point(|start| *start <= offset)
    }

    /// A piece of the text as written, on one line and not too long.
    pub fn written(&self, span: std::ops::Range<usize>) -> String {
        let piece = self.text.get(span).unwrap_or_default();
        let mut words = piece.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = words.char_indices().nth(WRITTEN_CHARACTERS_MAX) {
            words.truncate(end);
            words.push('…');
        }
        words
            .chars()
            .filter(|character| !visible::is_hidden(*character))
            .collect()
    }

    /// A path of the file, which is relative to the file's directory. To be called before that is read: it is remembered as
    /// what it is now, so that a later change is noticed.
    pub fn resolve(&mut self, path: &str) -> PathBuf {
        let path = self.file.parent().unwrap_or(Path::new("")).join(path);
        if !self.files.iter().any(|snapshot| snapshot.path() == path) {
            self.files.push(FileSnapshot::now(&path));
        }
        path
    }

    /// A file has been read.
    pub fn note(&mut self, file: FileSnapshot) {
        self.files.push(file);
    }

    /// The files that were read.
    pub fn files(&self) -> &[FileSnapshot] {
        &self.files
    }

    /// Something reads differently from this time on: a certificate or list begins or ends.
    pub fn turns_at(&mut self, time: SystemTime) {
        if time > self.now {
            self.again_at = Some(self.again_at.map_or(time, |known| known.min(time)));
        }
    }

    /// The first time at which something reads differently.
    pub fn again_at(&self) -> Option<SystemTime> {
        self.again_at
    }

    /// A listener or backend names these revocation lists.
    pub fn revokes(&mut self, lists: ListFiles) {
        self.lists.push(lists);
    }

    /// A value is wrong.
    pub fn wrong<T>(
        &mut self,
        location: &Location,
        key: &str,
        item: &Spanned<T>,
        expectation: impl fmt::Display,
    ) {
        self.push(
            item.line,
            location.key(key),
            Some(item.written.clone()),
            expectation.to_string(),
        );
    }

    /// As `wrong`, of two files that are replaced one after the other.
    pub fn wrong_for_now<T>(
        &mut self,
        location: &Location,
        key: &str,
        item: &Spanned<T>,
        expectation: impl fmt::Display,
    ) {
        let before = self.errors.len();
        self.wrong(location, key, item, expectation);
        for error in &mut self.errors[before..] {
            error.may_pass = true;
        }
    }

    /// Something is wrong that is not a single value.
    pub fn refuse(&mut self, line: usize, key: String, expectation: impl fmt::Display) {
        self.push(line, key, None, expectation.to_string());
    }

    /// A key that must be there is not.
    pub fn missing(&mut self, location: &Location, key: &str, expectation: &str) {
        self.push(
            location.line,
            location.key(key),
            None,
            format!("missing: {expectation}"),
        );
    }

    /// Checks the value of a key that must be there.
    pub fn required<T, U>(
        &mut self,
        location: &Location,
        key: &str,
        field: Field<T>,
        expectation: &str,
        check: impl FnOnce(&T) -> Result<U, String>,
    ) -> Option<U> {
        let checked = self.optional(location, key, field, check)?;
        if checked.is_none() {
            self.missing(location, key, expectation);
        }
        checked
    }

    /// Checks the value of a key that may be left out: `None` is a wrong value, `Some(None)` is none.
    pub fn optional<T, U>(
        &mut self,
        location: &Location,
        key: &str,
        field: Field<T>,
        check: impl FnOnce(&T) -> Result<U, String>,
    ) -> Option<Option<U>> {
        let item = match field {
            Field::Absent => return Some(None),
            Field::Wrong => return None,
            Field::Given(item) => item,
        };
        match check(&item.value) {
            Ok(checked) => Some(Some(checked)),
            Err(expectation) => {
                self.wrong(location, key, &item, expectation);
                None
            }
        }
    }

    /// Refuses a key that is planned: taking it and doing nothing would be a lie.
    pub fn not_built<T>(&mut self, location: &Location, key: &str, field: &Field<T>) {
        if let Field::Given(item) = field {
            self.wrong(location, key, item, "not built yet: remove it");
        }
    }

    /// The operator should know.
    pub fn warn(&mut self, line: usize, key: &str, text: impl fmt::Display) {
        let separator = if key.is_empty() { "" } else { ": " };
        let warning = without_pem(format!("{key}{separator}{text}"));
        let warning = format!("{}:{line}: {warning}", self.file.display());
        self.warnings.push((line, warning));
    }

    /// A certificate is in use.
    pub fn certificate(&mut self, certificate: CertificateFile) {
        self.certificates.push(certificate);
    }

    /// Hands over the certificates in use.
    pub fn take_certificates(&mut self) -> Vec<CertificateFile> {
        std::mem::take(&mut self.certificates)
    }

    /// Whether nothing wrong was found.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The warnings, by line.
    pub fn into_warnings(mut self) -> Vec<String> {
        self.warnings.sort_by_key(|(line, _)| *line);
        self.warnings.into_iter().map(|(_, text)| text).collect()
    }

    /// The errors, by line.
    pub fn into_errors(mut self) -> ConfigErrors {
        assert!(
            !self.errors.is_empty(),
            "a configuration is refused for a reason that is told"
        );
        self.merge_errors_of_files();
        let own = self.file;
        let order = |error: &ConfigError| (error.file != own, error.line);
        self.errors.sort_by(|one, other| {
            let by_file = one.file.cmp(&other.file);
            let (one, other) = (order(one), order(other));
            one.0.cmp(&other.0).then(by_file).then(one.1.cmp(&other.1))
        });
        ConfigErrors {
            errors: self.errors,
            files: self.files,
            again_at: self.again_at,
            lists: self.lists,
        }
    }

    /// Says once what is wrong with one file, however many sections name it.
    fn merge_errors_of_files(&mut self) {
        let begins = |error: &ConfigError| {
            let mut files = self.files.iter();
            files.any(|snapshot| {
                let rest = error
                    .expectation
                    .strip_prefix(&*snapshot.path().to_string_lossy());
                rest.is_some_and(|rest| rest.starts_with(": "))
            })
        };
        let mut merged: Vec<(ConfigError, BTreeSet<usize>)> = Vec::new();
        let mut first_of: HashMap<String, usize> = HashMap::new();
        for error in std::mem::take(&mut self.errors) {
            let is_of_file = error.file == self.file && begins(&error);
            let first = is_of_file.then(|| first_of.get(&error.expectation).copied());
            match (first.flatten(), error.line) {
                (Some(first), Some(line)) => {
                    let (first, also) = &mut merged[first];
                    also.extend((first.line != Some(line)).then_some(line));
                }
                _ => {
                    if is_of_file {
                        first_of.insert(error.expectation.clone(), merged.len());
                    }
                    merged.push((error, BTreeSet::new()));
                }
            }
        }
        let named = |(mut error, also): (ConfigError, BTreeSet<usize>)| {
            if !also.is_empty() {
                let lines: Vec<_> = also.iter().map(ToString::to_string).collect();
                error.expectation += &format!(" (named at line {} too)", lines.join(", "));
            }
            error
        };
        self.errors = merged.into_iter().map(named).collect();
    }

    fn push(&mut self, line: usize, key: String, written: Option<String>, expectation: String) {
        // What stands in the defaults is wrong once, and not for each listener.
        if let Some(written) = &written
            && !self
                .said
                .insert((line, written.clone(), expectation.clone()))
        {
            return;
        }
        let file = self.file.to_owned();
        let (key, expectation) = (without_pem(key), without_pem(expectation));
        let written = written.map(without_pem);
        self.errors.push(ConfigError {
            file,
            line: Some(line),
            key,
            written,
            expectation,
            may_pass: false,
        });
    }
}
