//! Keys, a hand that makes any record, and a reader that takes bytes in any pieces.
//! In: what a record should hold. Out: its bytes; or what an `Opener` made of them.

use gateway_core::record::{
    Aead, Batch, Forged, Header, IV_BYTES, KeyUpdateRequest, OpenError, Opener, Peer, Stop, Suite,
    TAG_BYTES, TrafficKey,
};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305};
use ring::aead::{LessSafeKey, Nonce, UnboundKey};

pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

/// A cipher of no strength that notices every change of key, nonce, header and text. Runs where no assembly does.
#[derive(Debug)]
pub struct Toy(pub u64);

impl Toy {
    fn stream(&self, nonce: &[u8], bytes: &mut [u8]) {
        let mut state = self.digest(&[nonce]);
        for byte in bytes {
            state = mixed(state);
            *byte ^= state as u8;
        }
    }

    fn digest(&self, parts: &[&[u8]]) -> u64 {
        let mut state = mixed(self.0);
        for part in parts {
            state = mixed(state ^ part.len() as u64);
            for byte in *part {
                state = mixed(state ^ u64::from(*byte));
            }
        }
        state
    }

    fn tag(&self, nonce: &[u8], header: &[u8], ciphertext: &[u8]) -> [u8; TAG_BYTES] {
        let digest = self.digest(&[nonce, header, ciphertext]);
        let mut tag = [0; TAG_BYTES];
        tag[..8].copy_from_slice(&digest.to_be_bytes());
        tag[8..].copy_from_slice(&mixed(digest).to_be_bytes());
        tag
    }
}

/// A bijection, so that no change is lost.
fn mixed(state: u64) -> u64 {
    let state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (state ^ 0x5851_f42d_4c95_7f2d).wrapping_mul(0xd134_2543_de82_ef95)
}

impl Aead for Toy {
    fn open(
        &self,
        nonce: [u8; IV_BYTES],
        header: &Header,
        bytes: &mut [u8],
        from: usize,
    ) -> Result<(), Forged> {
        let tag_at = bytes.len() - TAG_BYTES;
        let expected = self.tag(&nonce, header, &bytes[from..tag_at]);
        if bytes[tag_at..] != expected {
            return Err(Forged);
        }
        bytes.copy_within(from..tag_at, 0);
        self.stream(&nonce, &mut bytes[..tag_at - from]);
        Ok(())
    }

    fn seal(
        &self,
        nonce: [u8; IV_BYTES],
        header: &Header,
        bytes: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        self.stream(&nonce, bytes);
        Some(self.tag(&nonce, header, bytes))
    }
}

/// ring's ciphers, as the gateway has them.
#[derive(Debug)]
pub struct Real(LessSafeKey);

impl Real {
    pub fn new(algorithm: &'static Algorithm, key: &[u8]) -> Self {
        Real(LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap()))
    }
}

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
        let sealed = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(header), bytes);
        sealed.ok().map(|tag| tag.as_ref().try_into().unwrap())
    }
}

pub fn toy_key(generation: u64) -> TrafficKey<Toy> {
    toy_key_at(generation, 0)
}

pub fn toy_key_at(generation: u64, sequence: u64) -> TrafficKey<Toy> {
    TrafficKey::new(Toy(generation), iv(), sequence, Suite::AesGcm)
}

/// A real key of each suite.
pub fn real_keys() -> [TrafficKey<Real>; 3] {
    [
        (&AES_128_GCM, Suite::AesGcm),
        (&AES_256_GCM, Suite::AesGcm),
        (&CHACHA20_POLY1305, Suite::ChaCha20Poly1305),
    ]
    .map(|(algorithm, suite)| {
        let key = vec![0x42; algorithm.key_len()];
        TrafficKey::new(Real::new(algorithm, &key), iv(), 0, suite)
    })
}

pub fn iv() -> [u8; IV_BYTES] {
    *b"twelve bytes"
}

/// Seals any inner plaintext whatever, legal or not.
pub struct Forge<A> {
    pub aead: A,
    pub sequence: u64,
}

impl Forge<Toy> {
    pub fn new(generation: u64) -> Self {
        Forge {
            aead: Toy(generation),
            sequence: 0,
        }
    }
}

impl<A: Aead> Forge<A> {
    pub fn record(&mut self, content: &[u8], content_type: u8, padding: usize) -> Vec<u8> {
        let inner = [content, &[content_type], &vec![0; padding]].concat();
        self.inner(inner)
    }

    pub fn inner(&mut self, mut inner: Vec<u8>) -> Vec<u8> {
        let length = u16::try_from(inner.len() + TAG_BYTES)
            .unwrap()
            .to_be_bytes();
        let header = [23, 3, 3, length[0], length[1]];
        let mut nonce = iv();
        for (byte, counted) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counted;
        }
        self.sequence += 1;
        let tag = self.aead.seal(nonce, &header, &mut inner).unwrap();
        [&header[..], &inner, &tag].concat()
    }
}

/// What an opener made of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub plaintext: Vec<u8>,
    /// Each with the number of bytes of plaintext before it.
    pub events: Vec<(usize, Event)>,
    pub error: Option<OpenError>,
    /// Bytes that were not taken.
    pub left: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    KeyUpdate(KeyUpdateRequest),
    Ticket(Vec<u8>),
    Closed,
}

/// Feeds `pieces` one by one, each behind what was left of those before; `next_key` makes the key of each generation.
/// Plaintext counts even if an error follows it in the same piece: it must be right all the same.
pub fn read<A: Aead>(
    opener: &mut Opener<A>,
    pieces: impl IntoIterator<Item = Vec<u8>>,
    mut next_key: impl FnMut(u64) -> TrafficKey<A>,
) -> Read {
    let mut read = Read::default();
    let mut kept = Vec::new();
    let mut generation = 0;
    for piece in pieces {
        kept.extend_from_slice(&piece);
        let mut batch = Batch::new(&mut kept);
        loop {
            let stop = opener.open(&mut batch);
            assert!(batch.opened() <= batch.taken());
            let position = read.plaintext.len() + batch.opened();
            match stop {
                Ok(Stop::Incomplete) => break,
                Ok(Stop::KeyUpdate(request)) => {
                    generation += 1;
                    opener.rekey(next_key(generation));
                    read.events.push((position, Event::KeyUpdate(request)));
                }
                Ok(Stop::Ticket(ticket)) => {
                    read.events
                        .push((position, Event::Ticket(ticket.into_vec())));
                }
                Ok(Stop::Closed) => {
                    if !read.events.iter().any(|(_, event)| *event == Event::Closed) {
                        read.events.push((position, Event::Closed));
                    }
                    break;
                }
                Err(error) => {
                    assert_eq!(opener.open(&mut batch), Err(error), "an error stays");
                    read.error = Some(error);
                    break;
                }
            }
        }
        read.plaintext.extend_from_slice(batch.plaintext());
        let taken = batch.taken();
        kept.drain(..taken);
        if read.error.is_some() {
            break;
        }
    }
    read.left = kept.len();
    read
}

/// An opener whose peer is a client, under the toy key of generation 0.
pub fn opener_of_a_client() -> Opener<Toy> {
    Opener::new(toy_key(0), Peer::Client)
}

/// `stream` in pieces of the given lengths, over and over.
pub fn pieces(stream: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = stream;
    for length in lengths.iter().cycle() {
        let (piece, behind) = rest.split_at((*length).clamp(1, rest.len().max(1)).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    pieces
}

/// A KeyUpdate message.
pub fn key_update(asks: u8) -> Vec<u8> {
    vec![24, 0, 0, 1, asks]
}

/// A NewSessionTicket message.
pub fn ticket(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&[4], &length[1..], payload].concat()
}
