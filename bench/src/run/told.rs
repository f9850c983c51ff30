//! What a run says of itself: the document of results.

use std::time::Duration;

use hdrhistogram::Histogram;
use hsmux::Snapshot;

use super::{Interval, Outcome};
use crate::cell::{add, histogram};
use crate::profile::{Demand, Phase, Profile};
use crate::record::{Block, Class, Counts};
use crate::result::{self, Latency, LoadResult, Made, SCHEMA};
use crate::target::{since, sum_of};

/// So much of what is due in a phase has to be begun in it, else the run says that it could not keep up.
const KEEPS_UP: f64 = 0.99;

/// From this part of the time on, the thread that makes requests is too busy to make them when they are due.
const BUSY: f64 = 0.95;

/// Of a run of no more seconds each counts as a round, the first one too.
const SHORT: usize = 5;

/// The first bound of the heat map, in nanoseconds.
const HEAT_FROM: f64 = 1_000.0;

impl Outcome {
    /// The document of this run.
    #[must_use]
    pub fn result(&self, made: Made) -> LoadResult {
        let spans = self.spans();
        let counted: Vec<bool> = self.profile.phases.iter().map(|phase| phase.counted).collect();
        let seconds =
            spans.iter().zip(&counted).filter(|(_, counted)| **counted).map(|(span, _)| span.seconds()).sum();
        let asked = spans
            .iter()
            .zip(&counted)
            .filter(|(_, counted)| **counted)
            .map(|(span, _)| span.asked)
            .sum::<Option<f64>>();
        let over =
            |is_wanted: &dyn Fn(usize) -> bool| self.all.of(|it, phase| counted[phase] && is_wanted(it));
        let part = |(index, operation): (usize, &crate::profile::Operation)| result::Part {
            name: operation.name.clone(),
            summary: self.summary(&over(&|it| it == index), seconds, None),
        };
        let mut total = self.summary(&over(&|_| true), seconds, asked);
        let all = self.all.of(|_, _| true);
        total.cpu_ns_per_op = Some(self.cpu.as_nanos() as f64 / (all.ops + all.errors).max(1) as f64);
        LoadResult {
            schema: SCHEMA,
            title: self.profile.name.clone(),
            made,
            profile: Some(self.profile.to_toml()),
            arrivals: arrivals(&self.profile),
            total,
            operations: self.profile.operations.iter().enumerate().map(part).collect(),
            phases: spans.iter().enumerate().map(|(index, span)| self.phase(index, span)).collect(),
            series: self.intervals.clone(),
            stages: stages(&self.snapshots),
            tokens: tokens(&self.snapshots),
            errors: errors(&self.all),
            curve: Vec::new(),
            knee: None,
            baselines: Vec::new(),
            rounds: self.rounds(&spans),
            notes: self.notes(&spans),
        }
    }

    /// The phases as far as they came about.
    fn spans(&self) -> Vec<Span> {
        let mut from = Duration::ZERO;
        let spans = self.profile.phases.iter().map(|phase| {
            let span = Span { from, until: from + phase.length, asked: None };
            from = span.until;
            let until =
                if self.was_stopped { span.until.min(self.length).max(span.from) } else { span.until };
            Span { until, asked: asked(phase, until - span.from), ..span }
        });
        spans.collect()
    }

    fn phase(&self, index: usize, span: &Span) -> result::Phase {
        let phase = &self.profile.phases[index];
        let counts = self.all.of(|_, of| of == index);
        result::Phase {
            name: phase.name.clone(),
            from_s: span.from.as_secs_f64(),
            until_s: span.until.as_secs_f64(),
            counted: phase.counted,
            summary: self.summary(&counts, span.seconds(), span.asked),
        }
    }

    fn summary(&self, counts: &Counts, seconds: f64, asked: Option<f64>) -> result::Summary {
        let per_s = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        result::Summary {
            ops: counts.ops,
            errors: counts.errors,
            seconds,
            ops_per_s: per_s(counts.done_in_time as f64),
            asked_per_s: asked.map(per_s),
            latency: Latency::of(&counts.latency),
            lateness: self.profile.pace.map(|_| Latency::of(&counts.lateness)),
            cpu_ns_per_op: None,
        }
    }

    /// Operations per second of each whole interval of a phase that counts.
    fn rounds(&self, spans: &[Span]) -> Vec<f64> {
        let counted: Vec<_> =
            self.profile.phases.iter().zip(spans).filter(|(phase, _)| phase.counted).collect();
        let tenth = super::INTERVAL.as_secs_f64() / 10.0;
        let is_whole = |it: &&result::Interval| it.seconds >= 9.0 * tenth;
        let counts = |it: &&result::Interval| {
            counted.iter().any(|(_, span)| {
                span.from.as_secs_f64() <= it.at_s && it.at_s + it.seconds <= span.until.as_secs_f64() + tenth
            })
        };
        // The last interval ends when somebody looks, a little after the last request was made.
        let end = spans.last().map_or(f64::MAX, |span| span.until.as_secs_f64());
        let rate = |it: &result::Interval| it.ops as f64 / (end.min(it.at_s + it.seconds) - it.at_s);
        // An engine finds its sessions in the first second, and caches fill: without a warm-up of its own a run begins slower.
        let is_cold = self.profile.phases.first().is_some_and(|phase| phase.counted);
        let cold = usize::from(is_cold && self.intervals.len() > SHORT);
        self.intervals.iter().skip(cold).filter(is_whole).filter(counts).map(rate).collect()
    }

    fn notes(&self, spans: &[Span]) -> Vec<String> {
        let mut notes = Vec::new();
        for (index, (phase, span)) in self.profile.phases.iter().zip(spans).enumerate() {
            let counts = self.all.of(|_, it| it == index);
            notes.extend(span.asked.and_then(|_| self.cannot_keep_up(phase, &counts)));
        }
        if self.was_stopped {
            notes.push(format!("stopped at {:.1} s, before its end", self.length.as_secs_f64()));
        }
        if self.unbegun > 0 {
            notes.push(format!(
                "{} requests were due and were never begun: no latency is of them, and the true ones are longer",
                self.unbegun
            ));
        }
        if self.panicked > 0 {
            notes.push(format!("{} callers panicked: what they had in hand is not counted", self.panicked));
        }
        let tokens = self.snapshots.first().map_or(0, |[before, _]| before.tokens.len());
        let mut up = u32::try_from(tokens).unwrap_or(u32::MAX);
        for interval in &self.intervals {
            let Some(then) = interval.tokens_up.filter(|then| *then != up) else { continue };
            up = then;
            notes.push(format!(
                "at {:.1} s {up} of {tokens} tokens in service",
                interval.at_s + interval.seconds
            ));
        }
        notes
    }

    /// Whether the harness had the time to begin requests when they were due. That all callers wait for answers is no fault of
    /// its own.
    #[must_use]
    pub fn kept_up(&self) -> bool {
        self.tasks_busy < BUSY
    }

    /// Of what was due, which is all that has ended: the backlog of a phase is made after it.
    fn cannot_keep_up(&self, phase: &Phase, counts: &Counts) -> Option<String> {
        let (due, begun) = (counts.ops + counts.errors, counts.begun_in_time);
        let is_behind = (begun as f64) < due as f64 * KEEPS_UP && due - begun > 1;
        let why = if self.kept_up() {
            "all callers waited for answers"
        } else {
            "the thread that makes them had no time left"
        };
        is_behind.then(|| {
            format!(
                "could not keep up in phase {}: of {due} requests that were due, {begun} were begun in it, for {why}",
                phase.name
            )
        })
    }
}

/// The figures of an interval.
pub(super) fn row(profile: &Profile, interval: &Interval) -> result::Interval {
    let latency = &interval.counts.latency;
    let at = |quantile| if latency.is_empty() { 0 } else { latency.value_at_quantile(quantile) };
    result::Interval {
        at_s: interval.from.as_secs_f64(),
        seconds: (interval.until - interval.from).as_secs_f64(),
        ops: interval.counts.ops,
        errors: interval.counts.errors,
        asked: asked_between(profile, interval.from, interval.until),
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p99_ns: at(0.99),
        max_ns: latency.max(),
        heat: heat(latency),
        sessions: u32::try_from(interval.engine.sessions).ok(),
        queued: Some(interval.engine.queued as u64),
        tokens_up: u32::try_from(interval.engine.tokens_up).ok(),
    }
}

/// From when until when a phase was, and how many requests were due in it.
struct Span {
    from: Duration,
    until: Duration,
    asked: Option<f64>,
}

impl Span {
    fn seconds(&self) -> f64 {
        (self.until - self.from).as_secs_f64()
    }
}

/// How many requests are due in the first so long of a phase.
fn asked(phase: &Phase, length: Duration) -> Option<f64> {
    let seconds = length.min(phase.length).as_secs_f64();
    match phase.demand {
        Demand::Rate(rate) => Some(rate.per_s() * seconds),
        Demand::Ramp(from, to) => {
            let slope = (to.per_s() - from.per_s()) / phase.length.as_secs_f64();
            Some(seconds * (from.per_s() + slope * seconds / 2.0))
        }
        Demand::Callers(_) => None,
    }
}

/// How many requests are due between two moments: a mean, where that is chance.
fn asked_between(profile: &Profile, from: Duration, until: Duration) -> Option<u64> {
    let before = |moment: Duration| {
        let mut begins = Duration::ZERO;
        let parts = profile.phases.iter().map(|phase| {
            let asked = asked(phase, moment.saturating_sub(begins));
            begins += phase.length;
            asked
        });
        parts.sum::<Option<f64>>()
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count, which does not fall"
    )]
    Some((before(until)?.round() - before(from)?.round()) as u64)
}

fn arrivals(profile: &Profile) -> String {
    match (profile.pace, &profile.phases[..]) {
        (None, [phase]) => format!("closed, {} callers", profile.callers_in(phase)),
        (Some(pace), [Phase { demand: Demand::Rate(rate), .. }]) => format!("{} {rate}", pace.as_str()),
        (None, _) => "closed, callers by phase".to_owned(),
        (Some(pace), _) => format!("{}, by phase", pace.as_str()),
    }
}

/// Upper bounds, each the square root of 2 above the one before, with how many there are between.
fn heat(latency: &Histogram<u64>) -> Vec<(u64, u64)> {
    let mut heat = Vec::new();
    let (mut bound, mut step) = (HEAT_FROM, 0);
    for value in latency.iter_recorded() {
        while value.value_iterated_to() as f64 > bound {
            step += 1;
            bound = HEAT_FROM * 2_f64.powf(f64::from(step) / 2.0);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a bound above a value that fits"
        )]
        let upper = bound.round() as u64;
        match heat.last_mut() {
            Some((last, count)) if *last == upper => *count += value.count_since_last_iteration(),
            _ => heat.push((upper, value.count_since_last_iteration())),
        }
    }
    heat
}

fn stages(snapshots: &[[Snapshot; 2]]) -> Vec<result::Stage> {
    let all = snapshots.iter().flat_map(|[_, after]| &after.tokens).flat_map(|token| &token.operations);
    let mut kinds: Vec<_> = all.map(|it| it.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let of = |kind: hsmux::OperationKind| {
        hsmux::Stage::ALL.into_iter().filter_map(move |stage| {
            let mut times = histogram();
            for [before, after] in snapshots {
                add(&mut times, &since(&sum_of(after, kind, stage), &sum_of(before, kind, stage)));
            }
            (!times.is_empty()).then(|| result::Stage {
                operation: kind.as_str().to_owned(),
                stage: stage.as_str().to_owned(),
                p50_ns: times.value_at_quantile(0.5),
                p99_ns: times.value_at_quantile(0.99),
                mean_ns: times.mean(),
            })
        })
    };
    kinds.into_iter().flat_map(of).collect()
}

fn tokens(snapshots: &[[Snapshot; 2]]) -> Vec<result::TokenShare> {
    let all = snapshots.iter().flat_map(|[_, after]| &after.tokens);
    let mut labels: Vec<_> = all.map(|token| token.label.clone()).collect();
    // With several instances each label comes once for each.
    labels.sort_unstable();
    labels.dedup();
    let of = |token: String| {
        let (mut ops, mut errors) = (0, 0);
        for [before, after] in snapshots {
            let [after, before] = [after, before].map(|snapshot| served(snapshot, &token));
            ops += after.0.saturating_sub(before.0);
            errors += after.1.saturating_sub(before.1);
        }
        result::TokenShare { token, ops, errors, share: 0.0 }
    };
    let mut shares: Vec<_> = labels.into_iter().map(of).collect();
    let all = shares.iter().map(|share| share.ops).sum::<u64>().max(1) as f64;
    shares.iter_mut().for_each(|share| share.share = share.ops as f64 / all);
    shares
}

/// Operations that succeeded on a token, by whatever instance, and that failed.
fn served(snapshot: &Snapshot, label: &str) -> (u64, u64) {
    let tokens = snapshot.tokens.iter().filter(|token| token.label == label);
    tokens.flat_map(|token| &token.operations).fold((0, 0), |(ops, errors), operation| {
        let failed: u64 = operation.errors.iter().map(|&(_, count)| count).sum();
        (ops + operation.count, errors + failed)
    })
}

fn errors(all: &Block) -> Vec<result::ErrorClass> {
    let of = |(class, failures): (&Class, &crate::record::Failures)| result::ErrorClass {
        kind: class.kind.map_or("other", hsmux::ErrorKind::name).to_owned(),
        outcome: class.outcome.name().to_owned(),
        count: failures.count,
        first: failures.first.clone(),
        first_s: failures.first_at.as_secs_f64(),
    };
    let mut errors: Vec<_> = all.failures().map(of).collect();
    errors.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.kind.cmp(&b.kind)));
    errors
}
