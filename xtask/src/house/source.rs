//! The sources of a checkout as syntax trees.
//! In: a folder with a workspace. Out: its crates with every file below `src`, each under the path of its module, without
//! tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::TokenStream;
use syn::parse::{ParseStream, Parser as _};
use syn::spanned::Spanned;
use syn::{Attribute, Ident, Item, Meta, Token, Visibility};

/// One package of the workspace, with all that it builds.
pub struct Crate {
    /// As the manifest has it.
    pub name: String,
    /// Sorted by path.
    pub files: Vec<SourceFile>,
}

/// One file below a crate's `src`.
pub struct SourceFile {
    /// From the root of the checkout.
    pub path: String,
    /// The module that the file is, such as `tls::verifier`; empty for the root of a crate.
    pub module: String,
    /// How many lines the file has without its tests.
    pub lines: usize,
    /// Modules in files of their own that are built for tests only.
    test_modules: Vec<String>,
    /// The file's items without its tests.
    pub items: Vec<Item>,
}

/// The members of the workspace in `root`, and the crates that it excludes because another compiler builds them.
pub fn crates(root: &Path) -> Result<Vec<Crate>> {
    let manifest = table(&root.join("Cargo.toml"))?;
    let mut crates = Vec::new();
    for key in ["members", "exclude"] {
        let folders = manifest["workspace"]
            .get(key)
            .and_then(toml::Value::as_array);
        for folder in folders.into_iter().flatten() {
            let folder = folder.as_str().context("a folder's name is text")?;
            crates.push(read_crate(root, folder)?);
        }
    }
    Ok(crates)
}

fn read_crate(root: &Path, folder: &str) -> Result<Crate> {
    let manifest = table(&root.join(folder).join("Cargo.toml"))?;
    let name = manifest["package"]["name"].as_str();
    let sources = root.join(folder).join("src");
    let mut paths = Vec::new();
    collect(&sources, &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let shown = path.strip_prefix(root)?.display().to_string();
        let module = module_of(path.strip_prefix(&sources)?);
        files.push(SourceFile::parse(shown, module, &text)?);
    }
    let is_code = |file: &&SourceFile| !files.iter().any(|parent| file.is_tests_of(parent));
    let code: Vec<bool> = files.iter().map(|file| is_code(&file)).collect();
    let files = files.into_iter().zip(code);
    Ok(Crate {
        name: name.context("a package has a name")?.to_owned(),
        files: files
            .filter_map(|(file, is_code)| is_code.then_some(file))
            .collect(),
    })
}

fn table(path: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

/// `tls/verifier.rs` and `tls/verifier/mod.rs` are both `tls::verifier`.
pub fn module_of(path: &Path) -> String {
    let path = path.with_extension("");
    let mut parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    if parts.last().is_some_and(|last| last == "mod")
        || matches!(&parts[..], [only] if only == "lib" || only == "main")
    {
        parts.pop();
    }
    parts.join("::")
}

impl SourceFile {
    /// Reads the text of a file.
    pub fn parse(path: String, module: String, text: &str) -> Result<SourceFile> {
        let syntax = syn::parse_file(text).with_context(|| path.clone())?;
        let (tests, items): (Vec<_>, Vec<_>) = syntax
            .items
            .into_iter()
            .partition(|item| attributes(item).iter().any(is_test));
        let modules = tests.iter().filter_map(|item| match item {
            Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
            _ => None,
        });
        Ok(SourceFile {
            path,
            module,
            lines: text.lines().count() - tests.iter().map(lines).sum::<usize>(),
            test_modules: modules.collect(),
            items,
        })
    }

    /// Whether the file is a module of tests that `parent` names, or lies below one.
    fn is_tests_of(&self, parent: &SourceFile) -> bool {
        parent.test_modules.iter().any(|name| {
            let tests = join(&parent.module, name);
            let below = self.module.strip_prefix(&tests);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    }
}

/// How many lines a piece of code takes, its attributes and documentation included.
pub fn lines(code: &impl Spanned) -> usize {
    let span = code.span();
    span.end().line - span.start().line + 1
}

/// The path of a module's child.
pub fn join(module: &str, name: &str) -> String {
    match module {
        "" => name.to_owned(),
        module => format!("{module}::{name}"),
    }
}

/// `#[cfg(test)]`.
pub fn is_test(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::Path(_) | Meta::NameValue(_) => false,
    }
}

/// What stands above an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The enum that an item declares by `closed_list!`, and who may name it.
pub fn closed_list(item: &Item) -> Option<(Visibility, Ident)> {
    let Item::Macro(item) = item else {
        return None;
    };
    if item.mac.path.segments.last()?.ident != "closed_list" {
        return None;
    }
    let head = |input: ParseStream<'_>| {
        Attribute::parse_outer(input)?;
        let visibility = input.parse()?;
        input.parse::<Token![enum]>()?;
        let name = input.parse()?;
        // Its table, which is no syntax of the language.
        input.parse::<TokenStream>()?;
        Ok((visibility, name))
    };
    head.parse2(item.mac.tokens.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_count_neither_as_lines_nor_as_items() {
        let text = "//! A file.\n\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        let file = SourceFile::parse("a.rs".into(), "a".into(), text).unwrap();
        assert_eq!((file.lines, file.items.len()), (4, 1));
    }

    #[test]
    fn a_file_of_tests_is_known_by_the_module_that_names_it() {
        let parse = |module: &str, text: &str| {
            SourceFile::parse(String::new(), module.to_owned(), text).unwrap()
        };
        let parent = parse("a", "#[cfg(test)]\nmod tests;\nmod tests_no_more;\n");
        assert!(parse("a::tests", "").is_tests_of(&parent));
        assert!(parse("a::tests::deep", "").is_tests_of(&parent));
        assert!(!parse("a::tests_no_more", "").is_tests_of(&parent));
    }

    #[test]
    fn a_module_has_the_name_of_its_file_or_folder() {
        let cases = [
            ("lib.rs", ""),
            ("main.rs", ""),
            ("tls/mod.rs", "tls"),
            ("tls/verifier.rs", "tls::verifier"),
            ("tls/lib.rs", "tls::lib"),
        ];
        for (path, module) in cases {
            assert_eq!(module_of(Path::new(path)), module, "{path}");
        }
    }
}
