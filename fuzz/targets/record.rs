//! Any bytes as what the peer of an established connection sends, and as what we send it.
//!
//! What must hold: no panic; in whatever pieces bytes come, the plaintext, the events and the error are the same; the
//! plaintext is never more than came, and nothing follows an error or a close_notify; what we seal opens as it was, in
//! records no longer than allowed; and with one byte of it changed, only whole records before the change open.
#![no_main]

use gateway_core::record::{
    Aead, Batch, CONTENT_BYTES_MAX, Forged, HEADER_BYTES, Header, IV_BYTES, OpenError, Opener,
    Peer, Sealer, Stop, Suite, TAG_BYTES, TrafficKey, is_ticket,
};
use libfuzzer_sys::fuzz_target;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// No cipher: every record is authentic, so that what is behind the cipher is reached.
struct Clear;

impl Aead for Clear {
    fn open(
        &self,
        _: [u8; IV_BYTES],
        _: &Header,
        bytes: &mut [u8],
        from: usize,
    ) -> Result<(), Forged> {
        let end = bytes.len() - TAG_BYTES;
        bytes.copy_within(from..end, 0);
        Ok(())
    }

    fn seal(&self, _: [u8; IV_BYTES], _: &Header, _: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        Some([0; TAG_BYTES])
    }
}

/// A real one.
struct Real(LessSafeKey);

impl Aead for Real {
    fn open(
        &self,
        nonce: [u8; IV_BYTES],
        header: &Header,
        bytes: &mut [u8],
        from: usize,
    ) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_within(nonce, Aad::from(header), bytes, from..);
        opened.map(|_| ()).map_err(|_| Forged)
    }

    fn seal(
        &self,
        nonce: [u8; IV_BYTES],
        header: &Header,
        bytes: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = &self.0;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), bytes);
        tag.ok()?.as_ref().try_into().ok()
    }
}

fn clear() -> TrafficKey<Clear> {
    TrafficKey::new(Clear, [0; IV_BYTES], 0, Suite::AesGcm)
}

fn real() -> TrafficKey<Real> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("a key of the right length");
    TrafficKey::new(Real(LessSafeKey::new(key)), [3; IV_BYTES], 0, Suite::AesGcm)
}

#[derive(Debug, Default, PartialEq)]
struct Read {
    plaintext: Vec<u8>,
    events: Vec<(usize, Stop)>,
    error: Option<OpenError>,
}

fn read<A: Aead>(
    mut opener: Opener<A>,
    stream: &[u8],
    piece_bytes: usize,
    next_key: fn() -> TrafficKey<A>,
) -> Read {
    let mut read = Read::default();
    let mut kept = Vec::new();
    for piece in stream.chunks(piece_bytes) {
        kept.extend_from_slice(piece);
        let mut batch = Batch::new(&mut kept);
        let is_over = loop {
            let stop = opener.open(&mut batch);
            assert!(batch.opened() <= batch.taken());
            let position = read.plaintext.len() + batch.opened();
            match stop {
                Ok(Stop::Incomplete) => break false,
                Ok(Stop::Closed) => {
                    read.events.push((position, Stop::Closed));
                    break true;
                }
                Ok(stop) => {
                    if matches!(stop, Stop::KeyUpdate(_)) {
                        opener.rekey(next_key());
                    }
                    if let Stop::Ticket(ticket) = &stop {
                        // Either answer will do.
                        is_ticket(ticket);
                    }
                    read.events.push((position, stop));
                }
                Err(error) => {
                    assert_eq!(opener.open(&mut batch), Err(error));
                    read.error = Some(error);
                    break true;
                }
            }
        };
        read.plaintext.extend_from_slice(batch.plaintext());
        let taken = batch.taken();
        kept.drain(..taken);
        if is_over {
            break;
        }
    }
    read
}

fuzz_target!(|input: &[u8]| {
    let &[choice, change, ref stream @ ..] = input else {
        return;
    };
    as_received(choice, stream);
    as_sent(choice, change, stream);
});

fn as_received(choice: u8, stream: &[u8]) {
    let peer = match choice & 1 {
        0 => Peer::Client,
        _ => Peer::Server,
    };
    let at_once = read(Opener::new(clear(), peer), stream, usize::MAX, clear);
    let in_pieces = read(
        Opener::new(clear(), peer),
        stream,
        1 + usize::from(choice),
        clear,
    );
    assert_eq!(at_once, in_pieces);
    assert!(at_once.plaintext.len() <= stream.len());
    let never_opened = read(Opener::new(real(), peer), stream, usize::MAX, real);
    assert_eq!(
        (&*never_opened.plaintext, &*never_opened.events),
        (&[][..], &[][..])
    );
}

fn as_sent(choice: u8, change: u8, plaintext: &[u8]) {
    let content_bytes_max = match choice {
        255 => CONTENT_BYTES_MAX,
        choice => 16 * (1 + usize::from(choice)),
    };
    let mut sealer = Sealer::new(real());
    let sealed_bytes = Sealer::<Real>::sealed_bytes(plaintext.len(), content_bytes_max);
    let front = usize::from(change % 9);
    let mut buffer = vec![0; front + sealed_bytes];
    let range = front..front + plaintext.len();
    buffer[range.clone()].copy_from_slice(plaintext);
    let records = sealer.seal(&mut buffer, range, content_bytes_max);
    let records = &mut buffer[records.expect("a fresh key")];
    assert_eq!(records.len(), sealed_bytes);
    let piece_bytes = 1 + 7 * usize::from(change);
    let opened = read(
        Opener::new(real(), Peer::Client),
        records,
        piece_bytes,
        real,
    );
    assert_eq!(opened.plaintext, plaintext);
    assert_eq!((opened.events.len(), opened.error), (0, None));
    let Some(last) = records.len().checked_sub(1) else {
        return;
    };
    let at = last * usize::from(change) / 255;
    records[at] ^= 1 << (choice % 8);
    let opened = read(Opener::new(real(), Peer::Client), records, usize::MAX, real);
    let record_bytes = HEADER_BYTES + content_bytes_max + 1 + TAG_BYTES;
    let before = at / record_bytes * content_bytes_max;
    assert_eq!(opened.plaintext, plaintext[..before]);
    assert!(opened.events.is_empty());
}
