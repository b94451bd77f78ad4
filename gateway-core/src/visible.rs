//! Makes text from outside safe to read: a line shows what it says.
//! In: a line, or several. Out: the same text, with every character escaped that breaks a line, or hides or reorders
//! its neighbours. Pure text.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Whether a character is invisible and changes how its neighbours are read: controls, line and paragraph separators,
/// bidirectional controls (Unicode TR 9, "Trojan Source"), fillers, variation selectors, and characters without a
/// width.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
            | '\u{e0100}'..='\u{e01ef}')
}

/// Replaces hidden characters by `\u` and the four digits of each UTF-16 unit, as JSON does, so that a line of JSON
/// stays valid and keeps its meaning. ASCII stays as it is: line breaks are the writer's own, and each format escapes
/// those in its values.
pub fn escape(text: &str) -> Cow<'_, str> {
    let hidden = |character: char| !character.is_ascii() && is_hidden(character);
    if text.is_ascii() || !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(escaped, "\\u{unit:04x}").expect("a string takes any text");
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Cuts a text to at most `bytes_max` bytes in a log or in JSON, escapes included; a cut text ends with `…`. Reads no
/// more than it keeps.
pub fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let mut taken = 0;
    for (position, character) in text.char_indices() {
        taken += escaped_bytes(character);
        if taken > bytes_max {
            return Cow::Owned(format!("{}…", &text[..position]));
        }
    }
    Cow::Borrowed(text)
}

/// Maximum bytes of a character, escaped, in JSON, or between quotes.
fn escaped_bytes(character: char) -> usize {
    match is_hidden(character) {
        true => 6 * character.len_utf16(),
        false => character.len_utf8(),
    }
    .max(character.escape_debug().len())
}

/// A bounded writer for text from outside: it takes so many bytes and an ellipsis. Further writes get an error, so
/// that the writer stops early.
#[derive(Debug)]
pub struct Bounded {
    text: String,
    bytes_max: usize,
    is_full: bool,
}

impl Bounded {
    /// An empty text with room for `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Bounded {
            text: String::new(),
            bytes_max,
            is_full: false,
        }
    }

    /// The written text, with `…` at its end if it was cut.
    pub fn into_text(self) -> String {
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.is_full {
            return Err(fmt::Error);
        }
        let room = self.bytes_max - self.text.len();
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        self.text.push_str(&part[..part.floor_char_boundary(room)]);
        self.text.push('…');
        self.is_full = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_hides_or_reorders_is_escaped_and_letters_of_any_script_are_not() {
        let table = [
            ("agent\u{2028}forged line", "agent\\u2028forged line"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\\u202eb\\u2066c\\u200f"),
            ("a\u{85}b\u{9b}31m", "a\\u0085b\\u009b31m"),
            (
                "\u{feff}a\u{200b}\u{e0041}",
                "\\ufeffa\\u200b\\udb40\\udc41",
            ),
            (
                "a\u{34f}\u{115f}\u{1160}\u{3164}\u{ffa0}",
                "a\\u034f\\u115f\\u1160\\u3164\\uffa0",
            ),
            (
                "a\u{fe00}\u{fe0f}\u{e0100}\u{e01ef}",
                "a\\ufe00\\ufe0f\\udb40\\udd00\\udb40\\uddef",
            ),
            ("Zürich סוכן 東京 агент", "Zürich סוכן 東京 агент"),
            ("two\nlines\t\u{1b}[0m", "two\nlines\t\u{1b}[0m"),
        ];
        for (text, expected) in table {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn text_is_cut_by_what_it_takes_once_it_is_escaped() {
        assert_eq!(cut("agent", 5), "agent");
        assert_eq!(cut("agents", 5), "agent…");
        assert_eq!(cut("äöü", 5), "äö…");
        for character in ['\u{1}', '"', '\\', '\u{200b}', '\u{e0041}', '\u{e000}'] {
            let long = String::from(character).repeat(60_000);
            let quoted = format!("{:?}", cut(&long, 1024));
            assert!(quoted.len() < 1100, "{character:?}: {}", quoted.len());
            assert!(escape(&cut(&long, 1024)).len() < 1100, "{character:?}");
        }
    }

    #[test]
    fn what_has_no_room_ends_with_an_ellipsis_and_ends_the_writing() {
        let mut text = Bounded::new(6);
        assert_eq!(text.write_str("äö"), Ok(()));
        assert_eq!(text.write_str("12ü"), Err(fmt::Error));
        assert_eq!(text.write_str("3"), Err(fmt::Error));
        assert_eq!(text.into_text(), "äö12…");
    }

    proptest! {
        #[test]
        fn no_text_is_longer_than_its_room(text in any::<String>(), room in 0usize..40) {
            let mut bounded = Bounded::new(room);
            let _ = bounded.write_str(&text);
            let bounded = bounded.into_text();
            prop_assert!(bounded == text && text.len() <= room || bounded.len() <= room + '…'.len_utf8());
        }

        #[test]
        fn nothing_hidden_is_left_but_ascii(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(!escaped.chars().any(|character| !character.is_ascii() && is_hidden(character)));
        }
    }
}
