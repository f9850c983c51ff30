//! Baselines that answer at once, under the arrivals of a profile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::baseline::Work;
use crate::case::{Case, Op};
use crate::cell::{Cell, Window};
use crate::failure::Failure;
use crate::inputs::Inputs;

/// Answers at once, but for every so many a failure, if any.
#[derive(Debug)]
struct Fake {
    inputs: Inputs,
    fails_every: u64,
    asked: AtomicU64,
}

impl Fake {
    fn new(fails_every: u64) -> Self {
        let inputs = Inputs::new(Case { op: Op::HmacSha256, size: 64 });
        Self { inputs, fails_every, asked: AtomicU64::new(0) }
    }
}

impl Baseline for Fake {
    fn threads_max(&self) -> usize {
        2
    }

    fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        Ok(Default::default())
    }

    fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    fn caller(&self, thread: usize) -> Work<'_> {
        assert!(thread < 2, "no more threads than it can have");
        Box::new(|_| match self.asked.fetch_add(1, Ordering::Relaxed) {
            asked if self.fails_every > 0 && asked % self.fails_every == 0 => {
                Err(Failure::Other("out of order".into()))
            }
            _ => Ok(()),
        })
    }

    fn run(&self, _: usize, _: Window) -> Cell {
        Cell::empty()
    }
}

const RATE: &str = "name = 'a'\npace = 'constant'\n[[phase]]\nname = 'b'\nfor = '200ms'\nrate = '1000/s'\n\
    [[operation]]\nop = 'hmac-sha256'\n";

fn profile() -> Profile {
    Profile::parse(RATE).unwrap()
}

fn parts(fails_every: u64, count: usize) -> Vec<Part> {
    let fake = Fake::new(fails_every);
    (0..count).map(|_| alone(&fake, profile(), 8, || false).unwrap()).collect()
}

fn told(parts: &[Part], engine: &[f64]) -> (Result<BaselineRun, String>, Vec<String>) {
    let mut notes = Vec::new();
    let run = baseline(BaselineName::Raw, parts, engine, &profile(), &mut notes);
    (run, notes)
}

#[test]
fn a_baseline_makes_the_requests_of_the_profile_by_threads_of_its_own() {
    let (run, notes) = told(&parts(0, 5), &[1_000.0; 5]);
    let run = run.unwrap();
    assert!((900.0..=1_000.0).contains(&run.ops_per_s) && run.p99_ns >= run.p50_ns, "{run:?}");
    assert!((1.0..1.1).contains(&run.ratio) && run.interval.is_some(), "{run:?}");
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn in_a_closed_loop_it_has_the_threads_that_were_asked_for_and_not_those_of_the_profile() {
    let text = RATE.replace("pace = 'constant'\n", "callers = 1\n").replace("rate = '1000/s'", "");
    let seen = Mutex::new(BTreeSet::new());
    #[derive(Debug)]
    struct Watched<'a>(Fake, &'a Mutex<BTreeSet<usize>>);
    impl Baseline for Watched<'_> {
        fn threads_max(&self) -> usize {
            self.0.threads_max()
        }
        fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
            self.0.once()
        }
        fn inputs(&self) -> &Inputs {
            self.0.inputs()
        }
        fn caller(&self, thread: usize) -> Work<'_> {
            let mut work = self.0.caller(thread);
            Box::new(move |message| {
                self.1.lock().insert(thread);
                work(message)
            })
        }
        fn run(&self, threads: usize, window: Window) -> Cell {
            self.0.run(threads, window)
        }
    }
    let watched = Watched(Fake::new(0), &seen);
    alone(&watched, Profile::parse(&text).unwrap(), 2, || false).unwrap();
    assert_eq!(seen.into_inner().into_iter().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn what_a_baseline_failed_is_told_and_one_that_did_nothing_is_no_baseline() {
    let (run, notes) = told(&parts(10, 5), &[1_000.0; 5]);
    assert!(
        run.is_ok() && notes.iter().any(|note| note.contains("errors, the first: out of order")),
        "{notes:?}"
    );
    let (run, _) = told(&parts(1, 5), &[1_000.0; 5]);
    assert_eq!(run.unwrap_err(), "raw: out of order");
}

#[test]
fn a_round_in_which_it_got_nothing_done_has_no_ratio_and_all_figures_are_finite() {
    let mut parts = parts(0, 4);
    parts.push(Part {
        all: Common::new(profile()).recorder.empty(),
        unbegun: 3,
        panicked: 0,
        was_stopped: false,
    });
    let (run, notes) = told(&parts, &[1_000.0; 5]);
    let run = run.unwrap();
    assert!(run.ratio.is_finite() && run.interval.is_none(), "{run:?}");
    assert!(notes.iter().any(|note| note.contains("of 5 rounds 1 had no ratio")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("3 requests were due and were never begun")), "{notes:?}");
}

#[test]
fn a_part_that_is_stopped_says_so_and_what_came_after_is_none_of_it() {
    let fake = Fake::new(0);
    let text = RATE.replace("200ms", "100s");
    let part = alone(&fake, Profile::parse(&text).unwrap(), 2, || true).unwrap();
    assert!(part.was_stopped && part.all.of(|_, _| true).ops < 10_000);
    assert!(part.unbegun <= 1_000, "{}", part.unbegun);
}
