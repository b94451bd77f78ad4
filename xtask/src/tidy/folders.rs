//! Tidy rules about folders: what each may import, without a cycle, and which may hold `unsafe`.
//! In: the table in CONTRIBUTING.md and the sources of every crate. Out: complaints with file and line.
//!
//! A row of the table is a folder, a file or a crate. A row imports only rows below it: so there is no cycle. Tests inside a file may
//! import what they like, because no program contains them.

use std::collections::BTreeSet;

use super::assert_none;
use super::dependencies::dependencies;
use super::paths::{NamedPath, identifier, paths};
use crate::house::source::{Crate, crates, module_of};
use command::root;

/// A row of the table.
#[derive(Debug)]
struct Folder {
    /// What other rows call it: the last part of its path, without what all crates of the gateway begin with.
    name: String,
    /// From the root of the repository.
    path: String,
    imports: Imports,
    /// Whether it may hold `unsafe`.
    has_unsafe: bool,
}

#[derive(Debug)]
enum Imports {
    Below,
    Only(Vec<String>),
}

impl Folder {
    /// Reads a row: folder, what lives there, what it may import, its thread, whether it may block, whether it has `unsafe`.
    fn parse(row: &str) -> Folder {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [folder, _, imports, _, _, has_unsafe] = cells[..] else {
            panic!("six cells: {row}");
        };
        let quoted = |cell: &str| {
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        let path = folder.trim_matches('`').to_owned();
        let name = path.rsplit('/').next().expect("split yields something");
        let name = name.trim_end_matches(".rs");
        Folder {
            name: name.strip_prefix("gateway-").unwrap_or(name).to_owned(),
            imports: match imports {
                "everything below" => Imports::Below,
                names => Imports::Only(quoted(names)),
            },
            has_unsafe: has_unsafe == "yes",
            path,
        }
    }

    /// Whether the module of a crate belongs here.
    fn holds(&self, one: &Crate, module: &str) -> bool {
        let Some(inside) = self.path.strip_prefix(&one.name) else {
            return false;
        };
        if inside.is_empty() {
            return true;
        }
        let Some(inside) = inside.strip_prefix("/src/") else {
            return false;
        };
        let rest = module.strip_prefix(&module_of(inside.as_ref()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

/// The rows of the first table whose first column is "folder".
fn table(page: &str) -> Vec<Folder> {
    let lines = page
        .lines()
        .skip_while(|line| !line.starts_with("| folder |"));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(Folder::parse).collect()
}

fn contributing() -> Vec<Folder> {
    table(&super::read("CONTRIBUTING.md"))
}

/// Folders that the table gives `unsafe` to; `[workspace.lints]` denies it everywhere else as well.
pub fn unsafe_folders() -> Vec<String> {
    let folders = contributing()
        .into_iter()
        .filter(|folder| folder.has_unsafe);
    folders.map(|folder| format!("{}/", folder.path)).collect()
}

#[test]
fn the_table_of_folders_has_no_cycle() {
    assert_none(
        "a folder imports only what stands below it in the table",
        &upward(&contributing()),
    );
}

/// Imports that lead up or nowhere.
fn upward(folders: &[Folder]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, folder) in folders.iter().enumerate() {
        let Imports::Only(imports) = &folder.imports else {
            continue;
        };
        for import in imports {
            let Some(other) = folders.iter().position(|other| other.name == *import) else {
                complaints.push(format!("{}: no row is called {import}", folder.path));
                continue;
            };
            if other <= index {
                complaints.push(format!("{}: {import} stands above it", folder.path));
            }
        }
    }
    complaints
}

#[test]
fn the_table_has_every_folder_and_no_other() {
    let folders = contributing();
    let mut complaints = Vec::new();
    for folder in &folders {
        if !root().join(&folder.path).exists() {
            complaints.push(format!("{}: does not exist", folder.path));
        }
    }
    for one in crates(&root()).unwrap() {
        complaints.extend(homeless(&folders, &one));
    }
    assert_none(
        "the table of folders in CONTRIBUTING.md has a row for each",
        &complaints,
    );
}

/// Files that are in no row. The root of a crate whose folders have rows only says which modules there are.
fn homeless(folders: &[Folder], one: &Crate) -> Vec<String> {
    let files = one
        .files
        .iter()
        .filter(|file| !file.module.is_empty() && room(folders, one, &file.module).is_none());
    files.map(|file| file.path.clone()).collect()
}

/// Position of the row that a module belongs to.
fn room(folders: &[Folder], one: &Crate, module: &str) -> Option<usize> {
    folders.iter().position(|folder| folder.holds(one, module))
}

#[test]
fn a_folder_imports_only_what_the_table_allows() {
    let complaints = forbidden(&contributing(), &crates(&root()).unwrap(), dependencies);
    assert_none(
        "the table in CONTRIBUTING.md says which folder may import which",
        &complaints,
    );
}

/// Imports that no row allows, and imports that a row allows and nothing needs.
fn forbidden(
    folders: &[Folder],
    crates: &[Crate],
    dependencies: impl Fn(&str) -> BTreeSet<String>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut used = BTreeSet::new();
    for one in crates {
        let uses = dependencies(&one.name);
        let used_crates: Vec<&str> = crates
            .iter()
            .map(|other| other.name.as_str())
            .filter(|name| uses.contains(*name))
            .collect();
        for file in &one.files {
            let Some(from) = room(folders, one, &file.module) else {
                continue;
            };
            for path in paths(file, &one.name, used_crates.iter().copied()) {
                let Some(to) = target(folders, crates, &path) else {
                    let shown = path.segments.join("::");
                    complaints.push(format!(
                        "{}:{}: {}::{shown} is in no row",
                        file.path, path.line, path.in_crate
                    ));
                    continue;
                };
                used.insert((from, to));
                if !may_import(folders, from, to) {
                    let (from, to) = (&folders[from].name, &folders[to].name);
                    complaints.push(format!("{}:{}: {from} imports {to}", file.path, path.line));
                }
            }
        }
    }
    complaints.extend(idle(folders, &used));
    complaints
}

fn target(folders: &[Folder], crates: &[Crate], path: &NamedPath) -> Option<usize> {
    let one = crates
        .iter()
        .find(|one| identifier(&one.name) == path.in_crate)?;
    room(folders, one, &path.segments.join("::"))
}

fn may_import(folders: &[Folder], from: usize, to: usize) -> bool {
    from == to
        || match &folders[from].imports {
            Imports::Below => from < to,
            Imports::Only(names) => names.contains(&folders[to].name),
        }
}

/// What a row allows and nothing needs.
fn idle(folders: &[Folder], used: &BTreeSet<(usize, usize)>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (from, folder) in folders.iter().enumerate() {
        let Imports::Only(names) = &folder.imports else {
            continue;
        };
        for name in names {
            let to = folders.iter().position(|other| other.name == *name);
            if to.is_some_and(|to| !used.contains(&(from, to))) {
                complaints.push(format!("{}: nothing in it imports {name}", folder.path));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::source::SourceFile;

    const TABLE: &str = "\
Text before it.

| folder | what lives here | may import | thread | may block? | `unsafe`? |
| --- | --- | --- | --- | --- | --- |
| `gateway/src/cli` | commands | everything below | main | yes | no |
| `gateway/src/tls` | handshakes | `rt`, `core` | worker | no | no |
| `gateway/src/rt` | the ring | | worker | no | yes |
| `gateway-core` | decisions | | any | no | no |
";

    fn invented(name: &str, files: &[(&str, &str)]) -> Crate {
        let parse = |(module, text): &(&str, &str)| {
            let path = format!("{name}/src/{}.rs", module.replace("::", "/"));
            SourceFile::parse(path, (*module).to_owned(), text).unwrap()
        };
        Crate {
            name: name.to_owned(),
            files: files.iter().map(parse).collect(),
        }
    }

    /// What each invented crate may name.
    fn every_crate(_: &str) -> BTreeSet<String> {
        ["gateway-core", "gateway-rt"].map(str::to_owned).into()
    }

    /// Complaints about `tls::session`, which may import `rt` and `core` and does.
    fn complaints(text: &str) -> Vec<String> {
        let gateway = [
            ("", "pub mod cli; pub mod rt; pub mod tls;"),
            ("cli::run", "use crate::tls::Session;"),
            ("rt", ""),
            ("tls", "use crate::rt::Ring; use gateway_core::A;"),
            ("tls::session", text),
        ];
        let gateway = invented("gateway", &gateway);
        let core = invented("gateway-core", &[("", "pub struct A;")]);
        forbidden(&table(TABLE), &[gateway, core], every_crate)
    }

    #[test]
    fn what_the_table_allows_passes() {
        let text = "use super::Session; use crate::rt; fn f(a: gateway_core::A) {}";
        assert_eq!(complaints(text), [] as [&str; 0]);
    }

    #[test]
    fn an_import_that_the_table_does_not_allow_is_named_with_its_line() {
        let text = "//! A.\n\nfn f() { g!(crate::cli::run()) }";
        assert_eq!(
            complaints(text),
            ["gateway/src/tls/session.rs:3: tls imports cli"]
        );
    }

    #[test]
    fn a_path_that_is_in_no_row_is_named() {
        let text = "use super::super::*;";
        assert_eq!(
            complaints(text),
            ["gateway/src/tls/session.rs:1: gateway:: is in no row"]
        );
    }

    #[test]
    fn an_import_that_nothing_needs_any_more_is_named() {
        let gateway = invented("gateway", &[("tls", "use crate::rt::Ring;")]);
        let complaints = forbidden(&table(TABLE), &[gateway], every_crate);
        assert_eq!(complaints, ["gateway/src/tls: nothing in it imports core"]);
    }

    #[test]
    fn a_cycle_in_the_table_is_named() {
        let page = TABLE.replace("the ring | |", "the ring | `tls`, `tsl` |");
        let expected = [
            "gateway/src/rt: tls stands above it",
            "gateway/src/rt: no row is called tsl",
        ];
        assert_eq!(upward(&table(&page)), expected);
        assert_eq!(upward(&table(TABLE)), [] as [&str; 0]);
    }

    #[test]
    fn a_file_without_a_row_is_named() {
        let gateway = invented("gateway", &[("", ""), ("rt::ring", ""), ("rtx::ring", "")]);
        assert_eq!(
            homeless(&table(TABLE), &gateway),
            ["gateway/src/rtx/ring.rs"]
        );
    }

    #[test]
    fn a_folder_that_becomes_a_crate_changes_its_row_alone() {
        let page = TABLE.replace("gateway/src/rt", "gateway-rt");
        let gateway = [("tls", "use gateway_rt::Ring; use gateway_core::A;")];
        let gateway = invented("gateway", &gateway);
        let rt = invented("gateway-rt", &[("", ""), ("ring", "use crate::other;")]);
        let core = invented("gateway-core", &[("", "")]);
        assert_eq!(
            forbidden(&table(&page), &[gateway, rt, core], every_crate),
            [] as [&str; 0]
        );
    }
}
