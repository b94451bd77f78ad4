//! The packet parser in user space: the table of crafted frames, every truncation of them, and random bytes.
//! The same table goes through the kernel in the `tests` crate.

#[allow(dead_code, reason = "the tests of the evaluation use the rest")]
mod frames;

use gateway_common::{NotUnderstood, Packet, parse};
use proptest::prelude::*;

/// A frame of which no two bytes lie together, as one that spans several buffers: none of it is read where it lies.
struct InPieces<'a>(&'a [u8]);

impl Packet for InPieces<'_> {
    fn length(&self) -> u32 {
        self.0.length()
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.load(offset)
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        None
    }
}

#[test]
fn every_form_of_header_is_read_as_the_table_says() {
    for case in frames::table() {
        let frame = case.frame.as_slice();
        assert_eq!(parse(frame), case.expected, "{}", case.name);
        let name = case.name;
        assert_eq!(parse(&InPieces(frame)), case.expected, "{name}, in pieces");
    }
}

#[test]
fn names_in_the_table_are_unique() {
    let mut names: Vec<_> = frames::table().iter().map(|case| case.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn no_truncation_of_a_frame_is_understood() {
    for case in frames::table() {
        let end = case.frame.len() - case.padding;
        for length in 0..end {
            let cut = &case.frame[..length];
            let result = parse(cut);
            assert!(
                result.is_err(),
                "{} cut to {length} of {end}: {result:?}",
                case.name
            );
            if case.expected.is_ok() {
                assert_eq!(
                    result,
                    Err(NotUnderstood::Truncated),
                    "{} cut to {length}",
                    case.name
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(bytes.as_slice());
    }

    #[test]
    fn any_well_formed_frame_is_understood((frame, segment) in frames::any_understood()) {
        prop_assert_eq!(parse(frame.as_slice()), Ok(segment));
    }

    #[test]
    fn any_damaged_frame_is_the_same_in_one_piece_and_in_many(frame in frames::any_damaged()) {
        prop_assert_eq!(parse(frame.as_slice()), parse(&InPieces(&frame)));
    }

    #[test]
    fn padding_behind_the_packet_changes_nothing(
        (frame, segment) in frames::any_understood(),
        padding in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let padded = [frame, padding].concat();
        prop_assert_eq!(parse(padded.as_slice()), Ok(segment));
    }
}
