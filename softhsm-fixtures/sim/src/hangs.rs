//! Calls that do not return until they are released.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::config::Hang;
use crate::function::Function;

/// The hangs of this copy of the module. They outlive `C_Finalize`, as the threads inside do.
pub(crate) static HANGS: Hangs = Hangs {
    armed: AtomicBool::new(false),
    rules: RwLock::new(Vec::new()),
    gate: Mutex::new(Gate { releases: 0, hanging: 0 }),
    changed: Condvar::new(),
};

pub(crate) struct Hangs {
    /// Whether there is any rule: all that a call without one reads.
    armed: AtomicBool,
    rules: RwLock<Vec<Rule>>,
    gate: Mutex<Gate>,
    changed: Condvar,
}

struct Rule {
    hang: Hang,
    /// Calls that the rule has counted since it was set.
    seen: AtomicU64,
}

struct Gate {
    releases: u64,
    hanging: u64,
}

impl Hangs {
    /// Replaces the rules; they count from now. Calls that hang go on hanging.
    pub(crate) fn set(&self, hangs: &[Hang]) {
        let mut rules = self.rules.write();
        *rules = hangs.iter().map(|hang| Rule { hang: hang.clone(), seen: AtomicU64::new(0) }).collect();
        self.armed.store(!rules.is_empty(), Ordering::Relaxed);
    }

    pub(crate) fn armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Counts the call for the rules, and keeps it here until it is released if one of them says so.
    pub(crate) fn pass(&self, function: Function, token: Option<&str>) {
        if !self.armed() {
            return;
        }
        // Every rule counts the call, whether another one holds it or not.
        let held = self.rules.read().iter().filter(|rule| rule.holds(function, token)).count() > 0;
        if held {
            self.hold();
        }
    }

    /// Lets every call go that hangs now, and forgets the rules.
    pub(crate) fn release(&self) {
        self.set(&[]);
        self.gate.lock().releases += 1;
        self.changed.notify_all();
    }

    /// How many calls hang now.
    pub(crate) fn hanging(&self) -> u64 {
        self.gate.lock().hanging
    }

    /// Waits until so many calls hang at once; false if they do not within the limit.
    pub(crate) fn wait_hanging(&self, count: u64, limit: Duration) -> bool {
        let mut gate = self.gate.lock();
        let few = |gate: &mut Gate| gate.hanging < count;
        !self.changed.wait_while_for(&mut gate, few, limit).timed_out()
    }

    fn hold(&self) {
        let mut gate = self.gate.lock();
        let releases = gate.releases;
        gate.hanging += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut gate, |gate| gate.releases == releases);
        gate.hanging -= 1;
        drop(gate);
        self.changed.notify_all();
    }
}

impl Rule {
    fn holds(&self, function: Function, token: Option<&str>) -> bool {
        let Hang { function: wanted, call, onwards, token: on } = &self.hang;
        if function != *wanted || on.as_deref().is_some_and(|on| token != Some(on)) {
            return false;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        number == *call || (*onwards && number > *call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(call: u64, onwards: bool, token: Option<&str>) -> Rule {
        let hang = Hang { function: Function::C_Sign, call, onwards, token: token.map(str::to_owned) };
        Rule { hang, seen: AtomicU64::new(0) }
    }

    #[test]
    fn a_rule_holds_the_call_of_its_number_only() {
        let rule = rule(3, false, None);
        let held: Vec<_> = (0..5).map(|_| rule.holds(Function::C_Sign, Some("sim-0"))).collect();
        assert_eq!(held, [false, false, true, false, false]);
    }

    #[test]
    fn a_rule_with_a_plus_holds_every_call_from_its_number_on() {
        let rule = rule(2, true, None);
        let held: Vec<_> = (0..4).map(|_| rule.holds(Function::C_Sign, None)).collect();
        assert_eq!(held, [false, true, true, true]);
    }

    #[test]
    fn a_rule_for_a_token_counts_calls_on_that_token_only() {
        let rule = rule(1, false, Some("sim-1"));
        assert!(!rule.holds(Function::C_Sign, Some("sim-0")));
        assert!(!rule.holds(Function::C_Sign, None));
        assert!(!rule.holds(Function::C_Encrypt, Some("sim-1")));
        assert!(rule.holds(Function::C_Sign, Some("sim-1")));
    }
}
