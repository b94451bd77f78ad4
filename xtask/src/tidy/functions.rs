//! Tidy rules about functions: how many values go in, and how many come out.
//! In: the sources of every crate. Out: complaints with file and line. Clippy counts a tuple as one argument; a reader counts what is in
//! it.

use command::root;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{FnArg, ReturnType, Signature, Type, TypeTuple};

use super::assert_none;
use crate::house::source::{SourceFile, crates};

/// Values that a function takes, `self` and the members of tuples included.
const ARGUMENTS_MAX: usize = 6;

/// Values of a tuple that a function returns.
const RETURNED_MAX: usize = 3;

#[test]
fn a_function_takes_and_returns_few_values() {
    let crates = crates(&root()).unwrap();
    let files = crates.iter().flat_map(|one| &one.files);
    let complaints: Vec<String> = files.flat_map(complaints).collect();
    assert_none(
        "a function takes at most 6 values and returns at most 3, tuples by their members",
        &complaints,
    );
}

fn complaints(file: &SourceFile) -> Vec<String> {
    let mut signatures = Signatures::default();
    for item in &file.items {
        signatures.visit_item(item);
    }
    let shown = signatures.complaints.into_iter();
    shown
        .map(|(line, complaint)| format!("{}:{line}: {complaint}", file.path))
        .collect()
}

#[derive(Default)]
struct Signatures {
    complaints: Vec<(usize, String)>,
}

impl<'ast> Visit<'ast> for Signatures {
    fn visit_signature(&mut self, signature: &'ast Signature) {
        let mut complain = |what: String| {
            let complaint = format!("{} {what}", signature.ident);
            self.complaints
                .push((signature.span().start().line, complaint));
        };
        let taken: usize = signature.inputs.iter().map(values).sum();
        if taken > ARGUMENTS_MAX {
            complain(format!("takes {taken} values"));
        }
        let mut longest = LongestTuple(0);
        if let ReturnType::Type(_, returned) = &signature.output {
            longest.visit_type(returned);
        }
        if longest.0 > RETURNED_MAX {
            complain(format!("returns a tuple of {}", longest.0));
        }
        visit::visit_signature(self, signature);
    }
}

/// How many values an argument is.
fn values(argument: &FnArg) -> usize {
    match argument {
        FnArg::Receiver(_) => 1,
        FnArg::Typed(argument) => values_in(&argument.ty),
    }
}

fn values_in(of: &Type) -> usize {
    match of {
        Type::Tuple(tuple) => tuple.elems.iter().map(values_in).sum(),
        Type::Reference(reference) => values_in(&reference.elem),
        _ => 1,
    }
}

struct LongestTuple(usize);

impl<'ast> Visit<'ast> for LongestTuple {
    fn visit_type_tuple(&mut self, tuple: &'ast TypeTuple) {
        self.0 = self.0.max(tuple.elems.len());
        visit::visit_type_tuple(self, tuple);
    }
}

#[test]
fn members_of_tuples_count_each() {
    let text = "fn a(b: (u8, (u8, u8)), c: &(u8, u8), d: u8) {}\nimpl E {\n fn f(&self, g: (u8, u8, u8, u8, u8), h: u8) {}\n}\n\
        fn i() -> Option<(u8, u8, u8, u8)> {}\n#[cfg(test)]\nmod tests {\n fn j(k: (u8, u8, u8, u8, u8, u8, u8)) {}\n}";
    let file = SourceFile::parse("a.rs".to_owned(), "a".to_owned(), text).unwrap();
    assert_eq!(
        complaints(&file),
        ["a.rs:3: f takes 7 values", "a.rs:5: i returns a tuple of 4"]
    );
}
