//! Two settings compared in interleaved rounds.

use std::collections::HashMap;

use serde::Serialize;

use super::{Gain, Setting};
use crate::stats::{Interval, median};
use crate::verdict::{Call, ROUNDS_MIN, Settings, Verdict};

/// A comparison of two settings, measured in turn: A B, B A, A B, ...
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Duel {
    /// What was the best until then.
    pub champion: Setting,
    /// What might take its place.
    pub challenger: Setting,
    /// How it came out, for the challenger.
    pub outcome: Outcome,
    /// The challenger's rate over the champion's; `None` if one of them did not work.
    pub ratio: Option<f64>,
    /// Where that ratio lies with 98 % confidence; `None` for too few rounds.
    pub interval: Option<Interval>,
    /// Rounds in which both worked, which is what the ratio comes from.
    pub rounds: usize,
    #[serde(skip)]
    rule: Rule,
    /// Where in the history it begins.
    #[serde(skip)]
    from: usize,
    #[serde(skip)]
    state: State,
}

/// How a challenger did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is faster.
    Faster,
    /// It is slower.
    Slower,
    /// They are alike, or at least it is not what it had to be.
    NoDifference,
    /// Too noisy to tell.
    TooNoisy,
    /// Only one of them meets the objective, and it is the challenger.
    MeetsObjective,
    /// Only one of them meets the objective, and it is the champion.
    MissesObjective,
    /// It does not work.
    Fails,
    /// It works, the champion does not.
    OtherFails,
}

/// When the challenger wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rule {
    /// If it is faster: of settings that are not simpler.
    #[default]
    Faster,
    /// Unless it is slower: of simpler settings.
    NotSlower,
    /// If it is surely not slower: of settings that are simpler than what runs today.
    AsGood,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    /// Of the champion and the challenger.
    rounds: Vec<(f64, f64)>,
    /// Rounds that were begun.
    begun: usize,
    /// The rate of each in this round.
    now: [Option<f64>; 2],
    /// How often each failed, and met the objective.
    failed: [usize; 2],
    met: [usize; 2],
    /// Whether each met it in this round, and in how many rounds each was the only one.
    meets: [bool; 2],
    alone: [usize; 2],
    is_over: bool,
}

/// Most rounds. With measurements that vary by 3 % the bounds are then 2 % to either side: less than what does not count.
/// With 20, and one measurement in fifty spoilt, a gain of a tenth was not seen in 5 of 60 searches.
const ROUNDS_MAX: usize = 24;

/// The same of a simpler setting against what runs today, which stays where it remains open: with 20, and measurements that vary by
/// 2 %, it stayed in a third of 60 searches in which the other was as good.
const ROUNDS_MAX_AS_GOOD: usize = 60;

/// After so many further rounds it is judged again: each time is another chance to err.
const ROUNDS_STEP: usize = 4;

/// After so many rounds, each of which the challenger lost by more than [`LOST`], nothing is to be hoped for.
const ROUNDS_LOST: usize = 4;

/// A part of the champion's rate with which a round is lost clearly.
const LOST: f64 = 0.9;

/// What a simpler setting has to have of the other, where noise leaves more open than that.
const GIVEN_UP: f64 = 0.95;

/// A setting that alone met the objective has more than luck if chance does so no more often than that: six rounds of six. As
/// seldom as the bounds of rates err.
const BY_CHANCE: f64 = 0.02;

/// A challenger that has failed so often is out: once may be an accident.
const FAILED_MAX: usize = 2;

/// Bounds of 98 %, for a search makes several comparisons and judges each up to four times; with 95 % noise of 6 % led four of
/// 60 searches astray, with these two. And 3 % that do not count: a setting that is chosen may be that much slower than another
/// that is not as simple. 400 draws know the error to within 4 %.
const SETTINGS: Settings = Settings { confidence: 0.98, smallest: 0.03, draws: 400, ..Settings::rates() };

impl Duel {
    pub(super) fn new(champion: Setting, challenger: Setting, rule: Rule, from: usize) -> Self {
        let (outcome, state) = (Outcome::TooNoisy, State::default());
        Self { champion, challenger, outcome, ratio: None, interval: None, rounds: 0, rule, from, state }
    }

    /// Whether it is decided.
    pub(super) const fn is_over(&self) -> bool {
        self.state.is_over
    }

    /// Who is measured in the next round, in order.
    pub(super) fn round(&mut self) -> [Setting; 2] {
        let is_even = self.state.begun.is_multiple_of(2);
        self.state.begun += 1;
        self.state.now = [None; 2];
        self.state.meets = [false; 2];
        if is_even { [self.champion, self.challenger] } else { [self.challenger, self.champion] }
    }

    /// Takes what was measured of one of them.
    pub(super) fn took(&mut self, setting: Setting, rate: Option<f64>, meets: bool) {
        let side = usize::from(setting == self.challenger);
        self.state.now[side] = rate;
        self.state.failed[side] += usize::from(rate.is_none());
        self.state.met[side] += usize::from(meets);
        self.state.meets[side] = meets;
    }

    /// Decides at the end of a round, if that can be.
    pub(super) fn judge(&mut self, verdicts: &mut HashMap<(usize, usize), Verdict>) {
        if let [Some(champion), Some(challenger)] = self.state.now {
            self.state.rounds.push((champion, challenger));
        }
        match self.state.meets {
            [true, false] => self.state.alone[0] += 1,
            [false, true] => self.state.alone[1] += 1,
            _ => {}
        }
        self.rounds = self.state.rounds.len();
        let ratios: Vec<_> = self.state.rounds.iter().map(|(before, after)| after / before).collect();
        self.ratio = median(&ratios).filter(|ratio| ratio.is_finite());
        if self.state.failed[1] >= FAILED_MAX {
            return self.end(Outcome::Fails);
        }
        if self.state.failed == [FAILED_MAX, 0] {
            return self.end(Outcome::OtherFails);
        }
        if self.rounds >= ROUNDS_LOST && ratios.iter().all(|&ratio| ratio < LOST) && !self.leans()[1] {
            return self.end(Outcome::Slower);
        }
        let is_as_good = matches!(self.rule, Rule::AsGood);
        let is_last = self.state.begun >= if is_as_good { ROUNDS_MAX_AS_GOOD } else { ROUNDS_MAX };
        // What the objective seems to decide is not decided by rates as long as more rounds can tell.
        let is_open = self.leans() != self.meets_alone() && !is_last;
        if !is_open && self.rounds >= ROUNDS_MIN && (self.rounds - ROUNDS_MIN).is_multiple_of(ROUNDS_STEP) {
            let compared = || Verdict::paired(&self.state.rounds, &SETTINGS);
            let verdict = verdicts.entry((self.from, self.rounds)).or_insert_with(compared).clone();
            (self.ratio, self.interval) = (verdict.ratio, verdict.interval);
            if let Some(outcome) = self.outcome_of(&verdict) {
                return self.end(outcome);
            }
        }
        if is_last {
            // By how much remains open. But slower it is, and more likely than not by more than may be given up for simplicity.
            let is_slower = self.interval.is_some_and(|interval| interval.high < 1.0)
                && self.ratio.is_some_and(|ratio| ratio < GIVEN_UP);
            self.end(if is_slower { Outcome::Slower } else { Outcome::TooNoisy });
        }
    }

    /// Whether the challenger takes the champion's place.
    pub(super) const fn challenger_wins(&self) -> bool {
        match self.outcome {
            Outcome::Faster | Outcome::MeetsObjective | Outcome::OtherFails => true,
            Outcome::NoDifference => !matches!(self.rule, Rule::Faster),
            Outcome::TooNoisy => matches!(self.rule, Rule::NotSlower),
            Outcome::Slower | Outcome::MissesObjective | Outcome::Fails => false,
        }
    }

    /// Which setting has been seen to beat this one, of the two: by its rate or the objective, or as simpler and surely not slower.
    pub(super) fn beaten_by(&self, one: Setting) -> Option<Setting> {
        let is_beaten = match self.outcome {
            Outcome::TooNoisy => false,
            Outcome::Faster | Outcome::NoDifference | Outcome::MeetsObjective | Outcome::OtherFails => {
                one == self.champion && self.challenger_wins()
            }
            Outcome::Slower | Outcome::MissesObjective | Outcome::Fails => one == self.challenger,
        };
        is_beaten.then_some(if one == self.champion { self.challenger } else { self.champion })
    }

    /// By how much the challenger does more.
    #[must_use]
    pub fn gain(&self) -> Option<Gain> {
        Some(Gain { ratio: self.ratio?, interval: self.interval })
    }

    /// What a verdict says, as far as it decides.
    fn outcome_of(&self, verdict: &Verdict) -> Option<Outcome> {
        let Interval { low, high } = verdict.interval?;
        let counts = 1.0 + SETTINGS.smallest;
        match (verdict.call, self.rule) {
            (Call::Faster, _) => Some(Outcome::Faster),
            (Call::Slower, _) => Some(Outcome::Slower),
            // It may be slower or not: it is not faster.
            (Call::NoDifference, Rule::Faster) if high <= counts => Some(Outcome::NoDifference),
            (Call::NoDifference, Rule::NotSlower | Rule::AsGood) if low >= 1.0 / counts => {
                Some(Outcome::NoDifference)
            }
            (Call::NoDifference, _) => None,
        }
    }

    /// Ends it. Who clearly alone meets the objective wins, whatever the rates.
    fn end(&mut self, outcome: Outcome) {
        self.outcome = match (outcome, self.meets_alone()) {
            (Outcome::Fails | Outcome::OtherFails, _) => outcome,
            (_, [true, false]) => Outcome::MissesObjective,
            (_, [false, true]) => Outcome::MeetsObjective,
            (outcome, _) => outcome,
        };
        self.state.is_over = true;
    }

    /// Who seems to meet the objective alone.
    fn leans(&self) -> [bool; 2] {
        let [champion, challenger] = self.state.met.map(|met| met * 2 > self.state.begun);
        [champion && !challenger, challenger && !champion]
    }

    /// Who clearly does so: by a sign test of the rounds in which only one of them met it.
    fn meets_alone(&self) -> [bool; 2] {
        let [champion, challenger] = self.state.alone;
        let is_clear = |most: usize, least: usize| chance_of_heads(most + least, most) <= BY_CHANCE;
        let [leans_to_champion, leans_to_challenger] = self.leans();
        [
            leans_to_champion && is_clear(champion, challenger),
            leans_to_challenger && is_clear(challenger, champion),
        ]
    }
}

/// The chance that so many throws of a fair coin show so many heads or more.
pub(super) fn chance_of_heads(throws: usize, heads: usize) -> f64 {
    let (mut chance, mut sum) = (0.5_f64.powf(throws as f64), 0.0);
    // From no tails on, as many as there may be.
    for tails in 0..=throws - heads {
        sum += chance;
        chance *= (throws - tails) as f64 / (tails + 1) as f64;
    }
    sum
}

impl Outcome {
    /// As it is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifference => "no difference",
            Self::TooNoisy => "too noisy to tell",
            Self::MeetsObjective => "meets the objective, the other does not",
            Self::MissesObjective => "misses the objective",
            Self::Fails => "fails",
            Self::OtherFails => "works, the other does not",
        }
    }
}
