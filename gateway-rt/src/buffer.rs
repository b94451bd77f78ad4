//! I/O buffers and the worker's pool of them.
//! In: nothing, or a buffer that is returned. Out: a buffer of fixed size whose bytes are always initialised.
//! A connection takes a buffer when there is something to move and gives it back when it has moved.

use std::cell::RefCell;
use std::ops::Range;

use gateway_core::limits;

/// A block of bytes of which `start..end` is filled. Sockets send from the filled part and append to it.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes at the end that a read leaves free.
    kept: usize,
}

impl Buffer {
    /// A buffer of `capacity_bytes` zero bytes, nothing of it filled.
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        Buffer {
            bytes: vec![0; capacity_bytes].into_boxed_slice(),
            start: 0,
            end: 0,
            kept: 0,
        }
    }

    /// A buffer that holds a copy of `bytes` and has no room for more.
    pub fn of(bytes: &[u8]) -> Self {
        Buffer {
            bytes: bytes.into(),
            start: 0,
            end: bytes.len(),
            kept: 0,
        }
    }

    /// Leaves `front` bytes free before what will be read, and `back` behind it. For an empty buffer.
    pub fn keep_room(&mut self, front: usize, back: usize) {
        assert!(self.is_empty(), "room is kept before anything is read");
        assert!(front + back <= self.bytes.len(), "no room to keep");
        (self.start, self.end, self.kept) = (front, front, back);
    }

    /// All bytes, and where the filled ones are.
    pub fn parts_mut(&mut self) -> (&mut [u8], Range<usize>) {
        (&mut self.bytes, self.start..self.end)
    }

    /// Takes the bytes of `range` as the filled ones.
    pub fn refill(&mut self, range: Range<usize>) {
        assert!(
            range.start <= range.end && range.end <= self.bytes.len(),
            "more bytes than there are"
        );
        (self.start, self.end) = (range.start, range.end);
    }

    /// Drops all filled bytes but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.end = self.end.min(self.start + count);
    }

    /// The filled bytes.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The filled bytes, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// The bytes behind the filled ones.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Number of filled bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is filled.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether a read has no room behind the filled bytes.
    pub fn is_full(&self) -> bool {
        self.readable_room() == 0
    }

    fn readable_room(&self) -> usize {
        (self.bytes.len() - self.end).saturating_sub(self.kept)
    }

    /// The bytes behind the filled ones that a read may fill.
    pub(super) fn room_mut(&mut self) -> &mut [u8] {
        let room = self.readable_room();
        &mut self.bytes[self.end..self.end + room]
    }

    /// How many bytes can be appended without growing, or using the room that is kept.
    pub fn room(&self) -> usize {
        self.readable_room()
    }

    /// Size in bytes, filled or not.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Takes `count` bytes of the spare part as filled.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.bytes.len() - self.end,
            "more bytes written than fit"
        );
        self.end += count;
    }

    /// Drops `count` bytes at the front of the filled part.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "more bytes consumed than filled");
        self.start += count;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Drops all filled bytes.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
        self.kept = 0;
    }

    /// Releases all memory but that of the filled bytes.
    pub fn shrink(&mut self) {
        *self = Buffer::of(self.filled());
    }

    /// Appends `bytes`, growing when they do not fit.
    pub fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.spare_mut()[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Makes room for `count` bytes behind the filled ones: by moving those to the front, else by growing.
    pub fn reserve(&mut self, count: usize) {
        if self.bytes.len() - self.end >= count {
            return;
        }
        let len = self.len();
        if self.bytes.len() - len >= count {
            self.bytes.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = vec![0; len + count].into_boxed_slice();
            larger[..len].copy_from_slice(self.filled());
            self.bytes = larger;
        }
        self.start = 0;
        self.end = len;
    }
}

/// Free buffers of one worker, all of `limits::IO_BUFFER_BYTES`.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: RefCell<Vec<Buffer>>,
}

impl BufferPool {
    /// A free buffer, or a new one.
    pub fn take(&self) -> Buffer {
        let free = self.free.borrow_mut().pop();
        free.unwrap_or_else(|| Buffer::with_capacity(limits::IO_BUFFER_BYTES))
    }

    /// Takes a buffer back. Beyond `limits::POOLED_BUFFERS_MAX`, and for a buffer that has grown, the memory goes
    /// back to the allocator.
    pub fn give(&self, mut buffer: Buffer) {
        let mut free = self.free.borrow_mut();
        if free.len() < limits::POOLED_BUFFERS_MAX && buffer.capacity() == limits::IO_BUFFER_BYTES {
            buffer.clear();
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Append(Vec<u8>),
        Consume(usize),
        Reserve(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64).prop_map(Step::Append),
            (0..64usize).prop_map(Step::Consume),
            (0..128usize).prop_map(Step::Reserve),
        ]
    }

    proptest! {
        #[test]
        fn a_buffer_holds_what_a_vector_would(steps in proptest::collection::vec(step(), 0..64)) {
            let mut buffer = Buffer::with_capacity(16);
            let mut model = Vec::new();
            for step in steps {
                match step {
                    Step::Append(bytes) => {
                        buffer.append(&bytes);
                        model.extend_from_slice(&bytes);
                    }
                    Step::Consume(count) => {
                        let count = count.min(model.len());
                        buffer.consume(count);
                        model.drain(..count);
                    }
                    Step::Reserve(count) => {
                        buffer.reserve(count);
                        prop_assert!(buffer.spare_mut().len() >= count);
                    }
                }
                prop_assert_eq!(buffer.filled(), &model[..]);
            }
        }
    }

    #[test]
    fn kept_room_is_not_read_into_and_can_be_filled_by_its_owner() {
        let mut buffer = Buffer::with_capacity(16);
        buffer.keep_room(5, 4);
        assert_eq!((buffer.len(), buffer.room_mut().len()), (0, 7));
        assert_eq!(buffer.room_mut().as_ptr(), buffer.bytes[5..].as_ptr());
        buffer.append(b"sevenby");
        assert!(buffer.is_full());
        let (bytes, filled) = buffer.parts_mut();
        assert_eq!((bytes.len(), filled), (16, 5..12));
        buffer.refill(0..16);
        assert_eq!(&buffer.filled()[5..12], b"sevenby");
        buffer.truncate(12);
        buffer.consume(12);
        assert!(!buffer.is_full(), "an empty buffer keeps no room any more");
        assert_eq!(buffer.room_mut().len(), 16);
    }

    #[test]
    fn a_buffer_that_shrinks_keeps_what_is_in_it_and_nothing_else() {
        let mut buffer = Buffer::with_capacity(4096);
        buffer.keep_room(5, 4);
        buffer.append(b"sealed and half sent");
        buffer.consume(7);
        buffer.shrink();
        assert_eq!(
            (buffer.filled(), buffer.capacity()),
            (&b"and half sent"[..], 13)
        );
        buffer.consume(13);
        assert!(buffer.is_empty());
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit_and_no_grown_buffer() {
        let pool = BufferPool::default();
        let taken: Vec<_> = (0..limits::POOLED_BUFFERS_MAX + 3)
            .map(|_| pool.take())
            .collect();
        let mut grown = pool.take();
        grown.reserve(limits::IO_BUFFER_BYTES + 1);
        pool.give(grown);
        assert_eq!(pool.free.borrow().len(), 0);
        taken.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.free.borrow().len(), limits::POOLED_BUFFERS_MAX);
    }
}
