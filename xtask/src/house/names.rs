//! Names that mean two things: types of one name in two modules of a crate.
//! In: syntax trees. Out: the names, each with its modules. Tests count for nothing, and neither do types inside functions.

use std::collections::BTreeMap;

use syn::{Item, Visibility};

use super::source::{Crate, attributes, closed_list, is_test, join};

/// A name that several modules of a crate give to a type of their own.
#[derive(Debug, PartialEq, Eq)]
pub struct SharedName {
    /// The crate.
    pub in_crate: String,
    /// The name.
    pub name: String,
    /// The modules that define it, sorted by path; the crate's root is `crate`.
    pub modules: Vec<String>,
    /// Whether two of these types can be named outside their modules, so that a reader may meet both at once.
    pub seen_outside: bool,
}

/// Every such name, sorted by crate and name.
pub fn shared(crates: &[Crate]) -> Vec<SharedName> {
    crates.iter().flat_map(shared_in).collect()
}

/// Module and whether the type is private to it.
type Definition = (String, bool);

fn shared_in(one: &Crate) -> Vec<SharedName> {
    let mut names = BTreeMap::new();
    for file in &one.files {
        collect(&file.module, &file.items, &mut names);
    }
    let shared = names.into_iter().filter(|(_, found)| found.len() > 1);
    let shared = shared.map(|(name, found)| SharedName {
        in_crate: one.name.clone(),
        name,
        seen_outside: found.iter().filter(|(_, private)| !private).count() > 1,
        modules: found.into_iter().map(|(module, _)| module).collect(),
    });
    shared.collect()
}

fn collect(module: &str, items: &[Item], names: &mut BTreeMap<String, Vec<Definition>>) {
    for item in items {
        if attributes(item).iter().any(is_test) {
            continue;
        }
        if let Item::Mod(inner) = item
            && let Some((_, items)) = &inner.content
        {
            collect(&join(module, &inner.ident.to_string()), items, names);
        }
        let Some((private, name)) = declared(item) else {
            continue;
        };
        let module = if module.is_empty() { "crate" } else { module };
        let found = names.entry(name).or_default();
        if !found.iter().any(|(known, _)| known == module) {
            found.push((module.to_owned(), private));
        }
    }
}

/// The type that an item declares, and whether it is private.
fn declared(item: &Item) -> Option<(bool, String)> {
    let (visibility, name) = match item {
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Union(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        item => {
            let (visibility, name) = closed_list(item)?;
            return Some((is_private(&visibility), name.to_string()));
        }
    };
    Some((is_private(visibility), name.to_string()))
}

fn is_private(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Inherited)
}

#[cfg(test)]
mod tests {
    use super::super::source::SourceFile;
    use super::*;

    fn invented(files: &[(&str, &str)]) -> Crate {
        let parse = |(module, text): &(&str, &str)| {
            SourceFile::parse(format!("{module}.rs"), (*module).to_owned(), text).unwrap()
        };
        Crate {
            name: "invented".to_owned(),
            files: files.iter().map(parse).collect(),
        }
    }

    #[test]
    fn a_type_that_two_modules_define_is_named_with_both() {
        let found = shared(&[invented(&[
            ("", "struct Door;"),
            ("a", "enum Door {} struct Once;"),
            ("b", "mod inner { type Door = u8; } use a::Once;"),
        ])]);
        let expected = SharedName {
            in_crate: "invented".to_owned(),
            name: "Door".to_owned(),
            modules: ["crate", "a", "b::inner"].map(str::to_owned).to_vec(),
            seen_outside: false,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_type_counts_as_seen_outside_when_it_has_any_visibility() {
        let seen_outside = |first: &str, second: &str| {
            let (first, second) = (
                format!("{first} struct Door;"),
                format!("{second} enum Door {{}}"),
            );
            shared(&[invented(&[("a", &first), ("b", &second)])])[0].seen_outside
        };
        assert!(seen_outside("pub", "pub(crate)"));
        assert!(!seen_outside("pub", ""));
    }

    #[test]
    fn tests_functions_and_other_crates_may_repeat_a_name() {
        let one = invented(&[
            ("a", "struct Door;"),
            (
                "b",
                "#[cfg(test)] mod tests { struct Door; } fn f() { struct Door; } fn Door() {}",
            ),
        ]);
        assert_eq!(shared(&[one, invented(&[("c", "trait Door {}")])]), []);
    }
}
