//! `cargo xtask house`: figures of how the code is built, to compare one commit with another.
//! In: the sources of a checkout. Out: lengths of functions and files, documented items, and names that mean two things, as
//! text. Builds and changes nothing.

mod figures;
pub mod names;
pub mod source;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use command::root;
use figures::CodeFigures;
use names::SharedName;

/// Prints the figures of the checkout in `folder`, or of this one.
pub fn run_house(folder: Option<PathBuf>) -> Result<()> {
    let crates = source::crates(&folder.unwrap_or_else(root))?;
    let figures = CodeFigures::of(&crates);
    ensure!(!figures.function_lines.is_empty(), "no function found");
    let shared = names::shared(&crates);

    println!("{figures}");
    let (outside, private): (Vec<_>, Vec<_>) =
        shared.into_iter().partition(|name| name.seen_outside);
    print_names(
        "names of two types that can both be met outside their modules",
        &outside,
    );
    print_names("names that a private type has as well", &private);
    Ok(())
}

fn print_names(what: &str, names: &[SharedName]) {
    println!("{what}: {}", names.len());
    for shared in names {
        let SharedName {
            in_crate,
            name,
            modules,
            ..
        } = shared;
        println!("  {in_crate}: {name} in {}", modules.join(", "));
    }
}
