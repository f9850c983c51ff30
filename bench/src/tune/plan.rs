//! The plan of a search, as a straight line of steps.
//!
//! It is gone through from its beginning after every measurement: each step takes what was measured for it from the
//! history, and the first one for which there is nothing is the next to be measured. So nothing has to be kept between
//! measurements, and what is done reads in the order in which it is done.

use std::collections::HashMap;

use super::duel::{Duel, Rule};
use super::{Limits, Setting, Visit};
use crate::stats::median;
use crate::verdict::Verdict;

/// A plan that is gone through.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    start: Setting,
    pub(super) limits: &'a Limits,
    history: &'a [Visit],
    pub(super) verdicts: &'a mut HashMap<(usize, usize), Verdict>,
    /// How much of the history has been taken.
    at: usize,
    best: Option<Setting>,
    duels: Vec<Duel>,
    /// Which of the duels is against the settings at start.
    against_start: Option<usize>,
}

/// What stands in the way: a setting that has to be measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need(Setting);

/// What a plan has come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// What has to be measured next; `None` at the end.
    pub(super) need: Option<Setting>,
    pub(super) best: Option<Setting>,
    pub(super) duels: Vec<Duel>,
    pub(super) against_start: Option<usize>,
}

/// By how much a doubling has to gain for the next to be tried without another thought.
const GAIN: f64 = 1.05;

/// After so many doublings in a row that gain less, no more are tried. One alone may be a measurement that was spoilt.
const IDLE_MAX: u32 = 2;

/// What has less than this part of the best is not compared with it. Looks are not off by that much: with measurements that
/// vary by 6 %, 0.9 lost the right setting in 7 of 60 searches, this in 2.
const NEAR: f64 = 0.85;

/// What has this part of the best is as good, as long as nobody has compared them properly.
const AS_GOOD: f64 = 0.97;

/// How often those near the best are looked at again, up and down in turn, so that drift is the same for all. Four looks
/// in all, whose median one spoilt look does not move.
const PASSES: u32 = 2;

impl<'a> Plan<'a> {
    pub(super) const fn new(
        start: Setting,
        limits: &'a Limits,
        history: &'a [Visit],
        verdicts: &'a mut HashMap<(usize, usize), Verdict>,
    ) -> Self {
        Self { start, limits, history, verdicts, at: 0, best: None, duels: Vec::new(), against_start: None }
    }

    pub(super) fn found(self, need: Option<Need>) -> Found {
        let Self { best, duels, against_start, .. } = self;
        Found { need: need.map(|Need(setting)| setting), best, duels, against_start }
    }

    /// All of it.
    pub(super) fn go(&mut self) -> Result<(), Need> {
        // What runs today is what there is to beat, and what is advised if there is no time for more.
        self.measure(self.start)?;
        let base = self.base();
        self.sessions(base, self.least())?;
        self.switches()?;
        if let Some(best) = self.best.filter(|best| !best.has_switches_of(base)) {
            self.sessions(best, (best.sessions / 2).max(self.least()))?;
        }
        self.compare_with_start()
    }

    /// Where it begins: the defaults, but for what may not be changed.
    fn base(&self) -> Setting {
        let (start, limits) = (self.start, self.limits);
        Setting {
            sessions: 1,
            instances: if limits.instances_max > 1 { 1 } else { start.instances },
            coalescing: limits.coalescing || start.coalescing,
            copies: limits.copies || start.copies,
        }
    }

    fn least(&self) -> usize {
        self.limits.sessions_min.clamp(1, self.limits.sessions_max.max(1))
    }

    /// The fewest sessions that are as good as any, with the switches of `base`.
    fn sessions(&mut self, base: Setting, first: usize) -> Result<(), Need> {
        let mut all = self.climb(base, first)?;
        all.extend(self.between(&all));
        if self.start.has_switches_of(base) {
            all.push(self.start);
        }
        all.sort_unstable_by_key(|setting| setting.sessions);
        all.dedup();
        for &setting in all.iter().rev() {
            self.measure(setting)?;
        }
        for pass in 0..PASSES {
            let mut near = self.near(&all, NEAR);
            if pass % 2 == 1 {
                near.reverse();
            }
            near.into_iter().try_for_each(|setting| self.measure(setting))?;
        }
        self.best = self.near(&all, AS_GOOD).first().copied().or(self.best);
        let near = self.near(&all, NEAR);
        let Some(highest) = self.highest(&near) else { return Ok(()) };
        for &simpler in near.iter().filter(|setting| setting.sessions < highest.sessions) {
            if self.duel(highest, simpler, Rule::NotSlower)? {
                self.best = Some(simpler);
                return Ok(());
            }
        }
        self.best = Some(highest);
        Ok(())
    }

    /// Doubles the sessions while that pays, and none is refused: who asks for yet more takes those of others.
    fn climb(&mut self, base: Setting, first: usize) -> Result<Vec<Setting>, Need> {
        let most = self.limits.sessions_max.max(1);
        let (mut rungs, mut sessions) = (Vec::new(), first.min(most));
        let (mut best, mut idle) = (0.0, 0);
        loop {
            let setting = base.with_sessions(sessions);
            self.measure(setting)?;
            rungs.push(setting);
            let Some(rate) = self.rate(setting) else { return Ok(rungs) };
            if rate > best * GAIN {
                (best, idle) = (rate, 0);
            } else {
                idle += 1;
            }
            if idle >= IDLE_MAX || sessions >= most {
                return Ok(rungs);
            }
            sessions = (sessions * 2).min(most);
        }
    }

    /// Halfway to the neighbours of the lowest rung that seems as good as any.
    fn between(&self, rungs: &[Setting]) -> Vec<Setting> {
        let Some(&middle) = self.near(rungs, 1.0 / GAIN).first() else { return Vec::new() };
        let most = self.limits.sessions_max;
        let counts = [middle.sessions * 3 / 4, middle.sessions * 3 / 2];
        let least = self.least();
        let is_new = |&count: &usize| {
            (least..=most).contains(&count) && rungs.iter().all(|rung| rung.sessions != count)
        };
        counts.into_iter().filter(is_new).map(|count| middle.with_sessions(count)).collect()
    }

    /// Turns each switch that may be turned, and keeps what is faster.
    fn switches(&mut self) -> Result<(), Need> {
        if let Some(best) = self.best.filter(|_| self.limits.copies) {
            self.try_other(best, Setting { copies: !best.copies, ..best })?;
        }
        if let Some(best) = self.best.filter(|_| self.limits.coalescing) {
            self.try_other(best, Setting { coalescing: !best.coalescing, ..best })?;
        }
        while let Some(best) = self.best.filter(|best| best.instances < self.limits.instances_max) {
            let instances = (best.instances * 2).min(self.limits.instances_max);
            // As many in all: more would be another question.
            let sessions = (best.sessions * best.instances).div_ceil(instances).max(self.least());
            if !self.try_other(best, Setting { instances, sessions, ..best })? {
                break;
            }
        }
        Ok(())
    }

    fn try_other(&mut self, best: Setting, other: Setting) -> Result<bool, Need> {
        let wins = self.duel(best, other, Rule::Faster)?;
        if wins {
            self.best = Some(other);
        }
        Ok(wins)
    }

    /// What it is worth. What runs today stays unless the best is faster, or simpler and surely not slower: noise is no reason
    /// to change anything.
    fn compare_with_start(&mut self) -> Result<(), Need> {
        let start = self.start;
        let Some(best) = self.best.or_else(|| self.rate(start).map(|_| start)) else { return Ok(()) };
        self.best = Some(best);
        if best == start {
            return Ok(());
        }
        let is_won = |duel: &Duel| duel.champion == start && duel.beaten_by(start) == Some(best);
        if let Some(place) = self.duels.iter().rposition(is_won) {
            self.against_start = Some(place);
            return Ok(());
        }
        let rule = if best.weight() < start.weight() { Rule::AsGood } else { Rule::Faster };
        self.against_start = Some(self.duels.len());
        let compared = self.duel(start, best, rule);
        match compared {
            Ok(true) => {}
            Ok(false) => self.best = Some(start),
            Err(_) => self.against_start = None,
        }
        compared.map(drop)
    }

    /// Whether the challenger takes the champion's place.
    fn duel(&mut self, champion: Setting, challenger: Setting, rule: Rule) -> Result<bool, Need> {
        let mut duel = Duel::new(champion, challenger, rule, self.at);
        while !duel.is_over() {
            for setting in duel.round() {
                let sample = &self.take(setting)?.sample;
                duel.took(setting, sample.rate(), sample.meets(self.limits.slo.as_ref()));
            }
            duel.judge(self.verdicts);
        }
        let wins = duel.challenger_wins();
        self.duels.push(duel);
        Ok(wins)
    }

    fn measure(&mut self, setting: Setting) -> Result<(), Need> {
        self.take(setting).map(drop)
    }

    /// The next of the history, which is of this setting.
    fn take(&mut self, setting: Setting) -> Result<&'a Visit, Need> {
        let visit = self.history.get(self.at).ok_or(Need(setting))?;
        debug_assert_eq!(visit.setting, setting, "the same history leads the same way");
        self.at += 1;
        Ok(visit)
    }

    fn visits(&self, setting: Setting) -> impl Iterator<Item = &'a Visit> {
        let history = self.history;
        history[..self.at].iter().filter(move |visit| visit.setting == setting)
    }

    /// What a setting does, as far as it was looked at; `None` if it mostly fails. Of one or two looks the better, for what
    /// spoils a look makes it less; else the median.
    fn rate(&self, setting: Setting) -> Option<f64> {
        let rates: Vec<_> = self.visits(setting).filter_map(|visit| visit.sample.rate()).collect();
        match rates.len() {
            worked if self.visits(setting).count() > worked * 2 => None,
            1 | 2 => rates.into_iter().reduce(f64::max),
            _ => median(&rates),
        }
    }

    fn meets(&self, setting: Setting) -> bool {
        let slo = self.limits.slo.as_ref();
        let (met, all) = self
            .visits(setting)
            .fold((0, 0), |(met, all), visit| (met + u32::from(visit.sample.meets(slo)), all + 1));
        met * 2 > all
    }

    /// Those that work; if any of them meets the objective, those that do.
    fn able(&self, of: &[Setting]) -> Vec<(Setting, f64)> {
        let works = |&setting: &Setting| Some((setting, self.rate(setting)?));
        let mut able: Vec<_> = of.iter().filter_map(works).collect();
        if able.iter().any(|&(setting, _)| self.meets(setting)) {
            able.retain(|&(setting, _)| self.meets(setting));
        }
        able
    }

    /// Those that have this part of what the best of them has.
    fn near(&self, of: &[Setting], part: f64) -> Vec<Setting> {
        let able = self.able(of);
        let best = able.iter().map(|&(_, rate)| rate).fold(0.0, f64::max);
        able.into_iter().filter(|&(_, rate)| rate >= best * part).map(|(setting, _)| setting).collect()
    }

    fn highest(&self, of: &[Setting]) -> Option<Setting> {
        let able = self.able(of).into_iter();
        able.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(setting, _)| setting)
    }
}
