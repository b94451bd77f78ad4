//! Blocks that no honest encoder writes: they are refused, or cost no more than they are long.

use gateway_core::http::hpack::{DecodeError, Decoder, TABLE_BYTES};
use gateway_core::http::message::{FIELD_OVERHEAD_BYTES, Field, HeaderList};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{bytes, decode, field, owned};

fn error(block: &str) -> Option<DecodeError> {
    decode(&mut Decoder::default(), &bytes(block)).err()
}

#[test]
fn each_kind_of_broken_block_has_its_error() {
    for (block, expected) in [
        ("80", DecodeError::Index),       // index 0
        ("be", DecodeError::Index),       // an empty dynamic table
        ("7f 00 00", DecodeError::Index), // a name of it
        ("ff 80 80 80 80 01", DecodeError::Integer),
        ("ff", DecodeError::Truncated),
        ("40", DecodeError::Truncated),
        ("40 01", DecodeError::Truncated),
        ("40 01 61", DecodeError::Truncated),
        ("40 01 61 02 62", DecodeError::Truncated),
        ("40 01 61 7f ff ff ff 7f 62", DecodeError::Truncated), // a string longer than the block
        ("40 01 61 81 00", DecodeError::Huffman),
        ("40 01 61 84 ff ff ff ff", DecodeError::Huffman), // EOS
        ("82 20", DecodeError::SizeUpdate),                // after a field
        ("3f e2 1f", DecodeError::SizeUpdate),             // 4097 bytes
    ] {
        assert_eq!(error(block), Some(expected), "{block}");
    }
    // As large as allowed, twice, as smaller ones before the first field may be.
    assert_eq!(error("20 3f e1 1f 82"), None);
}

/// Fills the table with one field of about 4 KiB, then names it by one byte a time.
#[test]
fn a_bomb_of_indices_takes_no_more_memory_than_the_list_allows() {
    let mut decoder = Decoder::default();
    let value = vec![b'x'; TABLE_BYTES - FIELD_OVERHEAD_BYTES - 1];
    let mut block = bytes("40 01 61 7f e0 1e");
    block.extend_from_slice(&value);
    let large = [("a".into(), value, false)];
    assert_eq!(decode(&mut decoder, &block).as_deref(), Ok(&large[..]));
    let mut list = HeaderList::new(16 << 10);
    decoder.decode(&[0xbe; 16_384], &mut list).unwrap();
    assert!(list.is_too_large());
    assert_eq!((list.len(), list.size()), (4, 4 * TABLE_BYTES));
    // And the table is as it was.
    assert_eq!(decode(&mut decoder, &[0xbe]).as_deref(), Ok(&large[..]));
    // What does not exist is found behind what is left out.
    let unknown = [&[0xbe; 100][..], &[0xbf]].concat();
    assert_eq!(decode(&mut decoder, &unknown), Err(DecodeError::Index));
    list.clear();
    assert_eq!(decoder.decode(&unknown, &mut list), Err(DecodeError::Index));
}

#[test]
fn a_list_that_is_refused_leaves_the_table_as_its_sender_thinks_it_is() {
    let mut decoder = Decoder::default();
    let mut list = HeaderList::new(40);
    decoder
        .decode(
            &bytes("40 01 61 01 62 40 01 63 08 64 64 64 64 64 64 64 64 40 01 65 01 66"),
            &mut list,
        )
        .unwrap();
    assert!(list.is_too_large());
    assert_eq!(owned(&list), [field("a", "b")]);
    let table = [field("e", "f"), field("c", "dddddddd"), field("a", "b")];
    let decoded = decode(&mut decoder, &bytes("be bf c0"));
    assert_eq!(decoded.as_deref(), Ok(&table[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_blocks_keep_within_every_bound(
        blocks in vec(vec(prop_oneof![any::<u8>(), Just(0x40), Just(0xbe), 0_u8..4], 0..60), 1..8),
        size_max in 0_usize..400,
    ) {
        let mut decoder = Decoder::default();
        let mut list = HeaderList::new(size_max);
        for block in blocks {
            list.clear();
            if decoder.decode(&block, &mut list).is_err() {
                break;
            }
            let size: usize = list.iter().map(|field| field.size()).sum();
            prop_assert_eq!(list.size(), size);
            prop_assert!(size <= size_max);
            // What fits is what a decoder without a bound says first.
            prop_assert!(list.is_too_large() || list.len() <= block.len());
        }
    }

    /// The bound of the list does not change what later blocks mean.
    #[test]
    fn a_bound_on_lists_changes_nothing_but_what_is_left_out(
        blocks in vec(vec(prop_oneof![any::<u8>(), Just(0x40), Just(0xbe), 0_u8..4], 0..60), 1..8),
        size_max in 0_usize..200,
    ) {
        let (mut bounded, mut unbounded) = (Decoder::default(), Decoder::default());
        let mut list = HeaderList::new(size_max);
        for block in blocks {
            list.clear();
            let result = bounded.decode(&block, &mut list);
            let whole = decode(&mut unbounded, &block);
            prop_assert_eq!(result.err(), whole.as_ref().err().copied());
            let Ok(whole) = whole else { break };
            let kept = owned(&list);
            prop_assert_eq!(&kept[..], &whole[..kept.len()]);
            prop_assert_eq!(list.is_too_large(), kept.len() < whole.len());
            if let Some((name, value, _)) = whole.get(kept.len()) {
                prop_assert!(list.size() + Field::new(name, value).size() > size_max);
            }
        }
    }
}
