//! Words for JSON that cannot be read. In: a parser's error. Out: where it is, and of what kind. What the parser itself says may
//! repeat what stands in the file, and any file may hold a private key.

use std::fmt;

use serde_json::error::Category;

/// What is wrong with a JSON text, without a byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonFault {
    line: usize,
    column: usize,
    words: &'static str,
}

impl From<serde_json::Error> for JsonFault {
    fn from(error: serde_json::Error) -> Self {
        JsonFault {
            line: error.line(),
            column: error.column(),
            words: match error.classify() {
                Category::Io => "cannot be read",
                Category::Syntax => "is no JSON",
                Category::Data => "is JSON of another kind: a name, a type or a value is wrong",
                Category::Eof => "ends too early",
            },
        }
    }
}

impl fmt::Display for JsonFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JsonFault {
            line,
            column,
            words,
        } = self;
        write!(formatter, "line {line}, column {column} {words}")
    }
}

impl std::error::Error for JsonFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_its_place_and_nothing_of_the_text() {
        let parse = |text: &str| {
            let error = serde_json::from_str::<Vec<u8>>(text).unwrap_err();
            JsonFault::from(error).to_string()
        };
        for (text, expected) in [
            ("\n\"secret\"", "line 2, column 8 is JSON of another kind"),
            ("[1, secret]", "line 1, column 5 is no JSON"),
            ("[1", "line 1, column 2 ends too early"),
        ] {
            let found = parse(text);
            assert!(
                found.starts_with(expected) && !found.contains("secret"),
                "{found}"
            );
        }
    }
}
