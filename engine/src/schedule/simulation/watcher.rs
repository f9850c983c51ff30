//! What `schedule::watcher`, `core` and `loss` do: deadlines, hung calls, places, lost tokens. And an operator.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::metrics::Health;
use crate::schedule::dispatch::{Seat as _, tokens};
use crate::schedule::node::{Expired, Node};
use crate::schedule::recovery::Ended;
use crate::schedule::seat::{Place, Watch, Work};
use crate::schedule::simulation::world::{
    Event, FAIR, LaneRef, Seat, Token, WRITTEN_OFF_IN_ALL, WRITTEN_OFF_PER_TOKEN, World,
};
use crate::schedule::wake::wake;
use crate::token::epoch::{Epoch, Loss};
use crate::token::session::Fate;

const HANG_NS: u64 = 100_000_000;
const LOOK_NS: u64 = 25_000_000;
const BUDGET_NS: u64 = 200_000_000;

impl World {
    pub(super) fn look(&mut self) {
        self.expire();
        (0..self.tokens.len()).for_each(|token| self.look_for_hung(token));
        let orphans: Vec<_> = self.dispatch.orphans().collect();
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        if self.stopped {
            self.fail_queued();
            self.close_idle();
        } else {
            self.dispatch.look_at_tiers(self.now.as_ns());
            self.recover();
            self.fill_vacant();
            self.renew_budgets();
        }
        if self.is_over() {
            return;
        }
        let next = self.by_time.range((self.now.after(Duration::from_nanos(1)), 0)..).next();
        let next = next.map_or(Time::from_ns(u64::MAX), |(deadline, _)| *deadline);
        assert!(self.deadlines.earliest() <= next, "the watcher would look too late");
        let late_ns = self.dice.between(0, 50_000);
        self.look_at(next.as_ns().min(self.now.as_ns() + LOOK_NS).saturating_add(late_ns));
    }

    /// Whether the watcher may end: nobody comes any more, nobody waits, and every session is where it belongs.
    fn is_over(&self) -> bool {
        let settled = |token: &Token| {
            let health = token.recovery.health();
            let whole = health == Health::Serving && token.watches.len() == token.places;
            self.stopped || health == Health::GivenUp || whole && token.written_off == 0
        };
        self.left == 0
            && self.requests.iter().all(|request| request.is_settled())
            && self.workers.iter().all(|worker| worker.is_at_rest())
            && self.inline.iter().all(Option::is_none)
            && self.tokens.iter().all(settled)
            && self.admission.requests() == 0
    }

    fn expire(&mut self) {
        let admission = Arc::clone(&self.admission);
        let mut due = self.deadlines.due(self.now);
        // They come in the order of their addresses, which is another in every run.
        due.sort_by_key(|node| self.id_of(node));
        let mut answered = false;
        for node in due {
            match node.expire(&mut admission.places()) {
                Expired::Answered => answered = true,
                Expired::Now { waker, in_lane } => {
                    self.withdrawn += u64::from(in_lane);
                    waker.into_iter().for_each(|waker| wake(waker, &self.panics));
                }
            }
        }
        if answered {
            self.tokens.iter().flat_map(|token| &token.watches).for_each(|watch| self.deliver(watch));
        }
    }

    fn look_for_hung(&mut self, token: usize) {
        let watches = self.tokens[token].watches.clone();
        let mut inline_hung = false;
        for watch in watches {
            let Some(busy) = watch.busy() else { continue };
            if self.now.ns_since(busy.since) > HANG_NS / 5 {
                self.deliver(&watch);
            }
            if self.now.ns_since(busy.since) > HANG_NS {
                inline_hung |= busy.inline;
                if !busy.inline {
                    self.write_off(&watch, busy.since);
                }
            }
        }
        let closed = inline_hung || self.tokens[token].written_off > 0;
        self.inline_closed = self.inline_closed & !(1 << token) | u64::from(closed) << token;
    }

    fn write_off(&mut self, watch: &Arc<Watch>, since: Time) {
        let Some(work) = watch.write_off(since) else { return };
        let place = watch.place;
        let token = &mut self.tokens[place.token];
        token.written_off += 1;
        self.written_off += 1;
        token.watches.retain(|other| !Arc::ptr_eq(other, watch));
        let hung = || Error::new(ErrorKind::Hung, Retry::Later, Outcome::Unknown);
        let fail = |node: Arc<Node>| node.fail(hung(), &mut self.admission.places());
        for waker in work.current.into_iter().filter_map(fail) {
            wake(waker, &self.panics);
        }
        self.deliver(watch);
        if let Some(lane) = work.lane {
            self.fail_orphan(self.dispatch.give_back(&lane, work.rest));
        }
        let token = &mut self.tokens[place.token];
        if token.written_off <= WRITTEN_OFF_PER_TOKEN && self.written_off <= WRITTEN_OFF_IN_ALL {
            return self.vacate(place);
        }
        token.unfilled.push(place.index);
        if token.opening == 0 && token.vacant.is_empty() && token.watches.is_empty() {
            self.lose(place.token, None);
        }
    }

    /// A worker that was written off comes out of its call.
    pub(super) fn come_back(&mut self, seat: Box<Seat>) {
        let token = &mut self.tokens[seat.place.token];
        token.written_off -= 1;
        self.written_off -= 1;
        token.vacant.extend(token.unfilled.pop());
        self.close_handle(&seat);
        self.look_soon();
    }

    pub(super) fn retire(&mut self, mut seat: Box<Seat>, fate: Fate, left: Work) {
        let place = seat.place;
        match fate {
            Fate::TokenDown(loss) => self.lose(place.token, Some((loss, Some(Arc::clone(&seat.epoch))))),
            Fate::Abandon => seat.abandoned = true,
            // The devices here give no wrong answers.
            Fate::Keep | Fate::Close | Fate::Eject => {}
        }
        if let Some(lane) = left.lane {
            self.give_back(&lane, left.current.into_iter().chain(left.rest));
        }
        self.deliver(&seat.watch);
        self.vacate(place);
        self.close_seat(seat);
    }

    fn give_back(&mut self, lane: &LaneRef, nodes: impl Iterator<Item = Arc<Node>>) {
        self.fail_orphan(self.dispatch.give_back(lane, nodes));
        if self.stopped {
            self.fail_queued();
        }
    }

    pub(super) fn vacate(&mut self, place: Place) {
        self.tokens[place.token].vacant.push(place.index);
        self.look_soon();
    }

    pub(super) fn close_seat(&mut self, seat: Box<Seat>) {
        let token = &mut self.tokens[seat.place.token];
        token.watches.retain(|other| !Arc::ptr_eq(other, &seat.watch));
        self.close_handle(&seat);
        self.look_soon();
    }

    fn close_handle(&mut self, seat: &Seat) {
        if !seat.abandoned && !seat.epoch.is_gone() {
            self.tokens[seat.place.token].device.close(seat.handle);
        }
    }

    fn lose(&mut self, token: usize, loss: Option<(Loss, Option<Arc<Epoch>>)>) {
        let lost = &self.tokens[token];
        if loss.is_some_and(|(loss, of)| !lost.current.lose(loss, of.as_ref())) {
            return;
        }
        lost.recovery.lost(false, self.now);
        let orphans = self.dispatch.set_healthy(token, false);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        self.close_ended(token);
        self.look_soon();
    }

    fn close_ended(&mut self, token: usize) {
        let idle: Vec<_> = std::iter::from_fn(|| self.dispatch.take_from(token)).collect();
        for seat in idle {
            if seat.epoch.is_over() { seat.hand_over() } else { self.release(seat) }
        }
    }

    fn recover(&mut self) {
        for token in 0..self.tokens.len() {
            let is_lost = self.tokens[token].current.is_over();
            let in_use = is_lost && self.is_in_use(token);
            let seats = &mut self.tokens[token];
            if seats.written_off <= WRITTEN_OFF_PER_TOKEN && seats.recovery.begins(in_use, self.now) {
                seats.logs_in = is_lost;
                let after_ns = self.dice.between(100_000, 20_000_000);
                self.at(after_ns, Event::Tried(token));
            }
        }
    }

    /// Whether sessions of a token that is lost are not closed yet; has the idle ones closed.
    fn is_in_use(&mut self, token: usize) -> bool {
        self.close_ended(token);
        !self.tokens[token].watches.is_empty()
    }

    /// An attempt to bring a token back is over.
    pub(super) fn tried(&mut self, index: usize) {
        let (now, dice) = (self.now, self.dice.throw());
        let refuses = self.weather.refusals;
        let refuses = self.dice.of_million(refuses);
        let token = &mut self.tokens[index];
        if token.epoch.is_over() && !token.logs_in {
            token.recovery.failed(Ended::NotYet, now, dice);
            return self.look_soon();
        }
        if token.epoch.is_over() {
            token.device.refuses |= refuses;
            if let Err(refused) = token.device.log_in() {
                let ended = if refused { Ended::Refused } else { Ended::NotYet };
                token.recovery.failed(ended, now, dice);
                return self.look_soon();
            }
            token.epoch = Arc::new(token.epoch.next());
            token.current.begin(&token.epoch);
        }
        token.recovery.back(now);
        if token.current.is_over() {
            token.recovery.lost(false, now);
            return self.look_soon();
        }
        self.close_ended(index);
        let orphans = self.dispatch.set_healthy(index, true);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        self.look_soon();
    }

    fn fill_vacant(&mut self) {
        for token in 0..self.tokens.len() {
            let seats = &mut self.tokens[token];
            if self.now < seats.fill_after || self.dispatch.healthy() & (1 << token) == 0 {
                continue;
            }
            let vacant = std::mem::take(&mut seats.vacant);
            seats.opening += vacant.len();
            for index in vacant {
                let after_ns = self.dice.between(10_000, 2_000_000);
                self.at(after_ns, Event::Opened(token, index));
            }
        }
    }

    /// A session is opened for a place.
    pub(super) fn open(&mut self, token: usize, index: usize) {
        let seats = &mut self.tokens[token];
        seats.opening = seats.opening.saturating_sub(1);
        if self.stopped {
            return;
        }
        if let Err(failed) = self.seat(Place { token, index }) {
            if matches!(failed.error.kind(), ErrorKind::TokenLost | ErrorKind::SessionLost) {
                self.lose(token, Some((Loss::Token, None)));
            }
            self.tokens[token].vacant.push(index);
            self.tokens[token].fill_after = self.now.after(Duration::from_millis(5));
        }
    }

    fn renew_budgets(&mut self) {
        if self.now.ns_since(self.renewed) < BUDGET_NS {
            return;
        }
        self.renewed = self.now;
        for token in &mut self.tokens {
            let sessions = token.watches.len() as u64;
            token.budget.renew(token.calls, sessions);
            let calls = token.calls - std::mem::replace(&mut token.calls_before, token.calls);
            (token.retries, token.retries_max) = (0, sessions.max(calls / 10));
        }
    }

    /// An operator, the controller, a write or a hand at the device does something, as long as requests come. Then all is
    /// put right, and in some runs the engine is stopped in the middle of it.
    pub(super) fn operate(&mut self) {
        let token = self.dice.index(self.tokens.len());
        let mask = 1 << token;
        if self.left == 0 {
            return self.put_right();
        }
        match self.dice.between(0, 8) {
            0 => self.set_drained(mask, 0),
            1 | 2 => self.set_drained(0, u64::MAX),
            3 => self.dispatch.pause(mask),
            4 => self.dispatch.resume(u64::MAX >> (64 - self.tokens.len())),
            5 => self.dispatch.set_limit(token, self.dice.index(5)),
            6 => self.dispatch.set_limit(token, usize::MAX),
            7 if self.dice.of_million(self.weather.losses * 20) => self.unplug(token),
            8 if self.dice.of_million(self.weather.losses * 20) => self.tokens[token].device.log_out(),
            _ => {}
        }
        let after_ns = self.dice.between(100_000, 5_000_000);
        self.at(after_ns, Event::Operate);
    }

    fn put_right(&mut self) {
        if self.dice.of_million(200_000) {
            self.stopped = true;
            self.admission.wake_all();
        } else {
            self.set_drained(0, u64::MAX);
            let all = u64::MAX >> (64 - self.tokens.len());
            self.dispatch.resume(all);
            tokens(all).for_each(|token| self.dispatch.set_limit(token, usize::MAX));
        }
        self.weather = FAIR;
        self.ends = Some(self.now.after(Duration::from_secs(60)));
        self.look_soon();
    }

    fn set_drained(&mut self, out: u64, back: u64) {
        let orphans = self.dispatch.set_drained(out, back);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
    }

    /// The token is taken out of its slot, and put back some time later.
    fn unplug(&mut self, token: usize) {
        self.tokens[token].device.remove();
        self.plug_later(token);
    }

    pub(super) fn plug_later(&mut self, token: usize) {
        let after_ns = self.dice.between(1_000_000, 500_000_000);
        self.at(after_ns, Event::Plugged(token));
    }
}
