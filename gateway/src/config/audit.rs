//! `[audit]`: where the audit log goes. In: the section as written. Out: a file or standard output, or nothing without the
//! section; `None` where it is wrong. The file is opened, and made, by `run` alone.

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::checked::{AuditTarget, RequestSample};
use super::diagnostics::{Diagnostics, Location};
use super::raw::RawAudit;
use super::value::Field;

/// The section, checked.
#[derive(Debug, Default)]
pub struct AuditSection {
    /// Where lines go, if anywhere.
    pub target: Option<AuditTarget>,
    /// How many of the requests that went well have a line.
    pub requests: RequestSample,
    location: Option<Location>,
}

/// Checks the section; `None` is an error.
pub fn check(field: Field<RawAudit>, diagnostics: &mut Diagnostics<'_>) -> Option<AuditSection> {
    let raw = match field {
        Field::Absent => return Some(AuditSection::default()),
        given => given.given()?.value,
    };
    let expectation = "name a file, or \"stdout\", or remove [audit]";
    let file = diagnostics.file().to_owned();
    let check = |text: &String| {
        // Whole: a process that takes over may name the configuration in another way, and writes to the same file.
        let path = file.parent().map_or(text.into(), |at| at.join(text));
        let path = std::path::absolute(&path).unwrap_or(path);
        match path.parent() {
            _ if text == "stdout" => Ok(AuditTarget::StandardOutput),
            _ if text.is_empty() || path.is_dir() => {
                Err("must be a file, or \"stdout\"".to_owned())
            }
            Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                Err(format!("there is no folder {}", parent.display()))
            }
            // As `run` will find it: a pipe would make the writer wait for its reader.
            _ => match fs::metadata(&path).map(|found| found.file_type()) {
                Ok(kind) if !kind.is_file() && !kind.is_char_device() => {
                    Err("must be a regular file: this is a pipe, a socket or a disk".to_owned())
                }
                _ => Ok(AuditTarget::File(path)),
            },
        }
    };
    let target = diagnostics.required(&raw.location, "file", raw.file, expectation, check)?;
    let requests =
        diagnostics.optional(&raw.location, "requests", raw.requests, |text| sample(text))?;
    Some(AuditSection {
        target: Some(target),
        requests: requests.unwrap_or_default(),
        location: Some(raw.location),
    })
}

/// Reads which requests have a line.
fn sample(text: &str) -> Result<RequestSample, String> {
    let share = |text: &str| text.strip_prefix("1/")?.parse().ok();
    match text {
        "errors" => Ok(RequestSample(None)),
        "all" => Ok(RequestSample(Some(NonZeroU32::MIN))),
        text => match share(text) {
            Some(one_in) => Ok(RequestSample(Some(one_in))),
            None => Err("must be \"errors\", \"all\", or a share such as \"1/100\"".to_owned()),
        },
    }
}

/// Refuses a log in a file that is read as well, or is the block list: its first line would break that. To be called when
/// everything has been read.
pub fn refuse_other_file(
    audit: Option<&AuditSection>,
    blocks: Option<&Path>,
    diagnostics: &mut Diagnostics<'_>,
) {
    let Some(AuditSection {
        target: Some(AuditTarget::File(log)),
        location: Some(location),
        ..
    }) = audit
    else {
        return;
    };
    let log = whole(log);
    let read = diagnostics.files().iter().map(|snapshot| snapshot.path());
    let configuration = diagnostics.file().to_owned();
    let other = read
        .chain(blocks)
        .chain([configuration.as_path()])
        .find(|other| whole(other) == log)
        .map(|other| other.display().to_string());
    if let Some(other) = other {
        let expectation = format!("must be a file of its own: {other} is used otherwise");
        diagnostics.refuse(location.line, location.key("file"), expectation);
    }
}

/// The path without links, as far as there is a file.
fn whole(path: &Path) -> PathBuf {
    let found = fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    found.unwrap_or_else(|_| path.to_owned())
}
