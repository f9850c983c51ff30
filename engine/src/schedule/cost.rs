//! What a request will cost: a line, fixed + marginal x size, fitted per kind of plan.

/// Longest turn, in session time. From the figures of the prototype on SoftHSM2, ECDSA from 64 async tasks
/// on 2 cores: turns of 100 us reached 0.73 of the raw loop, 400 us 0.88, 1 ms 0.93, because each turn ends in
/// a wake-up. A longer turn makes every other key of the set wait longer and gains nothing more.
pub(crate) const TURN_NS: u64 = 1_000_000;

/// The shortest turn: less is over before a thread that it wakes has run.
const TURN_NS_MIN: u64 = 100_000;

/// A turn takes at most this part of what its requests have queued: their answers leave when it is over, so it adds
/// that much to the wait of those in it and of those behind it. SoftHSM2, ECDSA P-256, 16 blocking callers, two runs two
/// hours apart: p99 1.5 times that of taking turns, at 0.98 of the raw loop; with turns of 1 ms throughout 1.8, at 0.89.
const TURN_PART: u64 = 2;

/// Length of a turn while requests queue for so long.
pub(crate) fn turn_ns(wait_ns: u64) -> u64 {
    (wait_ns / TURN_PART).clamp(TURN_NS_MIN, TURN_NS)
}

/// Whether a request that has queued for so long, and has so long until its deadline, is not worth a call that is
/// expected to take `expected_ns`: its answer would come too late.
///
/// Under overload the requests at the head of a queue are those that have just not expired yet: if they were run, the
/// token would be busy with answers that nobody waits for any more. Half as long again as is expected, for calls vary.
/// What has not queued for an operation's time is always run: then there is no overload, and what is expected, which may
/// be wrong, is learned anew.
pub(crate) const fn is_hopeless(queued_ns: u64, left_ns: u64, expected_ns: u64) -> bool {
    left_ns == 0 || (queued_ns > expected_ns && left_ns < expected_ns.saturating_add(expected_ns / 2))
}

/// Kinds of plan that a session tells apart: operation x size of the key.
/// The second half of them is for merged calls.
pub(crate) const PLANS: usize = 256;

/// The kind of plan of merged calls of a kind of plan.
pub(crate) const fn merged(plan: usize) -> usize {
    plan + PLANS / 2
}

/// Most bytes that are merged into one call, and most requests: on a network a call of 64 KiB takes as long as one
/// of a few bytes, and on SoftHSM2 4 096 blocks take 12 us. More would make its answers wait for each other and gain
/// nothing.
pub(crate) const MERGED_BYTES_MAX: usize = 64 << 10;
pub(crate) const MERGED_REQUESTS_MAX: usize = 1_024;

/// A straight line through (size, cost), fitted to what was measured, with old measurements fading.
///
/// Weighted least squares over exponentially weighted means and moments. All sizes equal makes the slope 0
/// and the line the mean.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CostLine {
    weight: f64,
    size: f64,
    cost: f64,
    size_size: f64,
    size_cost: f64,
}

impl CostLine {
    /// A measurement counts half after about 45 more: turns of short operations adapt within a few
    /// milliseconds, and one preempted call does not shrink the next turn to one request.
    const FADE: f64 = 1.0 / 64.0;

    /// Measured: a request of `size` bytes took `cost_ns`.
    #[expect(clippy::cast_precision_loss, reason = "an estimate: 52 bits are plenty")]
    pub(crate) fn learn(&mut self, size: usize, cost_ns: u64) {
        let (size, cost) = (size as f64, cost_ns as f64);
        // The first measurements count fully, as in a plain mean.
        self.weight = (self.weight + 1.0).min(1.0 / Self::FADE);
        let step = 1.0 / self.weight;
        let (d_size, d_cost) = (size - self.size, cost - self.cost);
        self.size += step * d_size;
        self.cost += step * d_cost;
        self.size_size += step * (d_size * (size - self.size) - self.size_size);
        self.size_cost += step * (d_size * (cost - self.cost) - self.size_cost);
    }

    /// What a request of `size` bytes will cost, in nanoseconds. Unknown is a whole turn, so that a kind of
    /// plan nobody has seen begins with turns of one.
    #[expect(clippy::cast_precision_loss, reason = "an estimate: 52 bits are plenty")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range before"
    )]
    pub(crate) fn estimate_ns(&self, size: usize) -> u64 {
        if self.weight == 0.0 {
            return TURN_NS;
        }
        (self.cost + self.slope() * (size as f64 - self.size)).clamp(1.0, 1e12) as u64
    }

    /// What `size` more bytes in the same call will cost, in nanoseconds; nothing while that is unknown: the fixed part
    /// of a merged call is paid once, so company is free until it is known what it costs.
    #[expect(clippy::cast_precision_loss, reason = "an estimate: 52 bits are plenty")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range before"
    )]
    pub(crate) fn marginal_ns(&self, size: usize) -> u64 {
        (self.slope() * size as f64).clamp(0.0, 1e12) as u64
    }

    fn slope(&self) -> f64 {
        if self.size_size > 0.0 { (self.size_cost / self.size_size).max(0.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_queued_and_cannot_be_answered_in_time_is_not_run() {
        assert!(is_hopeless(1_001, 1_499, 1_000));
        assert!(!is_hopeless(1_001, 1_500, 1_000), "time enough");
        assert!(!is_hopeless(1_000, 1, 1_000), "nothing was in front of it");
        assert!(is_hopeless(0, 0, 1_000), "nobody waits for it");
    }

    #[test]
    fn an_unknown_plan_costs_a_whole_turn() {
        assert_eq!(CostLine::default().estimate_ns(10_000), TURN_NS);
    }

    #[test]
    fn the_line_finds_fixed_and_marginal_cost() {
        let mut line = CostLine::default();
        (0..500).for_each(|i| line.learn(16 + i % 64 * 100, 5_000 + 2 * (16 + i as u64 % 64 * 100)));
        for size in [0, 1_000, 100_000] {
            let (got, want) = (line.estimate_ns(size), 5_000 + 2 * size as u64);
            assert!(got.abs_diff(want) <= want / 50, "{size}: {got}, {want}");
        }
    }

    #[test]
    fn a_turn_is_a_part_of_the_wait_within_bounds() {
        assert_eq!([0, 300_000, u64::MAX].map(turn_ns), [TURN_NS_MIN, 150_000, TURN_NS]);
    }

    #[test]
    fn equal_sizes_give_the_mean_and_it_follows_a_change_within_a_few_hundred_calls() {
        let mut line = CostLine::default();
        (0..10).for_each(|_| line.learn(32, 1_000));
        assert_eq!(line.estimate_ns(32), 1_000);
        assert_eq!(line.estimate_ns(4_096), 1_000);
        (0..500).for_each(|_| line.learn(32, 9_000));
        assert!(line.estimate_ns(32).abs_diff(9_000) < 100, "{}", line.estimate_ns(32));
    }

    #[test]
    fn company_costs_its_bytes_and_nothing_while_that_is_unknown() {
        let mut line = CostLine::default();
        assert_eq!(line.marginal_ns(1_000), 0);
        (0..500).for_each(|i| line.learn(i % 64 * 100, 1_000_000 + 2 * (i as u64 % 64 * 100)));
        assert!(line.marginal_ns(1_000).abs_diff(2_000) < 20, "{}", line.marginal_ns(1_000));
    }

    #[test]
    fn a_cost_that_falls_with_size_is_noise_and_never_becomes_negative() {
        let mut line = CostLine::default();
        (1..100).for_each(|i| line.learn(i * 100, 1_000_000 / i as u64));
        assert!(line.estimate_ns(1_000_000) >= 1);
    }
}
