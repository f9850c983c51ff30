//! Quiet: nobody is inside a call on some tokens, for as long as something is kept.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::schedule::core::Core;
use crate::schedule::dispatch::tokens;
use crate::schedule::seat::Seat;
use crate::sync::Ordering;

/// Every session of some tokens, held, so that no call runs on them. Requests wait meanwhile, and those that other
/// tokens can serve are served there. Dropping it puts the sessions back to work.
pub(crate) struct Quiet {
    core: Arc<Core>,
    mask: u64,
    #[expect(clippy::vec_box, reason = "sessions come and go in their boxes")]
    seats: Vec<Box<Seat>>,
}

/// How long a look for sessions that have come back is apart from the next: nothing tells of it, and an operation of a
/// software token, which is what this is for, takes tens of microseconds.
const STEP: Duration = Duration::from_micros(100);

impl Quiet {
    /// Waits until nobody is inside a call on the tokens of a mask. Nobody else may do so for one of them, nor open
    /// sessions there meanwhile.
    ///
    /// # Errors
    /// `Busy`, if somebody still is at `until`.
    pub(crate) fn begin(core: &Arc<Core>, mask: u64, until: Time) -> Result<Self> {
        core.dispatch.pause(mask);
        let mut quiet = Self { core: Arc::clone(core), mask, seats: Vec::new() };
        loop {
            for token in tokens(mask) {
                quiet.seats.extend(std::iter::from_fn(|| core.dispatch.take_from(token)));
            }
            if quiet.is_complete() {
                return Ok(quiet);
            }
            let left = now().until(until);
            if left.is_zero() {
                return Err(Error::new(ErrorKind::Busy, Retry::Later, Outcome::NotDone)
                    .because("a call on another instance of the token has not come back"));
            }
            std::thread::park_timeout(STEP.min(left));
        }
    }

    fn is_complete(&self) -> bool {
        tokens(self.mask).all(|token| {
            let of_token = &self.core.tokens[token];
            let held = self.seats.iter().filter(|seat| seat.place.token == token).count();
            // Those that close are counted before they leave the list.
            let open = of_token.watches.lock().len();
            let others =
                [&of_token.written_off, &of_token.closing].map(|others| others.load(Ordering::SeqCst));
            held == open && others == [0, 0]
        })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.core.dispatch.resume(self.mask);
        self.seats.drain(..).for_each(|seat| self.core.release(seat));
    }
}
