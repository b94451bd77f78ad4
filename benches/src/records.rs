//! The ciphers of records, alone: AES-128-GCM in place over many records, with a header as additional data.
//! In: the size of a record, how many bytes in all. Out: what sealing and opening them took.

use std::time::Duration;

use crate::clock::spent;

/// Records that lie one behind the other in memory, as in the buffer of a busy connection.
const BATCH_BYTES: usize = 128 << 10;

/// What a number of records took.
pub struct Spent {
    /// Their number.
    pub records: u32,
    /// Content of each, in bytes.
    pub size: usize,
    /// CPU time of sealing them all.
    pub seal: Duration,
    /// CPU time of opening them all.
    pub open: Duration,
}

impl Spent {
    /// By what a time has to be multiplied to be that of 2^30 bytes.
    pub fn share_of_gibibyte(&self) -> f64 {
        f64::from(1 << 30) / (f64::from(self.records) * self.size as f64)
    }
}

/// Both libraries have the same interface under different names.
macro_rules! library {
    ($(#[$documentation:meta])* $name:ident, $aead:path) => {
        $(#[$documentation])*
        pub fn $name(size: usize, bytes: usize) -> Option<Spent> {
            use $aead as aead;
            let key = aead::UnboundKey::new(&aead::AES_128_GCM, &[7; 16]).ok()?;
            let key = aead::LessSafeKey::new(key);
            let header = [23, 3, 3, 0, 0];
            // Content and its type, then the tag.
            let length = size + 1;
            let mut batch = vec![vec![0; length + aead::MAX_TAG_LEN]; (BATCH_BYTES / size).max(1)];
            let rounds = bytes / (batch.len() * size);
            let (mut seal, mut open) = (Duration::ZERO, Duration::ZERO);
            let mut number = 0_u32;
            for _ in 0..rounds {
                let first = number;
                let started = spent();
                for record in &mut batch {
                    let (content, tag) = record.split_at_mut(length);
                    let sealed = key
                        .seal_in_place_separate_tag(nonce!(aead, number), aead::Aad::from(header), content)
                        .ok()?;
                    tag.copy_from_slice(sealed.as_ref());
                    number += 1;
                }
                let between = spent();
                for (record, number) in batch.iter_mut().zip(first..) {
                    key.open_in_place(nonce!(aead, number), aead::Aad::from(header), record)
                        .ok()?;
                }
                seal += between - started;
                open += spent() - between;
            }
            Some(Spent { records: number, size, seal, open })
        }
    };
}

macro_rules! nonce {
    ($aead:ident, $number:expr) => {{
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&$number.to_be_bytes());
        $aead::Nonce::assume_unique_for_key(nonce)
    }};
}

library!(
    /// With ring. `None` when it refuses its own records.
    ring,
    ring::aead
);

library!(
    /// With AWS-LC. `None` when it refuses its own records.
    aws_lc,
    aws_lc_rs::aead
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_records_are_sealed_and_opened_as_were_asked_for() {
        for measure in [ring, aws_lc] {
            let spent = measure(1024, 1 << 20).unwrap();
            assert_eq!(spent.records, 1024);
            assert!((spent.share_of_gibibyte() - 1024.0).abs() < 1e-9);
        }
    }
}
