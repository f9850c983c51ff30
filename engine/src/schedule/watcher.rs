//! The watcher: deadlines of async requests, hung calls, vacant places, idle lanes, and the stop.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::{Time, now, ns};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::metrics::{Stage, histogram};
use crate::schedule::core::{Core, TokenSeats};
use crate::schedule::seat::{Busy, Place, Watch};
use crate::schedule::wake::wake;
use crate::sync::{AtomicUsize, Ordering, Parker};
use crate::token::session::Session;

/// Shortest hang limit that the engine chooses by itself.
const HANG_FLOOR: Duration = Duration::from_secs(5);

/// A hang limit that the engine chooses is this many times the token's p99.9.
const HANG_FACTOR: u64 = 20;

/// Threads that one process gives up to hung calls before it stops replacing them: each holds a stack, a
/// session and a request's buffers, for ever as far as anyone knows.
const WRITTEN_OFF_PER_PROCESS: usize = 16;

/// Seats written off in this process and not come back.
static WRITTEN_OFF: AtomicUsize = AtomicUsize::new(0);

/// A thread that was given up has come out of its call.
pub(super) fn one_came_back() {
    WRITTEN_OFF.fetch_sub(1, Ordering::Relaxed);
}

/// How often places are filled again, lanes retired, and hang limits fitted.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Runs until the engine has stopped and its seats are closed or written off.
pub(crate) fn run(core: &Arc<Core>, parker: &Parker) {
    let mut watcher = Watcher { hang_ns: vec![ns(HANG_FLOOR); core.tokens.len()], core, kept_house: None };
    loop {
        let now = now();
        watcher.look(now);
        if core.is_stopped() && core.wait_closed(now) == 0 {
            return;
        }
        let next = watcher.next_look(now);
        core.watcher_next_ns.store(next.as_ns(), Ordering::SeqCst);
        // A deadline may have been registered before the store told its waiter not to sleep on us.
        let next = next.min(core.deadlines.earliest().max(now));
        parker.park_timeout(now.until(next));
    }
}

struct Watcher<'a> {
    core: &'a Arc<Core>,
    /// By token.
    hang_ns: Vec<u64>,
    kept_house: Option<Time>,
}

impl Watcher<'_> {
    fn look(&mut self, now: Time) {
        self.expire(now);
        (0..self.core.tokens.len()).for_each(|token| self.look_for_hung(token, now));
        self.core.dispatch.orphans().for_each(|orphan| self.core.fail_orphan(Some(orphan)));
        if self.core.is_stopped() {
            return self.core.carry_out_stop();
        }
        self.fill_vacant();
        if self.kept_house.is_none_or(|last| now.ns_since(last) >= ns(HOUSEKEEPING)) {
            self.kept_house = Some(now);
            self.core.retire_lanes();
            (0..self.core.tokens.len()).for_each(|token| self.fit_hang_limit(token));
        }
    }

    /// A quarter of the shortest hang limit is how much later than the limit a hung call may be found.
    fn next_look(&self, now: Time) -> Time {
        let hang = self.hang_ns.iter().min().map_or(HOUSEKEEPING, |&ns| Duration::from_nanos(ns / 4));
        now.after(hang.clamp(Duration::from_millis(1), HOUSEKEEPING))
            .min(self.core.deadlines.earliest().max(now))
    }

    fn expire(&self, now: Time) {
        for node in self.core.deadlines.due(now) {
            let (waker, in_lane) = node.expire();
            if in_lane {
                self.core.count_withdrawn();
            }
            if let Some(waker) = waker {
                self.core.counters.expired();
                wake(waker, &self.core.counters.panics);
            }
        }
    }

    fn look_for_hung(&self, token: usize, now: Time) {
        let seats = &self.core.tokens[token];
        let watches: Vec<_> = seats.watches.lock().iter().map(Arc::clone).collect();
        let hung = watches.iter().filter_map(|watch| Some((watch, watch.busy()?)));
        let mut inline_hung = false;
        for (watch, busy) in hung.filter(|(_, busy)| is_hung(*busy, now, self.hang_ns[token])) {
            inline_hung |= busy.inline;
            if !busy.inline {
                self.write_off(seats, watch, busy.since);
            }
        }
        let closed = inline_hung || seats.written_off.load(Ordering::Relaxed) > 0;
        self.core.set_inline_closed(token, closed);
    }

    /// Gives up a seat whose worker hangs: answers the request, gives back the rest of the turn, and has the
    /// place filled again while the caps allow.
    fn write_off(&self, seats: &TokenSeats, watch: &Arc<Watch>, since: Time) {
        let Some(work) = watch.write_off(since) else { return };
        let place = watch.place;
        self.core.forget(watch);
        watch.worker.close();
        self.core.seat_is_gone();
        self.core.counters.hung.fetch_add(1, Ordering::Relaxed);
        let of_token = seats.written_off.fetch_add(1, Ordering::Relaxed) + 1;
        let of_process = WRITTEN_OFF.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(
            token = place.token,
            of_token,
            of_process,
            "a call hangs: its session is written off"
        );
        if let Some(waker) = work.current.and_then(|node| node.complete(Err(hung()))) {
            wake(waker, &self.core.counters.panics);
        }
        if let Some(lane) = work.lane {
            self.core.give_back(&lane, work.rest);
        }
        if of_token <= self.core.limits.written_off_per_token && of_process <= WRITTEN_OFF_PER_PROCESS {
            self.core.vacate(place);
        } else if seats.watches.lock().is_empty() {
            self.core.lose(place.token, "every session hangs, and no more are opened");
        }
    }

    /// Has the token's service thread open a session for every vacant place. A place is vacant again if that
    /// fails, and is tried with the next housekeeping.
    fn fill_vacant(&mut self) {
        for (token, seats) in self.core.tokens.iter().enumerate() {
            if self.core.dispatch.healthy() & (1 << token) == 0 {
                continue;
            }
            for index in std::mem::take(&mut *seats.vacant.lock()) {
                let core = Arc::downgrade(self.core);
                seats.token.reopen(move |session| fill(&core, Place { token, index }, session));
            }
        }
    }

    fn fit_hang_limit(&mut self, token: usize) {
        self.hang_ns[token] = match self.core.limits.hang {
            Some(limit) => ns(limit),
            None => {
                let recorders = self.core.tokens[token].recorders.iter().map(AsRef::as_ref);
                chosen_hang_ns(histogram(recorders, None, Stage::Token).value_at_quantile(0.999))
            }
        };
    }
}

/// Seats a session that was opened for a vacant place.
fn fill(core: &Weak<Core>, place: Place, session: Result<Session>) {
    let Some(core) = core.upgrade() else { return };
    if core.is_stopped() {
        return;
    }
    if let Err(error) = session.and_then(|session| core.seat(place, session)) {
        tracing::warn!(token = place.token, %error, "cannot replace a session; trying again");
        core.tokens[place.token].vacant.lock().push(place.index);
    }
}

/// A call that has been inside the module for longer than the limit.
fn is_hung(busy: Busy, now: Time, hang_ns: u64) -> bool {
    now.ns_since(busy.since) > hang_ns
}

fn chosen_hang_ns(p999_ns: u64) -> u64 {
    ns(HANG_FLOOR).max(p999_ns.saturating_mul(HANG_FACTOR))
}

fn hung() -> Error {
    Error::new(ErrorKind::Hung, Retry::Later, Outcome::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_hangs_when_it_has_been_inside_for_longer_than_the_limit() {
        let busy = Busy { since: Time::from_ns(1_000), inline: false };
        assert!(!is_hung(busy, Time::from_ns(1_100), 100));
        assert!(is_hung(busy, Time::from_ns(1_101), 100));
        assert!(!is_hung(busy, Time::from_ns(1), 100));
    }

    #[test]
    fn the_chosen_hang_limit_follows_a_slow_token_and_never_goes_below_its_floor() {
        assert_eq!(chosen_hang_ns(1_000), ns(HANG_FLOOR));
        assert_eq!(chosen_hang_ns(1_000_000_000), 20_000_000_000);
    }
}
