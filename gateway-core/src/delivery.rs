//! Whether a peer that does not take what was sent to it is slow, or gone.
//! In: what TCP knows of a connection. Out: a judgement. Reads no clock.

use std::time::Duration;

/// What TCP knows of the bytes that were sent to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes that the peer has not acknowledged.
    pub queued_bytes: u64,
    /// Time since an acknowledgement came from it, be it of nothing new.
    pub last_heard: Duration,
}

/// What that comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryState {
    /// Everything has arrived.
    Delivered,
    /// Something has not, and the peer is there: its program does not read, so that its window is closed (RFC 9293 section
    /// 3.8.6.1: it goes on answering probes for as long as it likes), or the way is slow.
    Waiting,
    /// Something has not, and the peer has answered nothing for too long.
    Gone,
}

impl Delivery {
    /// Judges a peer that may be unheard of for `silence_max` while something waits for its acknowledgement.
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
        // The kernel asks a closed window whether it has opened every two minutes at the most, sooner at first.
        assert_eq!(state(1 << 20, 30), DeliveryState::Waiting);
        assert_eq!(state(1, 149), DeliveryState::Waiting);
        assert_eq!(state(1, 150), DeliveryState::Gone);
        // Nothing waits: whether it is still there, keepalive tells.
        assert_eq!(state(0, 3600), DeliveryState::Delivered);
    }
}
