//! The budget of a peer's KeyUpdates.
//! In: received data, KeyUpdates, the time. Out: whether to follow one more. One per connection; reads no clock.

use std::time::{Duration, Instant};

/// Maximum of KeyUpdates in a minute, beside those earned by data. Each costs us a key derivation, as much as opening
/// about 16 KiB of data, and the peer 27 bytes. Common stacks send one for each hundred gigabytes.
pub const KEY_UPDATES_PER_MINUTE: u16 = 1000;

/// Bytes of data that earn one more KeyUpdate, whose cost is small beside theirs.
pub const BYTES_PER_KEY_UPDATE: u32 = 1 << 20;

const MINUTE: Duration = Duration::from_secs(60);

/// The rest of the budget.
#[derive(Debug, Default)]
pub struct UpdateBudget {
    minute_began: Option<Instant>,
    left: u16,
    /// Bytes of data that have not earned a KeyUpdate yet.
    data_bytes: u32,
}

impl UpdateBudget {
    /// Counts received data.
    pub fn note_data(&mut self, bytes: usize) {
        let bytes = self.data_bytes as usize + bytes;
        let earned = u16::try_from(bytes / BYTES_PER_KEY_UPDATE as usize).unwrap_or(u16::MAX);
        self.left = self.left.saturating_add(earned).min(KEY_UPDATES_PER_MINUTE);
        self.data_bytes = (bytes % BYTES_PER_KEY_UPDATE as usize) as u32;
    }

    /// Takes one KeyUpdate. Returns whether to follow it.
    pub fn try_take(&mut self, now: Instant) -> bool {
        let is_over = |began: Instant| now.saturating_duration_since(began) >= MINUTE;
        if self.minute_began.is_none_or(is_over) {
            self.minute_began = Some(now);
            self.left = KEY_UPDATES_PER_MINUTE;
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut UpdateBudget, now: Instant) -> usize {
        (0..3000).take_while(|_| budget.try_take(now)).count()
    }

    #[test]
    fn a_minute_has_so_many_and_the_next_one_as_many_again() {
        let (mut budget, start) = (UpdateBudget::default(), Instant::now());
        let minute = usize::from(KEY_UPDATES_PER_MINUTE);
        assert_eq!(taken(&mut budget, start), minute);
        assert_eq!(taken(&mut budget, start + MINUTE / 2), 0);
        assert_eq!(taken(&mut budget, start + MINUTE), minute);
    }

    #[test]
    fn a_stream_of_data_may_change_its_keys_again_and_again_and_bytes_between_changes_may_not() {
        let (mut budget, now) = (UpdateBudget::default(), Instant::now());
        for _ in 0..20_000 {
            budget.note_data(BYTES_PER_KEY_UPDATE as usize / 2);
            budget.note_data(BYTES_PER_KEY_UPDATE as usize / 2);
            assert!(budget.try_take(now));
        }
        let mut budget = UpdateBudget::default();
        let followed = (0..3000).take_while(|_| {
            budget.note_data(1);
            budget.try_take(now)
        });
        assert_eq!(followed.count(), usize::from(KEY_UPDATES_PER_MINUTE));
    }
}
