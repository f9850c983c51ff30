//! What is written of searches.

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
    Load { day: "2026-11-29".to_owned(), profile: "dnssec".to_owned(), callers: 64, slo: None, place: None }
}

#[test]
fn each_field_has_what_was_tried_beside_it() {
    let limits = Limits::default();
    let advice = advice(Setting::default(), &limits);
    let entries = entries(&advice, &limits, &load(), false);
    let names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["sessions", "copies", "coalescing"]);
    let sessions = &entries[0];
    assert_eq!(sessions.value, Value::Number(4));
    let begins = "2026-11-29 with dnssec, 64 callers: 4 sessions 12,400/s (12,400 to 12,400); 1: 3,100/s, slower; 2: 6,200/s; 3: 9,300/s; 6: 12,400/s";
    assert!(sessions.evidence.starts_with(begins), "{}", sessions.evidence);
    assert_eq!(entries[1].value, Value::Text("auto"));
    assert!(
        entries[1].evidence.contains("; off -50.0 %, slower; with 4 sessions"),
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
    let entries = entries(&advice(Setting::default(), &limits), &limits, &load(), false);
    assert_eq!(entries.len(), 1);
}

#[test]
fn whatever_differs_from_the_start_is_written_even_if_the_search_was_stopped_before_it_was_tried_alone() {
    let limits = Limits { instances_max: 2, ..Limits::default() };
    let start = Setting { sessions: 8, instances: 2, coalescing: false, copies: false };
    let mut advice = Tuner::new(start, limits.clone()).stopped();
    let names = |advice: &Advice| -> Vec<_> {
        entries(advice, &limits, &load(), false).iter().map(|entry| (entry.name, entry.value)).collect()
    };
    assert_eq!(names(&advice), [("sessions", Value::Number(8))]);
    advice.best = Some(Setting::default());
    let all = [
        ("sessions", Value::Number(1)),
        ("instances", Value::Number(1)),
        ("copies", Value::Text("auto")),
        ("coalescing", Value::Switch(true)),
    ];
    assert_eq!(names(&advice), all);
    // The same instances with other sessions are the same instances.
    advice.best = Some(start.with_sessions(4));
    assert_eq!(names(&advice), [("sessions", Value::Number(4))]);
}

#[test]
fn an_engine_that_finds_its_sessions_goes_on_doing_so_if_nothing_was_better() {
    let limits = Limits { copies: false, coalescing: false, ..Limits::default() };
    let value = |start: usize| {
        let advice = advice(Setting::default().with_sessions(start), &limits);
        entries(&advice, &limits, &load(), true)[0].value
    };
    assert_eq!([value(4), value(1)], [Value::AsItIs, Value::Number(4)]);
}

#[test]
fn of_several_tokens_a_comment_says_on_which_it_was_measured() {
    let on_first = Load { place: Some("measured on the first token".to_owned()), ..load() };
    assert!(on_first.header().ends_with("64 callers, measured on the first token"));
}

#[test]
fn thousands_are_grouped() {
    assert_eq!([0.4, 999.0, 1000.0, 1_234_567.2].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}
