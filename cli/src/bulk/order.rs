//! Things that become ready in any order, given out in the order of their numbers.

use std::collections::BTreeMap;

/// Holds back what came before its turn.
///
/// It grows with what is in flight behind the oldest, which whoever numbers the things has to bound.
#[derive(Debug)]
pub(super) struct Ordered<T> {
    next: u64,
    waiting: BTreeMap<u64, T>,
}

impl<T> Ordered<T> {
    /// Numbers begin with 0.
    pub(super) const fn new() -> Self {
        Self { next: 0, waiting: BTreeMap::new() }
    }

    /// Takes in one; each number comes once.
    pub(super) fn put(&mut self, number: u64, thing: T) {
        debug_assert!(number >= self.next, "{number} after {}", self.next);
        let earlier = self.waiting.insert(number, thing);
        debug_assert!(earlier.is_none(), "{number} twice");
    }

    /// The next one, if it is there.
    pub(super) fn pop(&mut self) -> Option<T> {
        let thing = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(thing)
    }

    /// Whether nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_order_in_all_come_out_in_theirs(order in Just((0..50_u64).collect::<Vec<_>>()).prop_shuffle()) {
            let (mut ordered, mut out) = (Ordered::new(), Vec::new());
            for number in order {
                ordered.put(number, number);
                while let Some(number) = ordered.pop() {
                    out.push(number);
                }
            }
            prop_assert!(ordered.is_empty());
            prop_assert_eq!(out, (0..50).collect::<Vec<_>>());
        }
    }
}
