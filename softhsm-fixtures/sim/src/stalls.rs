//! Times in which the device, or one of its tokens, does nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock;
use crate::config::TOKENS_MAX;

/// The stalls of this copy of the module. They outlive `C_Finalize`, as those of a device do.
pub(crate) static STALLS: Stalls = Stalls::new();

pub(crate) struct Stalls {
    /// Whether there may be one: all that a call without one reads.
    any: AtomicBool,
    until: Mutex<Until>,
    changed: Condvar,
}

/// Until when, in nanoseconds of the monotonic clock; 0 where nothing stalls.
struct Until {
    device_ns: u64,
    tokens_ns: [u64; TOKENS_MAX],
}

impl Stalls {
    const fn new() -> Self {
        let until = Until { device_ns: 0, tokens_ns: [0; TOKENS_MAX] };
        Self { any: AtomicBool::new(false), until: Mutex::new(until), changed: Condvar::new() }
    }

    /// Begins a stall of the device or of one token, or prolongs it; one of no time ends it.
    pub(crate) fn begin(&self, token: Option<usize>, time: Duration) {
        let mut until = self.until.lock();
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let end = if ns == 0 { 0 } else { clock::now_ns().saturating_add(ns) };
        if let Some(own) = until.of(token) {
            *own = if ns == 0 { 0 } else { end.max(*own) };
        }
        self.note(&until);
    }

    /// Ends all of them.
    pub(crate) fn end(&self) {
        let mut until = self.until.lock();
        *until = Until { device_ns: 0, tokens_ns: [0; TOKENS_MAX] };
        self.note(&until);
    }

    /// Whether there may be one.
    pub(crate) fn any(&self) -> bool {
        // Relaxed: who reads it a moment too early has a call that went before the stall.
        self.any.load(Ordering::Relaxed)
    }

    /// Waits until what the call is made to, a token or the device, stalls no longer.
    pub(crate) fn wait(&self, token: Option<usize>) {
        if !self.any() {
            return;
        }
        clock::exact_timers();
        let mut until = self.until.lock();
        loop {
            let own = token.and_then(|token| until.tokens_ns.get(token)).copied().unwrap_or(0);
            let left_ns = until.device_ns.max(own).saturating_sub(clock::now_ns());
            if left_ns == 0 {
                return;
            }
            let _which = self.changed.wait_for(&mut until, Duration::from_nanos(left_ns));
        }
    }

    fn note(&self, until: &Until) {
        let any = until.device_ns > 0 || until.tokens_ns.iter().any(|&ns| ns > 0);
        self.any.store(any, Ordering::Relaxed);
        self.changed.notify_all();
    }
}

impl Until {
    fn of(&mut self, token: Option<usize>) -> Option<&mut u64> {
        match token {
            Some(token) => self.tokens_ns.get_mut(token),
            None => Some(&mut self.device_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);
    const SHORT: Duration = Duration::from_millis(20);

    fn waited(stalls: &Stalls, token: Option<usize>) -> Duration {
        let begun = clock::now_ns();
        stalls.wait(token);
        Duration::from_nanos(clock::now_ns() - begun)
    }

    #[test]
    fn a_stall_of_the_device_holds_every_call_until_its_end() {
        for token in [None, Some(0), Some(TOKENS_MAX - 1)] {
            let stalls = Stalls::new();
            let begun = clock::now_ns();
            stalls.begin(None, SHORT);
            stalls.wait(token);
            assert!(clock::now_ns() - begun >= 20_000_000);
        }
    }

    #[test]
    fn a_stall_of_a_token_holds_no_call_to_others() {
        let stalls = Stalls::new();
        stalls.begin(Some(1), LONG);
        assert!(waited(&stalls, Some(0)) + waited(&stalls, None) < LONG);
        stalls.begin(Some(1), Duration::ZERO);
        assert!(!stalls.any() && waited(&stalls, Some(1)) < LONG);
    }

    #[test]
    fn a_shorter_stall_does_not_end_a_longer_one_and_an_end_lets_calls_go() {
        let stalls = Stalls::new();
        stalls.begin(Some(3), LONG);
        stalls.begin(Some(3), SHORT);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| waited(&stalls, Some(3)));
            // Once that is over, the longer one still holds the call.
            stalls.begin(Some(4), 2 * SHORT);
            stalls.wait(Some(4));
            assert!(stalls.any() && !waiting.is_finished());
            stalls.end();
            assert!(waiting.join().unwrap() < LONG);
        });
    }
}
