//! Paths in code that lead to a module of the workspace.
//! In: the items of a file and the module that it is. Out: every such path from the root of a crate, with its line. Reads tokens
//! and not syntax, because paths stand inside macros too.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Item;

use crate::house::source::{SourceFile, attributes, is_test};

/// A path that code names.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// The crate it leads into, as code writes it: `gateway_core`.
    pub in_crate: String,
    /// What follows the crate, as in `failure::Failure`.
    pub segments: Vec<String>,
    /// Where it begins.
    pub line: usize,
}

/// The paths of a file that lead into its crate, `own`, or into one of `crates`. What is imported by one name and used by that
/// name afterwards counts where it is imported; tests inside the file count for nothing.
pub fn paths<'a>(
    file: &SourceFile,
    own: &'a str,
    crates: impl IntoIterator<Item = &'a str>,
) -> Vec<NamedPath> {
    let module: Vec<String> = file
        .module
        .split("::")
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let mut reader = Reader {
        own: identifier(own),
        crates: crates.into_iter().map(identifier).collect(),
        found: Vec::new(),
    };
    reader.items(&module, &file.items);
    reader.found
}

/// Words after which a path may begin with `::`, and which are not its first part.
const KEYWORDS: [&str; 9] = [
    "as", "else", "for", "if", "in", "match", "return", "use", "while",
];

/// The name of a crate as code writes it.
pub fn identifier(name: &str) -> String {
    name.replace('-', "_")
}

struct Reader {
    own: String,
    crates: BTreeSet<String>,
    found: Vec<NamedPath>,
}

impl Reader {
    fn items(&mut self, module: &[String], items: &[Item]) {
        for item in items {
            match item {
                item if attributes(item).iter().any(is_test) => {}
                // `super` has another meaning inside.
                Item::Mod(inner) if inner.content.is_some() => {
                    let inside = [module, &[inner.ident.to_string()]].concat();
                    let (_, items) = inner.content.as_ref().expect("seen just before");
                    self.items(&inside, items);
                }
                item => self.tokens(module, item.to_token_stream()),
            }
        }
    }

    fn tokens(&mut self, module: &[String], stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                TokenTree::Group(group) => self.tokens(module, group.stream()),
                // What follows is a path that begins with `::`.
                TokenTree::Ident(ident) if KEYWORDS.contains(&ident.to_string().as_str()) => {}
                TokenTree::Ident(ident) => {
                    let (path, line) = (vec![ident.to_string()], ident.span().start().line);
                    rest = self.path(module, path, line, after);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// Reads on where a path has begun, and returns what follows it.
    fn path<'t>(
        &mut self,
        module: &[String],
        mut path: Vec<String>,
        line: usize,
        mut rest: &'t [TokenTree],
    ) -> &'t [TokenTree] {
        while let [
            TokenTree::Punct(one),
            TokenTree::Punct(two),
            next,
            after @ ..,
        ] = rest
            && (one.as_char(), two.as_char()) == (':', ':')
        {
            match next {
                TokenTree::Ident(ident) => path.push(ident.to_string()),
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    self.branches(module, &path, group.stream());
                    return after;
                }
                TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    // `::*` takes all of a module, and `::<` belongs to the name before it.
                    path.push(next.to_string());
                    break;
                }
            }
            rest = after;
        }
        self.found.extend(self.absolute(module, &path, line));
        rest
    }

    /// The branches of `use path::{one, two::{three, four}, self}`.
    fn branches(&mut self, module: &[String], path: &[String], stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        for branch in
            tokens.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','))
        {
            if let [first, rest @ ..] = branch {
                let branch = [path, &[first.to_string()]].concat();
                self.path(module, branch, first.span().start().line, rest);
            }
        }
    }

    fn absolute(&self, module: &[String], path: &[String], line: usize) -> Option<NamedPath> {
        let above = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let (in_crate, base, rest): (&str, &[String], &[String]) = match path {
            // `pub(crate)`, `self` and variables.
            [_] => return None,
            _ if above > 0 => (
                &self.own,
                &module[..module.len().checked_sub(above)?],
                &path[above..],
            ),
            [first, rest @ ..] if first == "crate" => (&self.own, &[], rest),
            [first, rest @ ..] if first == "self" => (&self.own, module, rest),
            [first, rest @ ..] if self.crates.contains(first) => (first, &[], rest),
            _ => return None,
        };
        let is_name = |segment: &&String| !matches!(segment.as_str(), "self" | "*" | "<");
        Some(NamedPath {
            in_crate: in_crate.to_owned(),
            segments: base
                .iter()
                .chain(rest.iter().filter(is_name))
                .cloned()
                .collect(),
            line,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of a file that is the module `tls::verifier` of `gateway`, which uses `gateway-core`.
    fn found(text: &str) -> Vec<String> {
        let file = SourceFile::parse("a.rs".to_owned(), "tls::verifier".to_owned(), text).unwrap();
        let show = |path: NamedPath| {
            format!(
                "{}: {}::{}",
                path.line,
                path.in_crate,
                path.segments.join("::")
            )
        };
        paths(&file, "gateway", ["gateway-core"])
            .into_iter()
            .map(show)
            .collect()
    }

    #[test]
    fn a_tree_of_imports_is_as_many_paths_as_it_has_leaves() {
        let text = "use crate::{config::{self, Checked as Whole},\n server::*};\nuse ::gateway_core::failure::Failure;\nuse std::fs;";
        let expected = [
            "1: gateway::config",
            "1: gateway::config::Checked",
            "2: gateway::server",
            "3: gateway_core::failure::Failure",
        ];
        assert_eq!(found(text), expected);
    }

    #[test]
    fn self_and_super_lead_from_the_module_they_stand_in() {
        let text = "use super::peer::Peer; use super::super::relay; use self::inner::A; mod inner { use super::super::B; }";
        let expected = [
            "1: gateway::tls::peer::Peer",
            "1: gateway::relay",
            "1: gateway::tls::verifier::inner::A",
            "1: gateway::tls::B",
        ];
        assert_eq!(found(text), expected);
    }

    #[test]
    fn paths_in_types_expressions_attributes_and_macros_count() {
        let text = "pub(crate) fn f(a: &crate::rt::Ring) -> u8 {\n assert!(crate::limits::MAX > Vec::<crate::a::A>::new().len());\n}\n\
            macro_rules! m { () => { $crate::files::read() } }";
        let expected = [
            "1: gateway::rt::Ring",
            "2: gateway::limits::MAX",
            "2: gateway::a::A",
            "4: gateway::files::read",
        ];
        assert_eq!(found(text), expected);
    }

    #[test]
    fn tests_foreign_crates_and_relative_paths_count_for_nothing() {
        let text = "#[cfg(test)] mod tests { use crate::server; } use report::Page; fn f() { g::h(); self.x::<u8>(); }";
        assert_eq!(found(text), [] as [&str; 0]);
    }
}
