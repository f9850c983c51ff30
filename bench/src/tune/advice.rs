//! What a search has found, with what it was found from.

use std::fmt;

use serde::Serialize;

use super::{Duel, Setting, Tuner, Visit};
use crate::knee::{Percentile, Slo};
use crate::stats::{Interval, median, median_interval};

/// What a search advises. It is shown as one sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The setting. `None` if none worked.
    pub best: Option<Setting>,
    /// Whether it meets the objective; so it does where there is none.
    pub meets: bool,
    /// What there was at start.
    pub start: Setting,
    /// What the advice does against that. `None` if it is the same, or the start was not measured.
    pub gain: Option<Gain>,
    /// Why the search has ended.
    pub end: End,
    /// Whether it is more than the best of some looks: the search was done, or a comparison with the start was won before.
    pub decided: bool,
    /// How long each measurement would have to last to tell surely whether the objective is met, in seconds, if one
    /// was shorter.
    pub too_short_s: Option<f64>,
    /// Every setting that was measured, the simplest first.
    pub tried: Vec<Tried>,
    /// Every comparison that was decided, in order.
    pub duels: Vec<Duel>,
}

/// Why a search has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Everything was tried that was to be tried.
    Found,
    /// Time was used up before: what has won a comparison with the start is advised, else the start.
    OutOfTime,
    /// Whoever drives it has ended it: the same.
    Stopped,
}

/// The rate of one setting over that of another. It is shown as `+4.0 % (+3.1 % to +4.9 %)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// As a ratio.
    pub ratio: f64,
    /// Where it lies with 98 % confidence; `None` without a comparison in enough rounds.
    pub interval: Option<Interval>,
}

/// A setting that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// The setting.
    pub setting: Setting,
    /// How often it was measured, with success or not.
    pub samples: usize,
    /// Operations per second: the median. `None` if it never worked.
    pub per_s: Option<f64>,
    /// Where that median lies with 90 % confidence; `None` for fewer than five measurements.
    pub interval: Option<Interval>,
    /// The 99th percentile of the latency, in nanoseconds: the median of all measurements.
    pub p99_ns: Option<f64>,
    /// Whether it meets the objective more often than not.
    pub meets: bool,
    /// Why it failed last, if it did.
    pub failed: Option<String>,
}

impl Tuner {
    pub(super) fn advice(&self, end: End) -> Advice {
        let (tried, start) = (self.tried(), self.start);
        let with = |setting: Setting| tried.iter().find(|tried| tried.setting == setting);
        let won = match self.found.against_start.and_then(|place| self.found.duels.get(place)) {
            Some(duel) => self.beat_start(duel),
            None if end == End::Found => None,
            None => self.found.duels.iter().rev().find_map(|duel| self.beat_start(duel)),
        };
        // As long as nothing has beaten it, what runs today is better known than any other.
        let works = with(start).is_none_or(|tried| tried.per_s.is_some());
        let best = match (end, won) {
            (End::Found, _) => self.found.best,
            (_, Some((winner, _))) => Some(winner),
            (_, None) if works => Some(start),
            _ => self.seems_best(&tried),
        };
        let meets = best.and_then(with).is_some_and(|tried| tried.meets);
        let gain = best.filter(|&best| best != start).and_then(|best| match won {
            Some((_, duel)) if duel.champion == start => duel.gain(),
            _ => Some(Gain { ratio: with(best)?.per_s? / with(start)?.per_s?, interval: None }),
        });
        let short = |visit: &Visit| self.needed(visit).filter(|&needed| visit.lasts < needed);
        let too_short_s = self.history.iter().filter_map(short).max().map(|needed| needed.as_secs_f64());
        let decided = best.is_some() && (end == End::Found || won.is_some());
        Advice { best, meets, start, gain, end, decided, too_short_s, tried, duels: self.found.duels.clone() }
    }

    /// What has beaten the start in this comparison, if it did.
    fn beat_start<'a>(&self, duel: &'a Duel) -> Option<(Setting, &'a Duel)> {
        Some((duel.beaten_by(self.start)?, duel))
    }

    /// What the plan has come to, or had the highest rate so far.
    pub(super) fn seems_best(&self, tried: &[Tried]) -> Option<Setting> {
        self.found.best.or_else(|| highest(tried))
    }

    /// Every setting that was measured, the simplest first.
    pub(super) fn tried(&self) -> Vec<Tried> {
        let mut settings: Vec<_> = self.history.iter().map(|visit| visit.setting).collect();
        settings.sort_unstable_by_key(|setting| setting.weight());
        settings.dedup();
        let slo = self.limits.slo.as_ref();
        let of = |setting: Setting| -> Vec<_> {
            self.history.iter().filter(|visit| visit.setting == setting).collect()
        };
        settings.into_iter().map(|setting| Tried::of(setting, &of(setting), slo)).collect()
    }
}

/// The one with the highest rate, as far as any is known.
fn highest(tried: &[Tried]) -> Option<Setting> {
    let rank = |tried: &Tried| (tried.meets, tried.per_s.unwrap_or(0.0));
    let works = tried.iter().filter(|tried| tried.per_s.is_some());
    let best = works.max_by(|one, other| {
        let (one, other) = (rank(one), rank(other));
        one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
    });
    best.map(|tried| tried.setting)
}

impl Advice {
    /// What is known of a setting.
    #[must_use]
    pub fn tried_with(&self, setting: Setting) -> Option<&Tried> {
        self.tried.iter().find(|tried| tried.setting == setting)
    }

    /// The comparison of these two that was decided last, whoever was the champion.
    #[must_use]
    pub fn duel_of(&self, one: Setting, other: Setting) -> Option<&Duel> {
        let is_of = |duel: &&Duel| [(one, other), (other, one)].contains(&(duel.champion, duel.challenger));
        self.duels.iter().rfind(is_of)
    }
}

impl Tried {
    fn of(setting: Setting, visits: &[&Visit], slo: Option<&Slo>) -> Self {
        let figures: Vec<_> = visits.iter().filter_map(|visit| visit.sample.outcome.as_ref().ok()).collect();
        let rates: Vec<_> = figures.iter().map(|figures| figures.ops_per_s).collect();
        let p99 = |latencies_ns: &[u64]| latencies_ns[Percentile::P99 as usize] as f64;
        let p99s: Vec<_> = figures.iter().map(|figures| p99(&figures.latencies_ns)).collect();
        let met = visits.iter().filter(|visit| visit.sample.meets(slo)).count();
        let failed = visits.iter().rev().find_map(|visit| visit.sample.outcome.as_ref().err());
        Self {
            setting,
            samples: visits.len(),
            per_s: median(&rates),
            interval: median_interval(&rates),
            p99_ns: median(&p99s),
            meets: met * 2 > visits.len(),
            failed: failed.cloned(),
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(best) = self.best else { return f.write_str("no setting worked") };
        write!(f, "{best}")?;
        if let Some(per_s) = self.tried_with(best).and_then(|tried| tried.per_s) {
            write!(f, ": {per_s:.0} operations/s")?;
        }
        match self.gain {
            None if best == self.start => f.write_str(", as at start")?,
            None => {}
            Some(gain) => write!(f, "; {gain} against the settings at start ({})", self.start)?,
        }
        let was_tried = self.tried_with(best).is_some();
        if was_tried && !self.meets {
            let what = if self.end == End::Found { "no setting was" } else { "it was not" };
            write!(f, "; {what} seen to meet the objective")?;
        }
        if let Some(seconds) = self.too_short_s {
            write!(
                f,
                "; too short to be sure of the objective: {seconds:.1} s for each measurement would tell"
            )?;
        }
        f.write_str(match self.end {
            End::Found => return Ok(()),
            End::OutOfTime => "; unfinished: time was used up",
            End::Stopped => "; unfinished: it was stopped",
        })?;
        let (won, none) =
            (", this is the best so far", " before anything was seen to beat the settings at start");
        f.write_str(if self.decided { won } else { none })
    }
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        write!(f, "{:+.1} %", percent(self.ratio))?;
        if let Some(Interval { low, high }) = self.interval {
            write!(f, " ({:+.1} % to {:+.1} %)", percent(low), percent(high))?;
        }
        Ok(())
    }
}
