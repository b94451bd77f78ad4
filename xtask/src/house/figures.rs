//! CodeFigures about functions, files and documentation.
//! In: syntax trees. Out: how long functions and files are, and how many public items are documented. Tests count for nothing.

use std::fmt;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Signature, Visibility};

use super::source::{Crate, is_test};

/// A file with more lines than this is counted as long.
const LONG_FILE_LINES: usize = 400;

/// What is counted over all crates.
#[derive(Default)]
pub struct CodeFigures {
    /// One number for each function: its lines from the signature to the closing brace, sorted.
    pub function_lines: Vec<usize>,
    files: usize,
    long_files: Vec<(String, usize)>,
    public_items: usize,
    documented_items: usize,
}

impl CodeFigures {
    /// Counts.
    pub fn of(crates: &[Crate]) -> CodeFigures {
        let mut figures = CodeFigures::default();
        for file in crates.iter().flat_map(|one| &one.files) {
            figures.files += 1;
            if file.lines > LONG_FILE_LINES {
                figures.long_files.push((file.path.clone(), file.lines));
            }
            for item in &file.items {
                figures.visit_item(item);
            }
        }
        figures.function_lines.sort_unstable();
        figures
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let first = signature.span().start().line;
        let last = block.span().end().line;
        self.function_lines.push(last - first + 1);
    }

    fn item(&mut self, visibility: &Visibility, attributes: &[Attribute]) {
        if matches!(visibility, Visibility::Public(_)) {
            let documented = attributes
                .iter()
                .any(|attribute| attribute.path().is_ident("doc"));
            self.public_items += 1;
            self.documented_items += usize::from(documented);
        }
    }

    /// The smallest length that `share` of 100 functions do not exceed.
    fn percentile(&self, share: usize) -> usize {
        let rank = (self.function_lines.len() * share).div_ceil(100);
        self.function_lines[rank.saturating_sub(1)]
    }
}

impl<'ast> Visit<'ast> for CodeFigures {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.item(&function.vis, &function.attrs);
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if function.attrs.iter().any(is_test) {
            return;
        }
        self.item(&function.vis, &function.attrs);
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.item(&item.vis, &item.attrs);
        visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.item(&item.vis, &item.attrs);
        visit::visit_item_static(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.item(&item.vis, &item.attrs);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.item(&item.vis, &item.attrs);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.item(&item.vis, &item.attrs);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.item(&item.vis, &item.attrs);
        visit::visit_item_type(self, item);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        // A field without a name is described by what has it.
        if field.ident.is_some() {
            self.item(&field.vis, &field.attrs);
        }
        visit::visit_field(self, field);
    }
}

impl fmt::Display for CodeFigures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "functions: {}", self.function_lines.len())?;
        writeln!(
            formatter,
            "lines of a function: median {}, p90 {}, maximum {}",
            self.percentile(50),
            self.percentile(90),
            self.percentile(100)
        )?;
        writeln!(
            formatter,
            "public items with documentation: {} of {}",
            self.documented_items, self.public_items
        )?;
        write!(
            formatter,
            "files of more than {LONG_FILE_LINES} lines without tests: {} of {}",
            self.long_files.len(),
            self.files
        )?;
        for (path, lines) in &self.long_files {
            write!(formatter, "\n  {path}: {lines}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::SourceFile;
    use super::*;

    fn figures(text: &str) -> CodeFigures {
        let file = SourceFile::parse("a.rs".into(), "a".into(), text).unwrap();
        CodeFigures::of(&[Crate {
            name: "invented".to_owned(),
            files: vec![file],
        }])
    }

    #[test]
    fn a_function_is_as_long_as_from_its_signature_to_its_end() {
        let text = "/// Told.\n#[inline]\nfn a(\n    b: u8,\n) {\n}\nimpl C {\n    fn d() {}\n    #[cfg(test)]\n    fn e() {}\n}\n\
            #[cfg(test)]\nmod tests {\n    fn f() {}\n}\n";
        assert_eq!(figures(text).function_lines, [1, 4]);
    }

    #[test]
    fn percentiles_are_lengths_of_real_functions() {
        let mut figures = CodeFigures::default();
        figures.function_lines.extend(1..=10);
        assert_eq!(
            [50, 90, 100].map(|share| figures.percentile(share)),
            [5, 9, 10]
        );
    }

    #[test]
    fn public_items_and_fields_count_for_documentation() {
        let text = "/// Told.\npub struct A { /// Told.\n pub b: u8, pub c: u8, d: u8 }\npub(crate) fn e() {}\nimpl A { pub fn f() {} }\n";
        let figures = figures(text);
        assert_eq!((figures.documented_items, figures.public_items), (2, 4));
    }
}
