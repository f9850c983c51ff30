//! The watcher: deadlines of async requests, hung calls, sessions in use, vacant places, idle lanes, and the stop.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::{self, Time, now, ns};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::metrics::{Stage, histogram};
use crate::schedule::core::{Core, TokenSeats};
use crate::schedule::loss::Out;
use crate::schedule::node::{Expired, Node};
use crate::schedule::rescue::Rescue;
use crate::schedule::seat::{Busy, Place, Watch};
use crate::schedule::wake::wake;
use crate::sync::{AtomicUsize, Ordering, Parker};
use crate::token::epoch::Loss;
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

/// Whether no thread that is given up now is replaced.
pub(super) fn is_process_at_cap() -> bool {
    WRITTEN_OFF.load(Ordering::Relaxed) > WRITTEN_OFF_PER_PROCESS
}

/// Twenty turns. A worker that is in one call for so long holds the wakers of the answers before it.
const SLOW_NS: u64 = 20_000_000;

/// Longest time between two looks at the seats: it bounds how long those wakers are held.
const LOOK: Duration = Duration::from_millis(100);

/// How often places are filled again, lanes retired, and hang limits fitted.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// For how long a budget of retries is.
const BUDGET_PERIOD: Duration = Duration::from_secs(10);

/// How long a token that gives no more sessions is left alone, while it has some: other applications have them, and
/// each attempt may take one from an application that is about to need it.
const REFUSED: Duration = Duration::from_secs(30);

/// Runs until the engine has stopped and its seats are closed or written off.
pub(crate) fn run(core: &Arc<Core>, parker: &Parker) {
    let mut watcher = Watcher {
        hang_ns: vec![ns(HANG_FLOOR); core.tokens.len()],
        core,
        kept_house: None,
        renewed: now(),
        control_ns: None,
        rescue: Rescue::new(core),
    };
    loop {
        let now = now();
        // Read before the look, so that the last look carries out the stop.
        let stopped = core.is_stopped();
        watcher.look(now);
        if stopped && core.wait_closed(now) == 0 {
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
    /// When the budgets of retries were renewed.
    renewed: Time,
    /// After how long the controllers want to look again.
    control_ns: Option<u64>,
    rescue: Rescue,
}

impl Watcher<'_> {
    fn look(&mut self, now: Time) {
        self.expire(now);
        (0..self.core.tokens.len()).for_each(|token| self.look_for_hung(token, now));
        self.core.dispatch.orphans().for_each(|orphan| self.core.fail_orphan(Some(orphan)));
        if self.core.is_stopped() {
            return self.core.carry_out_stop();
        }
        self.core.dispatch.look_at_tiers(now.as_ns());
        self.core.end_stale_holds(now);
        self.control_ns = self.core.control(now);
        self.rescue.look(self.core, &self.hang_ns, now);
        self.fill_vacant(now);
        if self.kept_house.is_none_or(|last| now.ns_since(last) >= ns(HOUSEKEEPING)) {
            self.kept_house = Some(now);
            self.core.retire_lanes();
            self.core.tokens.iter().for_each(|seats| seats.token.check_copies());
            (0..self.core.tokens.len()).for_each(|token| self.fit_hang_limit(token));
            self.renew_budgets(now);
        }
    }

    fn renew_budgets(&mut self, now: Time) {
        if now.ns_since(self.renewed) < ns(BUDGET_PERIOD) {
            return;
        }
        self.renewed = now;
        for seats in &self.core.tokens {
            let sessions = seats.watches.lock().len() as u64;
            seats.budget.renew(seats.served(), sessions);
        }
    }

    /// A quarter of the shortest hang limit is how much later than the limit a hung call may be found.
    fn next_look(&self, now: Time) -> Time {
        let hang = self.hang_ns.iter().min().map_or(HOUSEKEEPING, |&ns| Duration::from_nanos(ns / 4));
        let tiers = self.core.dispatch.patience_ns().map_or(LOOK, Duration::from_nanos);
        let control = self.control_ns.map_or(LOOK, Duration::from_nanos);
        now.after(hang.min(tiers).min(control).clamp(Duration::from_millis(1), LOOK))
            .min(self.core.deadlines.earliest().max(now))
    }

    fn expire(&self, now: Time) {
        let mut answered = false;
        for node in self.core.deadlines.due(now) {
            match node.expire(&mut self.core.admission.places()) {
                Expired::Answered => answered = true,
                Expired::Now { waker, in_lane } => {
                    if in_lane {
                        self.core.count_withdrawn();
                    }
                    if let Some(waker) = waker {
                        self.core.counters.expired(node.requests);
                        wake(waker, &self.core.counters.panics);
                    }
                }
            }
        }
        if answered {
            // A worker holds their wakers: they have waited long enough.
            for watch in self.core.tokens.iter().flat_map(TokenSeats::all_watches) {
                self.core.deliver(&watch, &mut Vec::new());
            }
        }
    }

    fn look_for_hung(&self, token: usize, now: Time) {
        let seats = &self.core.tokens[token];
        let watches = seats.all_watches();
        for watch in watches.iter().filter(|watch| watch.busy().is_some_and(|busy| is_slow(busy, now))) {
            self.core.deliver(watch, &mut Vec::new());
        }
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
        // Counted before, for the call may come back at any moment after.
        let of_token = seats.written_off.fetch_add(1, Ordering::Relaxed) + 1;
        let of_process = WRITTEN_OFF.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(work) = watch.write_off(since) else {
            seats.written_off.fetch_sub(1, Ordering::Relaxed);
            one_came_back();
            return;
        };
        let place = watch.place;
        self.core.forget(watch);
        watch.worker.close();
        self.core.seat_is_gone();
        self.core.counters.hung.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            token = place.token,
            of_token,
            of_process,
            "a call hangs: its session is written off"
        );
        let fail = |node: Arc<Node>| node.fail(hung(), &mut self.core.admission.places());
        for waker in work.current.into_iter().filter_map(fail) {
            wake(waker, &self.core.counters.panics);
        }
        self.core.deliver(watch, &mut Vec::new());
        if let Some(lane) = work.lane {
            self.core.give_back(&lane, work.rest);
        }
        if of_token <= self.core.limits.written_off_per_token && of_process <= WRITTEN_OFF_PER_PROCESS {
            self.core.vacate(place);
            return;
        }
        seats.unfilled.lock().push(place.index);
        let none_comes = seats.opening.load(Ordering::SeqCst) == 0 && seats.vacant.lock().is_empty();
        if none_comes && seats.watches.lock().is_empty() {
            self.core.lose(place.token, Out::Hung, "every session hangs, and no more are opened");
        }
    }

    /// Has the token's service thread open a session for every vacant place. A place is vacant again if that
    /// fails, and is tried again after [`HOUSEKEEPING`].
    fn fill_vacant(&mut self, now: Time) {
        for (token, seats) in self.core.tokens.iter().enumerate() {
            if seats.pauses(now) || self.core.dispatch.healthy() & (1 << token) == 0 {
                continue;
            }
            let vacant = std::mem::take(&mut *seats.vacant.lock());
            seats.opening.fetch_add(vacant.len(), Ordering::SeqCst);
            for index in vacant {
                let (core, again) = (Arc::downgrade(self.core), Arc::downgrade(self.core));
                // Where one was refused, the others of this look are not asked for.
                let is_wanted =
                    move || again.upgrade().is_some_and(|core| !core.tokens[token].pauses(clock::now()));
                seats.token.reopen(is_wanted, move |session| fill(&core, Place { token, index }, session));
            }
        }
    }

    fn fit_hang_limit(&mut self, token: usize) {
        self.hang_ns[token] = match self.core.limits.hang_ns.load(Ordering::Relaxed) {
            limit_ns if limit_ns > 0 => limit_ns,
            _ => {
                let recorders = self.core.tokens[token].recorders.iter().map(AsRef::as_ref);
                chosen_hang_ns(histogram(recorders, None, Stage::Token).value_at_quantile(0.999))
            }
        };
    }
}

/// Seats a session that was opened for a vacant place.
fn fill(core: &Weak<Core>, place: Place, session: Option<Result<Session>>) {
    let Some(core) = core.upgrade() else { return };
    if core.is_stopped() {
        return;
    }
    let seats = &core.tokens[place.token];
    match session.map(|session| session.and_then(|session| core.seat(place, session))) {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            not_filled(&core, place, &error);
            seats.vacant.lock().push(place.index);
        }
        None => seats.vacant.lock().push(place.index),
    }
    seats.opening.fetch_sub(1, Ordering::SeqCst);
}

/// No session can be opened for a place: says so, and lets the token alone for a while.
fn not_filled(core: &Core, place: Place, error: &Error) {
    // The service thread's own session is dead, and with it whatever the token knew of this process.
    if matches!(error.kind(), ErrorKind::TokenLost | ErrorKind::Module | ErrorKind::SessionLost) {
        // How it was lost may be known already: then this changes nothing of it.
        let known = core.tokens[place.token].token.is_lost();
        let loss = if known { Loss::Login } else { Loss::Token };
        core.lose(place.token, Out::Lost(loss, None), "no session can be opened");
    }
    let seats = &core.tokens[place.token];
    if is_broken(error.kind()) && seats.watches.lock().is_empty() {
        // No request can show that it does well again.
        core.lose(place.token, Out::Failing, "it gives no sessions, or none that works");
    }
    let full = error.kind() == ErrorKind::Busy && !seats.watches.lock().is_empty();
    let pause = if full && place.index >= seats.places_first { REFUSED } else { HOUSEKEEPING };
    seats.fill_after_ns.store(now().after(pause).as_ns(), Ordering::Relaxed);
    tracing::warn!(token = place.token, %error, "cannot open a session; trying again");
}

/// The token is there, and has failed what it was asked when a session was opened.
const fn is_broken(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Device | ErrorKind::Internal)
}

/// A call that has been inside the module for longer than the limit.
fn is_hung(busy: Busy, now: Time, hang_ns: u64) -> bool {
    now.ns_since(busy.since) > hang_ns
}

/// A call that takes longer than any turn may: those who were answered before it are woken meanwhile.
fn is_slow(busy: Busy, now: Time) -> bool {
    now.ns_since(busy.since) > SLOW_NS
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
