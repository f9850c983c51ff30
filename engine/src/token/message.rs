//! Whether a session keeps messages of AES-GCM open: one Init for many, where the module has PKCS#11 3.x. Pure; the
//! calls are `session`'s.

use crate::clock::Time;
use crate::pkcs11::{Direction, ObjectHandle};

/// The messages of one session.
#[derive(Debug)]
pub(crate) struct Messages {
    /// Whether the token takes them, by direction.
    offered: [bool; 2],
    /// Whether one has come out as it should.
    proven: [bool; 2],
    open: Option<Open>,
    run: Run,
    /// Times that the module had forgotten an open operation.
    lost: u8,
}

/// What is kept open, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Of {
    pub(crate) key: ObjectHandle,
    pub(crate) direction: Direction,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    of: Of,
    /// When Init looked the key up, and what the token's count of changes was then.
    since: Time,
    changes: u64,
}

/// How many operations of one key and direction came one after the other.
#[derive(Debug, Default)]
struct Run {
    of: Option<Of>,
    len: u32,
    /// Of the run before.
    before: u32,
}

/// What is to be done for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Init and one call.
    Plain,
    /// As a message under the Init that was made.
    Open,
    /// As a message, after an Init.
    Begin,
}

/// An operation that is kept open is used for so long after its Init: then the key is looked up anew, for another
/// application may have changed or destroyed it (design, 3.3).
const HELD_NS_MAX: u64 = 1_000_000_000;

/// From this length on a run takes fewer calls as messages: Init, Final and one call each, against two each.
const RUN_PAYS: u32 = 3;

/// A module that forgets open operations so often is not asked to keep any.
const LOST_MAX: u8 = 3;

impl Messages {
    /// Of a token that takes messages in these directions.
    pub(crate) fn new(offers: impl Fn(Direction) -> bool) -> Self {
        let offered = [Direction::Encrypt, Direction::Decrypt].map(offers);
        Self { offered, proven: [false; 2], open: None, run: Run::default(), lost: 0 }
    }

    /// Whether any operation could go this way.
    pub(crate) const fn is_offered(&self, direction: Direction) -> bool {
        self.offered[direction as usize]
    }

    pub(crate) const fn is_proven(&self, direction: Direction) -> bool {
        self.proven[direction as usize]
    }

    /// One has come out as it should.
    pub(crate) fn prove(&mut self, direction: Direction) {
        self.proven[direction as usize] = true;
    }

    /// What is open.
    pub(crate) fn open(&self) -> Option<Direction> {
        self.open.map(|open| open.of.direction)
    }

    /// The next operation is one of AES-GCM. Unless the way is [`Way::Open`], what is open is to be closed before.
    pub(crate) fn next(&mut self, of: Of, now: Time, changes: u64) -> Way {
        self.run.count(of);
        let is_good =
            |open: Open| open.of == of && open.changes == changes && now.ns_since(open.since) < HELD_NS_MAX;
        match self.open {
            Some(open) if is_good(open) => Way::Open,
            _ if self.is_offered(of.direction) && self.run.pays() => Way::Begin,
            _ => Way::Plain,
        }
    }

    /// The next operation is another.
    pub(crate) fn interrupt(&mut self) {
        self.run.end();
    }

    /// Init has been made.
    pub(crate) fn begun(&mut self, of: Of, now: Time, changes: u64) {
        self.open = Some(Open { of, since: now, changes });
    }

    /// Nothing is open any more.
    pub(crate) fn ended(&mut self) {
        self.open = None;
    }

    /// The module had forgotten what was open.
    pub(crate) fn was_lost(&mut self) {
        self.open = None;
        self.lost += 1;
        if self.lost >= LOST_MAX {
            self.offered = [false; 2];
        }
    }

    /// The module has no messages of this direction after all, or none that can be used.
    pub(crate) fn refuse(&mut self, direction: Direction) {
        self.offered[direction as usize] = false;
    }
}

impl Run {
    fn count(&mut self, of: Of) {
        if self.of != Some(of) {
            self.end();
            self.of = Some(of);
        }
        self.len = self.len.saturating_add(1);
    }

    fn end(&mut self) {
        if self.of.take().is_some() {
            self.before = self.len;
            self.len = 0;
        }
    }

    /// Whether it is long enough, or the one before was and this one may be expected to be.
    const fn pays(&self) -> bool {
        self.len >= RUN_PAYS || self.before >= RUN_PAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: u64) -> Of {
        Of { key: ObjectHandle::numbered(key), direction: Direction::Encrypt }
    }

    const fn at(ms: u64) -> Time {
        Time::from_ns(1 + ms * 1_000_000)
    }

    fn messages() -> Messages {
        Messages::new(|_| true)
    }

    /// The calls that operations on these keys take, 0 being any other operation, all at once.
    fn calls(keys: &[u64]) -> usize {
        let (mut messages, mut calls) = (messages(), 0);
        for &key in keys {
            let way = if key == 0 {
                messages.interrupt();
                Way::Plain
            } else {
                messages.next(of(key), at(0), 0)
            };
            if way != Way::Open && messages.open().is_some() {
                messages.ended();
                calls += 1;
            }
            calls += match way {
                Way::Plain | Way::Begin => 2,
                Way::Open => 1,
            };
            if way == Way::Begin {
                messages.begun(of(key), at(0), 0);
            }
        }
        calls
    }

    #[test]
    fn a_long_run_takes_one_call_each_and_short_ones_two() {
        assert_eq!(calls(&[1; 1_000]), 1_000 + 3);
        assert_eq!(calls(&[1, 2].repeat(500)), 2 * 1_000);
        assert_eq!(calls(&[1, 1, 2, 2].repeat(250)), 2 * 1_000);
        assert_eq!(calls(&[1, 1, 0].repeat(300)), 2 * 900);
    }

    #[test]
    fn runs_that_pay_are_expected_to_come_again() {
        let runs = [[1; 10], [2; 10]].concat().repeat(50);
        // After the first run: Init, ten messages, Final.
        assert!(calls(&runs) <= 12 * 100 + 2, "{}", calls(&runs));
    }

    #[test]
    fn what_is_open_is_not_used_for_another_key_after_a_second_or_after_keys_have_changed() {
        let open = || {
            let mut messages = messages();
            (0..RUN_PAYS).for_each(|_| _ = messages.next(of(1), at(0), 7));
            messages.begun(of(1), at(0), 7);
            messages
        };
        assert_eq!(open().next(of(1), at(999), 7), Way::Open);
        assert_eq!(open().next(of(1), at(1_000), 7), Way::Begin);
        assert_eq!(open().next(of(1), at(0), 8), Way::Begin);
        assert_eq!(open().next(of(2), at(0), 7), Way::Begin);
        let other = Of { direction: Direction::Decrypt, ..of(1) };
        assert_eq!(open().next(other, at(0), 7), Way::Begin);
    }

    #[test]
    fn a_module_that_has_no_messages_or_forgets_them_is_not_asked_again() {
        let mut messages = messages();
        messages.refuse(Direction::Encrypt);
        assert!((0..10).all(|_| messages.next(of(1), at(0), 0) == Way::Plain));
        assert!(messages.is_offered(Direction::Decrypt));
        (0..LOST_MAX).for_each(|_| messages.was_lost());
        assert!(!messages.is_offered(Direction::Decrypt));
    }
}
