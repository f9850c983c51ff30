//! One caller: asks, waits, counts.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use hsmux::{Operation, Request, Result};

use super::job::{Job, Way};
use super::report::Tally;
use super::work::{Done, Work};
use super::{Check, Common, Mixed};
use crate::check::Software;
use crate::dice::Dice;

/// A caller and what it has seen.
pub(super) struct Caller {
    number: u32,
    sequence: u64,
    works: Vec<Work>,
    check: Check,
    dice: Dice,
    pub(super) tallies: [Tally; Work::ALL.len()],
    /// Outputs to be checked later, by kind of operation.
    pub(super) kept: [Vec<Done>; Work::ALL.len()],
    /// The first bytes of every random output.
    pub(super) random: Vec<[u8; 16]>,
    /// What went wrong, the first few times.
    pub(super) problems: Vec<String>,
}

/// What a blocking caller does with its request; each in turn.
#[derive(Clone, Copy)]
enum Blocking {
    /// Runs it itself if a session is idle.
    Inline,
    /// Waits with the engine's deadline.
    Queued,
    /// Submits it and waits for it later.
    Submitted,
}

/// Awaits its requests, one after the other.
struct Awaited;

/// Has them in flight at once, as a stream.
struct Streamed;

/// Every so many times a task has a stream of requests of one kind, of so many at most.
const STREAM_EVERY: u64 = 8;
const STREAM_MAX: u64 = 40;

/// Problems that one caller remembers; all are counted.
const PROBLEMS_MAX: usize = 4;

impl Caller {
    pub(super) fn new(number: u32, mixed: &Mixed) -> Self {
        Self {
            number,
            sequence: 0,
            works: mixed.works.clone(),
            check: mixed.check,
            dice: Dice::of(mixed.seed, number),
            tallies: [Tally::default(); Work::ALL.len()],
            kept: [const { Vec::new() }; Work::ALL.len()],
            random: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Asks on this thread until told to stop.
    pub(super) fn block(mut self, common: &Common) -> Self {
        while common.goes_on() {
            let job = self.next_job(&common.software);
            let way = match self.sequence % 3 {
                0 => Blocking::Inline,
                1 => Blocking::Queued,
                _ => Blocking::Submitted,
            };
            let answers = Job::ask(job.work, std::slice::from_ref(&job), common, way);
            self.answered(vec![job], answers, &common.software);
        }
        self
    }

    /// Asks as a task until told to stop.
    pub(super) async fn poll(mut self, common: Arc<Common>) -> Self {
        while common.goes_on() {
            let jobs = self.next_jobs(&common);
            let Some(work) = jobs.first().map(|job| job.work) else { break };
            let answers = match jobs.len() {
                1 => Job::ask(work, &jobs, &common, Awaited).await,
                _ => Job::ask(work, &jobs, &common, Streamed).await,
            };
            self.answered(jobs, answers, &common.software);
        }
        self
    }

    fn next_job(&mut self, software: &Software) -> Job {
        let work = Work::draw(&self.works, &mut self.dice);
        self.job_of(work, software)
    }

    fn job_of(&mut self, work: Work, software: &Software) -> Job {
        self.sequence += 1;
        self.tallies[work as usize].asked += 1;
        Job::new(work, self.number, self.sequence, &mut self.dice, software)
    }

    /// One, which was allowed, or now and then several of one kind, as far as they are.
    fn next_jobs(&mut self, common: &Common) -> Vec<Job> {
        let mut jobs = vec![self.next_job(&common.software)];
        let work = jobs[0].work;
        let more = if self.dice.below(STREAM_EVERY) == 0 { self.dice.below(STREAM_MAX) } else { 0 };
        for _ in 0..more {
            if common.goes_on() {
                jobs.push(self.job_of(work, &common.software));
            }
        }
        jobs
    }

    fn answered(&mut self, jobs: Vec<Job>, answers: Vec<Result<Vec<u8>>>, software: &Software) {
        for (job, answer) in jobs.into_iter().zip(answers) {
            self.answered_one(job, answer, software);
        }
    }

    fn answered_one(&mut self, job: Job, answer: Result<Vec<u8>>, software: &Software) {
        let work = job.work;
        match answer {
            Ok(output) => {
                self.tallies[work as usize].answered += 1;
                self.keep_or_check(job.done(output), software);
            }
            Err(error) => {
                self.tallies[work as usize].failed += 1;
                self.problem(format!("{work}: {error} (outcome {:?})", error.outcome()));
            }
        }
    }

    fn keep_or_check(&mut self, done: Done, software: &Software) {
        let place = done.work as usize;
        if let (Work::Random, Some(first)) = (done.work, done.output.first_chunk()) {
            self.random.push(*first);
        }
        match self.check {
            Check::Every => self.check(&done, software),
            Check::Sample(size) => {
                // Algorithm R: after n outputs each of them is in the sample with the same chance, size / n.
                let (seen, kept) = (self.tallies[place].answered, &mut self.kept[place]);
                if kept.len() < size {
                    kept.push(done);
                } else if let Ok(index) = usize::try_from(self.dice.below(seen))
                    && let Some(old) = kept.get_mut(index)
                {
                    *old = done;
                }
            }
        }
    }

    /// Checks an output by software, and counts it.
    pub(super) fn check(&mut self, done: &Done, software: &Software) {
        let right = software.check(done);
        let tally = &mut self.tallies[done.work as usize];
        tally.checked += 1;
        if !right {
            tally.wrong += 1;
            self.problem(format!("{}: software finds the output wrong", done.work));
        }
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }
}

#[expect(clippy::missing_fields_in_debug, reason = "the rest is payload")]
impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("number", &self.number).finish()
    }
}

impl Way for Blocking {
    type Answers<'a> = Vec<Result<Vec<u8>>>;

    fn ask<'a, O, I>(self, requests: I) -> Self::Answers<'a>
    where
        O: Operation<Output: AsRef<[u8]>> + 'a,
        I: Iterator<Item = Request<'a, O>> + Send + 'a,
    {
        let one = |request: Request<'a, O>| match self {
            Self::Inline => request.deadline(None).wait(),
            Self::Queued => request.wait(),
            Self::Submitted => {
                request.submit().map_err(|refused| refused.error).and_then(hsmux::Pending::wait)
            }
        };
        requests.map(|request| bytes(one(request))).collect()
    }
}

type Later<'a> = Pin<Box<dyn Future<Output = Vec<Result<Vec<u8>>>> + Send + 'a>>;

impl Way for Awaited {
    type Answers<'a> = Later<'a>;

    fn ask<'a, O, I>(self, requests: I) -> Later<'a>
    where
        O: Operation<Output: AsRef<[u8]>> + 'a,
        I: Iterator<Item = Request<'a, O>> + Send + 'a,
    {
        Box::pin(async move {
            let mut answers = Vec::new();
            for request in requests {
                answers.push(bytes(request.await));
            }
            answers
        })
    }
}

impl Way for Streamed {
    type Answers<'a> = Later<'a>;

    fn ask<'a, O, I>(self, requests: I) -> Later<'a>
    where
        O: Operation<Output: AsRef<[u8]>> + 'a,
        I: Iterator<Item = Request<'a, O>> + Send + 'a,
    {
        const WINDOW: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);
        Box::pin(hsmux::pipeline(futures::stream::iter(requests), WINDOW).map(bytes).collect())
    }
}

fn bytes(output: Result<impl AsRef<[u8]>>) -> Result<Vec<u8>> {
    output.map(|output| output.as_ref().to_vec())
}
