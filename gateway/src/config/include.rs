//! `include`: identity rules from files of their own, which may be many more than fit into a configuration.
//! In: paths as written. Out: the rules of each file in its order, with their places. A file is read piece by piece, so that a
//! million lines take the memory of the rules they hold, and not that of their syntax.

use std::path::Path;
use std::sync::Arc;

use gateway_core::identity::Rule;
use gateway_core::limits;
use gateway_x509::file;

use super::diagnostics::{Diagnostics, Location};
use super::identity::{self, KnownListener, RuleLocation};
use super::raw::{self, Texts};
use super::value::Field;

/// The rules of all files, in the order in which they are named.
pub fn rules(
    location: &Location,
    field: Field<Texts>,
    listeners: &[KnownListener<'_>],
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<(RuleLocation, Rule)> {
    let mut rules = Vec::new();
    let mut lines = 0;
    for item in field.given().map_or(Vec::new(), |list| list.value) {
        let path: Arc<Path> = diagnostics.resolve(&item.value).into();
        let refuse = |diagnostics: &mut Diagnostics<'_>, why: String| {
            let text = format_args!("{}: {why}", path.display());
            diagnostics.wrong(location, "include", &item, text);
        };
        let bytes = match file::file(&path, limits::RULES_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                refuse(diagnostics, error.to_string());
                continue;
            }
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                refuse(diagnostics, format!("is not UTF-8: {error}"));
                continue;
            }
        };
        lines += text.lines().count();
        if lines > limits::RULES_LINES_MAX {
            let max = limits::RULES_LINES_MAX;
            refuse(
                diagnostics,
                format!("all files together must have at most {max} lines"),
            );
            break;
        }
        rules_of(&path, &text, listeners, (&mut rules, diagnostics));
    }
    rules
}

/// The rules of one file. After so many errors the rest of it is not looked at.
fn rules_of(
    path: &Arc<Path>,
    text: &str,
    listeners: &[KnownListener<'_>],
    (rules, diagnostics): (&mut Vec<(RuleLocation, Rule)>, &mut Diagnostics<'_>),
) {
    let (mut lines_before, mut sections_before) = (0, 0);
    for piece in pieces(text) {
        let mut part = diagnostics.part(path, piece, (lines_before, sections_before));
        if let Some(raw) = raw::parse_rules(piece, &mut part) {
            let sections = raw.identity.sections().unwrap_or_default();
            sections_before += sections.len();
            identity::check_sections(path, sections, listeners, (rules, &mut part));
        }
        let is_hopeless = part.errors_count() >= limits::RULES_ERRORS_MAX;
        let findings = part.into_findings();
        diagnostics.absorb(findings);
        if is_hopeless {
            return;
        }
        lines_before += piece.lines().count();
    }
}

/// The text in pieces of whole `[[identity]]` tables, each about as long as is read at once.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len();
        let mut offset = 0;
        for line in rest.split_inclusive('\n') {
            let is_heading = line.trim_start().starts_with("[[identity]]");
            if is_heading && offset >= limits::RULES_PIECE_BYTES {
                end = offset;
                break;
            }
            offset += line.len();
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_the_whole_text_and_each_but_the_first_begins_with_a_heading(
            rules in proptest::collection::vec("[a-z#\n ]{0,40}", 0..8), long in 0..8_usize
        ) {
            let mut text = String::new();
            for (number, rule) in rules.iter().enumerate() {
                text += &format!("[[identity]]\n# {rule}\n");
                if number == long {
                    text += &format!("# {}\n", "x".repeat(limits::RULES_PIECE_BYTES));
                }
            }
            let pieces: Vec<_> = pieces(&text).collect();
            prop_assert_eq!(pieces.concat(), text.as_str());
            for piece in pieces.iter().skip(1) {
                prop_assert!(piece.starts_with("[[identity]]"));
            }
        }
    }
}
