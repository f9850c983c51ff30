//! What the callers of a run have measured, by operation and phase: kept by each of them, collected once an interval.
//!
//! Each caller writes into a block of its own, under a lock that nobody else wants but once an interval: a load
//! generator that makes its callers wait for each other measures itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use hsmux::{ErrorKind, Outcome};
use parking_lot::Mutex;

use crate::failure::Failure;
use crate::profile::Profile;

/// Significant digits of the histograms: a figure is true to one part in a thousand.
pub const DIGITS: u8 = 3;

/// One request, from when it was due.
#[derive(Debug)]
pub struct Sample {
    /// Which of the operations.
    pub operation: usize,
    /// In which phase it was due.
    pub phase: usize,
    /// When it was due, from the start of the run.
    pub due: Duration,
    /// When the caller began it.
    pub begun: Duration,
    /// When its answer was there.
    pub ended: Duration,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// Where callers leave their samples.
#[derive(Debug)]
pub struct Recorder {
    operations: usize,
    /// When each phase ends.
    ends: Arc<[Duration]>,
    blocks: Mutex<Vec<Arc<Mutex<Block>>>>,
}

/// One caller's.
#[derive(Debug)]
pub struct Sink {
    block: Arc<Mutex<Block>>,
    ends: Arc<[Duration]>,
}

/// What was measured in an interval or, added up, in more.
#[derive(Clone, Debug)]
pub struct Block {
    phases: usize,
    /// By operation and, within it, by phase.
    counts: Vec<Option<Box<Counts>>>,
    /// Requests that failed, by what is told of them.
    failures: HashMap<Class, Failures>,
}

/// What was measured of some requests.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Requests that succeeded.
    pub ops: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests that were begun before their phase was over.
    pub begun_in_time: u64,
    /// Requests that succeeded before their phase was over.
    pub done_in_time: u64,
    /// From when a request was due until its answer was there, in nanoseconds, of those that succeeded.
    pub latency: Histogram<u64>,
    /// From when a request was due until it was begun, in nanoseconds, of all.
    pub lateness: Histogram<u64>,
}

/// What failures have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// None: the failure of a baseline.
    pub kind: Option<ErrorKind>,
    /// Whether the operation ran, as far as it is known.
    pub outcome: Outcome,
}

/// Failures of one class.
#[derive(Clone, Debug)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What the first of them says.
    pub first: String,
    /// When that was, from the start of the run.
    pub first_at: Duration,
}

impl Recorder {
    /// For the operations and phases of a profile.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        let ends = profile.phases.iter().scan(Duration::ZERO, |end, phase| {
            *end += phase.length;
            Some(*end)
        });
        Self::of(profile.operations.len(), ends.collect())
    }

    fn of(operations: usize, ends: Arc<[Duration]>) -> Self {
        Self { operations, ends, blocks: Mutex::new(Vec::new()) }
    }

    /// A block for one more caller, or for all callers of a thread.
    pub fn sink(&self) -> Sink {
        let block = Arc::new(Mutex::new(self.empty()));
        self.blocks.lock().push(Arc::clone(&block));
        Sink { block, ends: Arc::clone(&self.ends) }
    }

    /// Nothing.
    #[must_use]
    pub fn empty(&self) -> Block {
        let phases = self.ends.len();
        let counts = (0..self.operations * phases).map(|_| None).collect();
        Block { phases, counts, failures: HashMap::new() }
    }

    /// What was measured since it was asked last.
    pub fn take(&self) -> Block {
        let mut sum = self.empty();
        for block in &*self.blocks.lock() {
            let taken = std::mem::replace(&mut *block.lock(), self.empty());
            sum.add(&taken);
        }
        sum
    }
}

impl Sink {
    /// Notes a request that has ended.
    pub fn record(&self, sample: Sample) {
        let mut block = self.block.lock();
        let counts = block.counts[sample.operation * self.ends.len() + sample.phase].get_or_insert_default();
        let end = self.ends[sample.phase];
        counts.begun_in_time += u64::from(sample.begun < end);
        // Histograms grow as they must, so every value fits.
        let _recorded = counts.lateness.record(ns(sample.begun.saturating_sub(sample.due)));
        match sample.failure {
            None => {
                counts.ops += 1;
                counts.done_in_time += u64::from(sample.ended < end);
                let _recorded = counts.latency.record(ns(sample.ended.saturating_sub(sample.due)));
            }
            Some(failure) => {
                counts.errors += 1;
                block.fail(&failure, sample.ended);
            }
        }
    }
}

impl Block {
    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        for (sum, counts) in self.counts.iter_mut().zip(&other.counts) {
            if let Some(counts) = counts {
                sum.get_or_insert_default().add(counts);
            }
        }
        for (class, failures) in &other.failures {
            match self.failures.get_mut(class) {
                Some(sum) => sum.add(failures),
                None => drop(self.failures.insert(class.clone(), failures.clone())),
            }
        }
    }

    /// As part of a run that had gone on for so long before: what failed, failed so much later.
    pub(crate) fn later(mut self, by: Duration) -> Self {
        self.failures.values_mut().for_each(|failures| failures.first_at += by);
        self
    }

    /// Of the operations and phases of which this is true.
    #[must_use]
    pub fn of(&self, is_wanted: impl Fn(usize, usize) -> bool) -> Counts {
        let mut sum = Counts::default();
        for (place, counts) in self.counts.iter().enumerate() {
            if is_wanted(place / self.phases, place % self.phases) {
                counts.iter().for_each(|counts| sum.add(counts));
            }
        }
        sum
    }

    /// What failed, by class.
    pub fn failures(&self) -> impl Iterator<Item = (&Class, &Failures)> {
        self.failures.iter()
    }

    fn fail(&mut self, failure: &Failure, at: Duration) {
        let first = || Failures { count: 0, first: failure.to_string(), first_at: at };
        self.failures.entry(Class::of(failure)).or_insert_with(first).count += 1;
    }
}

impl Counts {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.errors += other.errors;
        self.begun_in_time += other.begun_in_time;
        self.done_in_time += other.done_in_time;
        for (sum, other) in [(&mut self.latency, &other.latency), (&mut self.lateness, &other.lateness)] {
            // Both grow as they must, so every value fits.
            let _added = sum.add(other);
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            ops: 0,
            errors: 0,
            begun_in_time: 0,
            done_in_time: 0,
            latency: histogram(),
            lateness: histogram(),
        }
    }
}

impl Class {
    fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Engine(error) => Self { kind: Some(error.kind()), outcome: error.outcome() },
            Failure::Other(_) => Self { kind: None, outcome: Outcome::Unknown },
        }
    }
}

impl Failures {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        if other.first_at < self.first_at {
            (self.first, self.first_at) = (other.first.clone(), other.first_at);
        }
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// It grows with the values that it is given.
#[expect(clippy::expect_used, reason = "three digits are among those that a histogram may have")]
fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("so many digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sample(operation: usize, phase: usize, ended: u64) -> Sample {
        Sample { operation, phase, due: ms(10), begun: ms(12), ended: ms(ended), failure: None }
    }

    fn recorder(operations: usize, phases: u64) -> Recorder {
        Recorder::of(operations, (1..=phases).map(|phase| ms(15 * phase)).collect())
    }

    fn failed(text: &str, ended: u64) -> Sample {
        Sample { failure: Some(Failure::Other(text.to_owned())), ..sample(0, 0, ended) }
    }

    #[test]
    fn latency_counts_from_when_a_request_was_due_and_lateness_is_told_beside_it() {
        let recorder = recorder(1, 1);
        recorder.sink().record(sample(0, 0, 30));
        let all = recorder.take().of(|_, _| true);
        assert_eq!((all.ops, all.errors, all.begun_in_time), (1, 0, 1));
        assert!(all.latency.equivalent(all.latency.max(), 20_000_000));
        assert!(all.lateness.equivalent(all.lateness.max(), 2_000_000));
    }

    #[test]
    fn what_several_callers_measured_adds_up_by_operation_and_by_phase_and_is_taken_once() {
        let recorder = recorder(2, 3);
        let sinks = [recorder.sink(), recorder.sink()];
        for sink in &sinks {
            [(0, 0), (1, 0), (1, 2)].into_iter().for_each(|(it, phase)| sink.record(sample(it, phase, 20)));
        }
        let mut taken = recorder.take();
        let count = |block: &Block, it, phase| block.of(|o, p| (o, p) == (it, phase)).ops;
        assert_eq!([count(&taken, 0, 0), count(&taken, 1, 0), count(&taken, 1, 2)], [2, 2, 2]);
        assert_eq!((taken.of(|it, _| it == 1).ops, taken.of(|_, phase| phase == 0).ops), (4, 4));
        assert_eq!(recorder.take().of(|_, _| true).ops, 0);
        sinks[0].record(sample(0, 1, 20));
        taken.add(&recorder.take());
        assert_eq!(taken.of(|_, _| true).latency.len(), 7);
    }

    #[test]
    fn what_is_begun_after_its_phase_is_not_in_time() {
        let recorder = recorder(1, 2);
        let sink = recorder.sink();
        sink.record(Sample { begun: ms(15), ..sample(0, 0, 20) });
        sink.record(Sample { begun: ms(15), ..sample(0, 1, 20) });
        let all = recorder.take().of(|_, _| true);
        assert_eq!((all.begun_in_time, all.done_in_time), (1, 1));
    }

    #[test]
    fn failures_have_no_latency_and_are_counted_by_class_with_the_text_of_the_first() {
        let recorder = recorder(1, 1);
        let sinks = [recorder.sink(), recorder.sink()];
        sinks[0].record(failed("later", 25));
        sinks[1].record(failed("first", 20));
        sinks[1].record(failed("last", 90));
        let taken = recorder.take();
        let all = taken.of(|_, _| true);
        assert_eq!((all.ops, all.errors, all.latency.len(), all.lateness.len()), (0, 3, 0, 3));
        let failures: Vec<_> = taken.failures().map(|(_, failures)| failures).collect();
        assert_eq!((failures.len(), failures[0].count), (1, 3));
        assert_eq!((failures[0].first.as_str(), failures[0].first_at), ("first", ms(20)));
    }

    #[test]
    fn percentiles_are_those_of_the_raw_samples_within_the_stated_digits() {
        let recorder = recorder(1, 1);
        let sink = recorder.sink();
        let mut dice = crate::dice::Dice::new(7);
        let mut raw = Vec::new();
        for _ in 0..200_000 {
            // From microseconds to seconds, as latencies are.
            let latency = Duration::from_secs_f64(1e-6 * (14.0 * dice.unit()).exp());
            raw.push(latency);
            sink.record(Sample { ended: ms(10) + latency, ..sample(0, 0, 0) });
        }
        raw.sort_unstable();
        let latency = recorder.take().of(|_, _| true).latency;
        // One of the sorted samples in so many is above.
        for above in [2, 10, 100, 1_000, 10_000, raw.len()] {
            let exact = raw[raw.len() - raw.len() / above - 1].as_nanos() as f64;
            let told = latency.value_at_quantile(1.0 - 1.0 / above as f64) as f64;
            assert!((told / exact - 1.0).abs() <= 1e-3, "1 of {above} above: {told} for {exact}");
        }
    }
}
