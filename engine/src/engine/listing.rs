//! Listing the tokens' keys again: others make and destroy keys too.
//!
//! A listing is as old as the engine, or as what the engine has changed itself. It is made anew when it seems outdated:
//! a name is not found in it, or a token has answered that it does not know a key any more.

use std::time::Duration;

use super::{Shared, list};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::known::Objects;
use crate::keys::name::KeyName;
use crate::sync::{AtomicU64, Ordering};

/// When a token may be listed again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When its last listing began.
    began_ns: AtomicU64,
    /// No listing begins before.
    after_ns: AtomicU64,
}

/// Least time between two listings of a token that names which nobody has can bring about: an object costs a call or
/// two, and the service thread has other things to do. A listing that takes longer is followed by as long a pause.
const APART: Duration = Duration::from_secs(1);

impl Pace {
    /// Whether a listing may begin now; then none other does before [`Pace::end`].
    fn begin(&self, now: Time) -> bool {
        let after = self.after_ns.load(Ordering::Relaxed);
        // Relaxed: it orders nothing but the listings themselves.
        let taken =
            || self.after_ns.compare_exchange(after, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        now.as_ns() >= after && taken()
    }

    fn end(&self, began: Time, now: Time) {
        let pause = APART.max(began.until(now));
        self.began_ns.store(began.as_ns(), Ordering::Relaxed);
        self.after_ns.store(now.after(pause).as_ns(), Ordering::Relaxed);
    }
}

impl Shared {
    /// The objects of this name, looked for in a new listing if an old one does not have them.
    pub(super) fn objects(&self, name: &KeyName<'_>) -> Result<Objects> {
        let asked = now();
        (0..self.tokens.len()).filter(|&index| self.has_missed_keys(index)).for_each(|index| {
            // If it is too soon, the next one who asks finds the same.
            let _listed = self.list_again(index, asked);
        });
        let find = || Objects::find(name, &self.tokens, &self.listings);
        find().or_else(|error| {
            if !matches!(error.kind(), ErrorKind::KeyNotFound | ErrorKind::KeyAmbiguous) {
                return Err(error);
            }
            let asked_of = (0..self.tokens.len()).filter(|&index| name.fits_token(&self.tokens[index].info));
            let listed = asked_of.filter(|&index| !self.list_again(index, asked)).count() == 0;
            find().map_err(|error| match error.kind() {
                ErrorKind::KeyNotFound if !listed => may_be_there_now(&error),
                _ => error,
            })
        })
    }

    /// Lists a token's keys now, and forgets those that are gone.
    pub(super) fn list_now(&self, index: usize) -> Result<()> {
        self.core.tokens[index].recorders.iter().for_each(|recorder| recorder.forget_missed_key());
        let new = list(&self.tokens[index])?;
        let mut listing = self.listings[index].write();
        if new.epoch < listing.epoch {
            // The token has come back since, and its keys were listed then.
            return Ok(());
        }
        *listing = new;
        self.keys.forget_unlisted(index, &listing);
        Ok(())
    }

    /// Lists a token's keys, if it was not listed since `asked` nor just before that. Whether its listing is new.
    fn list_again(&self, index: usize, asked: Time) -> bool {
        let pace = &self.paces[index];
        let began = now();
        if pace.began_ns.load(Ordering::Relaxed) >= asked.as_ns() {
            return true;
        }
        let serves = self.core.dispatch.healthy() & (1 << index) != 0 && self.core.check_open().is_ok();
        if !serves || !pace.begin(began) {
            return false;
        }
        let listed = self.list_now(index);
        pace.end(began, now());
        if let Err(error) = &listed {
            tracing::warn!(token = index, %error, "cannot list the token's keys again");
        }
        listed.is_ok()
    }

    /// Whether the token has answered that it does not know a key that the listing has.
    fn has_missed_keys(&self, index: usize) -> bool {
        self.core.tokens[index].recorders.iter().any(|recorder| recorder.has_missed_key())
    }
}

/// The name was looked for in a listing that could not be made anew.
fn may_be_there_now(error: &Error) -> Error {
    let text = format!("{}; a token could not be listed again so soon", error.why());
    Error::new(error.kind(), Retry::Later, Outcome::NotDone).because(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_listed_at_most_once_a_second_and_half_of_the_time() {
        let (pace, at) = (Pace::default(), |ms: u64| Time::from_ns(1 + ms * 1_000_000));
        assert!(pace.begin(at(0)) && !pace.begin(at(5_000)), "one at a time");
        pace.end(at(0), at(10));
        assert!(!pace.begin(at(1_009)) && pace.begin(at(1_010)));
        pace.end(at(1_010), at(5_010));
        assert!(!pace.begin(at(9_009)) && pace.begin(at(9_010)));
    }
}
