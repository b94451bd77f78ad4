//! What our encoders write is decoded as it was, however the peer changes the size of its table in between.

use gateway_core::http::hpack::{Decoder, Encoder, encode_without_state};
use gateway_core::http::message::Field;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{Owned, decode};

/// Fields of which many are in the static table, many of the stable names, and many the same.
fn fields() -> impl Strategy<Value = Vec<Owned>> {
    const NAMES: [&str; 11] = [
        ":authority",
        ":method",
        ":path",
        ":status",
        "authorization",
        "content-type",
        "grpc-timeout",
        "te",
        "user-agent",
        "www-authenticate",
        "x-scope-orgid",
    ];
    let name = prop_oneof![
        4 => prop::sample::select(&NAMES[..]).prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..40),
    ];
    let value = prop_oneof![
        2 => prop::sample::select(&["", "GET", "200", "/", "trailers"][..])
            .prop_map(|value| value.as_bytes().to_vec()),
        2 => "[ab]{1,2}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..300),
    ];
    vec((name, value, prop::bool::weighted(0.1)), 0..12)
}

fn as_field((name, value, is_never_indexed): &Owned) -> Field<'_> {
    Field {
        name,
        value,
        is_never_indexed: *is_never_indexed,
    }
}

proptest! {
    #[test]
    fn lists_arrive_whole_without_state(lists in vec(fields(), 1..4)) {
        // Each block to a decoder that has seen none of the others, and to one that has.
        let mut decoder = Decoder::default();
        for list in lists {
            let mut block = Vec::new();
            list.iter().for_each(|field| encode_without_state(as_field(field), &mut block));
            prop_assert_eq!(decode(&mut Decoder::default(), &block), Ok(list.clone()));
            prop_assert_eq!(decode(&mut decoder, &block), Ok(list));
        }
    }

    #[test]
    fn lists_arrive_whole_whatever_size_the_peers_table_has(
        lists in vec((fields(), vec(0_usize..9000, 0..3)), 1..40),
    ) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for (list, sizes) in lists {
            sizes.into_iter().for_each(|size| encoder.resize(size));
            let mut block = Vec::new();
            encoder.begin_block(&mut block);
            list.iter().for_each(|field| encoder.encode(as_field(field), &mut block));
            prop_assert_eq!(decode(&mut decoder, &block), Ok(list));
        }
    }

    #[test]
    fn a_field_that_must_never_be_indexed_is_written_so_every_time(
        name in "[a-z]{1,9}|:method|te",
        value in "[a-z]{0,9}|GET|trailers",
    ) {
        let mut encoder = Encoder::default();
        let field = (name.into_bytes(), value.into_bytes(), true);
        for _ in 0..2 {
            let mut block = Vec::new();
            encoder.begin_block(&mut block);
            encoder.encode(as_field(&field), &mut block);
            prop_assert_eq!(block[0] & 0xf0, 0x10);
            let decoded = decode(&mut Decoder::default(), &block);
            prop_assert_eq!(decoded, Ok(vec![field.clone()]));
        }
    }
}

#[test]
fn a_stable_field_is_one_byte_from_the_second_time_on() {
    let mut encoder = Encoder::default();
    let fields = [
        Field::new(b":authority", b"collector.example:4317"),
        Field::new(b"content-type", b"application/grpc"),
        Field::new(b"te", b"trailers"),
        Field::new(b":method", b"POST"),
    ];
    let mut lengths = Vec::new();
    for _ in 0..3 {
        let mut block = Vec::new();
        encoder.begin_block(&mut block);
        fields
            .iter()
            .for_each(|field| encoder.encode(*field, &mut block));
        lengths.push(block.len());
    }
    assert_eq!(lengths[1..], [4, 4]);
    assert!(lengths[0] > 40);
}

#[test]
fn values_of_one_name_do_not_displace_those_of_others() {
    let mut encoder = Encoder::default();
    let mut block = Vec::new();
    for number in 0..1000 {
        let path = format!("/{number}");
        encoder.encode(Field::new(b":path", path.as_bytes()), &mut block);
    }
    let mut lengths = Vec::new();
    for _ in 0..2 {
        block.clear();
        encoder.encode(Field::new(b"te", b"trailers"), &mut block);
        encoder.encode(Field::new(b":path", b"/0"), &mut block);
        lengths.push(block.len());
    }
    assert_eq!(lengths, [14, 2]);
}

#[test]
fn a_change_of_size_is_said_once_and_empties_the_table() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let te = Field::new(b"te", b"trailers");
    let mut blocks = Vec::new();
    for sizes in [&[][..], &[100, 50], &[50], &[1 << 20]] {
        sizes.iter().for_each(|size| encoder.resize(*size));
        let mut block = Vec::new();
        encoder.begin_block(&mut block);
        encoder.encode(te, &mut block);
        assert!(decode(&mut decoder, &block).is_ok());
        blocks.push(block);
    }
    // Emptied, then 50 bytes; nothing new; emptied, then our own bound.
    assert_eq!(blocks[1][..3], [0x20, 0x3f, 19]);
    assert_eq!(blocks[2], [0xbe]);
    assert_eq!(blocks[3][..4], [0x20, 0x3f, 0xe1, 0x1f]);
}
