//! Blocks of other encoders, see `stories/README.md`. Each story is one connection.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use gateway_core::http::hpack::Decoder;

use crate::support::{Owned, bytes, decode, field};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn lists(file: &Path) -> Vec<Vec<Owned>> {
    let text = read_to_string(file).unwrap();
    let lists = text.trim_end_matches('\n').split("\n\n");
    lists
        .map(|list| {
            let fields = list.lines().map(|line| line.split_once('\t').unwrap());
            fields.map(|(name, value)| field(name, value)).collect()
        })
        .collect()
}

#[test]
fn blocks_of_every_encoder_say_what_they_were_made_of() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hpack/stories");
    let chosen = std::env::var_os("PORTCULLIS_HPACK_STORIES").map(PathBuf::from);
    let mut decoded_stories = 0;
    for folder in files(&chosen.unwrap_or(ours)) {
        if !folder.is_dir() {
            continue;
        }
        let lists = lists(&folder.join("lists"));
        for file in files(&folder) {
            if file
                .extension()
                .is_none_or(|extension| extension != "blocks")
            {
                continue;
            }
            let text = read_to_string(&file).unwrap();
            assert_eq!(text.lines().count(), lists.len(), "{}", file.display());
            let mut decoder = Decoder::default();
            for (number, (block, list)) in text.lines().zip(&lists).enumerate() {
                let mut decoded = decode(&mut decoder, &bytes(block)).unwrap();
                // The lists do not say which fields must never be indexed.
                decoded.iter_mut().for_each(|field| field.2 = false);
                assert_eq!(decoded, *list, "{} block {number}", file.display());
            }
            decoded_stories += 1;
        }
    }
    assert!(decoded_stories >= 20, "{decoded_stories} stories");
}
