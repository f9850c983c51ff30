//! kill -9 at random moments of creating, rotating and destroying: no key is lost, and nothing is half there afterwards.
//!
//! `HSMUX_KILLS` says how many kills; without it 40 on the simulator for records on tokens and 40 for those in files, and 20 on
//! SoftHSM2.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use quanta::Instant;
use serde_json::Value;

use crate::worker::{Place, Records, Site, Worker};

/// What was acknowledged on a site, and what became of the kills there.
#[derive(Default)]
pub(crate) struct Acknowledged {
    /// By name. Those that are destroyed are not there.
    pub(crate) keys: HashMap<String, Known>,
    /// What was begun when the process was killed: it may have happened, or not.
    pub(crate) open: Option<(String, String)>,
    /// Whether the process had an engine when it was killed.
    has_begun: bool,
}

/// A key that somebody was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: String,
    /// `CKA_ID`s of its versions.
    pub(crate) objects: Vec<String>,
}

/// Kills, by what they fell into, and changes that were acknowledged.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) kills: usize,
    fell: HashMap<&'static str, usize>,
    changes: usize,
}

impl Acknowledged {
    /// Takes in what a process said. Returns how many changes it has made.
    fn hear(&mut self, said: impl IntoIterator<Item = String>) -> usize {
        (self.open, self.has_begun) = (None, false);
        said.into_iter().filter(|line| self.hear_line(line)).count()
    }

    fn hear_line(&mut self, line: &str) -> bool {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["begins", what, name] => self.open = Some((what.to_owned(), name.to_owned())),
            ["did", what, name, ref answer @ ..] => {
                self.open = None;
                match (what, answer) {
                    ("create", [id, object]) => {
                        let known = Known { id: (*id).to_owned(), objects: vec![(*object).to_owned()] };
                        assert_eq!(self.keys.insert(name.to_owned(), known), None, "{name} is made twice");
                    }
                    ("rotate", [version, object]) => {
                        let objects = &mut self.keys.get_mut(name).unwrap().objects;
                        objects.push((*object).to_owned());
                        assert_eq!(objects.len().to_string(), *version);
                    }
                    _ => drop(self.keys.remove(name).unwrap()),
                }
                return true;
            }
            ["ready"] => self.has_begun = true,
            ["failed", _, _, "key-not-found" | "key-ambiguous" | "key-state", ..] => self.open = None,
            _ => panic!("{line}"),
        }
        false
    }

    /// What the process was doing when it was killed.
    fn phase(&self) -> &'static str {
        match self.open.as_ref().map(|(what, _)| what.as_str()) {
            Some("create") => "create",
            Some("rotate") => "rotate",
            Some(_) => "destroy",
            None if self.has_begun => "between changes",
            None => "start",
        }
    }

    /// Checks what a new engine finds, and takes over what may have happened to the change that was cut off.
    pub(crate) fn check(&mut self, found: &Value, tokens: usize) {
        assert_eq!(found["refused"], 0, "{found}");
        let living: HashMap<_, _> = list(&found["keys"]).iter().map(Known::read).collect();
        let open = self.open.take();
        for name in (0..4).map(|index| format!("key-{index}")) {
            let is_open = |what: &str| open.as_ref().is_some_and(|(begun, of)| begun == what && *of == name);
            match (self.keys.get(&name), living.get(&name)) {
                (None, None) => {}
                (None, Some(_)) => assert!(is_open("create"), "{name} is there, and nobody has made it"),
                (Some(_), None) => assert!(is_open("destroy"), "{name} is lost"),
                (Some(before), Some(now)) => {
                    assert_eq!(now.id, before.id);
                    let has_grown = is_open("rotate") && now.objects.len() == before.objects.len() + 1;
                    assert!(now.objects.starts_with(&before.objects), "{name} has lost a version");
                    assert!(has_grown || now.objects.len() == before.objects.len(), "{name}: {now:?}");
                }
            }
        }
        for key in list(&found["keys"]) {
            assert!(key["fault"].is_null(), "a key that is there does not work: {key}");
        }
        let named: HashSet<_> = living.values().flat_map(|known| &known.objects).collect();
        let objects = list(&found["objects"]);
        let is_named = |object: &&Value| named.contains(&text(&object[1]));
        let orphans: Vec<_> = objects.iter().filter(|object| !is_named(object)).collect();
        assert!(orphans.is_empty(), "objects that no record names: {orphans:?}");
        assert_eq!(objects.len(), tokens * named.len(), "every version is on every token");
        self.keys = living;
    }
}

impl Known {
    pub(crate) fn read(key: &Value) -> (String, Self) {
        let objects = list(&key["objects"]).iter().map(text).collect();
        (text(&key["name"]), Self { id: text(&key["id"]), objects })
    }
}

impl Tally {
    fn count(&mut self, phase: &'static str, changes: usize) {
        self.kills += 1;
        *self.fell.entry(phase).or_default() += 1;
        self.changes += changes;
    }

    /// So many kills are not all at one moment.
    pub(crate) fn assert_everything_was_hit(&self) {
        assert!(self.changes > 0, "every process was killed before it had done anything");
        let hit = |phase: &&str| self.fell.contains_key(*phase);
        assert!(self.kills < 100 || ["create", "rotate", "destroy"].iter().all(hit), "{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kills", self.kills)?;
        for phase in ["create", "rotate", "destroy", "start", "between changes"] {
            write!(f, ", {} in {phase}", self.fell.get(phase).unwrap_or(&0))?;
        }
        write!(f, "; {} changes acknowledged", self.changes)
    }
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Numbers that look random, the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn throw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 16) % below
    }
}

/// After so many kills the tokens are new ones: the first key of all is made again, and the records of those that are destroyed do
/// not pile up.
pub(crate) const KILLS_OF_A_SITE: usize = 25;

/// How long a change takes here and now, so that kills come at all moments of it.
pub(crate) fn change_ns(place: &Place) -> u64 {
    let mut worker = Worker::start(place);
    worker.ask("create measure").unwrap();
    let started = Instant::now();
    (0..4).for_each(|_| drop(worker.ask("rotate measure").unwrap()));
    let each = started.elapsed() / 4;
    worker.end();
    u64::try_from(each.as_nanos()).unwrap()
}

/// Starts a process that changes keys, kills it after so long, and hears what it has said until then.
pub(crate) fn kill_one(place: &Place, life_ns: u64, known: &mut Acknowledged, tally: &mut Tally) {
    // One of four is killed early, while it starts and tidies up what others have left.
    let is_early = tally.kills % 4 == 3;
    let life = Duration::from_nanos(if is_early { life_ns / 4 } else { life_ns });
    let mut worker = if is_early { Worker::spawn(place) } else { Worker::start(place) };
    worker.order(&format!("loop {}", tally.kills));
    std::thread::park_timeout(life);
    worker.kill();
    let ready = (!is_early).then(|| "ready".to_owned());
    let changes = known.hear(ready.into_iter().chain(std::iter::from_fn(|| worker.next())));
    tally.count(known.phase(), changes);
}

fn kill_on_simulator(tokens: usize, records: Records, kills: usize) {
    let (mut tally, mut dice) = (Tally::default(), Dice(tokens as u64));
    let started = Instant::now();
    while tally.kills < kills {
        let sites = [Site::new(), Site::new()];
        let [measured, place] = sites.each_ref().map(|site| site.place(tokens, records));
        let (change_ns, mut known) = (change_ns(&measured), Acknowledged::default());
        for _ in 0..KILLS_OF_A_SITE.min(kills - tally.kills) {
            kill_one(&place, dice.throw(6 * change_ns), &mut known, &mut tally);
            let mut checker = Worker::start(&place);
            let found = checker.ask("look").unwrap();
            checker.end();
            known.check(&found.parse().unwrap(), tokens);
        }
    }
    println!(
        "{tokens} tokens, {records:?}: {tally}, none lost, nothing half there ({:.0?})",
        started.elapsed()
    );
    tally.assert_everything_was_hit();
}

pub(crate) fn kills(otherwise: usize) -> usize {
    std::env::var("HSMUX_KILLS").map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_on_one_token() {
    kill_on_simulator(1, Records::OnToken, kills(40) / 2);
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_on_two_tokens() {
    kill_on_simulator(2, Records::OnToken, kills(40).div_ceil(2));
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_where_the_records_are_in_a_file() {
    kill_on_simulator(1, Records::InFile, kills(40) / 2);
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_on_two_tokens_whose_records_are_in_files() {
    kill_on_simulator(2, Records::InFile, kills(40).div_ceil(2));
}
