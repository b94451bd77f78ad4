//! Arbitrary text: whatever a file holds, the loader returns, and its errors name lines of the file.

use gateway::config;
use proptest::prelude::*;

use super::{SMALLEST, pki};

/// Text that looks more like a configuration than noise does.
fn configuration_like() -> impl Strategy<Value = String> {
    let mut words = vec![
        "=", "[", "]", "[[", "]]", "{", "}", ",", "\n", "\"", "#", ".", "1", "true", "-9e9", "0x",
        "'''",
    ];
    words.extend(
        config::raw::SECTIONS
            .iter()
            .flat_map(|(section, keys)| keys.iter().chain([section])),
    );
    words.extend([
        "\"10s\"",
        "\"ca.pem\"",
        "\"server.key\"",
        "[\"h2\"]",
        "\u{1f5ff}",
        "1979-05-27T07:32:00Z",
    ]);
    prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|words| words.concat())
}

#[test]
fn arbitrary_text_never_panics_the_loader() {
    let pki = pki();
    proptest!(|(text in any::<String>())| {
        let _ = pki.check(&text);
    });
}

#[test]
fn text_like_a_configuration_never_panics_the_loader() {
    let pki = pki();
    proptest!(|(text in configuration_like())| {
        let _ = pki.check(&text);
    });
}

#[test]
fn errors_in_mutilated_files_name_lines_of_the_file() {
    let pki = pki();
    let insert = prop_oneof![any::<String>(), configuration_like()];
    proptest!(|(at in 0..SMALLEST.len(), length in 0..40_usize, insert in insert)| {
        let end = (at + length).min(SMALLEST.len());
        let text = format!("{}{insert}{}", &SMALLEST[..at], &SMALLEST[end..]);
        if let Err(errors) = pki.check(&text) {
            let lines = text.split('\n').count();
            for error in errors.as_slice() {
                prop_assert!(error.line.is_some_and(|line| (1..=lines).contains(&line)), "{error}");
                prop_assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    });
}
