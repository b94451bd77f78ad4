//! Streams (RFC 9113 section 5.1) and their table. In: what one side ends. Out: states, streams by their
//! ids. A stream is two halves; one that has ended both is forgotten by its connection.

use std::time::Instant;

use super::StreamId;
use super::window::{ReceiveWindow, SendWindow};
use crate::http::queue::Queue;

/// One direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// A header section is to come first.
    Reserved,
    /// A header section has passed.
    Open,
    /// END_STREAM has passed.
    Ended,
}

/// An open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    /// What its owner knows it by.
    pub(super) key: u32,
    /// Whose content it carries to a backend.
    pub(super) client: Option<u32>,
    /// What was sent of it without credit for the stream since, in bytes.
    pub(super) held: u32,
    pub(super) opened: Instant,
    pub(super) receive: Half,
    pub(super) send: Half,
    pub(super) receive_window: ReceiveWindow,
    pub(super) send_window: SendWindow,
    /// What waits to be sent.
    pub(super) queue: Queue,
    /// Whether it stands in its connection's row of streams that may send.
    pub(super) is_in_row: bool,
    /// It waits for a share of the window, and not in the row.
    pub(super) is_held_back: bool,
    /// Whether DATA has come.
    pub(super) has_data: bool,
}

impl Stream {
    /// Whether nothing more passes in either direction.
    pub(super) fn is_over(&self) -> bool {
        self.receive == Half::Ended && self.send == Half::Ended && self.queue.is_empty()
    }
}

/// The open streams of a connection. Ids only rise, so they are in order by themselves.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Id and place of each, by rising ids.
    order: Vec<(StreamId, u32)>,
    places: Vec<Option<Stream>>,
    free: Vec<u32>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Adds a stream above all others.
    pub(super) fn insert(&mut self, stream: Stream) {
        debug_assert!(self.order.last().is_none_or(|(last, _)| *last < stream.id));
        let id = stream.id;
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(stream);
                place
            }
            None => {
                self.places.push(Some(stream));
                self.places.len() as u32 - 1
            }
        };
        self.order.push((id, place));
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let position = self.position(id)?;
        self.places[self.order[position].1 as usize].as_mut()
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let position = self.position(id)?;
        let (_, place) = self.order.remove(position);
        self.free.push(place);
        self.places[place as usize].take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        let places = self.order.iter();
        places.filter_map(|(_, place)| self.places[*place as usize].as_ref())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.places.iter_mut().flatten()
    }

    /// Gives back memory, if no stream is open.
    pub(super) fn shrink(&mut self) {
        if self.order.is_empty() {
            *self = Streams::default();
        }
    }

    fn position(&self, id: StreamId) -> Option<usize> {
        // Where it stands if no stream between the oldest and it is over: most of the time it does.
        let (oldest, _) = self.order.first()?;
        let guess = (id.number().checked_sub(oldest.number())? / 2) as usize;
        match self.order.get(guess) {
            Some((there, _)) if *there == id => Some(guess),
            _ => self.order.binary_search_by_key(&id, |(id, _)| *id).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn stream(id: u32) -> Stream {
        Stream {
            id: StreamId::new(id),
            key: 10 * id,
            client: None,
            held: 0,
            opened: Instant::now(),
            receive: Half::Reserved,
            send: Half::Reserved,
            receive_window: ReceiveWindow::new(10),
            send_window: SendWindow::new(10),
            queue: Queue::default(),
            is_in_row: false,
            is_held_back: false,
            has_data: false,
        }
    }

    proptest! {
        #[test]
        fn a_table_has_what_was_put_in_and_not_taken_out(steps in vec((any::<bool>(), 0_u32..40), 0..80)) {
            let (mut streams, mut expected) = (Streams::default(), BTreeMap::new());
            let mut next = 1;
            for (inserts, id) in steps {
                if inserts {
                    streams.insert(stream(next));
                    expected.insert(next, 10 * next);
                    next += 2;
                } else {
                    let removed = streams.remove(StreamId::new(id)).map(|stream| stream.key);
                    prop_assert_eq!(removed, expected.remove(&id));
                }
                let all: Vec<_> = streams.iter().map(|stream| stream.key).collect();
                prop_assert_eq!(all, expected.values().copied().collect::<Vec<_>>());
                prop_assert_eq!(streams.len(), expected.len());
                prop_assert_eq!(streams.iter_mut().count(), expected.len());
                for id in 0..next {
                    let found = streams.get_mut(StreamId::new(id)).map(|stream| stream.key);
                    prop_assert_eq!(found, expected.get(&id).copied());
                }
            }
            prop_assert!(streams.places.len() <= 80);
        }
    }
}
