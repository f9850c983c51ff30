//! The monotonic clock and waits that end as close to their deadline as the kernel allows.

#![expect(unsafe_code, reason = "the clock of the C library: the standard one cannot sleep until a deadline")]

use std::cell::Cell;
use std::ptr;

/// Waits shorter than this spin: going to sleep and waking takes the kernel about as long. Measured overshoot
/// of the sleep itself is in the documentation of the crate.
const SPIN_MAX_NS: u64 = 3_000;

const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // The monotonic clock starts at boot: neither part is ever negative.
    now.tv_sec.unsigned_abs() * SECOND_NS + now.tv_nsec.unsigned_abs()
}

/// Nanoseconds since 1970, by the clock that also dates files.
pub(crate) fn unix_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    // No clock of a machine that runs this is before 1970.
    now.tv_sec.unsigned_abs() * SECOND_NS + now.tv_nsec.unsigned_abs()
}

/// Waits until the clock shows `deadline_ns` or more; never less.
pub(crate) fn sleep_until(deadline_ns: u64) {
    exact_timers();
    let (seconds, rest) = (deadline_ns / SECOND_NS, deadline_ns % SECOND_NS);
    let until = libc::timespec { tv_sec: seconds.cast_signed(), tv_nsec: rest.cast_signed() };
    loop {
        let now = now_ns();
        if now >= deadline_ns {
            return;
        }
        if deadline_ns - now < SPIN_MAX_NS {
            std::hint::spin_loop();
            continue;
        }
        // SAFETY: the deadline is a live local; a signal only ends the wait early, and the loop goes on.
        unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const until,
                ptr::null_mut(),
            )
        };
    }
}

/// Takes the slack (50 µs by default) off this thread's timers, once. It stays off after the call.
pub(crate) fn exact_timers() {
    thread_local!(static EXACT: Cell<bool> = const { Cell::new(false) });
    if EXACT.replace(true) {
        return;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: this option takes one number and changes nothing but this thread's timers.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_never_ends_before_its_deadline() {
        for wait_ns in [0, 500, 2_999, 3_001, 20_000, 300_000] {
            let deadline = now_ns() + wait_ns;
            sleep_until(deadline);
            assert!(now_ns() >= deadline, "{wait_ns} ns");
        }
    }

    #[test]
    fn a_deadline_in_the_past_does_not_wait() {
        let begun = now_ns();
        sleep_until(begun - 1);
        sleep_until(0);
        assert!(now_ns() - begun < SECOND_NS);
    }
}
