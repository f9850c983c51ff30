mod refused;
mod written;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::*;
use crate::case::Op;

/// Lines 1 to 8.
const LEAST: &str =
    "name = \"n\"\n\n[[phase]]\nname = \"p\"\nfor = \"1s\"\n\n[[operation]]\nop = \"aes-ecb\"\n";

const DOCUMENT: &str = include_str!("../../docs/profiles.md");

fn parsed(text: &str) -> Profile {
    Profile::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn rate(per_s: f64) -> Rate {
    Rate::per_second(per_s).unwrap()
}

/// The least profile with lines in its head, which begin at line 2, in its phase (6), and in its operation (9).
fn with(head: &str, phase: &str, operation: &str) -> String {
    let text = LEAST.replace("\n\n[[phase]]", &format!("\n{head}\n[[phase]]"));
    let text = text.replace("\n\n[[operation]]", &format!("\n{phase}\n[[operation]]"));
    format!("{text}{operation}\n")
}

/// What is said of it, behind its place.
fn refusal(text: &str) -> String {
    match Profile::parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

/// Names in the first column of the table under a heading of the document.
fn documented(heading: &str) -> BTreeSet<String> {
    let section =
        DOCUMENT.split("\n#").find(|section| section.trim_start_matches('#').trim().starts_with(heading));
    let rows = section.unwrap_or_else(|| panic!("no section {heading}")).lines();
    rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect()
}

/// Names that the parser says there are, when it meets another.
fn known(text: &str) -> BTreeSet<String> {
    let error = refusal(text);
    assert!(error.contains("unknown"), "{error}");
    error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn what_is_not_said_is_as_documented() {
    let expected = Profile::single("aes-ecb:16".parse().unwrap(), None, Duration::from_secs(1));
    let mut got = parsed(LEAST);
    assert_eq!((got.name.as_str(), got.phases[0].name.as_str()), ("n", "p"));
    (got.name, got.phases[0].name) = (expected.name.clone(), "steady".to_owned());
    assert_eq!(got, expected);
    let row = |field: &str, default: &str| {
        let row = DOCUMENT.lines().find(|line| line.starts_with(&format!("| `{field}` |"))).unwrap();
        assert_eq!(row.split(" | ").nth(2), Some(default), "{row}");
    };
    row("api", &format!("`\"{}\"`", got.api.as_str()));
    row("callers", &got.callers.to_string());
    row("seed", &got.seed.to_string());
    row("counted", &got.phases[0].counted.to_string());
    row("weight", &got.operations[0].weight.to_string());
}

#[test]
fn the_document_lists_every_field_that_is_parsed() {
    let unknown = "nonsense = 1";
    assert_eq!(documented("Fields of a profile"), known(&with(unknown, "", "")));
    assert_eq!(documented("Fields of a phase"), known(&with("", unknown, "")));
    assert_eq!(documented("Fields of an operation"), known(&with("", "", unknown)));
    let sizes = known(&with("", "", "size = { nonsense = 1 }"));
    assert_eq!(sizes, set(&["uniform", "choice", "lognormal"]));
    let logarithmic = known(&with("", "", "size = { lognormal = { nonsense = 1 } }"));
    let spread = known(&with("", "", "keys = { nonsense = 1 }"));
    assert_eq!(spread, known(&with("", "", "tenant = { nonsense = 1 }")));
    for name in sizes.iter().chain(&logarithmic).chain(&spread) {
        assert!(DOCUMENT.contains(&format!("{name} = ")), "{name}");
    }
}

#[test]
fn the_document_lists_every_operation_and_its_size() {
    let from = DOCUMENT.find("Operations, with the sizes").unwrap();
    let paragraph = DOCUMENT[from..].split("\n\n").next().unwrap().replace('\n', " ");
    for op in Op::ALL {
        let (_, after) =
            paragraph.split_once(&format!("`{}`", op.as_str())).unwrap_or_else(|| panic!("{op:?}"));
        let mut words = after.split([' ', ',', ';', '.']);
        let number = words.find_map(|word| word.parse().ok());
        assert_eq!(number, Some(op.default_size()), "{op:?}");
    }
}

#[test]
fn examples_of_the_document_are_profiles() {
    let blocks: Vec<_> =
        DOCUMENT.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    blocks.into_iter().for_each(|block| drop(parsed(block)));
}

#[test]
fn presets_are_profiles_that_say_where_their_shape_comes_from() {
    let names: BTreeSet<String> = Profile::PRESETS.iter().map(|preset| preset.name.to_owned()).collect();
    assert_eq!(names, documented("Presets"));
    for name in &names {
        let profile = Profile::preset(name).unwrap();
        assert_eq!(&profile.name, name);
        let standards = ["RFC ", "ISO ", "ETSI ", "PCI DSS ", "EMV"];
        assert!(standards.iter().any(|standard| profile.description.contains(standard)), "{name}");
        assert!(profile.description.contains("our own choice"), "{name} says what no standard does");
        let row = DOCUMENT.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap();
        assert_eq!(row.split(" | ").nth(1), Some(if profile.pace.is_some() { "open" } else { "closed" }));
        assert!(profile.phases.iter().any(|phase| !phase.counted), "{name} warms up");
        assert_eq!(parsed(&profile.to_toml()), profile);
    }
    let error = Profile::preset("nonsense").unwrap_err();
    assert!(names.iter().all(|name| error.contains(name.as_str())), "{error}");
}

#[test]
fn the_least_that_is_said_of_an_operation_decides_its_deadline() {
    let with_deadline =
        with("deadline = \"2s\"", "", "[[operation]]\nname = \"b\"\nop = \"random\"\ndeadline = \"none\"");
    let profile = parsed(&with_deadline);
    let deadlines = profile.operations.iter().map(|operation| profile.deadline_of(operation));
    assert!(deadlines.eq([Deadline::In(Duration::from_secs(2)), Deadline::None]));
    let unsaid = parsed(LEAST);
    assert_eq!(unsaid.deadline_of(&unsaid.operations[0]), Deadline::Default);
}

#[test]
fn phases_of_a_closed_loop_may_have_callers_of_their_own() {
    let profile = parsed(&with("callers = 7", "[[phase]]\nname = \"q\"\nfor = \"1s\"\ncallers = 9", ""));
    assert_eq!(profile.phases.iter().map(|phase| profile.callers_in(phase)).collect::<Vec<_>>(), [7, 9]);
    assert!(profile.schedule().is_none());
}

#[test]
fn a_schedule_has_the_phases_of_its_profile() {
    let profile = Profile::preset("payment-auth").unwrap();
    let mut counts = vec![0_u32; profile.phases.len()];
    profile.schedule().unwrap().for_each(|arrival| counts[arrival.phase] += 1);
    for (count, phase) in counts.into_iter().zip(&profile.phases) {
        let expected = phase.requests().unwrap();
        // A Poisson process: four deviations.
        assert!((f64::from(count) - expected).abs() < 4.0 * expected.sqrt(), "{}: {count}", phase.name);
    }
}

#[test]
fn the_seed_decides_arrivals_and_work() {
    let profile = Profile::preset("tls-handshakes").unwrap();
    let other = Profile { seed: 2, ..profile.clone() };
    let at = |profile: &Profile| profile.schedule().unwrap().take(50).collect::<Vec<_>>();
    assert_eq!(at(&profile), at(&profile.clone()));
    assert_ne!(at(&profile), at(&other));
    let draws = |profile: &Profile, caller| {
        let (mix, mut dice) = (profile.mix(), profile.dice(caller));
        (0..50).map(|_| mix.draw(&mut dice)).collect::<Vec<_>>()
    };
    assert_eq!(draws(&profile, 3), draws(&profile, 3));
    let different: HashSet<_> = [(&profile, 3), (&profile, 4), (&other, 3)]
        .map(|(profile, caller)| format!("{:?}", draws(profile, caller)))
        .into();
    assert_eq!(different.len(), 3);
}

#[test]
fn a_rate_for_the_whole_is_the_mean_of_the_phases_that_count() {
    let profile = Profile::preset("payment-auth").unwrap().at_rate(rate(100.0)).unwrap();
    assert!((profile.mean_per_s().unwrap() - 100.0).abs() < 1e-9);
    let one =
        Profile::single("random".parse().unwrap(), Some((Pace::Poisson, rate(7.0))), Duration::from_secs(1));
    assert_eq!(one.clone().at_rate(rate(2_000.0)).unwrap().phases[0].demand, Demand::Rate(rate(2_000.0)));
    assert_eq!(one.clone().scaled(3.0).unwrap().phases[0].demand, Demand::Rate(rate(21.0)));
    for factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        assert!(one.clone().scaled(factor).is_err(), "{factor}");
    }
    let closed = Profile::preset("dnssec").unwrap();
    assert_eq!(closed.mean_per_s(), None);
    assert!(closed.at_rate(rate(5.0)).unwrap_err().contains("closed loop"));
}

#[test]
fn a_time_for_the_whole_scales_every_phase() {
    let profile = Profile::preset("payment-auth").unwrap();
    let third = profile.length() / 3;
    let short = profile.clone().for_time(third).unwrap();
    assert_eq!(short.length(), third);
    for (phase, before) in short.phases.iter().zip(&profile.phases) {
        assert!(phase.length.abs_diff(before.length / 3) < Duration::from_micros(1), "{}", phase.name);
    }
    assert!(profile.clone().for_time(Duration::from_millis(2)).unwrap_err().contains("too short"));
    assert!(profile.for_time(Duration::from_secs(13 * 3600)).unwrap_err().contains("too long"));
}
