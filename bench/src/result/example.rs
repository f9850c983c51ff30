//! Made-up results that look like real ones, the same each time: tests render them, and nothing else takes them.

mod made;
mod model;

use std::ops::Range;

use hdrhistogram::Histogram;

use self::model::{Model, Request, SECONDS, SPIKE_S, WARM_UP_S};
use super::{
    BaselineRun, CurvePoint, ErrorClass, Interval, Knee, Latency, LoadResult, Part, Phase, SCHEMA, Stage,
    Summary, TokenShare,
};

/// A minute of three operations on three tokens, one of which is lost at 20 s and back at 30 s.
#[must_use]
pub fn payment_auth() -> LoadResult {
    result(&Model { seed: 1, speed: 1.0 })
}

/// The same on an engine that takes two thirds of the time.
#[must_use]
pub fn payment_auth_tuned() -> LoadResult {
    let mut result = result(&Model { seed: 2, speed: 1.5 });
    result.made.commit = Some("b1001e3".to_owned());
    result.made.config.insert("sessions".to_owned(), "24".to_owned());
    result
}

fn result(model: &Model) -> LoadResult {
    let requests = model.requests();
    let counted: Vec<_> = requests.iter().filter(|it| it.at_s >= WARM_UP_S).copied().collect();
    let part = |operation: usize| {
        let requests: Vec<_> = counted.iter().filter(|it| it.operation == operation).copied().collect();
        let name = model::OPERATIONS[operation].0.to_owned();
        Part { name, summary: summary(&requests, SECONDS - WARM_UP_S) }
    };
    let series: Vec<_> = (0..60).map(|second| interval(&requests, f64::from(second))).collect();
    LoadResult {
        schema: SCHEMA,
        title: "payment-auth".to_owned(),
        made: made::made(),
        profile: Some(made::PROFILE.to_owned()),
        arrivals: "by phase".to_owned(),
        total: summary(&counted, SECONDS - WARM_UP_S),
        operations: (0..model::OPERATIONS.len()).map(part).collect(),
        phases: phases(&requests),
        rounds: series.iter().skip(5).map(|it| it.ops as f64).collect(),
        series,
        stages: stages(model),
        tokens: tokens(&counted),
        errors: errors(&counted),
        curve: curve(model),
        knee: Some(knee(model)),
        baselines: baselines(model),
        notes: vec![
            "token sim-1 lost at 20.0 s, sessions opened anew on sim-0 and sim-2".to_owned(),
            "token sim-1 back at 30.0 s".to_owned(),
        ],
    }
}

/// More than any request takes.
const LONGEST_NS: u64 = 60_000_000_000;

fn latency(of: impl Iterator<Item = u64>) -> Latency {
    let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3) else {
        return Latency::default();
    };
    of.for_each(|ns| histogram.saturating_record(ns));
    Latency::of(&histogram)
}

fn succeeded(requests: &[Request]) -> impl Iterator<Item = u64> {
    requests.iter().filter(|it| !it.failed).map(|it| it.took_ns)
}

fn summary(requests: &[Request], seconds: f64) -> Summary {
    let ops = succeeded(requests).count() as u64;
    Summary {
        ops,
        errors: requests.len() as u64 - ops,
        seconds,
        ops_per_s: ops as f64 / seconds,
        asked_per_s: Some(requests.len() as f64 / seconds),
        latency: latency(succeeded(requests)),
        lateness: Some(latency(requests.iter().map(|it| 2_000 + it.took_ns % 9_000))),
        cpu_ns_per_op: Some(48_300.0),
    }
}

fn between(requests: &[Request], from_s: f64, until_s: f64) -> Vec<Request> {
    requests.iter().filter(|it| it.at_s >= from_s && it.at_s < until_s).copied().collect()
}

fn phases(requests: &[Request]) -> Vec<Phase> {
    let Range { start: spike_from, end: spike_until } = SPIKE_S;
    let bounds = [
        ("warm-up", 0.0, WARM_UP_S),
        ("steady", WARM_UP_S, spike_from),
        ("spike", spike_from, spike_until),
        ("after", spike_until, SECONDS),
    ];
    let phase = |(name, from_s, until_s): (&str, f64, f64)| Phase {
        name: name.to_owned(),
        from_s,
        until_s,
        counted: from_s >= WARM_UP_S,
        summary: summary(&between(requests, from_s, until_s), until_s - from_s),
    };
    bounds.map(phase).into()
}

fn interval(requests: &[Request], at_s: f64) -> Interval {
    let asked = between(requests, at_s, at_s + 1.0);
    let latency = latency(succeeded(&asked));
    let is_lost = model::is_lost(at_s);
    let ops = latency.count;
    Interval {
        at_s,
        seconds: 1.0,
        ops,
        errors: asked.len() as u64 - ops,
        asked: Some(asked.len() as u64),
        p50_ns: latency.p50_ns,
        p90_ns: latency.p90_ns,
        p99_ns: latency.p99_ns,
        max_ns: latency.max_ns,
        heat: heat(&asked),
        sessions: Some(if is_lost { 16 } else { 24 }),
        queued: Some(if is_lost { 41 } else { 3 }),
        tokens_up: Some(if is_lost { 2 } else { 3 }),
    }
}

fn heat(requests: &[Request]) -> Vec<(u64, u64)> {
    let bounds = (0..50).map(|step| if step % 2 == 0 { 1_000 } else { 1_414 } << (step / 2));
    let mut below = 0;
    let counts = bounds.map(|bound: u64| {
        let up_to = succeeded(requests).filter(|ns| *ns <= bound).count() as u64;
        (bound, up_to - std::mem::replace(&mut below, up_to))
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

fn stages(model: &Model) -> Vec<Stage> {
    let of = |(name, _, token_us): (&str, f64, f64)| {
        let token_us = token_us / model.speed;
        let stages = [
            ("queued", 0.42 * token_us),
            ("token", token_us),
            ("total", 1.42 * token_us + 14.0 / model.speed),
        ];
        stages.map(|(stage, mean_us)| Stage {
            operation: name.to_owned(),
            stage: stage.to_owned(),
            p50_ns: model::ns(mean_us * 0.85),
            p99_ns: model::ns(mean_us * 4.1),
            mean_ns: mean_us * 1e3,
        })
    };
    model::OPERATIONS.into_iter().flat_map(of).collect()
}

fn tokens(requests: &[Request]) -> Vec<TokenShare> {
    let all = succeeded(requests).count() as f64;
    let of = |token: usize| {
        let mine: Vec<_> = requests.iter().filter(|it| it.token == token).copied().collect();
        let ops = succeeded(&mine).count() as u64;
        let errors = mine.len() as u64 - ops;
        TokenShare { token: format!("sim-{token}"), ops, errors, share: ops as f64 / all }
    };
    (0..3).map(of).collect()
}

fn errors(requests: &[Request]) -> Vec<ErrorClass> {
    let failed = requests.iter().filter(|it| it.failed).count() as u64;
    let class = |kind: &str, outcome: &str, count, first: &str, first_s| ErrorClass {
        kind: kind.to_owned(),
        outcome: outcome.to_owned(),
        count,
        first: first.to_owned(),
        first_s,
    };
    let hung = failed / 9;
    vec![
        class("TokenLost", "not done", failed - hung, "token sim-1 is lost: CKR_TOKEN_NOT_PRESENT", 20.004),
        class("DeadlineExceeded", "unknown", hung, "deadline of 1 s exceeded in C_Sign", 21.013),
    ]
}

fn curve(model: &Model) -> Vec<CurvePoint> {
    let capacity = 3_900.0 * model.speed;
    let rates = [0.13, 0.26, 0.39, 0.52, 0.65, 0.74, 0.83, 0.89, 0.94, 1.01, 1.1, 1.2];
    let point = |load: f64| {
        let wait_us = 900.0 / model.speed / (1.0 - load.min(0.985));
        CurvePoint {
            asked_per_s: load * capacity,
            ops_per_s: load.min(0.985) * capacity,
            p50_ns: model::ns(0.6 * wait_us + 300.0),
            p99_ns: model::ns(2.1 * wait_us + 900.0),
            p999_ns: model::ns(4.4 * wait_us + 2_000.0),
            errors: 0,
            meets: 2.1 * wait_us + 900.0 < 20_000.0,
        }
    };
    rates.map(point).into()
}

fn knee(model: &Model) -> Knee {
    let [per_s, low, high] = [0.9, 0.89, 0.94].map(|load| load * 3_900.0 * model.speed);
    Knee { per_s, low, high, slo: "p99=20ms".to_owned() }
}

fn baselines(model: &Model) -> Vec<BaselineRun> {
    let run = |name: &str, ratio: f64, width: f64| BaselineRun {
        name: name.to_owned(),
        ops_per_s: 3_841.0 * model.speed / ratio,
        ratio,
        interval: Some([ratio - width, ratio + width]),
        p50_ns: model::ns(1_010.0 * ratio),
        p99_ns: model::ns(9_900.0 * ratio),
    };
    vec![run("raw", 0.985, 0.031), run("r2d2", 1.44, 0.08), run("mutex", 3.02, 0.11)]
}
