//! Text that others have chosen, made fit to be read: what a line shows is what it says.
//! In: a line, or several. Out: the same with every character escaped that breaks a line where none was meant, or that
//! hides or reorders what stands beside it. Pure text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character shows nothing of itself, and changes how what is around it is read: controls, line and paragraph
/// separators, bidirectional controls (Unicode TR 9, "Trojan Source"), and those without a width.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Replaces hidden characters by `\u` and the four digits of each UTF-16 unit, as JSON does it, so that a line of JSON stays
/// one that says the same. ASCII stays as it is: line breaks are the writer's own, and a format that takes text from others
/// escapes those within it.
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
            ("Zürich סוכן 東京 агент", "Zürich סוכן 東京 агент"),
            ("two\nlines\t\u{1b}[0m", "two\nlines\t\u{1b}[0m"),
        ];
        for (text, expected) in table {
            assert_eq!(escape(text), expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_but_ascii(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(!escaped.chars().any(|character| !character.is_ascii() && is_hidden(character)));
        }
    }
}
