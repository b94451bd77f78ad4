//! Any bytes as the field blocks of one direction of a connection, one after the other.
//!
//! What must hold: no panic; a list is never larger than its bound; the bound changes only what is left out, not what
//! later blocks mean; and what was decoded is decoded the same again after either of our encoders.
#![no_main]

use gateway_core::http::hpack::{Decoder, Encoder, encode_without_state};
use gateway_core::http::message::{Field, HeaderList};
use libfuzzer_sys::fuzz_target;

/// A list without a bound that matters here.
fn unbounded() -> HeaderList {
    HeaderList::new(usize::MAX)
}

/// Takes a block: its length is the first byte.
fn take_block<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = input.split_first()?;
    let (block, rest) = rest.split_at(rest.len().min(usize::from(*length)));
    *input = rest;
    Some(block)
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, mut blocks)) = input.split_first() else {
        return;
    };
    let size_max = 8 * usize::from(*choice);
    let (mut decoder, mut bounded) = (Decoder::default(), Decoder::default());
    let mut again = Again::default();
    while let Some(block) = take_block(&mut blocks) {
        let (mut whole, mut part) = (unbounded(), HeaderList::new(size_max));
        let decoded = decoder.decode(block, &mut whole);
        assert_eq!(bounded.decode(block, &mut part), decoded);
        if decoded.is_err() {
            return;
        }
        let size: usize = part.iter().map(|field| field.size()).sum();
        assert!(size == part.size() && size <= size_max);
        assert!(part.iter().eq(whole.iter().take(part.len())));
        assert_eq!(part.is_too_large(), part.len() < whole.len());
        again.check(&whole, usize::from(*choice) * block.len());
    }
});

/// A connection of ours that carries the same lists.
#[derive(Default)]
struct Again {
    encoder: Encoder,
    decoder: Decoder,
}

impl Again {
    fn check(&mut self, list: &HeaderList, table_bytes: usize) {
        self.encoder.resize(table_bytes);
        let mut block = Vec::new();
        self.encoder.begin_block(&mut block);
        let fields = list.iter();
        fields.for_each(|field| self.encoder.encode(field, &mut block));
        let mut decoded = unbounded();
        let result = self.decoder.decode(&block, &mut decoded);
        assert!(result.is_ok() && decoded.iter().eq(list.iter()));

        let mut block = Vec::new();
        let encode = |field: Field<'_>| encode_without_state(field, &mut block);
        list.iter().for_each(encode);
        let mut decoded = unbounded();
        let result = Decoder::default().decode(&block, &mut decoded);
        assert!(result.is_ok() && decoded.iter().eq(list.iter()));
    }
}
