//! `[blocks]`: where the list of those stands who are shut out by hand.
//! In: the section as written. Out: a path. The file itself is not read here: it may be broken while the configuration is
//! good, and the other way round, and neither must keep the other from working.

use std::path::{Path, PathBuf};

use super::checked::AdminAddress;
use super::raw::{self, RawBlocks, Text};
use super::report::{ConfigErrors, Report};
use super::value::Field;
use super::{process, text_of};
use std::time::SystemTime;

/// The path of the block list. By default it stands beside the configuration file and bears its name.
pub fn file(field: Field<RawBlocks>, report: &mut Report<'_>) -> Option<PathBuf> {
    let configuration = report.file().to_owned();
    let Some(raw) = field.given().map(|item| item.value) else {
        let mut name = configuration.file_stem().unwrap_or_default().to_owned();
        name.push(".blocked.json");
        return Some(configuration.with_file_name(name));
    };
    let directory = configuration.parent().unwrap_or(Path::new(""));
    let check = |text: &Text| match text.is_empty() {
        true => Err("must name a file".to_owned()),
        false => Ok(directory.join(text)),
    };
    let expectation = "name the file, or take [blocks] out";
    report.required(&raw.place, "file", raw.file, expectation, check)
}

/// What the commands have to know that change the list.
#[derive(Debug, Clone)]
pub struct BlockPlace {
    /// The list.
    pub file: PathBuf,
    /// Where a running gateway can be asked whether it has taken it.
    pub admin: Option<AdminAddress>,
}

/// Finds the block list by a configuration file whose other sections may be as wrong as they like: whoever has to shut
/// somebody out cannot repair them first.
pub fn place(configuration: &Path) -> Result<BlockPlace, ConfigErrors> {
    let (_, text) = text_of(configuration)?;
    let mut syntax = Report::new(configuration, &text, SystemTime::now());
    let Some(raw) = raw::parse(&text, &mut syntax) else {
        return Err(syntax.into_errors());
    };
    let mut report = Report::new(configuration, &text, SystemTime::now());
    let file = file(raw.blocks, &mut report);
    // An endpoint that is wrong is one that cannot be asked.
    let admin = process::admin(raw.admin, &mut syntax).checked;
    match file {
        Some(file) => Ok(BlockPlace { file, admin }),
        None => Err(report.into_errors()),
    }
}
