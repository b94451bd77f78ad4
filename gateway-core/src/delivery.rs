//! Tells a slow peer from one that is gone.
//! In: what TCP knows of a connection. Out: the state of its delivery. Reads no clock.

use std::time::Duration;

/// What TCP knows of the bytes sent to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes without an acknowledgement.
    pub queued_bytes: u64,
    /// Time since the last acknowledgement, even of nothing new.
    pub last_heard: Duration,
}

/// The state of what was sent to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryState {
    /// The peer has acknowledged everything.
    Delivered,
    /// Bytes wait, and the peer answers: its program does not read, so its window is closed (RFC 9293 section
    /// 3.8.6.1: the peer may answer probes for any time), or the path is slow.
    Waiting,
    /// Bytes wait, and the peer has not answered for too long.
    Gone,
}

impl Delivery {
    /// The state of a peer that may be silent for `silence_max` while bytes wait for its acknowledgement.
    pub fn state(self, silence_max: Duration) -> DeliveryState {
        match (self.queued_bytes, self.last_heard >= silence_max) {
            (0, _) => DeliveryState::Delivered,
            (_, false) => DeliveryState::Waiting,
            (_, true) => DeliveryState::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_pauses_is_alive_however_long_and_a_peer_that_answers_nothing_is_not() {
        const MAX: Duration = Duration::from_secs(150);
        let state = |queued_bytes, seconds| {
            let last_heard = Duration::from_secs(seconds);
            let delivery = Delivery {
                queued_bytes,
                last_heard,
            };
            delivery.state(MAX)
        };
        // The kernel probes a closed window every two minutes at most, and sooner at first.
        assert_eq!(state(1 << 20, 30), DeliveryState::Waiting);
        assert_eq!(state(1, 149), DeliveryState::Waiting);
        assert_eq!(state(1, 150), DeliveryState::Gone);
        // Nothing waits: keepalive finds out whether the peer is there.
        assert_eq!(state(0, 3600), DeliveryState::Delivered);
    }
}
