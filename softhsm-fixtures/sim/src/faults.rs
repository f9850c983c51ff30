//! Calls that do not go as they should.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cryptoki_sys as sys;
use parking_lot::RwLock;

use crate::clock;
use crate::function::Function;
use crate::hangs::HANGS;
use crate::rng::mix;
use crate::rule::{Rule, What};

/// The rules by which calls hang, and all others. They outlive `C_Finalize`, as the threads inside do.
pub(crate) static HANG_RULES: Rules = Rules::new();
pub(crate) static FAULT_RULES: Rules = Rules::new();

/// Rules, and how many calls each has counted.
pub(crate) struct Rules {
    /// Whether there is any: all that a call without one reads.
    armed: AtomicBool,
    seed: AtomicU64,
    rules: RwLock<Vec<(Rule, AtomicU64)>>,
}

/// What is still to be done once the call has run.
#[derive(Clone, Copy, Default)]
pub(crate) struct After {
    /// Answered in place of `CKR_OK`.
    pub(crate) code: Option<sys::CK_RV>,
    pub(crate) spoil: Option<Spoil>,
}

/// How an output is made wrong.
#[derive(Clone, Copy)]
pub(crate) enum Spoil {
    Flip,
    Short,
    Repeat,
}

/// What a call meets before it runs.
pub(crate) enum Before {
    Runs(After),
    /// It answers this and does not run.
    Refused(sys::CK_RV),
    SessionLost,
    LoginLost,
    Removed(Option<Duration>),
    Dead,
}

thread_local! {
    /// How the output of the call in which this thread is comes out.
    static SPOIL: Cell<Option<Spoil>> = const { Cell::new(None) };
    /// The last output that this thread had a session write.
    static LAST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether any rule is set.
pub(crate) fn armed() -> bool {
    HANG_RULES.armed() || FAULT_RULES.armed()
}

/// Counts the call for the rules and does what they say before it runs.
pub(crate) fn before(function: Function, token: Option<&str>) -> Before {
    let mut before = Before::Runs(After::default());
    for what in HANG_RULES.fires(function, token).into_iter().chain(FAULT_RULES.fires(function, token)) {
        match what {
            What::Hang => HANGS.hold(),
            What::Slow(longer) => {
                let ns = u64::try_from(longer.as_nanos()).unwrap_or(u64::MAX);
                clock::sleep_until(clock::now_ns().saturating_add(ns));
            }
            What::Refuse(code) => before = Before::Refused(code),
            What::SessionLost => before = Before::SessionLost,
            What::LoginLost => before = Before::LoginLost,
            What::Removed(until) => before = Before::Removed(until),
            What::Dead => before = Before::Dead,
            What::Abort => std::process::abort(),
            What::Segfault => crate::abi::segfault(),
            What::Lose(code) => before.after(|after| after.code = Some(code)),
            What::Flip => before.after(|after| after.spoil = Some(Spoil::Flip)),
            What::Short => before.after(|after| after.spoil = Some(Spoil::Short)),
            What::Repeat => before.after(|after| after.spoil = Some(Spoil::Repeat)),
        }
    }
    before
}

/// Runs a call whose output comes out so.
pub(crate) fn spoiling<R>(spoil: Option<Spoil>, run: impl FnOnce() -> R) -> R {
    SPOIL.set(spoil);
    let result = run();
    SPOIL.set(None);
    result
}

/// Makes the output of the call wrong if a rule says so. Returns how many bytes of it are said to be there.
pub(crate) fn spoil(output: &mut [u8]) -> usize {
    if !FAULT_RULES.armed() {
        return output.len();
    }
    let own = output.to_vec();
    let len = match SPOIL.take() {
        None => output.len(),
        Some(Spoil::Short) => output.len().saturating_sub(1),
        Some(Spoil::Flip) => {
            let middle = output.len() / 2;
            output.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 0x10);
            output.len()
        }
        Some(Spoil::Repeat) => {
            LAST.with_borrow(|last| output.iter_mut().zip(last).for_each(|(to, from)| *to = *from));
            output.len()
        }
    };
    LAST.replace(own);
    len
}

impl Before {
    fn after(&mut self, change: impl FnOnce(&mut After)) {
        if let Self::Runs(after) = self {
            change(after);
        }
    }
}

impl Rules {
    const fn new() -> Self {
        Self { armed: AtomicBool::new(false), seed: AtomicU64::new(0), rules: RwLock::new(Vec::new()) }
    }

    /// Replaces the rules; they count from now.
    pub(crate) fn set(&self, rules: &[Rule], seed: u64) {
        let mut now = self.rules.write();
        *now = rules.iter().map(|rule| (rule.clone(), AtomicU64::new(0))).collect();
        self.seed.store(seed, Ordering::Relaxed);
        self.armed.store(!now.is_empty(), Ordering::Relaxed);
    }

    fn armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Counts the call for every rule. Returns what those say that it is for.
    fn fires(&self, function: Function, token: Option<&str>) -> Vec<What> {
        if !self.armed() {
            return Vec::new();
        }
        let seed = self.seed.load(Ordering::Relaxed);
        let rules = self.rules.read();
        let counted = rules.iter().enumerate().filter(|(_, (rule, _))| rule.counts(function, token));
        let fires = counted.filter_map(|(place, (rule, seen))| {
            let number = seen.fetch_add(1, Ordering::Relaxed) + 1;
            let dice = mix(mix(seed ^ mix(place as u64)) ^ number);
            rule.when.is_now(number, dice).then_some(rule.what)
        });
        fires.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(text: &str, seed: u64) -> Vec<u64> {
        let rules = Rules::new();
        rules.set(&[Rule::fault(text).unwrap()], seed);
        (1..=10_000).filter(|_| !rules.fires(Function::C_Sign, None).is_empty()).collect()
    }

    #[test]
    fn a_share_is_what_it_says_and_the_same_for_the_same_seed() {
        let first = fired("C_Sign:1%=flip", 7);
        assert!((60..=140).contains(&first.len()), "{} of 10 000", first.len());
        assert_eq!(first, fired("C_Sign:1%=flip", 7));
        assert_ne!(first, fired("C_Sign:1%=flip", 8));
    }

    #[test]
    fn an_output_is_spoilt_as_the_rule_says_and_otherwise_left_alone() {
        FAULT_RULES.set(&[Rule::fault("C_Sign:1000000=flip").unwrap()], 0);
        let output = |spoil, bytes: &[u8]| {
            let mut output = bytes.to_vec();
            let len = spoiling(spoil, || super::spoil(&mut output));
            (output, len)
        };
        assert_eq!(output(None, &[1, 2, 3]), (vec![1, 2, 3], 3));
        assert_eq!(output(Some(Spoil::Repeat), &[4, 5, 6]), (vec![1, 2, 3], 3));
        assert_eq!(output(Some(Spoil::Flip), &[1, 2, 3]), (vec![1, 2 ^ 0x10, 3], 3));
        assert_eq!(output(Some(Spoil::Short), &[1, 2, 3]), (vec![1, 2, 3], 2));
        FAULT_RULES.set(&[], 0);
    }
}
