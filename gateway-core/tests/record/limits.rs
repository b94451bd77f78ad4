//! The ends of keys: confidentiality limits and sequence numbers, on invented counters.

use gateway_core::alert::Alert;
use gateway_core::record::{
    KeyUpdateRequest, OpenError, Opener, Peer, SealError, Sealer, Suite, TrafficKey,
};

use super::support::{DATA, Forge, Read, Toy, iv, read, toy_key, toy_key_at};

fn chacha_at(sequence: u64) -> TrafficKey<Toy> {
    TrafficKey::new(Toy(0), iv(), sequence, Suite::ChaCha20Poly1305)
}

fn seal_one(sealer: &mut Sealer<Toy>) -> Result<Vec<u8>, SealError> {
    let mut buffer = b"-----x________________________".to_vec();
    let records = sealer.seal(&mut buffer, 5..6, 1)?;
    Ok(buffer[records].to_vec())
}

#[test]
fn a_key_update_is_due_before_the_record_that_would_pass_the_limit() {
    let due = Suite::AesGcm.update_after();
    let sealer = Sealer::new(toy_key_at(0, due - 4));
    assert!(!sealer.needs_update_before(4));
    assert!(sealer.needs_update_before(5));
    let sealer = Sealer::new(chacha_at(1 << 62));
    assert!(!sealer.needs_update_before(1 << 20));
    assert!(Sealer::new(chacha_at(u64::MAX - 5)).needs_update_before(1));
}

#[test]
fn data_beyond_the_confidentiality_limit_is_refused_and_a_key_update_is_not() {
    let last = Suite::AesGcm.records_max() - 1;
    let mut sealer = Sealer::new(toy_key_at(0, last));
    assert!(seal_one(&mut sealer).is_ok());
    assert_eq!(seal_one(&mut sealer), Err(SealError::KeyExhausted));
    sealer.key_update(KeyUpdateRequest::Requested).unwrap();
    sealer.rekey(toy_key(1));
    assert!(seal_one(&mut sealer).is_ok());
}

#[test]
fn several_records_pass_the_limit_together_or_not_at_all() {
    let last = Suite::AesGcm.records_max() - 2;
    let mut sealer = Sealer::new(toy_key_at(0, last));
    let mut buffer = vec![0; 200];
    assert_eq!(
        sealer.seal(&mut buffer, 5..8, 1),
        Err(SealError::KeyExhausted)
    );
    assert!(buffer.iter().all(|byte| *byte == 0));
    assert!(sealer.seal(&mut buffer, 5..7, 1).is_ok());
}

#[test]
fn no_sequence_number_is_used_twice_when_they_come_to_their_end() {
    let mut sealer = Sealer::new(chacha_at(u64::MAX - 2));
    assert_eq!(seal_one(&mut sealer), Err(SealError::KeyExhausted));
    sealer.key_update(KeyUpdateRequest::NotRequested).unwrap();
    let mut sealer = Sealer::new(chacha_at(u64::MAX - 1));
    assert!(sealer.alert(Alert(80)).is_ok());
    let mut sealer = Sealer::new(chacha_at(u64::MAX));
    assert_eq!(sealer.alert(Alert(80)), Err(SealError::KeyExhausted));
    assert_eq!(sealer.close_notify(), Err(SealError::KeyExhausted));
}

#[test]
fn a_peer_that_has_used_up_its_sequence_numbers_is_cut_off() {
    let mut forge = Forge {
        aead: Toy(0),
        sequence: u64::MAX - 1,
    };
    let mut stream = forge.record(b"the last", DATA, 0);
    let mut again = Forge {
        aead: Toy(0),
        sequence: u64::MAX - 1,
    };
    stream.extend(again.record(b"too many", DATA, 0));
    let mut opener = Opener::new(toy_key_at(0, u64::MAX - 1), Peer::Client);
    let expected = Read {
        plaintext: b"the last".to_vec(),
        error: Some(OpenError::SequenceExhausted),
        left: stream.len() / 2,
        ..Read::default()
    };
    assert_eq!(read(&mut opener, [stream], toy_key), expected);
}

#[test]
fn a_peer_whose_key_has_protected_enough_is_asked_for_another_once() {
    let due = Suite::AesGcm.ask_after();
    let mut forge = Forge {
        aead: Toy(0),
        sequence: due - 1,
    };
    let mut opener = Opener::new(toy_key_at(0, due - 1), Peer::Client);
    assert!(!opener.asks_for_update());
    let record = forge.record(b"x", DATA, 0);
    read(&mut opener, [record], toy_key);
    assert!(opener.asks_for_update());
    assert!(!opener.asks_for_update());
    let update = forge.record(&super::support::key_update(0), 22, 0);
    read(&mut opener, [update], toy_key);
    assert!(!opener.asks_for_update(), "the new key is fresh");
}

#[test]
fn nothing_is_sealed_behind_the_last_word() {
    let mut sealer = Sealer::new(toy_key(0));
    sealer.close_notify().unwrap();
    assert_eq!(seal_one(&mut sealer), Err(SealError::Closed));
    assert_eq!(sealer.alert(Alert(10)), Err(SealError::Closed));
    assert!(sealer.key_update(KeyUpdateRequest::NotRequested).is_err());
    let mut sealer = Sealer::new(toy_key(0));
    sealer.alert(Alert(20)).unwrap();
    assert_eq!(sealer.close_notify(), Err(SealError::Closed));
}
