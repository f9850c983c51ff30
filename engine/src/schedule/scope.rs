//! Scopes: tokens whose sessions are counted together, and how what their controller decides is carried out.
//!
//! Sessions are opened when they are first put in use, by the token's service thread. They stay open when they are
//! taken out of use again: parked in their slots, where neither workers nor inline callers find them.

use crate::clock::Time;
use crate::schedule::controller::{Adjustment, Controller, Sessions, Totals};
use crate::schedule::core::{Core, TokenSeats};
use crate::sessions::Bounds;
use crate::sync::{Mutex, Ordering};

/// Tokens with one bottleneck.
pub(crate) struct Scope {
    pub(crate) name: String,
    pub(crate) tokens: Vec<usize>,
    /// Each token has so many sessions in use at least.
    least: usize,
    state: Mutex<State>,
}

/// Touched by the watcher, and by snapshots.
struct State {
    controller: Controller,
    /// Requests that each token had served when it was looked at last.
    served: Vec<u64>,
}

/// What a scope's controller has decided so far.
pub(crate) struct Decided {
    pub(crate) in_use: usize,
    pub(crate) floor: usize,
    pub(crate) ceiling: usize,
    pub(crate) adjustments: Vec<(Adjustment, u64)>,
}

/// A token's part of what its scope has in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// It served something since the last look.
    active: bool,
    /// Most sessions that it can have at present.
    most: usize,
}

impl Scope {
    /// With the bounds of each of its tokens.
    pub(crate) fn new(name: String, tokens: Vec<usize>, bounds: &[Bounds]) -> Self {
        let sum = |of: fn(&Bounds) -> usize| bounds.iter().map(of).sum();
        let controller = Controller::new(sum(|one| one.floor), sum(|one| one.ceiling), sum(|one| one.start));
        let least = bounds.iter().map(|one| one.floor).min().unwrap_or(1);
        let state = Mutex::new(State { controller, served: vec![0; tokens.len()] });
        Self { name, tokens, least, state }
    }

    pub(crate) fn decided(&self) -> Decided {
        let state = self.state.lock();
        let (floor, ceiling) = state.controller.bounds();
        let adjustments = state.controller.decisions().collect();
        Decided { in_use: state.controller.in_use(), floor, ceiling, adjustments }
    }

    /// Lets the controller look, and carries out what it decides. Returns after how many nanoseconds to look again,
    /// if that matters.
    fn control(&self, core: &Core, now: Time) -> Option<u64> {
        let mut state = self.state.lock();
        if state.controller.is_fixed() {
            return None;
        }
        let mut totals = Totals::default();
        let mut parts = Vec::with_capacity(self.tokens.len());
        for (&token, before) in self.tokens.iter().zip(&mut state.served) {
            let served = core.tokens[token].add_to(&mut totals);
            let active = served != std::mem::replace(before, served);
            let lost = core.dispatch.healthy() & (1 << token) == 0;
            let most = if lost { 0 } else { core.tokens[token].most(now) };
            parts.push(Part { active, most });
        }
        let open = |count| {
            let shares = self.tokens.iter().zip(shares(count, self.least, &parts));
            shares.map(|(&token, share)| share.min(core.tokens[token].watches.lock().len())).sum()
        };
        let sessions = Sessions {
            open: open(state.controller.in_use()),
            most: parts.iter().map(|part| part.most).sum(),
        };
        let next = state.controller.look(now, &totals, sessions);
        let in_use = state.controller.in_use();
        // Sessions are woken, and nothing of the scope is needed for that.
        drop(state);
        for (&token, share) in self.tokens.iter().zip(shares(in_use, self.least, &parts)) {
            core.allow(token, share);
        }
        next
    }
}

impl Core {
    /// Has every scope looked after. Returns after how many nanoseconds to do so again, if that matters.
    pub(super) fn control(&self, now: Time) -> Option<u64> {
        self.scopes.iter().filter_map(|scope| scope.control(self, now)).min()
    }

    /// Puts so many of a token's sessions in use, those at the lowest places, and has more opened if they are too few.
    fn allow(&self, token: usize, share: usize) {
        let seats = &self.tokens[token];
        let mut open: Vec<_> = seats.watches.lock().iter().map(|watch| watch.place.index).collect();
        open.sort_unstable();
        self.dispatch.set_limit(token, open.get(share).copied().unwrap_or(usize::MAX));
        let coming = seats.vacant.lock().len() + seats.unfilled.lock().len();
        let coming = coming + seats.opening.load(Ordering::SeqCst);
        for _ in open.len() + coming..share {
            // Relaxed: only the watcher opens places.
            let place = seats.places.load(Ordering::Relaxed);
            if place < seats.recorders.len() {
                seats.places.store(place + 1, Ordering::Relaxed);
                seats.vacant.lock().push(place);
            }
        }
    }
}

impl TokenSeats {
    /// Adds what its sessions have done; returns how many requests they have served.
    fn add_to(&self, totals: &mut Totals) -> u64 {
        let places = self.places.load(Ordering::Relaxed);
        self.meters.iter().take(places).map(|meter| meter.add_to(totals)).sum()
    }

    /// Whether no session is to be opened now, because the token has just refused one.
    pub(super) fn pauses(&self, now: Time) -> bool {
        now.as_ns() < self.fill_after_ns.load(Ordering::Relaxed)
    }

    /// Most sessions that it can have, as far as is known: no more than are open while it refuses others.
    fn most(&self, now: Time) -> usize {
        if self.pauses(now) { self.watches.lock().len() } else { self.recorders.len() }
    }
}

/// Each token's share: `least`, and those that work share what is in use.
fn shares(in_use: usize, least: usize, parts: &[Part]) -> Vec<usize> {
    let any_active = parts.iter().any(|part| part.active);
    let takes = |part: &Part| (part.active || !any_active) && part.most > 0;
    let mut shares: Vec<_> = parts.iter().map(|part| least.min(part.most)).collect();
    let taken: usize =
        parts.iter().zip(&shares).filter(|(part, _)| takes(part)).map(|(_, share)| share).sum();
    let mut left = in_use.saturating_sub(taken);
    while left > 0 {
        let before = left;
        for (part, share) in parts.iter().zip(&mut shares) {
            if left > 0 && takes(part) && *share < part.most {
                *share += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Part = Part { active: false, most: 8 };
    const BUSY: Part = Part { active: true, most: 8 };
    const LOST: Part = Part { active: false, most: 0 };

    #[test]
    fn a_token_of_its_own_has_all_that_is_in_use() {
        assert_eq!(shares(5, 1, &[BUSY]), [5]);
        assert_eq!(shares(5, 1, &[IDLE]), [5]);
        assert_eq!(shares(50, 1, &[BUSY]), [8]);
        assert_eq!(shares(5, 1, &[LOST]), [0]);
    }

    #[test]
    fn tokens_that_work_share_and_the_others_keep_what_each_needs() {
        assert_eq!(shares(6, 1, &[BUSY, BUSY, BUSY]), [2, 2, 2]);
        assert_eq!(shares(5, 1, &[IDLE, IDLE]), [3, 2]);
        assert_eq!(shares(6, 1, &[BUSY, IDLE, BUSY]), [3, 1, 3]);
        assert_eq!(shares(6, 2, &[BUSY, IDLE]), [6, 2]);
        assert_eq!(shares(1, 1, &[BUSY, BUSY]), [1, 1]);
    }

    #[test]
    fn what_a_token_cannot_have_goes_to_the_others() {
        let few = Part { active: true, most: 2 };
        assert_eq!(shares(8, 1, &[few, BUSY]), [2, 6]);
        assert_eq!(shares(4, 1, &[LOST, BUSY]), [0, 4]);
        assert_eq!(shares(100, 1, &[few, few]), [2, 2]);
    }
}
