//! What is to be written into a configuration, and the evidence beside it.

use std::fmt::Write;
use std::time::SystemTime;

use hsmux_bench::tune::{Advice, Duel, End, Limits, Outcome, Setting, Tried};
use serde::Serialize;

use super::args::Args;
use super::drive::Bench;

/// A field of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// What speaks for it, without the line's beginning.
    pub(super) evidence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// What stands there is as good as all else.
    AsItIs,
    Number(usize),
    Switch(bool),
    Text(&'static str),
}

/// On what load the settings were measured, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Load {
    /// As 2026-11-29.
    pub(super) day: String,
    /// Its name.
    pub(super) profile: String,
    pub(super) callers: u32,
    /// The objective, if there is one.
    pub(super) slo: Option<String>,
    /// Where, if there are several tokens.
    pub(super) place: Option<String>,
}

/// Most other settings that a comment tells of.
const OTHERS_MAX: usize = 5;

impl Load {
    pub(super) fn of(bench: &Bench<'_>, args: &Args, now: SystemTime) -> Self {
        let time = humantime::format_rfc3339_seconds(now).to_string();
        Self {
            day: time.split('T').next().unwrap_or_default().to_owned(),
            profile: bench.profile.name.clone(),
            callers: bench.profile.callers,
            slo: args.slo.as_ref().map(ToString::to_string),
            place: bench.bare.place(),
        }
    }

    /// How a comment begins, before the day: by both an older one is known.
    pub(super) const BEGINS: &'static str = "# hsmux tune ";

    fn header(&self) -> String {
        let slo = self.slo.as_ref().map_or_else(String::new, |slo| format!(", {slo}"));
        let place = self.place.as_ref().map_or_else(String::new, |place| format!(", {place}"));
        format!("{} with {}, {} callers{slo}{place}", self.day, self.profile, self.callers)
    }
}

/// A switch: what it is called in a setting, and the setting with it out of sight.
struct Switch {
    name: fn(Setting) -> String,
    without: fn(Setting) -> Setting,
    /// Whether its name says with how many sessions.
    names_sessions: bool,
}

const INSTANCES: Switch = Switch {
    name: |setting| {
        let each = if setting.instances == 1 { "" } else { " each" };
        format!("{} with {} session{}{each}", setting.instances, setting.sessions, plural(setting.sessions))
    },
    // Their sessions are shared among them.
    without: |setting| Setting { instances: 0, sessions: 0, ..setting },
    names_sessions: true,
};

const COPIES: Switch = Switch {
    name: |setting| on(setting.copies, ["auto", "off"]).to_owned(),
    without: |setting| Setting { copies: true, ..setting },
    names_sessions: false,
};

const COALESCING: Switch = Switch {
    name: |setting| on(setting.coalescing, ["on", "off"]).to_owned(),
    without: |setting| Setting { coalescing: true, ..setting },
    names_sessions: false,
};

/// The fields that were tuned: those of which something else was tried, and all in which the advice differs from the start.
/// `is_adaptive`: at start the engine finds the sessions by itself. So it does further on, if nothing was better.
pub(super) fn entries(advice: &Advice, limits: &Limits, load: &Load, is_adaptive: bool) -> Vec<Entry> {
    let Some(best) = advice.best else { return Vec::new() };
    let entry = |name, value, told: String| Entry {
        name,
        value,
        evidence: format!("{}: {told}{}", load.header(), ends(advice)),
    };
    let stays = is_adaptive && best == advice.start;
    let sessions = if stays { Value::AsItIs } else { Value::Number(best.sessions) };
    let mut entries = vec![entry("sessions", sessions, by_sessions(advice, best))];
    let switches = [
        ("instances", limits.instances_max > 1, Value::Number(best.instances), INSTANCES),
        ("copies", limits.copies, Value::Text(on(best.copies, ["auto", "off"])), COPIES),
        ("coalescing", limits.coalescing, Value::Switch(best.coalescing), COALESCING),
    ];
    for (name, may_be_turned, value, switch) in switches {
        let other = Some((switch.name)(advice.start)).filter(|_| {
            let alike = |setting: Setting| Setting { sessions: 0, ..setting };
            (switch.name)(alike(best)) != (switch.name)(alike(advice.start))
        });
        let told = switch.told(advice).filter(|_| may_be_turned);
        let by_all = || Some(format!("{}; at start {}{}", (switch.name)(best), other?, of_all(advice)));
        if let Some(told) = told.or_else(by_all) {
            entries.push(entry(name, value, told));
        }
    }
    entries
}

/// What all that differs from the start brings.
fn of_all(advice: &Advice) -> String {
    advice.gain.map_or_else(String::new, |gain| format!("; all together {gain}"))
}

const fn on(is_on: bool, names: [&'static str; 2]) -> &'static str {
    names[if is_on { 0 } else { 1 }]
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// What the advice does, and other numbers of sessions.
fn by_sessions(advice: &Advice, best: Setting) -> String {
    let rate = advice.tried_with(best).map_or_else(String::new, |tried| figures(tried, true));
    let mut text = format!("{} session{} {rate}", best.sessions, plural(best.sessions));
    for tried in nearest(advice, best) {
        let _written = write!(text, "; {}: {}", tried.setting.sessions, compared(advice, best, tried));
    }
    text
}

impl Switch {
    /// The comparison by which it was decided last, as it was made: with the sessions of then. `None` if it was not.
    fn told(&self, advice: &Advice) -> Option<String> {
        let is_of_it = |duel: &&Duel| {
            let [one, other] = [duel.champion, duel.challenger];
            (self.without)(one) == (self.without)(other) && (self.name)(one) != (self.name)(other)
        };
        let duel = advice.duels.iter().filter(|duel| !is_of_sessions(duel)).rfind(is_of_it)?;
        let rate = advice.tried_with(duel.champion).map_or_else(String::new, |tried| figures(tried, true));
        let (champion, challenger) = ((self.name)(duel.champion), (self.name)(duel.challenger));
        let mut text = format!("{champion} {rate}; {challenger}");
        if let Some(gain) = duel.gain() {
            let _written = write!(text, " {gain}");
        }
        let _written = write!(text, ", {}", duel.outcome.as_str());
        if !self.names_sessions {
            let _written =
                write!(text, "; with {} session{}", duel.champion.sessions, plural(duel.champion.sessions));
        }
        Some(text)
    }
}

/// Whether only the sessions differ.
fn is_of_sessions(duel: &Duel) -> bool {
    duel.champion.has_switches_of(duel.challenger)
}

/// Those with the same switches that are told of: the nearest in sessions, in order.
fn nearest(advice: &Advice, best: Setting) -> Vec<&Tried> {
    let is_other = |tried: &&Tried| tried.setting != best && tried.setting.has_switches_of(best);
    let mut others: Vec<_> = advice.tried.iter().filter(is_other).collect();
    others.sort_by_key(|tried| tried.setting.sessions.abs_diff(best.sessions));
    others.truncate(OTHERS_MAX);
    others.sort_by_key(|tried| tried.setting.sessions);
    others
}

/// What another did, and what a comparison with the best said, if there was one.
fn compared(advice: &Advice, best: Setting, tried: &Tried) -> String {
    let text = figures(tried, false);
    let Some(duel) = advice.duel_of(best, tried.setting) else { return text };
    // Outcomes are those of the challenger; this is about the other one of the advice.
    let outcome = match (duel.challenger == best, duel.outcome) {
        (true, Outcome::Faster) => Outcome::Slower,
        (true, Outcome::Slower) => Outcome::Faster,
        (_, outcome @ (Outcome::NoDifference | Outcome::TooNoisy)) | (false, outcome) => outcome,
        (true, _) => return text,
    };
    format!("{text}, {}", outcome.as_str())
}

/// A rate with its bounds, if wanted, or why there is none.
pub(super) fn figures(tried: &Tried, with_bounds: bool) -> String {
    match (tried.per_s, tried.interval.filter(|_| with_bounds), &tried.failed) {
        (Some(per_s), Some(bounds), _) => {
            format!("{}/s ({} to {})", grouped(per_s), grouped(bounds.low), grouped(bounds.high))
        }
        (Some(per_s), None, _) => format!("{}/s", grouped(per_s)),
        (None, _, Some(why)) => format!("failed ({})", crate::exit::printable(why)),
        (None, _, None) => "not measured".to_owned(),
    }
}

fn ends(advice: &Advice) -> &'static str {
    match (advice.end, advice.meets) {
        (_, false) => "; the objective was not met",
        (End::Found, true) => "",
        (End::OutOfTime | End::Stopped, true) => "; unfinished, the best so far",
    }
}

/// A number without its fraction, with commas between thousands.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
