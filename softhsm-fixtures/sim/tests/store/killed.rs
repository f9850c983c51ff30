//! A process that makes, changes and destroys objects is killed at any moment: what it was told is done is done, and of
//! what it was about to do each object is wholly there or wholly absent.

use std::collections::BTreeMap;
use std::hint::black_box;

use cryptoki_sys as sys;

use crate::processes::{Process, change, destroy, make, say};
use crate::raw::{Raw, Rv};
use crate::sim::{Sim, bytes};

/// How many processes are killed.
const KILLS: u64 = 120;

/// Most steps that a process is let do before it is killed soon.
const STEPS_MAX: u64 = 24;

/// Longest time between a step and the kill, in looks at the clock: longer than any step takes.
const LOOKS_MAX: u64 = 4_000;

const P256: &str = "06082a8648ce3d030107";

/// What may be there under a label: values, or none for no object. One of several while a step is under way.
#[derive(Debug, Default)]
struct Model(BTreeMap<String, Vec<Option<String>>>);

/// What a process does until it is killed, saying what it will do and what it has done.
pub(crate) fn churn(raw: Raw, session: u64, round: &str) {
    for step in 0_u64.. {
        let label = format!("r{round}-{step}");
        told("make", &label, "first", || make(raw, session, &label, "first").map(drop));
        if step % 3 > 0 {
            told("change", &label, "second", || change(raw, session, &label, "second"));
            told("change", &label, "third, and longer", || change(raw, session, &label, "third, and longer"));
        }
        if step % 2 > 0 {
            told("destroy", &label, "", || destroy(raw, session, &label));
        }
        if step % 8 == 5 {
            told("pair", &label, "", || pair(raw, session, &label));
        }
    }
}

fn told(what: &str, label: &str, value: &str, run: impl FnOnce() -> Rv<()>) {
    say(&format!("will {what} {label} {value}"));
    run().unwrap();
    say(&format!("has {what} {label} {value}"));
}

fn pair(raw: Raw, session: u64, label: &str) -> Rv<()> {
    let (curve, on_token) = (bytes(P256), (sys::CKA_TOKEN, &[1][..]));
    let [public, private] = ["public", "private"].map(|half| format!("{label}-{half}"));
    let public = [on_token, (sys::CKA_EC_PARAMS, &curve), (sys::CKA_LABEL, public.as_bytes())];
    let private = [on_token, (sys::CKA_LABEL, private.as_bytes())];
    raw.generate_pair(session, sys::CKM_EC_KEY_PAIR_GEN, &public, &private).map(drop)
}

impl Model {
    /// Takes a line of a process in.
    fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        let [when, what, label, value] = words.try_into().unwrap();
        let labels = match what {
            "pair" => ["-private", "-public"].map(|half| format!("{label}{half}")).to_vec(),
            _ => vec![label.to_owned()],
        };
        for label in labels {
            let next = match what {
                "destroy" => None,
                "pair" => Some(String::new()),
                _ => Some(value.to_owned()),
            };
            let now = self.0.entry(label).or_insert_with(|| vec![None]);
            if when == "will" {
                now.push(next);
            } else {
                *now = vec![next];
            }
        }
    }

    /// Whether a step is under way.
    fn is_open(&self) -> bool {
        self.0.values().any(|may_be| may_be.len() > 1)
    }

    /// Compares with what is there.
    fn check(&self, there: &BTreeMap<String, String>) {
        for (label, may_be) in &self.0 {
            let found = there.get(label).cloned();
            assert!(may_be.contains(&found), "{label} is {found:?} and may be {may_be:?}");
        }
        for label in there.keys() {
            assert!(self.0.contains_key(label), "{label} was never made");
            if let Some(pair) = label.strip_suffix("-public") {
                assert!(there.contains_key(&format!("{pair}-private")), "the private half comes first");
            }
        }
    }
}

/// What processes have left, by label: values of data, nothing for keys.
fn there(sim: &Sim) -> BTreeMap<String, String> {
    let text = |value| String::from_utf8(value).unwrap();
    let objects = sim.raw.find_all(sim.session).unwrap().into_iter().map(|object| {
        let is_data = sim.value(object, sys::CKA_CLASS) == sys::CKO_DATA.to_ne_bytes();
        let value = if is_data { text(sim.value(object, sys::CKA_VALUE)) } else { String::new() };
        (text(sim.value(object, sys::CKA_LABEL)), value)
    });
    // Those that every token has from the start have other labels.
    objects.filter(|(label, _)| label.contains('-')).collect()
}

#[test]
fn whenever_a_process_is_killed_each_object_is_wholly_there_or_wholly_absent() {
    let directory = tempfile::tempdir().unwrap();
    let config = format!("store={}", directory.path().display());
    let sim = Sim::new(&config);
    let mut open = 0;
    let mut dice = Dice(1);
    for round in 0..KILLS {
        let mut process = Process::start(&config);
        assert_eq!(process.ask("log_in 1234"), "done");
        process.tell(&format!("churn {round}"));
        let mut model = Model::default();
        for _ in 0..dice.below(STEPS_MAX) {
            model.hear(&process.next().unwrap());
        }
        for _ in 0..dice.below(LOOKS_MAX) {
            black_box(std::time::SystemTime::now());
        }
        process.kill().iter().for_each(|line| model.hear(line));
        open += u64::from(model.is_open());
        let found = there(&sim);
        model.check(&found);
        if round % 20 == 0 {
            assert_eq!(there(&Sim::new(&config)), found, "for whoever comes anew");
        }
        found.keys().for_each(|label| destroy(sim.raw, sim.session, label).unwrap());
    }
    // Most of the time of such a process is inside of steps.
    assert!(open > KILLS / 4, "{open} of {KILLS} were killed in a step");
    let left = std::fs::read_dir(directory.path().join("sim-0")).unwrap();
    let left: Vec<_> = left.map(|file| file.unwrap().file_name()).filter(|name| name.len() > 32).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same moments for all runs, as far as anything decides them.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
