//! Whether sessions are there still.

use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the sessions that go when their token does. Numbers of sessions come again, so once it has ended nothing more
/// is called with theirs.
#[derive(Debug, Default)]
pub(crate) struct Presence(AtomicBool);

impl Presence {
    /// They are not there any more.
    pub(crate) fn end(&self) {
        // Release: pairs with the load in `has_ended`, so that who opens sessions after the end is seen after it.
        self.0.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
