//! Engine and baselines in turn, in short cells, so that both meet the same minutes of the machine.
//!
//! A round runs, for each baseline, every thread count and the engine, one right after the other: ratios are taken
//! inside it. The figure is the median over the rounds, its interval that of [`median_interval`].

use std::time::Duration;

use hsmux::Stage;
use serde::{Deserialize, Serialize};

use crate::baseline::{Baseline, BaselineName};
use crate::cell::{Cell, Window};
use crate::drive::{Api, Load};
use crate::failure::Failure;
use crate::stats::{Interval, median, median_interval};
use crate::target::{Measured, Target};
use crate::verdict::{Settings, Verdict};

/// How a comparison spends its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Thread counts of the baselines.
    pub threads: Vec<usize>,
    /// Rounds: each runs every baseline with every count, and the engine beside it.
    pub rounds: usize,
    /// Length of a cell.
    pub cell: Duration,
}

/// A baseline that takes part.
#[derive(Debug)]
pub struct Rival<'a> {
    /// Which.
    pub name: BaselineName,
    /// Ready to run.
    pub baseline: Box<dyn Baseline + 'a>,
}

/// What came out of a comparison.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The engine's cells together.
    pub engine: Measured,
    /// Baseline by baseline.
    pub against: Vec<Against>,
}

/// The engine against one baseline.
#[derive(Clone, Debug)]
pub struct Against {
    /// Which.
    pub name: BaselineName,
    /// Its cells with the best thread count, together.
    pub cell: Cell,
    /// The thread count with the best median rate over all rounds.
    pub threads: usize,
    /// That median, in operations per second.
    pub ops_per_s: f64,
    /// The engine's rate over the baseline's of the same round: the median over the rounds.
    pub ratio: f64,
    /// Where the ratio's median lies with 90 % confidence.
    pub ratio_interval: Interval,
    /// Against the baseline with as many threads as callers: the medians over the rounds. `None` if it ran with
    /// no such count, or the callers do not block.
    pub over: Option<Overhead>,
    /// The thread counts that ran.
    pub counts: Vec<usize>,
    /// Round by round.
    pub rounds: Vec<Round>,
}

/// One round with one baseline.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Round {
    /// The engine's cell.
    pub engine: Figures,
    /// The baseline's, by thread count.
    pub baseline: Vec<Figures>,
}

/// The figures of one cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Figures {
    /// Operations that succeeded, per second.
    pub ops_per_s: f64,
    /// CPU time of all threads of the process per operation, in nanoseconds.
    pub cpu_ns: f64,
    /// Latencies of callers in microseconds: median, 99th percentile, longest.
    pub latency_us: [f64; 3],
    /// What the caller that got least has of the mean, where callers can be told apart.
    pub smallest_share: Option<f64>,
    /// Of the engine only: waits in the queue in microseconds, median and 99th percentile.
    pub queued_us: Option<[f64; 2]>,
    /// Of the engine only: the median time on the token, in microseconds.
    pub token_us: Option<f64>,
    /// Of the engine only: PKCS#11 calls per operation.
    pub calls_per_op: Option<f64>,
}

/// What an operation costs a blocking caller beyond what it costs a thread of the baseline, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overhead {
    /// By the wall: includes whatever else ran on the machine.
    pub wall_ns: f64,
    /// CPU time of this process: all that matters where cores are shared.
    pub cpu_ns: f64,
}

/// Thread counts that a raw loop is worth: up to four times the cores of a small machine, beyond which software
/// tokens only queue.
const THREADS: [usize; 4] = [1, 2, 4, 8];

/// Fewest rounds: with less there is no 90 % interval of a median.
const ROUNDS_MIN: usize = 5;

/// Lengths of a cell: shorter ones are noise, longer ones let the machine drift between the two of a pair.
const CELL: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(500)];

/// What a cell runs before it counts: threads start and caches fill.
const CELL_WARM_UP: Duration = Duration::from_millis(20);

impl Plan {
    /// Spends about `total` on a comparison with so many baselines; more if that is too short for five rounds.
    #[must_use]
    pub fn new(total: Duration, threads: Vec<usize>, baselines: usize) -> Self {
        let cells = (threads.len() + 1) * baselines.max(1);
        let mut rounds = ROUNDS_MIN;
        while total > CELL[1] * u32::try_from(rounds * cells).unwrap_or(u32::MAX) {
            rounds += 1;
        }
        let cell = total.div_f64((rounds * cells) as f64).clamp(CELL[0], CELL[1]);
        Self { threads, rounds, cell }
    }

    /// The thread counts that a baseline is worth where nobody says otherwise; with more sessions than those, as many
    /// threads too.
    #[must_use]
    pub fn usual_threads(sessions: Option<usize>) -> Vec<usize> {
        let most = THREADS[THREADS.len() - 1];
        THREADS.into_iter().chain(sessions.filter(|&sessions| sessions > most)).collect()
    }
}

/// Runs engine and baselines in turn.
///
/// The order of the cells moves on by one each round, so that none always follows the same other.
///
/// # Errors
/// The first failure of a side that got nothing done.
///
/// # Blocking
/// As long as the plan takes.
pub fn compare(
    target: &Target,
    load: Load,
    rivals: &[Rival<'_>],
    plan: &Plan,
) -> Result<Comparison, Failure> {
    let mut engine = Measured::empty();
    let mut sums: Vec<_> = rivals.iter().map(|rival| Sum::new(rival, plan)).collect();
    for number in 0..plan.rounds {
        for (rival, sum) in rivals.iter().zip(&mut sums) {
            let counts = sum.counts.clone();
            let run = |place: usize| {
                let window = Window::open_after(CELL_WARM_UP, plan.cell);
                match counts.get(place) {
                    Some(&count) => Ran::Baseline(place, rival.baseline.run(count, window)),
                    None => Ran::Engine(Box::new(target.run(load, window))),
                }
            };
            sum.round(number, &mut engine, run);
        }
    }
    let cells = sums.iter().flat_map(|sum| &sum.cells);
    got_something(std::iter::once(&engine.cell).chain(cells))?;
    let against = rivals.iter().zip(sums).filter_map(|(rival, sum)| sum.against(rival.name, load)).collect();
    Ok(Comparison { engine, against })
}

impl Against {
    /// Whether the engine is faster than the baseline with its best thread count, by the rounds' operations per second.
    #[must_use]
    pub fn verdict(&self, settings: &Settings) -> Verdict {
        let best = self.counts.iter().position(|&count| count == self.threads);
        let rates = |round: &Round| {
            let baseline = round.baseline.get(best?)?;
            Some((baseline.ops_per_s, round.engine.ops_per_s))
        };
        Verdict::paired(&self.rounds.iter().filter_map(rates).collect::<Vec<_>>(), settings)
    }
}

/// A cell of either side.
enum Ran {
    /// Of the thread count at this place.
    Baseline(usize, Cell),
    Engine(Box<Measured>),
}

/// What the rounds with one baseline have come to.
struct Sum {
    counts: Vec<usize>,
    cells: Vec<Cell>,
    rounds: Vec<Round>,
}

impl Sum {
    fn new(rival: &Rival<'_>, plan: &Plan) -> Self {
        let most = rival.baseline.threads_max();
        let mut counts: Vec<_> = plan.threads.iter().copied().filter(|&count| count <= most).collect();
        if counts.is_empty() {
            counts.push(most);
        }
        Self { cells: vec![Cell::empty(); counts.len()], counts, rounds: Vec::new() }
    }

    /// Runs every cell of a round, each at its place moved on by the number of the round.
    fn round(&mut self, number: usize, engine: &mut Measured, run: impl Fn(usize) -> Ran) {
        let count = self.counts.len();
        let mut round = Round { engine: Figures::default(), baseline: vec![Figures::default(); count] };
        for place in 0..=count {
            match run((place + number) % (count + 1)) {
                Ran::Baseline(place, cell) => {
                    round.baseline[place] = Figures::of(&cell);
                    self.cells[place].add(&cell);
                }
                Ran::Engine(measured) => {
                    round.engine = Figures::of_engine(&measured);
                    engine.add(&measured);
                }
            }
        }
        self.rounds.push(round);
    }

    /// `None` if nothing ran.
    fn against(mut self, name: BaselineName, load: Load) -> Option<Against> {
        let best = best_count(&self.rounds)?;
        let blocks = matches!(load.api, Api::Blocking);
        let same = self.counts.iter().position(|&count| blocks && count == load.callers);
        let ratios = each(&self.rounds, |round| round.engine.ops_per_s / round.baseline[best].ops_per_s);
        Some(Against {
            name,
            cell: self.cells.swap_remove(best),
            threads: self.counts[best],
            ops_per_s: middle(&self.rounds, |round| round.baseline[best].ops_per_s),
            ratio: median(&ratios).unwrap_or_default(),
            ratio_interval: median_interval(&ratios).unwrap_or(Interval { low: 0.0, high: f64::MAX }),
            over: same.map(|same| over(&self.rounds, same, load.callers)),
            counts: self.counts,
            rounds: self.rounds,
        })
    }
}

impl Figures {
    fn of(cell: &Cell) -> Self {
        let us = |quantile| cell.latency.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            ops_per_s: cell.ops_per_s(),
            cpu_ns: cell.cpu_ns_per_op(),
            latency_us: [us(0.5), us(0.99), us(1.0)],
            smallest_share: cell.smallest_share(),
            queued_us: None,
            token_us: None,
            calls_per_op: None,
        }
    }

    fn of_engine(measured: &Measured) -> Self {
        let us =
            |stage: Stage, quantile| measured.stages[stage as usize].value_at_quantile(quantile) as f64 / 1e3;
        Self {
            queued_us: Some([0.5, 0.99].map(|quantile| us(Stage::Queued, quantile))),
            token_us: Some(us(Stage::Token, 0.5)),
            calls_per_op: Some(measured.calls as f64 / measured.cell.all.max(1) as f64),
            ..Self::of(&measured.cell)
        }
    }
}

fn got_something<'a>(cells: impl Iterator<Item = &'a Cell>) -> Result<(), Failure> {
    for cell in cells {
        match &cell.first_error {
            Some(error) if cell.ops == 0 => return Err(error.clone()),
            _ => {}
        }
    }
    Ok(())
}

/// The place of the thread count with the best median rate.
fn best_count(rounds: &[Round]) -> Option<usize> {
    let counts = rounds.first().map_or(0, |round| round.baseline.len());
    let rate = |place: usize| middle(rounds, |round| round.baseline[place].ops_per_s);
    (0..counts).max_by(|&one, &other| rate(one).total_cmp(&rate(other)))
}

/// By how much an operation of the engine is longer for its caller than one of the baseline for its thread.
fn over(rounds: &[Round], place: usize, callers: usize) -> Overhead {
    let ns = |side: &Figures| callers as f64 * 1e9 / side.ops_per_s;
    Overhead {
        wall_ns: middle(rounds, |round| ns(&round.engine) - ns(&round.baseline[place])),
        cpu_ns: middle(rounds, |round| round.engine.cpu_ns - round.baseline[place].cpu_ns),
    }
}

fn middle(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    median(&each(rounds, figure)).unwrap_or_default()
}

fn each(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::verdict::Call;

    #[test]
    fn a_plan_has_five_rounds_at_least_and_cells_of_a_sensible_length() {
        let plan = |seconds, baselines| {
            Plan::new(Duration::from_secs(seconds), Plan::usual_threads(None), baselines)
        };
        let short = plan(1, 1);
        assert_eq!((short.threads.as_slice(), short.rounds, short.cell), (&THREADS[..], 5, CELL[0]));
        let long = plan(60, 1);
        assert_eq!((long.threads.len(), long.rounds, long.cell), (4, 24, CELL[1]));
        assert_eq!(plan(60, 2).rounds, 12);
    }

    #[test]
    fn more_sessions_than_the_usual_threads_are_a_count_of_their_own() {
        assert_eq!(Plan::usual_threads(Some(64)), [1, 2, 4, 8, 64]);
        assert_eq!(Plan::usual_threads(Some(8)), [1, 2, 4, 8]);
    }

    #[test]
    fn the_best_count_has_the_best_median_not_the_best_round() {
        let rates = |one, two| Round { engine: side(1.0), baseline: vec![side(one), side(two)] };
        assert_eq!(best_count(&[rates(9.0, 5.0), rates(1.0, 5.0), rates(1.0, 4.0)]), Some(1));
        assert_eq!(best_count(&[]), None);
    }

    #[test]
    fn the_verdict_is_on_the_best_count() {
        let round = Round { engine: side(6.0), baseline: vec![side(5.0), side(9.0)] };
        let sum = Sum { counts: vec![1, 2], cells: vec![Cell::empty(); 2], rounds: vec![round; 8] };
        let load = Load { api: Api::Blocking, callers: 1 };
        let against = sum.against(BaselineName::Raw, load).unwrap();
        assert_eq!(against.verdict(&Settings::rates()).call, Call::Slower);
    }

    #[test]
    fn overhead_is_time_of_a_caller_not_of_the_machine() {
        // Two callers at 10 M/s in all: 200 ns each; raw 20 M/s: 100 ns each.
        let rounds = [Round { engine: side(10e6), baseline: vec![side(20e6)] }];
        let over = over(&rounds, 0, 2);
        assert!((over.wall_ns - 100.0).abs() < 1e-6 && over.cpu_ns == 0.0, "{over:?}");
    }

    #[test]
    fn each_round_runs_every_cell_once_and_begins_one_further() {
        let order = RefCell::new(Vec::new());
        let run = |place| {
            order.borrow_mut().push(place);
            if place < 2 {
                Ran::Baseline(place, Cell::empty())
            } else {
                Ran::Engine(Box::new(Measured::empty()))
            }
        };
        let mut sum = Sum { counts: vec![1, 2], cells: vec![Cell::empty(); 2], rounds: Vec::new() };
        (0..3).for_each(|number| sum.round(number, &mut Measured::empty(), run));
        assert_eq!(order.into_inner(), [0, 1, 2, 1, 2, 0, 2, 0, 1]);
    }

    fn side(ops_per_s: f64) -> Figures {
        Figures { ops_per_s, cpu_ns: 5.0, ..Figures::default() }
    }
}
