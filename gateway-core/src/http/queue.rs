//! What has to wait before it is sent. In: content, and its end. Out: the same, in order. One for each stream; an empty
//! one holds no memory.

/// What a stream has to send and may not yet: content, and then perhaps its end.
#[derive(Debug, Default)]
pub(in crate::http) struct Queue {
    data: Vec<u8>,
    /// How much of `data` has been sent.
    sent: usize,
    end: Option<QueueEnd>,
}

/// How a direction ends behind its content.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) enum QueueEnd {
    /// With the last of it.
    Data,
    /// With trailers, as they are written. In HTTP/2 without a table: they are sent later than blocks that are encoded
    /// later.
    Trailers(Vec<u8>),
}

impl Queue {
    pub(in crate::http) fn is_empty(&self) -> bool {
        self.data().is_empty() && self.end.is_none()
    }

    /// Content that waits.
    pub(in crate::http) fn data(&self) -> &[u8] {
        &self.data[self.sent..]
    }

    pub(in crate::http) fn push(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    pub(in crate::http) fn set_end(&mut self, end: QueueEnd) {
        debug_assert_eq!(self.end, None);
        self.end = Some(end);
    }

    pub(in crate::http) fn end(&self) -> Option<&QueueEnd> {
        self.end.as_ref()
    }

    pub(in crate::http) fn take_end(&mut self) -> Option<QueueEnd> {
        self.end.take()
    }

    /// Counts content that is sent. An empty queue holds no memory.
    pub(in crate::http) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.data().is_empty() {
            (self.data, self.sent) = (Vec::new(), 0);
        }
        // What has been sent is given up once it is as much as what waits: so each byte is moved once.
        if 2 * self.sent > self.data.len() {
            self.data.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_queue_gives_what_it_got_in_order(steps in vec((vec(any::<u8>(), 0..20), 0_usize..30), 0..40)) {
            let (mut queue, mut got, mut given) = (Queue::default(), Vec::new(), Vec::new());
            for (data, bytes) in steps {
                queue.push(&data);
                got.extend_from_slice(&data);
                let bytes = bytes.min(queue.data().len());
                given.extend_from_slice(&queue.data()[..bytes]);
                queue.advance(bytes);
                prop_assert_eq!(given.len() + queue.data().len(), got.len());
                prop_assert!(queue.sent <= queue.data().len());
            }
            given.extend_from_slice(queue.data());
            prop_assert_eq!(given, got);
        }
    }
}
