//! Calls that do not go as they should.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cryptoki_sys as sys;
use parking_lot::RwLock;

use crate::clock;
use crate::executions::EXECUTIONS;
use crate::function::Function;
use crate::hangs::HANGS;
use crate::rng::mix;
use crate::rule::{Names, Rule};
use crate::what::What;

/// The rules by which calls hang, and all others. They outlive `C_Finalize`, as the threads inside do.
pub(crate) static HANG_RULES: Rules = Rules::new();
pub(crate) static FAULT_RULES: Rules = Rules::new();

/// Rules, and how many calls each has counted.
pub(crate) struct Rules {
    /// Whether there is any: all that a call without one reads.
    armed: AtomicBool,
    /// Whether one of them names a key.
    keyed: AtomicBool,
    seed: AtomicU64,
    rules: RwLock<Vec<(Rule, AtomicU64)>>,
}

/// What is still to be done once the call has run.
#[derive(Clone, Copy, Default)]
pub(crate) struct After {
    /// Answered in place of `CKR_OK`.
    pub(crate) code: Option<sys::CK_RV>,
    pub(crate) output: Output,
    /// How many times as long it takes.
    pub(crate) times: Option<u32>,
}

/// How the output of a call comes out.
#[derive(Clone, Copy, Default)]
pub(crate) struct Output {
    pub(crate) spoil: Option<Spoil>,
    pub(crate) written: Written,
}

/// How an output is made wrong.
#[derive(Clone, Copy)]
pub(crate) enum Spoil {
    Flip,
    Short,
    Long,
    Repeat,
}

/// When the caller's buffer is written.
#[derive(Clone, Copy, Default)]
pub(crate) enum Written {
    /// When it is made.
    #[default]
    AtOnce,
    /// After a hang of this length, or one until it is released, just before the call returns.
    AtReturn(Option<Duration>),
    /// So long after the call has returned.
    Later(Duration),
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
    static OUTPUT: Cell<Output> = const { Cell::new(Output { spoil: None, written: Written::AtOnce }) };
    /// The last output that this thread had a session write.
    static LAST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a call answers whose output comes later, if no rule names another code.
const LATE_CODE: sys::CK_RV = sys::CKR_DEVICE_ERROR;

/// Whether any rule is set, or executions are counted.
pub(crate) fn armed() -> bool {
    HANG_RULES.armed() || FAULT_RULES.armed() || EXECUTIONS.counting()
}

/// Whether it matters with which key a call runs.
pub(crate) fn keyed() -> bool {
    HANG_RULES.keyed() || FAULT_RULES.keyed() || EXECUTIONS.counting()
}

/// Counts the call for the rules and does what they say before it runs.
pub(crate) fn before(function: Function, token: Option<&str>, names: Option<&Names>) -> Before {
    let mut before = Before::Runs(After::default());
    let releases = HANGS.releases();
    let fired = [&HANG_RULES, &FAULT_RULES].map(|rules| rules.fires(function, token, names));
    for (what, dice) in fired.into_iter().flatten() {
        match what {
            What::Hang(limit) => HANGS.hold(releases, limit),
            What::Slow(delay) => sleep(delay.drawn(dice)),
            What::Refuse(code) => before = Before::Refused(code),
            What::SessionLost => before = Before::SessionLost,
            What::LoginLost => before = Before::LoginLost,
            What::Removed(until) => before = Before::Removed(until),
            What::Dead => before = Before::Dead,
            What::Abort => std::process::abort(),
            What::Segfault => crate::abi::segfault(),
            What::Lose(code) => before.after(|after| after.code = Some(code)),
            What::Times(times) => before.after(|after| after.times = Some(times)),
            What::Flip => before.after(|after| after.output.spoil = Some(Spoil::Flip)),
            What::Short => before.after(|after| after.output.spoil = Some(Spoil::Short)),
            What::Long => before.after(|after| after.output.spoil = Some(Spoil::Long)),
            What::Repeat => before.after(|after| after.output.spoil = Some(Spoil::Repeat)),
            What::HangAfter(limit) => before.after(|after| after.output.written = Written::AtReturn(limit)),
            What::Late(delay) => before.after(|after| {
                after.output.written = Written::Later(delay);
                after.code = after.code.or(Some(LATE_CODE));
            }),
        }
    }
    before
}

/// Waits so long, by the clock of the simulated device.
pub(crate) fn sleep(time: Duration) {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    clock::sleep_until(clock::now_ns().saturating_add(ns));
}

/// Runs a call whose output comes out so.
pub(crate) fn with_output<R>(output: Output, run: impl FnOnce() -> R) -> R {
    OUTPUT.set(output);
    let result = run();
    // A call that had nothing to write hangs all the same.
    if let Written::AtReturn(limit) = OUTPUT.take().written {
        HANGS.hold(HANGS.releases(), limit);
    }
    result
}

/// When the output of this thread's call is written, unless that is at once.
pub(crate) fn written_late() -> Option<Written> {
    let written = if FAULT_RULES.armed() { OUTPUT.get().written } else { Written::AtOnce };
    (!matches!(written, Written::AtOnce)).then_some(written)
}

/// Its output is taken care of: the call has nothing more to wait for.
pub(crate) fn forget_output() {
    OUTPUT.take();
}

/// Makes the output of the call wrong if a rule says so. Returns how many bytes of it are said to be there.
pub(crate) fn spoil(output: &mut [u8]) -> usize {
    if !FAULT_RULES.armed() {
        return output.len();
    }
    let own = output.to_vec();
    let len = match OUTPUT.get().spoil {
        None => output.len(),
        Some(Spoil::Short) => output.len().saturating_sub(1),
        Some(Spoil::Long) => output.len() + 1,
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
        Self {
            armed: AtomicBool::new(false),
            keyed: AtomicBool::new(false),
            seed: AtomicU64::new(0),
            rules: RwLock::new(Vec::new()),
        }
    }

    /// Replaces the rules; they count from now.
    pub(crate) fn set(&self, rules: &[Rule], seed: u64) {
        let mut now = self.rules.write();
        *now = rules.iter().map(|rule| (rule.clone(), AtomicU64::new(0))).collect();
        self.note(&now, seed);
    }

    /// Replaces the rules; those that are in force already go on counting.
    pub(crate) fn renew(&self, rules: &[Rule], seed: u64) {
        let mut now = self.rules.write();
        let mut old = std::mem::take(&mut *now);
        // Of two that are equal the first has been there longer.
        let seen = |rule: &Rule| match old.iter().position(|(known, _)| known == rule) {
            Some(place) => old.remove(place).1,
            None => AtomicU64::new(0),
        };
        *now = rules.iter().cloned().zip(rules.iter().map(seen)).collect();
        self.note(&now, seed);
    }

    fn note(&self, now: &[(Rule, AtomicU64)], seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
        self.keyed.store(now.iter().any(|(rule, _)| rule.key.is_some()), Ordering::Relaxed);
        self.armed.store(!now.is_empty(), Ordering::Relaxed);
    }

    fn armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    fn keyed(&self) -> bool {
        self.keyed.load(Ordering::Relaxed)
    }

    /// Counts the call for every rule. Returns what those say that it is for, each with a number of its own by the
    /// seed, the rule and the call.
    fn fires(&self, function: Function, token: Option<&str>, names: Option<&Names>) -> Vec<(What, u64)> {
        if !self.armed() {
            return Vec::new();
        }
        let seed = self.seed.load(Ordering::Relaxed);
        let rules = self.rules.read();
        let counted = rules.iter().enumerate().filter(|(_, (rule, _))| rule.counts(function, token, names));
        let fires = counted.filter_map(|(place, (rule, seen))| {
            let number = seen.fetch_add(1, Ordering::Relaxed) + 1;
            let dice = mix(mix(seed ^ mix(place as u64)) ^ number);
            // Mixed once more: whether the rule is for a call says nothing of how long that takes.
            rule.when.is_now(number, dice).then(|| (rule.what, mix(!dice)))
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
        (1..=10_000).filter(|_| !rules.fires(Function::C_Sign, None, None).is_empty()).collect()
    }

    #[test]
    fn a_share_is_what_it_says_and_the_same_for_the_same_seed() {
        let first = fired("C_Sign:1%=flip", 7);
        assert!((60..=140).contains(&first.len()), "{} of 10 000", first.len());
        assert_eq!(first, fired("C_Sign:1%=flip", 7));
        assert_ne!(first, fired("C_Sign:1%=flip", 8));
    }

    #[test]
    fn rules_that_are_renewed_go_on_counting_and_an_equal_one_beside_them_begins() {
        let (one, other) = (Rule::fault("C_Sign:1=hang").unwrap(), Rule::fault("C_Sign:2=flip").unwrap());
        let rules = Rules::new();
        let fired = || {
            let fires = rules.fires(Function::C_Sign, None, None);
            fires.into_iter().map(|(what, _)| what).collect::<Vec<_>>()
        };
        rules.set(std::slice::from_ref(&one), 0);
        assert_eq!(fired(), [What::Hang(None)]);
        rules.renew(&[other.clone(), one.clone()], 0);
        assert_eq!(fired(), []);
        rules.renew(&[other.clone(), one.clone(), one], 0);
        assert_eq!(fired(), [What::Flip, What::Hang(None)]);
        rules.renew(&[other], 0);
        assert_eq!(fired(), []);
        rules.renew(&[], 0);
        assert!(!rules.armed());
    }

    #[test]
    fn delays_are_drawn_by_numbers_that_the_seed_and_the_call_make() {
        let drawn = |seed| {
            let rules = Rules::new();
            rules.set(&[Rule::fault("C_Sign:1+=slow-exp-80").unwrap()], seed);
            let calls = (0..100).flat_map(|_| rules.fires(Function::C_Sign, None, None));
            calls.map(|(_, dice)| dice).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert_eq!(drawn(1).into_iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
    }

    #[test]
    fn an_output_is_spoilt_as_the_rule_says_and_otherwise_left_alone() {
        FAULT_RULES.set(&[Rule::fault("C_Sign:1000000=flip").unwrap()], 0);
        let output = |spoil, bytes: &[u8]| {
            let mut output = bytes.to_vec();
            let how = Output { spoil, ..Output::default() };
            let len = with_output(how, || super::spoil(&mut output));
            (output, len)
        };
        assert_eq!(output(None, &[1, 2, 3]), (vec![1, 2, 3], 3));
        assert_eq!(output(Some(Spoil::Repeat), &[4, 5, 6]), (vec![1, 2, 3], 3));
        assert_eq!(output(Some(Spoil::Flip), &[1, 2, 3]), (vec![1, 2 ^ 0x10, 3], 3));
        assert_eq!(output(Some(Spoil::Short), &[1, 2, 3]), (vec![1, 2, 3], 2));
        assert_eq!(output(Some(Spoil::Long), &[1, 2, 3]), (vec![1, 2, 3], 4));
        FAULT_RULES.set(&[], 0);
    }
}
