//! How often each input was executed: what shows that a request runs no more often than it may.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::function::Function;
use crate::rule::Names;

/// The counts of this copy of the module. They outlive `C_Finalize`.
pub(crate) static EXECUTIONS: Executions = Executions::new();

/// Most inputs that can be told apart: about 5 GB of them. With hashes of 64 bits, two of them are taken for one with a
/// chance of 3 in 10 000 then.
pub(crate) const INPUTS_MAX: u64 = 100_000_000;

pub(crate) struct Executions {
    /// Most inputs that are told apart; 0 if nothing is counted.
    max: AtomicU64,
    table: Mutex<Table>,
}

/// Executions by input, function and key. Inputs and keys are hashes.
struct Table {
    counts: BTreeMap<(u64, u8, u64), u64>,
    /// Executions of inputs for which there was no room.
    forgotten: u64,
}

impl Executions {
    const fn new() -> Self {
        Self { max: AtomicU64::new(0), table: Mutex::new(Table { counts: BTreeMap::new(), forgotten: 0 }) }
    }

    /// Counts so many different inputs from now on; 0 is none. What is counted already stays.
    pub(crate) fn limit(&self, inputs: u64) {
        self.max.store(inputs, Ordering::Relaxed);
    }

    pub(crate) fn counting(&self) -> bool {
        self.max.load(Ordering::Relaxed) > 0
    }

    /// A call has executed this input, by its [`hash`], with a key of these names.
    pub(crate) fn note(&self, function: Function, names: Option<&Names>, input: u64) {
        let key = (input, function as u8, names.map_or(0, hash));
        let mut table = self.table.lock();
        let room = (table.counts.len() as u64) < self.max.load(Ordering::Relaxed);
        if let Some(count) = table.counts.get_mut(&key) {
            *count += 1;
        } else if room {
            table.counts.insert(key, 1);
        } else {
            table.forgotten += 1;
        }
    }

    /// How often an input was executed, by one function or by all, with whatever key.
    pub(crate) fn of(&self, function: Option<Function>, input: &[u8]) -> u64 {
        let input = hash(input);
        let table = self.table.lock();
        let of_input = table.counts.range((input, 0, 0)..=(input, u8::MAX, u64::MAX));
        let counted =
            of_input.filter(|((_, own, _), _)| function.is_none_or(|function| *own == function as u8));
        counted.map(|(_, count)| count).sum()
    }

    /// How many inputs one function has executed with one key more than so often.
    pub(crate) fn above(&self, times: u64) -> u64 {
        self.table.lock().counts.values().filter(|&&count| count > times).count() as u64
    }

    /// How many executions found no room in the table.
    pub(crate) fn forgotten(&self) -> u64 {
        self.table.lock().forgotten
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        let mut table = self.table.lock();
        table.counts.clear();
        table.forgotten = 0;
    }
}

/// What stands for an input, or for anything else.
pub(crate) fn hash(what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(label: &str) -> Names {
        Names { label: label.into(), id: Vec::new() }
    }

    #[test]
    fn inputs_are_counted_apart_by_function_and_key_and_asked_for_together() {
        let executions = Executions::new();
        executions.limit(100);
        let (a, b) = (names("a"), names("b"));
        for (function, key) in [
            (Function::C_Sign, &a),
            (Function::C_Sign, &a),
            (Function::C_Sign, &b),
            (Function::C_Encrypt, &a),
        ] {
            executions.note(function, Some(key), hash(b"x".as_slice()));
        }
        executions.note(Function::C_Sign, None, hash(b"y".as_slice()));
        let of = |function, input| executions.of(function, input);
        assert_eq!((of(None, b"x"), of(Some(Function::C_Sign), b"x"), of(None, b"y")), (4, 3, 1));
        assert_eq!(of(Some(Function::C_Verify), b"x") + of(None, b"z"), 0);
        assert_eq!((executions.above(0), executions.above(1), executions.above(2)), (4, 1, 0));
    }

    #[test]
    fn the_table_has_a_limit_and_says_what_it_does_not_know() {
        let executions = Executions::new();
        executions.limit(2);
        for input in [b"1", b"2", b"3", b"1", b"3"] {
            executions.note(Function::C_Sign, None, hash(input.as_slice()));
        }
        let of = |input: &[u8]| executions.of(None, input);
        assert_eq!((of(b"1"), of(b"2"), of(b"3"), executions.forgotten()), (2, 1, 0, 2));
        executions.reset();
        assert_eq!((of(b"1"), executions.forgotten()), (0, 0));
    }
}
