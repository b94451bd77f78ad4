//! One entry of the block list, as it stands in the file.
//! In: JSON. Out: whom it means, who made it, when and why; and back.

use std::fmt;
use std::time::SystemTime;

use gateway_core::block::Block;
use gateway_core::certificate::Fingerprint;
use gateway_core::identity::Pattern;
use gateway_core::revocation::Serial;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Whom somebody shut out, or let in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Entry {
    /// Whom.
    pub block: Block,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
    /// Who did it.
    pub by: String,
    /// When, to the second.
    pub at: SystemTime,
}

/// Exactly one of the first three is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    by: String,
    at: String,
}

impl Entry {
    /// What kind of name it goes by: `serial`, `fingerprint` or `identity`.
    pub fn kind(&self) -> &'static str {
        match self.block {
            Block::Serial(_) => "serial",
            Block::Fingerprint(_) => "fingerprint",
            Block::Identity(_) => "identity",
        }
    }

    /// Whom it means, as the file has it.
    pub fn name(&self) -> String {
        match &self.block {
            Block::Serial(serial) => serial.to_string(),
            Block::Fingerprint(fingerprint) => fingerprint.to_string(),
            Block::Identity(pattern) => pattern.to_string(),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind(), self.name())
    }
}

impl From<Entry> for Written {
    fn from(entry: Entry) -> Self {
        let name = Some(entry.name());
        let mut written = Written {
            serial: None,
            fingerprint: None,
            identity: None,
            reason: entry.reason,
            by: entry.by,
            at: humantime::format_rfc3339_seconds(entry.at).to_string(),
        };
        match entry.block {
            Block::Serial(_) => written.serial = name,
            Block::Fingerprint(_) => written.fingerprint = name,
            Block::Identity(_) => written.identity = name,
        }
        written
    }
}

impl TryFrom<Written> for Entry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let block = match (written.serial, written.fingerprint, written.identity) {
            (Some(serial), None, None) => {
                Block::Serial(Serial::parse(&serial).map_err(|error| error.to_string())?)
            }
            (None, Some(text), None) => {
                let parsed = Fingerprint::parse(&text);
                Block::Fingerprint(parsed.map_err(|error| format!("fingerprint {error}"))?)
            }
            (None, None, Some(text)) => {
                let parsed = Pattern::parse(&text);
                Block::Identity(parsed.map_err(|error| format!("identity {error}"))?)
            }
            _ => {
                return Err("an entry must have one of serial, fingerprint, identity".to_owned());
            }
        };
        let at = humantime::parse_rfc3339(&written.at).map_err(|error| format!("at: {error}"))?;
        Ok(Entry {
            block,
            reason: written.reason,
            by: written.by,
            at,
        })
    }
}

/// Checks words that are kept for the record: somebody else's terminal will show them.
///
/// # Errors
/// What is wrong with them.
pub fn check_reason(reason: Option<&str>) -> Result<(), String> {
    let most = limits::BLOCK_REASON_BYTES_MAX;
    let is_fit = |reason: &str| reason.len() <= most && !reason.contains(char::is_control);
    match reason.is_none_or(is_fit) {
        true => Ok(()),
        false => Err(format!(
            "--reason: must be one line of at most {most} bytes"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_means_exactly_one() {
        let parse = |text: &str| serde_json::from_str::<Entry>(text);
        let tail = r#""by": "alice (uid 1000)", "at": "2026-11-22T03:00:00Z"}"#;
        let good = parse(&format!(r#"{{"serial": "0A:1B", {tail}"#)).unwrap();
        assert_eq!(good.to_string(), "serial 0a1b");
        let again = serde_json::to_string(&good).unwrap();
        assert_eq!(parse(&again).unwrap(), good);
        let wrong = [
            "{",
            r#"{"serial": "xyz","#,
            r#"{"serial": "01", "identity": "a","#,
            r#"{"fingerprint": "0123","#,
            r#"{"identity": "a*b","#,
            r#"{"serial": "01", "until": "tomorrow","#,
        ];
        for head in wrong {
            assert!(parse(&format!("{head} {tail}")).is_err(), "{head}");
        }
    }
}
