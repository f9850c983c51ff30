//! Who goes next: classes of priority share sessions by weight, and age while they wait.

/// How much a request matters against others that wait for the same sessions.
///
/// Priorities are weights, not strict: while all wait, `High` gets 16, `Normal` 4 and `Low` 1 part of the
/// session time, and what has waited long moves up, so nothing starves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Sixteen parts: what a customer waits for.
    High,
    /// Four parts: the default.
    #[default]
    Normal,
    /// One part: bulk work that may wait.
    Low,
}

impl Priority {
    pub(super) const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// Four to one between neighbours: enough that a flood of `Low` costs `High` little (a seventeenth), and
    /// that `Low` still moves under a flood of `High`. No bench behind it; change it when a user has numbers.
    const fn weight(self) -> u64 {
        match self {
            Self::High => 16,
            Self::Normal => 4,
            Self::Low => 1,
        }
    }
}

/// The priority of a lane.
pub(crate) type Class = Priority;

/// One class of one run queue that has work, as the decider sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Virtual time at which its next turn starts: grows by cost / weight with each turn.
    pub(super) start_ns: u64,
    /// How long it has waited since it was last served or became ready.
    pub(super) waited_ns: u64,
}

/// Waiting counts a sixty-fourth as much as being served costs: then `Low` against a flood of `High` gets one
/// turn in 14 instead of one in 17, and a class that has waited a second is 15 ms ahead of a newcomer.
const AGEING_DIVISOR: u64 = 64;

/// The candidate with the smallest virtual start, less a part of the time it has waited: start-time fair
/// queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with ageing. The first of equals, so the order of the list
/// breaks ties.
pub(super) fn choose(candidates: &[Candidate]) -> Option<usize> {
    let key = |c: &Candidate| i128::from(c.start_ns) - i128::from(c.waited_ns / AGEING_DIVISOR);
    (0..candidates.len()).min_by_key(|&i| key(&candidates[i]))
}

/// Virtual time that a turn of `cost_ns` takes up for a class.
pub(super) const fn virtual_ns(class: Class, cost_ns: u64) -> u64 {
    cost_ns / class.weight()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves turns of 1 ms for `rounds`; all classes always have work. Returns turns per class.
    fn serve(rounds: u64, ageing: bool) -> [u64; 3] {
        const TURN_NS: u64 = 1_000_000;
        let (mut start, mut since, mut turns) = ([0; 3], [0; 3], [0; 3]);
        for round in 0..rounds {
            let now = round * TURN_NS;
            let waited = |i: usize| if ageing { now - since[i] } else { 0 };
            let candidates = [0, 1, 2].map(|i| Candidate { start_ns: start[i], waited_ns: waited(i) });
            let chosen = choose(&candidates).unwrap();
            turns[chosen] += 1;
            since[chosen] = now;
            start[chosen] += virtual_ns(Priority::ALL[chosen], TURN_NS);
        }
        turns
    }

    #[test]
    fn classes_share_by_weight_without_ageing() {
        assert_eq!(serve(2_100, false).map(|t| t / 100), [16, 4, 1]);
    }

    #[test]
    fn ageing_moves_the_low_class_up_but_keeps_the_order() {
        let [high, normal, low] = serve(2_100, true);
        assert!(high > normal && normal > low, "{high} {normal} {low}");
        assert!(low >= 100, "{low}");
    }

    #[test]
    fn a_class_that_waited_long_goes_before_one_with_a_smaller_start() {
        let fresh = Candidate { start_ns: 0, waited_ns: 0 };
        let old = Candidate { start_ns: 5_000, waited_ns: 6_000 * AGEING_DIVISOR };
        assert_eq!(choose(&[fresh, old]), Some(1));
        assert_eq!(choose(&[]), None);
    }
}
