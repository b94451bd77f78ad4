//! A record changed, cut, repeated, left out or moved yields nothing, and says so with the right alert.

use gateway_core::alert::Alert;
use gateway_core::record::{Aead, OpenError, Opener, Peer, Sealer, TrafficKey};
use proptest::prelude::*;

use super::support::{Real, Toy, read, real_keys, toy_key};

/// Records of these texts.
fn records<A: Aead>(key: TrafficKey<A>, texts: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut sealer = Sealer::new(key);
    let mut seal = |text: &&[u8]| {
        let mut buffer = [&[0; 5], *text, &[0; 17]].concat();
        let records = sealer.seal(&mut buffer, 5..5 + text.len(), 16384).unwrap();
        buffer[records].to_vec()
    };
    texts.iter().map(&mut seal).collect()
}

/// What comes of the records, which must be the first `good` texts and no byte more.
fn outcome<A: Aead>(key: TrafficKey<A>, records: &[Vec<u8>], good: &[u8]) -> Option<OpenError> {
    let mut opener = Opener::new(key, Peer::Client);
    let read = read(&mut opener, [records.concat()], |_| {
        unreachable!("no KeyUpdate")
    });
    assert_eq!(read.plaintext, good);
    assert_eq!(read.events, []);
    read.error
}

#[test]
fn one_bit_changed_anywhere_in_a_record_of_any_suite_yields_no_byte_of_it() {
    let texts: [&[u8]; 3] = [b"first", b"the second, which is changed", b"third"];
    for suite in 0..3 {
        let key = || real_keys().into_iter().nth(suite).unwrap();
        let original = records(key(), &texts);
        let bits = original[1].len() * 8;
        for bit in 0..bits {
            let mut changed = original.clone();
            changed[1][bit / 8] ^= 1 << (bit % 8);
            let error = outcome(key(), &changed, texts[0]);
            let [high, low] = [changed[1][3], changed[1][4]];
            let claimed = 5 + usize::from(u16::from_be_bytes([high, low]));
            let there = changed[1].len() + changed[2].len();
            let alert = match bit / 8 {
                0 => Some(Alert(10)),
                3 | 4 if claimed > 5 + 16384 + 256 => Some(Alert(22)),
                // It is waited for: whatever comes is not what was sealed.
                3 | 4 if claimed > there => None,
                _ => Some(Alert(20)),
            };
            assert_eq!(
                error.and_then(OpenError::alert),
                alert,
                "bit {bit} of {bits}"
            );
        }
    }
}

#[test]
fn a_record_that_was_made_longer_fails_once_enough_has_come() {
    let key = || real_keys().into_iter().next().unwrap();
    let mut sealed = records(key(), &[b"first", b"second"]);
    sealed[1][3] ^= 1;
    sealed.push(vec![0x17; 1000]);
    assert_eq!(outcome(key(), &sealed, b"first"), Some(OpenError::Forged));
}

#[test]
fn replayed_reordered_and_missing_records_are_forged() {
    let texts: [&[u8]; 4] = [b"zero", b"one", b"two", b"three"];
    for suite in 0..3 {
        let key = || real_keys().into_iter().nth(suite).unwrap();
        let original = records(key(), &texts);
        let orders: [(&[usize], &[u8]); 5] = [
            (&[0, 0, 1], b"zero"),
            (&[0, 2, 1], b"zero"),
            (&[1, 0], b""),
            (&[0, 1, 3], b"zeroone"),
            (&[0, 1, 2, 0], b"zeroonetwo"),
        ];
        for (order, good) in orders {
            let moved: Vec<_> = order.iter().map(|index| original[*index].clone()).collect();
            assert_eq!(
                outcome(key(), &moved, good),
                Some(OpenError::Forged),
                "{order:?}"
            );
        }
        let whole: Vec<_> = original.clone();
        assert_eq!(outcome(key(), &whole, &texts.concat()), None);
    }
}

#[test]
fn a_truncated_record_yields_nothing_and_is_no_end() {
    let key = || real_keys().into_iter().next().unwrap();
    let original = records(key(), &[b"first", b"second"]);
    for length in 0..original[1].len() {
        let mut cut = original.clone();
        cut[1].truncate(length);
        assert_eq!(outcome(key(), &cut, b"first"), None);
    }
}

#[test]
fn a_record_of_the_other_direction_or_of_another_key_is_forged() {
    let ours = records(toy_key(0), &[b"ours"]);
    assert_eq!(outcome(toy_key(1), &ours, b""), Some(OpenError::Forged));
    let [first, second, _] = real_keys();
    let sealed = records::<Real>(first, &[b"ours"]);
    assert_eq!(outcome(second, &sealed, b""), Some(OpenError::Forged));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_change_of_the_stream_leaves_a_prefix_of_what_was_sealed(
        lengths in proptest::collection::vec(1..200usize, 1..8),
        at in any::<prop::sample::Index>(),
        change in 1..=255u8,
        kind in 0..4,
    ) {
        let texts: Vec<Vec<u8>> = lengths.iter().map(|length| vec![*length as u8; *length]).collect();
        let slices: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let mut stream = records(toy_key(0), &slices).concat();
        let at = at.index(stream.len());
        match kind {
            0 => stream[at] ^= change,
            1 => drop(stream.remove(at)),
            2 => stream.insert(at, change),
            _ => stream.truncate(at),
        }
        let mut opener = Opener::<Toy>::new(toy_key(0), Peer::Client);
        let read = read(&mut opener, [stream], toy_key);
        let all = texts.concat();
        prop_assert!(all.starts_with(&read.plaintext));
        let whole: Vec<usize> = (0..=texts.len()).map(|count| texts[..count].concat().len()).collect();
        prop_assert!(whole.contains(&read.plaintext.len()), "a part of a record");
        prop_assert!(kind == 2 || read.plaintext.len() < all.len());
    }
}
