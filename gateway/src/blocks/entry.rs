//! One entry of the block list, as it stands in the file.
//! In: JSON. Out: the client that it means, its author, when and why; and back.

use std::fmt;
use std::time::SystemTime;

use gateway_core::authority::TrustDomain;
use gateway_core::block::{Block, BlockedNames, Only};
use gateway_core::certificate::{Fingerprint, NameKind};
use gateway_core::identity::Pattern;
use gateway_core::limits;
use gateway_core::revocation::Serial;
use serde::{Deserialize, Serialize};

/// A client that an operator shut out, or let in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawBlock", into = "RawBlock")]
pub struct Entry {
    /// The client.
    pub block: Block,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// The operator's account.
    pub by: String,
    /// When, to the second.
    pub at: SystemTime,
}

/// Exactly one of the first three is there; `kind` and `trust_domain` beside `identity` only.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlock {
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<String>,
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

    /// The client that it means, as the file has it.
    pub fn name(&self) -> String {
        match &self.block {
            Block::Serial(serial) => serial.to_string(),
            Block::Fingerprint(fingerprint) => fingerprint.to_string(),
            Block::Identity(names) => names.to_string(),
        }
    }

    /// What the name has to be beside its text, where that is an identity.
    pub fn only(&self) -> Option<&Only> {
        match &self.block {
            Block::Serial(_) | Block::Fingerprint(_) => None,
            Block::Identity(names) => Some(&names.only),
        }
    }

    /// What kind of name it goes by, with what that is limited to: `identity (uri, of example.org)`.
    pub fn kind_in_full(&self) -> String {
        let only = self.only().cloned().unwrap_or_default();
        let kind = only.kind.map(|kind| kind.label().to_owned());
        let domain = only.trust_domain.map(|domain| format!("of {domain}"));
        let limits: Vec<_> = kind.into_iter().chain(domain).collect();
        match limits.is_empty() {
            true => self.kind().to_owned(),
            false => format!("{} ({})", self.kind(), limits.join(", ")),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind_in_full(), self.name())
    }
}

impl From<Entry> for RawBlock {
    fn from(entry: Entry) -> Self {
        let name = Some(entry.name());
        let only = entry.only().cloned().unwrap_or_default();
        let mut written = RawBlock {
            serial: None,
            fingerprint: None,
            identity: None,
            kind: only.kind.map(|kind| kind.label().to_owned()),
            trust_domain: only.trust_domain.map(|domain| domain.to_string()),
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

impl TryFrom<RawBlock> for Entry {
    type Error = String;

    fn try_from(written: RawBlock) -> Result<Self, String> {
        let only = only(written.kind.as_deref(), written.trust_domain.as_deref())?;
        if written.identity.is_none() && only != Only::default() {
            return Err("kind and trust_domain are allowed beside identity only".to_owned());
        }
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
                Block::Identity(BlockedNames {
                    pattern: parsed.map_err(|error| format!("identity {error}"))?,
                    only,
                })
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

/// Reads the kind of a name.
///
/// # Errors
/// Names of certificates have no such kind.
pub fn name_kind(label: &str) -> Result<NameKind, String> {
    let mut known = NameKind::IN_CERTIFICATES.into_iter();
    known.find(|kind| kind.label() == label).ok_or_else(|| {
        let labels = NameKind::IN_CERTIFICATES.map(NameKind::label);
        format!("must be one of {}", labels.join(", "))
    })
}

fn only(kind: Option<&str>, trust_domain: Option<&str>) -> Result<Only, String> {
    let kind = kind.map(|text| name_kind(text).map_err(|why| format!("kind {text:?}: {why}")));
    let trust_domain = trust_domain.map(|text| {
        let parsed = TrustDomain::parse(text);
        parsed.map_err(|error| format!("trust_domain {text:?}: {error}"))
    });
    Ok(Only {
        kind: kind.transpose()?,
        trust_domain: trust_domain.transpose()?,
    })
}

/// Takes words that are kept for the record: another operator's terminal will show them.
///
/// # Errors
/// What is wrong with them.
pub fn for_the_record(words: &str) -> Result<String, String> {
    let most = limits::BLOCK_REASON_BYTES_MAX;
    match words.len() <= most && !words.contains(char::is_control) {
        true => Ok(words.to_owned()),
        false => Err(format!("must be one line of at most {most} bytes")),
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
        let head = r#"{"identity": "a", "kind": "cn", "trust_domain": "example.org","#;
        let of_a_kind = parse(&format!("{head} {tail}")).unwrap();
        assert_eq!(of_a_kind.to_string(), "identity (cn, of example.org) a");
        let again = serde_json::to_string(&of_a_kind).unwrap();
        assert_eq!(parse(&again).unwrap(), of_a_kind);
        let of_any = parse(&format!(r#"{{"identity": "a", {tail}"#)).unwrap();
        assert_ne!(of_any.block, of_a_kind.block, "two entries");
        let wrong = [
            "{",
            r#"{"serial": "xyz","#,
            r#"{"serial": "01", "identity": "a","#,
            r#"{"fingerprint": "0123","#,
            r#"{"identity": "a*b","#,
            r#"{"serial": "01", "until": "tomorrow","#,
            r#"{"serial": "01", "kind": "uri","#,
            r#"{"fingerprint": "01", "trust_domain": "example.org","#,
            r#"{"identity": "a", "kind": "email","#,
            r#"{"identity": "a", "trust_domain": "Example.org","#,
        ];
        for head in wrong {
            assert!(parse(&format!("{head} {tail}")).is_err(), "{head}");
        }
    }
}
