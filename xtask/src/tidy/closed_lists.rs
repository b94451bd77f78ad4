//! Tidy rule about closed lists: no match on one has an arm for the rest.
//! In: the sources of every crate. Out: complaints with file and line. A new case of a list, such as a new failure, must break the build
//! wherever it makes a difference, and not fall under what others get.

use std::collections::BTreeSet;

use command::root;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{ExprMatch, ItemImpl, Pat, Path, Type};

use super::assert_none;
use crate::house::source::{Crate, SourceFile, closed_list, crates};

#[test]
fn a_match_on_a_closed_list_names_every_case() {
    let crates = crates(&root()).unwrap();
    let lists = lists(&crates);
    // Failures, reasons of the guard, reasons for closing, refusals of tickets.
    assert!(lists.len() > 4, "{lists:?}");
    let files = crates.iter().flat_map(|one| &one.files);
    let complaints: Vec<String> = files.flat_map(|file| complaints(file, &lists)).collect();
    assert_none(
        "a match on a closed list names every case, and has no arm for the rest",
        &complaints,
    );
}

/// Names of all enums that `closed_list!` declares.
fn lists(crates: &[Crate]) -> BTreeSet<String> {
    let items = crates
        .iter()
        .flat_map(|one| &one.files)
        .flat_map(|file| &file.items);
    items
        .filter_map(closed_list)
        .map(|(_, name)| name.to_string())
        .collect()
}

fn complaints(file: &SourceFile, lists: &BTreeSet<String>) -> Vec<String> {
    let mut matches = Matches {
        lists,
        own: None,
        complaints: Vec::new(),
    };
    for item in &file.items {
        matches.visit_item(item);
    }
    let shown = matches.complaints.into_iter();
    shown
        .map(|(line, list)| format!("{}:{line}: an arm for the rest of {list}", file.path))
        .collect()
}

struct Matches<'a> {
    lists: &'a BTreeSet<String>,
    /// What `Self` is.
    own: Option<String>,
    complaints: Vec<(usize, String)>,
}

impl Matches<'_> {
    /// The closed list that a pattern names a case of.
    fn list_of(&self, pattern: &Pat) -> Option<String> {
        match pattern {
            Pat::Guard(guarded) => self.list_of(&guarded.pat),
            Pat::Or(cases) => cases.cases.iter().find_map(|case| self.list_of(case)),
            Pat::Paren(inner) => self.list_of(&inner.pat),
            Pat::Path(case) => self.list_at(&case.path),
            Pat::Reference(inner) => self.list_of(&inner.pat),
            Pat::TupleStruct(case) => self.list_at(&case.path),
            _ => None,
        }
    }

    fn list_at(&self, path: &Path) -> Option<String> {
        let list = path.segments.iter().nth_back(1)?.ident.to_string();
        let list = match &self.own {
            Some(own) if list == "Self" => own.clone(),
            _ => list,
        };
        self.lists.contains(&list).then_some(list)
    }
}

impl<'ast> Visit<'ast> for Matches<'_> {
    fn visit_expr_match(&mut self, expression: &'ast ExprMatch) {
        // A match that names one case only asks whether it is this one. An arm that binds the rest passes it on.
        let cases: Vec<_> = expression
            .arms
            .iter()
            .filter_map(|arm| self.list_of(&arm.pat))
            .collect();
        let rest = expression
            .arms
            .iter()
            .find(|arm| matches!(arm.pat, Pat::Wild(_)));
        if let (Some(rest), [list, _, ..]) = (rest, &cases[..]) {
            self.complaints
                .push((rest.span().start().line, list.clone()));
        }
        visit::visit_expr_match(self, expression);
    }

    fn visit_item_impl(&mut self, block: &'ast ItemImpl) {
        let before = self.own.take();
        if let Type::Path(of) = &*block.self_ty {
            self.own = of
                .path
                .segments
                .last()
                .map(|segment| segment.ident.to_string());
        }
        visit::visit_item_impl(self, block);
        self.own = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints_of(text: &str) -> Vec<String> {
        let parse =
            |text: &str| SourceFile::parse("a.rs".to_owned(), "a".to_owned(), text).unwrap();
        let list = parse(
            "closed_list! { /// Why.\n #[repr(u8)] pub enum Failure: u8 { A = \"a\", 1; B = \"b\", 2; } }",
        );
        let lists = lists(&[Crate {
            name: "invented".to_owned(),
            files: vec![list],
        }]);
        complaints(&parse(text), &lists)
    }

    #[test]
    fn an_arm_for_the_rest_of_a_list_is_named() {
        let text = "fn f() { match g {\n Failure::A if h => 1,\n Failure::B => 2,\n _ => 3 } }\n\
            impl Failure { fn i(self) { match self {\n Self::A => 1,\n Self::B => 2,\n _ => 3 } } }";
        let expected = [
            "a.rs:4: an arm for the rest of Failure",
            "a.rs:8: an arm for the rest of Failure",
        ];
        assert_eq!(complaints_of(text), expected);
    }

    #[test]
    fn a_match_that_names_every_case_asks_for_one_or_passes_the_rest_on_is_fine() {
        let text = "fn f() { match g { Failure::A => 1, core::Failure::B => 2 } match g { Failure::A => 1, _ => 2 }\n\
            match g { Failure::A => 1, Failure::B => 2, other => other } match h { Other::A => Failure::A, _ => Failure::B } }";
        assert_eq!(complaints_of(text), [] as [&str; 0]);
    }
}
