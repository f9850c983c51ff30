//! Admission: how many requests, and how many bytes of them, may be in flight at once.

use std::sync::Arc;

use event_listener::{Event, EventListener};

use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::sync::{AtomicUsize, CachePadded, Ordering};

/// The engine's limits on requests in flight. Room is handed out as [`Permit`]s.
pub(crate) struct Admission {
    requests: CachePadded<AtomicUsize>,
    bytes: CachePadded<AtomicUsize>,
    requests_max: usize,
    bytes_max: usize,
    room: Event,
}

/// Room for one request, given back when dropped.
///
/// The place and the bytes can be given back apart: a withdrawn request frees its memory at once, but its
/// place stays taken until its node has left the lane.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    place: bool,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Self {
        Self {
            requests: CachePadded::new(AtomicUsize::new(0)),
            bytes: CachePadded::new(AtomicUsize::new(0)),
            requests_max,
            bytes_max,
            room: Event::new(),
        }
    }

    /// Takes room for a request of so many bytes, or says that there is none.
    pub(crate) fn admit(self: &Arc<Self>, bytes: usize) -> Result<Permit> {
        if bytes > self.bytes_max {
            let text = format!("{bytes} bytes in flight for one request, at most {}", self.bytes_max);
            return Err(Error::refused(ErrorKind::TooLarge, text));
        }
        // Add first, then look: two racing requests may both be refused at the brim, never both admitted.
        if self.requests.fetch_add(1, Ordering::Relaxed) >= self.requests_max {
            self.requests.fetch_sub(1, Ordering::Relaxed);
            return Err(overloaded());
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.requests.fetch_sub(1, Ordering::Relaxed);
            return Err(overloaded());
        }
        Ok(Permit { admission: Arc::clone(self), place: true, bytes })
    }

    /// A listener that hears of room given back after this call: listen, try again, then wait.
    pub(crate) fn listen(&self) -> EventListener {
        self.room.listen()
    }

    /// Wakes everyone who waits for room: for a stop.
    pub(crate) fn wake_all(&self) {
        self.room.notify(usize::MAX);
    }

    /// Requests in flight.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes in flight.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// The request has been answered: its place is free. Its bytes stay taken until the answer is collected.
    pub(crate) fn release_place(&mut self) {
        if std::mem::take(&mut self.place) {
            self.admission.requests.fetch_sub(1, Ordering::Relaxed);
            self.admission.room.notify(1);
        }
    }

    /// The request's buffers are gone.
    pub(crate) fn release_bytes(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.admission.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.admission.room.notify(1);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release_place();
        self.release_bytes();
    }
}

fn overloaded() -> Error {
    Error::new(ErrorKind::Overloaded, Retry::Later, Outcome::NotDone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(result: Result<Permit>) -> ErrorKind {
        result.map(|_| ()).unwrap_err().kind()
    }

    #[test]
    fn room_is_bounded_in_requests_and_in_bytes() {
        let admission = Arc::new(Admission::new(2, 100));
        let first = admission.admit(60).unwrap();
        assert_eq!(kind(admission.admit(41)), ErrorKind::Overloaded);
        let _second = admission.admit(40).unwrap();
        assert_eq!(kind(admission.admit(0)), ErrorKind::Overloaded);
        drop(first);
        assert_eq!((admission.requests(), admission.bytes()), (1, 40));
    }

    #[test]
    fn a_request_above_the_cap_is_too_large_and_not_overloaded() {
        let admission = Arc::new(Admission::new(2, 100));
        assert_eq!(kind(admission.admit(101)), ErrorKind::TooLarge);
        assert_eq!((admission.requests(), admission.bytes()), (0, 0));
    }

    #[test]
    fn place_and_bytes_are_given_back_apart_and_once() {
        let admission = Arc::new(Admission::new(2, 100));
        let mut permit = admission.admit(60).unwrap();
        permit.release_bytes();
        assert_eq!((admission.requests(), admission.bytes()), (1, 0));
        permit.release_place();
        drop(permit);
        assert_eq!((admission.requests(), admission.bytes()), (0, 0));
    }

    #[test]
    fn who_waits_for_room_hears_of_it() {
        let admission = Arc::new(Admission::new(1, 100));
        let permit = admission.admit(1).unwrap();
        let listener = admission.listen();
        drop(permit);
        futures::executor::block_on(listener);
        assert!(admission.admit(1).is_ok());
    }
}
