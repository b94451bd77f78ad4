//! The bytes that `echo` and `stream` move: reproducible from the offset alone, so that any loss, repetition or
//! reordering of a stream shows as a mismatch. Shared by the scenarios and the bundled backends.

use std::sync::LazyLock;

/// A prime, so that no power-of-two buffer on the way can be swapped for another unnoticed.
const PERIOD: usize = 65_521;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    // xorshift64*: any fixed sequence without short repetitions does.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..PERIOD)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        })
        .collect()
});

/// The longest run of the pattern that starts at `offset` and lies in one piece, at most `length` bytes.
pub(crate) fn run_at(offset: u64, length: u64) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    let end = PERIOD.min(start + usize::try_from(length).unwrap_or(PERIOD));
    &BYTES[start..end]
}

/// Whether `bytes` are the pattern at `offset`.
pub(crate) fn matches(offset: u64, bytes: &[u8]) -> bool {
    let (mut offset, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let expected = run_at(offset, rest.len() as u64);
        let (head, tail) = rest.split_at(expected.len());
        if head != expected {
            return false;
        }
        offset += head.len() as u64;
        rest = tail;
    }
    true
}

/// Fills `buffer` with the pattern at `offset`.
pub(crate) fn fill(offset: u64, buffer: &mut [u8]) {
    let mut filled = 0;
    while filled < buffer.len() {
        let run = run_at(offset + filled as u64, (buffer.len() - filled) as u64);
        buffer[filled..filled + run.len()].copy_from_slice(run);
        filled += run.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_matches_at_its_offset_and_nowhere_near() {
        for offset in [0, 1, 65_520, 65_521, 1 << 40] {
            let mut buffer = vec![0; 200_000];
            fill(offset, &mut buffer);
            assert!(matches(offset, &buffer));
            assert!(!matches(offset + 1, &buffer));
            assert!(!matches(offset + 65_536, &buffer));
        }
    }
}
