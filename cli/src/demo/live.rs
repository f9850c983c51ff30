//! What happens now: a block on the terminal that is drawn anew each second, or a line each second elsewhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hsmux::{OperationKind, Snapshot, Stage};

use crate::exit::Result;
use crate::figures::{per_second, time};

/// The live display.
pub(super) struct Live {
    last: Totals,
    last_at: Instant,
    terminal: bool,
    /// Lines that are on the terminal and will be drawn over.
    drawn: usize,
}

/// Times from submission to outcome, by kind of operation, of all tokens.
type Totals = BTreeMap<OperationKind, Histogram<u64>>;

/// What came since the last time, and what is.
struct News {
    second: u64,
    elapsed: Duration,
    kinds: Totals,
    all: Option<Histogram<u64>>,
    sessions: usize,
    busy: usize,
    queued: usize,
}

impl Live {
    pub(super) fn new(snapshot: &Snapshot, terminal: bool) -> Self {
        Self { last: totals(snapshot), last_at: now(), terminal, drawn: 0 }
    }

    /// Shows what has happened since the last time.
    pub(super) fn show(&mut self, out: &mut impl Write, second: u64, snapshot: &Snapshot) -> Result {
        let (at, totals) = (now(), totals(snapshot));
        let news = News::new(second, at.duration_since(self.last_at), snapshot, &totals, &self.last);
        (self.last, self.last_at) = (totals, at);
        if self.terminal {
            let lines = news.block();
            // Up to the first line of the last drawing, and clear from there (ECMA-48: CPL, ED).
            let up = if self.drawn > 0 { format!("\x1b[{}F\x1b[J", self.drawn) } else { String::new() };
            self.drawn = lines.len();
            writeln!(out, "{up}{}", lines.join("\n"))?;
        } else {
            writeln!(out, "{}", news.line())?;
        }
        Ok(out.flush()?)
    }
}

impl News {
    fn new(second: u64, elapsed: Duration, snapshot: &Snapshot, totals: &Totals, last: &Totals) -> Self {
        let kinds: Totals = totals.iter().map(|(kind, all)| (*kind, since(all, last.get(kind)))).collect();
        let all = kinds.values().cloned().reduce(sum);
        let sessions = snapshot.tokens.iter().map(|token| token.sessions).sum();
        let idle: usize = snapshot.tokens.iter().map(|token| token.idle).sum();
        let busy = usize::saturating_sub(sessions, idle);
        Self { second, elapsed, kinds, all, sessions, busy, queued: snapshot.queued }
    }

    fn block(&self) -> Vec<String> {
        let mut lines = vec![format!("{:18}{:>12}{:>12}{:>12}", "operation", "per second", "p50", "p99")];
        let kinds = self.kinds.iter().map(|(kind, times)| (kind.as_str(), times));
        for (name, times) in kinds.chain(self.all.iter().map(|all| ("all", all))) {
            let [rate, p50, p99] = self.figures(times);
            lines.push(format!("{name:18}{rate:>12}{p50:>12}{p99:>12}"));
        }
        lines.push(format!("second {}: {}", self.second, self.state()));
        lines
    }

    fn line(&self) -> String {
        let [rate, p50, p99] = self.all.as_ref().map_or_else(Default::default, |all| self.figures(all));
        format!("second {}: {rate} operations/s, p50 {p50}, p99 {p99}, {}", self.second, self.state())
    }

    fn state(&self) -> String {
        format!("{} of {} sessions busy, {} requests queued", self.busy, self.sessions, self.queued)
    }

    fn figures(&self, times: &Histogram<u64>) -> [String; 3] {
        let quantile = |quantile| time(times.value_at_quantile(quantile));
        [per_second(times.len(), self.elapsed), quantile(0.5), quantile(0.99)]
    }
}

fn totals(snapshot: &Snapshot) -> Totals {
    let mut totals = Totals::new();
    for operation in snapshot.tokens.iter().flat_map(|token| &token.operations) {
        let times = operation.stage(Stage::Total).clone();
        let both = match totals.remove(&operation.kind) {
            Some(other) => sum(other, times),
            None => times,
        };
        totals.insert(operation.kind, both);
    }
    totals
}

/// Both together. The engine's histograms are all of one form, so that adding cannot fail.
pub(super) fn sum(mut one: Histogram<u64>, other: Histogram<u64>) -> Histogram<u64> {
    debug_assert!(one.high() >= other.max(), "histograms of different forms");
    let _ = one.add(other);
    one
}

/// What came since an earlier reading; all of it, if the earlier one cannot be taken away.
fn since(all: &Histogram<u64>, earlier: Option<&Histogram<u64>>) -> Histogram<u64> {
    let mut news = all.clone();
    match earlier {
        Some(earlier) if news.subtract(earlier).is_err() => all.clone(),
        _ => news,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a display shows rates over real time; nothing is decided by it"
)]
fn now() -> Instant {
    Instant::now()
}
