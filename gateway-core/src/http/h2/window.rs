//! Flow control (RFC 9113 section 6.9): how much may be sent, and how much was promised to take.
//! In: bytes and credit. Out: what is allowed, credit to give. One pair for a connection and for each stream. Pure.

use super::settings::WINDOW_BYTES_MAX;

/// A window has become larger than 2^31 - 1 bytes (RFC 9113 section 6.9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow;

/// The peer has sent more than its window allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exceeded;

/// What we may send. A peer can make it negative by its settings (RFC 9113 section 6.9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    pub(super) fn new(bytes: u32) -> Self {
        SendWindow(bytes.into())
    }

    /// Bytes that may be sent.
    pub(super) fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Counts bytes that are sent.
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.available());
        self.0 -= bytes as i64;
    }

    /// Adds credit of the peer, which a change of its settings can make negative.
    pub(super) fn add(&mut self, credit: i64) -> Result<(), Overflow> {
        self.0 += credit;
        match self.0 > WINDOW_BYTES_MAX.into() {
            false => Ok(()),
            true => Err(Overflow),
        }
    }
}

/// What the peer may send. Every byte of the window is in one of three places: left to the peer, held here until it has
/// been passed on, or due to be given back as credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    size: u32,
    left: u32,
    due: u32,
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> Self {
        ReceiveWindow {
            size,
            left: size,
            due: 0,
        }
    }

    /// The whole of it.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Bytes that have come and not been passed on.
    pub(super) fn held(&self) -> u32 {
        self.size - self.left - self.due
    }

    /// Counts bytes that come.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Exceeded> {
        let bytes = u32::try_from(bytes).map_err(|_| Exceeded)?;
        self.left = self.left.checked_sub(bytes).ok_or(Exceeded)?;
        Ok(())
    }

    /// Counts bytes that have been passed on or dropped. Returns the credit to give, once half of the window is due.
    #[must_use]
    pub(super) fn release(&mut self, bytes: usize) -> Option<u32> {
        let held = self.held();
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= held);
        self.due += bytes.expect("what is released came before, and once");
        if self.due < self.size.div_ceil(2) {
            return None;
        }
        let credit = std::mem::take(&mut self.due);
        self.left += credit;
        Some(credit)
    }

    /// Widens the window: this much more credit is to be given.
    pub(super) fn grow(&mut self, bytes: u32) {
        self.size += bytes;
        self.left += bytes;
    }
}

/// Bytes of windows that a worker may promise beyond those that connections begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowBudget {
    left: usize,
}

impl WindowBudget {
    /// A budget of so many bytes.
    pub const fn new(bytes: usize) -> Self {
        WindowBudget { left: bytes }
    }

    /// Takes bytes, if so many are left.
    pub(super) fn take(&mut self, bytes: u32) -> bool {
        let rest = self.left.checked_sub(bytes as usize);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    /// Gives back what a connection has taken, when it is gone.
    pub const fn give_back(&mut self, bytes: usize) {
        self.left += bytes;
    }

    /// Bytes that are left.
    pub const fn left(&self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_send_window_goes_below_nothing_and_never_above_the_largest() {
        let mut window = SendWindow::new(10);
        window.take(8);
        assert_eq!(window.add(-5), Ok(()));
        assert_eq!(window.available(), 0);
        assert_eq!(window.add(4), Ok(()));
        assert_eq!(window.available(), 1);
        assert_eq!(window.add(i64::from(WINDOW_BYTES_MAX) - 1), Ok(()));
        assert_eq!(window.add(1), Err(Overflow));
    }

    #[test]
    fn credit_is_given_back_at_half_a_window() {
        let mut window = ReceiveWindow::new(101);
        assert_eq!(window.take(101), Ok(()));
        assert_eq!(window.take(1), Err(Exceeded));
        assert_eq!(window.release(50), None);
        assert_eq!(window.held(), 51);
        assert_eq!(window.release(1), Some(51));
        assert_eq!(window.take(51), Ok(()));
        assert_eq!(window.take(1), Err(Exceeded));
    }

    #[test]
    fn a_budget_is_not_overdrawn() {
        let mut budget = WindowBudget::new(10);
        assert!(budget.take(6) && !budget.take(6) && budget.take(4));
        budget.give_back(6);
        assert_eq!(budget.left(), 6);
    }

    proptest! {
        /// What a peer may send, as it counts it, and what is held here make up the window, less what is due.
        #[test]
        fn no_credit_is_lost_and_none_is_invented(
            size in 1_u32..1000,
            steps in vec((0_usize..1000, 0_usize..1000, 0_u32..50), 1..60),
        ) {
            let mut window = ReceiveWindow::new(size);
            let (mut peers, mut held, mut size) = (size, 0, size);
            for (came, left, growth) in steps {
                if window.take(came).is_ok() {
                    prop_assert!(came <= peers as usize);
                    peers -= came as u32;
                    held += came;
                } else {
                    prop_assert!(came > peers as usize);
                }
                let left = left.min(held);
                held -= left;
                peers += window.release(left).unwrap_or(0);
                window.grow(growth);
                (peers, size) = (peers + growth, size + growth);
                prop_assert_eq!(window.held() as usize, held);
                prop_assert_eq!(window.size(), size);
                let due = size as usize - peers as usize - held;
                prop_assert!(due < size.div_ceil(2) as usize);
            }
        }
    }
}
