//! The bound on what is between reading and writing.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Room for so many chunks and bytes.
#[derive(Debug)]
pub(super) struct Room {
    chunks_max: usize,
    bytes_max: usize,
    taken: Mutex<Taken>,
    freed: Condvar,
}

/// Room that a chunk has until it is written or dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Taken {
    chunks: usize,
    bytes: usize,
}

impl Room {
    pub(super) fn new(chunks_max: usize, bytes_max: usize) -> Self {
        Self { chunks_max, bytes_max, taken: Mutex::new(Taken::default()), freed: Condvar::new() }
    }

    /// Takes room for a chunk of so many bytes; one that is larger than all there is goes alone.
    ///
    /// Waits until chunks before it are written, which they are, or dropped: the engine bounds how long a call may
    /// hang.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Held {
        let mut taken = self.taken.lock();
        while !self.fits(&taken, bytes) {
            self.freed.wait(&mut taken);
        }
        taken.chunks += 1;
        taken.bytes += bytes;
        Held { room: Arc::clone(self), bytes }
    }

    const fn fits(&self, taken: &Taken, bytes: usize) -> bool {
        taken.chunks == 0
            || (taken.chunks < self.chunks_max && taken.bytes.saturating_add(bytes) <= self.bytes_max)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.chunks -= 1;
        taken.bytes -= self.bytes;
        drop(taken);
        self.room.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_in_chunks_and_bytes_and_comes_back() {
        let room = Arc::new(Room::new(2, 100));
        let first = room.take(60);
        assert!(room.fits(&room.taken.lock(), 40) && !room.fits(&room.taken.lock(), 41));
        let second = room.take(40);
        assert!(!room.fits(&room.taken.lock(), 0));
        drop((first, second));
        assert!(room.fits(&room.taken.lock(), 100));
    }

    #[test]
    fn a_chunk_larger_than_all_room_goes_alone() {
        let room = Arc::new(Room::new(2, 100));
        let _large = room.take(1_000);
        assert!(!room.fits(&room.taken.lock(), 0));
    }
}
