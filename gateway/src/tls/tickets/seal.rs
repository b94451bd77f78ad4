//! Seals and opens bytes for one listener.
//! In: master keys, the listener's name. Out: tickets; their contents, or why not. A ticket is
//! `version, key id, salt, ciphertext`; its AEAD key is derived from master key, listener and salt (HKDF, RFC 5869), so
//! that a ticket of one listener is noise to another, and no two tickets share a key and a nonce however many there are.

use gateway_core::lineage::TicketRefusal;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::crypto::SecureRandom;

use crate::crypto::{KeyId, KeyRing};

/// Of the layout. Another one is another ticket.
const VERSION: u8 = 4;
const SALT_BYTES: usize = 32;
const HEADER_BYTES: usize = 1 + KeyId::BYTES + SALT_BYTES;
const AEAD_KEY_BYTES: usize = 32;

/// Seals and opens for one listener. `Lineage::evaluate_ticket` decides what a ticket is worth.
pub struct Sealer {
    domain: Vec<u8>,
    keys: Vec<(KeyId, Prk)>,
    distrusted: Vec<KeyId>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Sealer")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// How much is derived for one ticket.
struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        AEAD_KEY_BYTES + NONCE_LEN
    }
}

impl Sealer {
    /// Derives from `ring` for the listener called `domain`.
    pub fn new(ring: &KeyRing, domain: &str) -> Self {
        let extract = Salt::new(HKDF_SHA256, b"portcullis session ticket");
        let keys = ring.keys.iter();
        Sealer {
            domain: domain.as_bytes().to_vec(),
            keys: keys
                .map(|key| (key.id, extract.extract(&*key.secret)))
                .collect(),
            distrusted: ring.distrusted.clone(),
        }
    }

    /// Seals `contents`; `None` without randomness or without a key.
    pub fn seal(&self, mut contents: Vec<u8>, random: &dyn SecureRandom) -> Option<Vec<u8>> {
        let (id, master) = self.keys.first()?;
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt).ok()?;
        let header = [&[VERSION], &id.0[..], &salt].concat();
        let (key, nonce) = self.derive(master, &salt)?;
        key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut contents)
            .ok()?;
        Some([header, contents].concat())
    }

    /// Opens a ticket.
    pub fn open(&self, ticket: &[u8]) -> Result<Vec<u8>, TicketRefusal> {
        let foreign = TicketRefusal::UnknownKey;
        let (header, sealed) = ticket.split_at_checked(HEADER_BYTES).ok_or(foreign)?;
        let (version, rest) = header.split_at(1);
        let (id, salt) = rest.split_at(KeyId::BYTES);
        if version != [VERSION] {
            return Err(foreign);
        }
        if self.distrusted.iter().any(|gone| gone.0 == id) {
            return Err(TicketRefusal::Epoch);
        }
        let mut keys = self.keys.iter();
        let (_, master) = keys.find(|(known, _)| known.0 == id).ok_or(foreign)?;
        // The key is ours, so whatever does not open was sealed by another listener or tampered with.
        let (key, nonce) = self
            .derive(master, salt)
            .ok_or(TicketRefusal::NotAuthentic)?;
        let mut contents = sealed.to_vec();
        let opened = key.open_in_place(nonce, Aad::from(header), &mut contents);
        let length = opened.map_err(|_| TicketRefusal::NotAuthentic)?.len();
        contents.truncate(length);
        Ok(contents)
    }

    /// Key and nonce of one ticket.
    fn derive(&self, master: &Prk, salt: &[u8]) -> Option<(LessSafeKey, Nonce)> {
        // The salt has a fixed length and stands first: no salt and domain read as another pair.
        let info = [salt, &self.domain];
        let mut derived = [0; AEAD_KEY_BYTES + NONCE_LEN];
        master
            .expand(&info, Derived)
            .ok()?
            .fill(&mut derived)
            .ok()?;
        let (key, nonce) = derived.split_at(AEAD_KEY_BYTES);
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        Some((LessSafeKey::new(key), nonce))
    }
}
