//! `[audit]`: where the audit log goes. In: the section as written. Out: a file or standard output, or nothing without the
//! section; `None` where it is wrong. The file is opened, and made, by `run` alone.

use super::checked::AuditTarget;
use super::raw::RawAudit;
use super::report::Report;
use super::value::Field;

/// Checks the section: the outer `None` is an error, the inner one no audit log.
pub fn target(field: Field<RawAudit>, report: &mut Report<'_>) -> Option<Option<AuditTarget>> {
    let raw = match field {
        Field::Absent => return Some(None),
        given => given.given()?.value,
    };
    let expectation = "name a file, or \"stdout\", or take [audit] out";
    let folder = report.file().to_owned();
    let check = |text: &String| {
        let path = folder.parent().map_or(text.into(), |at| at.join(text));
        match path.parent() {
            _ if text == "stdout" => Ok(AuditTarget::StandardOutput),
            _ if text.is_empty() || path.is_dir() => {
                Err("must be a file, or \"stdout\"".to_owned())
            }
            Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                Err(format!("there is no folder {}", parent.display()))
            }
            _ => Ok(AuditTarget::File(path)),
        }
    };
    report
        .required(&raw.place, "file", raw.file, expectation, check)
        .map(Some)
}
