//! What is to be written into a configuration, and the evidence beside it.

use std::fmt::Write;
use std::time::SystemTime;

use hsmux_bench::tune::{Advice, End, Limits, Setting, Tried};
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
        }
    }

    /// How a comment begins: by this an older one is known.
    pub(super) const BEGINS: &'static str = "# tuned ";

    fn header(&self) -> String {
        let slo = self.slo.as_ref().map_or_else(String::new, |slo| format!(", {slo}"));
        format!("{} with {}, {} callers{slo}", self.day, self.profile, self.callers)
    }
}

/// The fields that were tuned: those of which something else was tried.
pub(super) fn entries(advice: &Advice, limits: &Limits, load: &Load) -> Vec<Entry> {
    let Some(best) = advice.best else { return Vec::new() };
    let with = |setting| advice.tried_with(setting);
    let entry = |name, value, told: String| Entry {
        name,
        value,
        evidence: format!("{}: {told}{}", load.header(), ends(advice)),
    };
    let others = |is_other: &dyn Fn(Setting) -> bool, name: &dyn Fn(Setting) -> String| {
        let mut text =
            with(best).map_or_else(String::new, |tried| format!("{} {}", name(best), figures(tried, true)));
        for tried in nearest(advice, best, is_other) {
            let told = name(tried.setting);
            let _written = write!(text, "; {told} {}", compared(advice, best, tried));
        }
        text
    };
    let sessions = |setting: Setting| setting.sessions.to_string();
    let by_sessions = |setting: Setting| setting.has_switches_of(best);
    let told = others(&by_sessions, &sessions);
    let mut entries = vec![entry("sessions", Value::Number(best.sessions), told)];
    let is_tried = |of: &dyn Fn(Setting) -> bool| advice.tried.iter().any(|tried| of(tried.setting));
    if limits.instances_max > 1 && is_tried(&|setting| setting.instances != best.instances) {
        let name = |setting: Setting| format!("{} of {} sessions", setting.instances, setting.sessions);
        let other = |setting: Setting| {
            setting.instances != best.instances
                && Setting { instances: 0, ..setting }.has_switches_of(Setting { instances: 0, ..best })
        };
        entries.push(entry("instances", Value::Number(best.instances), others(&other, &name)));
    }
    let copies = |setting: Setting| on(setting.copies, ["auto", "off"]).to_owned();
    let other = |setting: Setting| setting.copies != best.copies;
    if limits.copies && is_tried(&other) {
        let value = Value::Text(on(best.copies, ["auto", "off"]));
        entries.push(entry("copies", value, switch(advice, best, &other, &copies)));
    }
    let coalescing = |setting: Setting| on(setting.coalescing, ["on", "off"]).to_owned();
    let other = |setting: Setting| setting.coalescing != best.coalescing;
    if limits.coalescing && is_tried(&other) {
        let value = Value::Switch(best.coalescing);
        entries.push(entry("coalescing", value, switch(advice, best, &other, &coalescing)));
    }
    entries
}

const fn on(is_on: bool, names: [&'static str; 2]) -> &'static str {
    names[if is_on { 0 } else { 1 }]
}

/// The comparison by which a switch was decided, as it was made: with the sessions of then.
fn switch(
    advice: &Advice,
    best: Setting,
    is_other: &dyn Fn(Setting) -> bool,
    name: &dyn Fn(Setting) -> String,
) -> String {
    let differ = |duel: &&hsmux_bench::tune::Duel| {
        is_other(duel.champion) != is_other(duel.challenger)
            && duel.champion.sessions == duel.challenger.sessions
    };
    let Some(duel) = advice.duels.iter().find(differ) else {
        let rate = advice.tried_with(best).map_or_else(String::new, |tried| figures(tried, true));
        return format!("{} {rate}; the other was not compared for want of time", name(best));
    };
    let rate =
        |setting| advice.tried_with(setting).map_or_else(|| "-".to_owned(), |tried| figures(tried, true));
    let [champion, challenger] = [duel.champion, duel.challenger];
    let sessions = champion.sessions;
    format!(
        "{} {}; {} {}, {}; with {sessions} session{}",
        name(champion),
        rate(champion),
        name(challenger),
        rate(challenger),
        duel.outcome.as_str(),
        if sessions == 1 { "" } else { "s" },
    )
}

/// Those that are told of: the nearest in sessions, in order.
fn nearest<'a>(advice: &'a Advice, best: Setting, is_wanted: &dyn Fn(Setting) -> bool) -> Vec<&'a Tried> {
    let mut others: Vec<_> =
        advice.tried.iter().filter(|tried| tried.setting != best && is_wanted(tried.setting)).collect();
    others.sort_by_key(|tried| tried.setting.sessions.abs_diff(best.sessions));
    others.truncate(OTHERS_MAX);
    others.sort_by_key(|tried| (tried.setting.sessions, tried.setting.instances));
    others
}

/// What another did, and what a comparison with the best said, if there was one.
fn compared(advice: &Advice, best: Setting, tried: &Tried) -> String {
    let mut text = figures(tried, false);
    if let Some(duel) = advice.duel_of(best, tried.setting) {
        let (is_best, told) = (duel.challenger == best, duel.outcome.as_str());
        match (is_best, told) {
            // Said of the challenger; this line is about the other.
            (true, "faster") => text.push_str(", slower"),
            (true, "slower") => text.push_str(", faster"),
            (true, "no difference" | "too noisy to tell") | (false, _) => {
                text.push_str(", ");
                text.push_str(told);
            }
            (true, _) => {}
        }
    }
    text
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
pub(super) mod tests {
    use std::time::Duration;

    use hsmux_bench::tune::{Figures, Sample, Step, Tuner};

    use super::*;

    /// A search on a device without noise that does four operations at once, and more with copies.
    pub(in super::super) fn advice(start: Setting, limits: &Limits) -> Advice {
        let mut tuner = Tuner::new(start, limits.clone());
        loop {
            match tuner.next() {
                Step::Measure { setting, lasts } => {
                    let factor = if setting.copies { 1.0 } else { 0.5 };
                    let ops_per_s = 3100.0 * factor * setting.sessions.min(4) as f64;
                    let outcome = if setting.sessions > 8 {
                        Err("no more\nsessions".to_owned())
                    } else {
                        Ok(Figures { ops_per_s, ops: 100, errors: 0, latencies_ns: [1_000_000; 5] })
                    };
                    tuner.measured(Sample { took: lasts + Duration::from_millis(50), outcome });
                }
                Step::Done(advice) => return *advice,
            }
        }
    }

    pub(in super::super) fn load() -> Load {
        Load { day: "2026-11-29".to_owned(), profile: "dnssec".to_owned(), callers: 64, slo: None }
    }

    #[test]
    fn each_field_has_what_was_tried_beside_it() {
        let limits = Limits::default();
        let advice = advice(Setting::default(), &limits);
        let entries = entries(&advice, &limits, &load());
        let names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["sessions", "copies", "coalescing"]);
        let sessions = &entries[0];
        assert_eq!(sessions.value, Value::Number(4));
        let begins = "2026-11-29 with dnssec, 64 callers: 4 12,400/s (12,400 to 12,400); 1 3,100/s, slower; 2 6,200/s; 3 9,300/s; 6 12,400/s";
        assert!(sessions.evidence.starts_with(begins), "{}", sessions.evidence);
        assert_eq!(entries[1].value, Value::Text("auto"));
        assert!(
            entries[1].evidence.contains("off 6,200/s, slower; with 4 sessions"),
            "{}",
            entries[1].evidence
        );
        assert_eq!(entries[2].value, Value::Switch(true));
        assert!(entries[2].evidence.contains("no difference"), "{}", entries[2].evidence);
        assert!(!entries.iter().any(|entry| entry.evidence.contains('\n')));
    }

    #[test]
    fn what_was_not_tried_is_not_written() {
        let limits = Limits { copies: false, coalescing: false, ..Limits::default() };
        let entries = entries(&advice(Setting::default(), &limits), &limits, &load());
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0.4, 999.0, 1000.0, 1_234_567.2].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
