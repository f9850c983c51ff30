//! kill -9 at random moments of creating, rotating and destroying: no key is lost, and nothing is half there afterwards.
//!
//! `HSMUX_KILLS` says how many kills, for records on tokens and again for records in files; 40 without it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use hsmux::{Ecdsa, Engine, KeyState};
use quanta::Instant;

use crate::worker::{Records, Site, Worker, engine};

/// What was acknowledged, by name: the id and how many versions; none once it is destroyed.
#[derive(Default)]
struct Acknowledged {
    keys: HashMap<String, Option<(String, u32)>>,
    /// What was begun when the process was killed: it may have happened, or not.
    open: Option<(String, String)>,
    changes: usize,
}

impl Acknowledged {
    fn hear(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["begins", what, name] => self.open = Some((what.to_owned(), name.to_owned())),
            ["did", what, name, answer] => {
                self.open = None;
                self.changes += 1;
                match what {
                    "create" => drop(self.keys.insert(name.to_owned(), Some((answer.to_owned(), 1)))),
                    "rotate" => {
                        let known = self.keys.get_mut(name).unwrap().as_mut().unwrap();
                        known.1 = answer.parse().unwrap();
                    }
                    _ => drop(self.keys.insert(name.to_owned(), None)),
                }
            }
            ["ready"] => {}
            ["failed", _, _, "key-not-found" | "key-ambiguous" | "key-state", ..] => self.open = None,
            _ => panic!("{line}"),
        }
    }
}

/// Checks what a new engine finds, and takes over what may have happened to the change that was cut off.
fn check(engine: &Engine, known: &mut Acknowledged, tokens: usize) {
    let infos = engine.managed_keys().list().unwrap();
    assert_eq!(engine.managed_keys().refused_records().unwrap(), []);
    let living: HashMap<_, _> = infos
        .iter()
        .filter(|info| info.state != KeyState::Destroyed)
        .map(|info| (info.name.clone(), info))
        .collect();
    let open = known.open.take();
    for name in (0..4).map(|index| format!("key-{index}")) {
        let is_open = |what: &str| open.as_ref().is_some_and(|(begun, of)| begun == what && *of == name);
        let before = known.keys.get(&name).cloned().flatten();
        match (&before, living.get(&name)) {
            (None, None) => {}
            (None, Some(_)) => assert!(is_open("create"), "{name} is there, and nobody has made it"),
            (Some(_), None) => assert!(is_open("destroy"), "{name} is lost"),
            (Some((id, versions)), Some(info)) => {
                assert_eq!(info.id.as_str(), id);
                let there = u32::try_from(info.versions.len()).unwrap();
                assert!(there == *versions || is_open("rotate") && there == versions + 1, "{name}: {there}");
            }
        }
        let now =
            living.get(&name).map(|info| (info.id.to_string(), u32::try_from(info.versions.len()).unwrap()));
        known.keys.insert(name, now);
    }
    let mut named = HashSet::new();
    for info in living.values() {
        let key = engine.key(&info.id).unwrap();
        for version in &info.versions {
            named.insert(version.object.clone());
            let key = key.version_numbered(version.version).unwrap();
            assert!(key.public_key_der().is_ok());
        }
        if info.state == KeyState::Active {
            let signature = key.sign(Ecdsa::P256_SHA256, b"message").wait().unwrap();
            assert!(key.verify(Ecdsa::P256_SHA256, b"message", &signature).wait().unwrap().is_valid());
        }
    }
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let objects: Vec<_> = engine.keys().into_iter().filter(|key| key.label.starts_with("key-")).collect();
    let orphans: Vec<_> = objects.iter().filter(|key| !named.contains(&hex(&key.id))).collect();
    assert!(orphans.is_empty(), "objects that no record names: {}", orphans.len());
    assert_eq!(objects.len(), tokens * named.len(), "every version is on every token");
}

/// How long a change takes here and now, so that kills come at all moments of it.
fn change_ns(config: &str, tokens: usize) -> u64 {
    let mut worker = Worker::start(config, tokens);
    worker.ask("create measure").unwrap();
    let started = Instant::now();
    (0..4).for_each(|_| drop(worker.ask("rotate measure").unwrap()));
    let each = started.elapsed() / 4;
    ["deactivate measure", "destroy measure"].iter().for_each(|order| drop(worker.ask(order).unwrap()));
    u64::try_from(each.as_nanos()).unwrap()
}

fn kill_again_and_again(tokens: usize, records: Records, kills: usize) {
    let site = Site::new();
    let config = site.config(tokens, records);
    let (mut known, mut dice) = (Acknowledged::default(), 1_u64);
    let change_ns = change_ns(&config, tokens);
    for kill in 0..kills {
        // One of four is killed while it starts, too, and tidies up what others have left.
        let mut worker =
            if kill % 4 == 3 { Worker::spawn(&config, tokens) } else { Worker::start(&config, tokens) };
        worker.order(&format!("loop {kill}"));
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_nanos((dice >> 16) % (6 * change_ns));
        std::thread::park_timeout(life);
        worker.kill();
        while let Some(line) = worker.next() {
            known.hear(&line);
        }
        let engine = engine(&config, tokens).unwrap();
        check(&engine, &mut known, tokens);
        assert_eq!(engine.drain(Duration::from_secs(10)), 0);
    }
    println!(
        "{tokens} tokens, {records:?}: {kills} kills, {} changes acknowledged, none lost, nothing half there",
        known.changes
    );
    assert!(known.changes > 0, "every process was killed before it had done anything");
}

fn kills() -> usize {
    std::env::var("HSMUX_KILLS").map_or(40, |text| text.parse().unwrap())
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_on_one_token() {
    kill_again_and_again(1, Records::OnToken, kills() / 2);
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_on_two_tokens() {
    kill_again_and_again(2, Records::OnToken, kills() / 2);
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_where_the_records_are_in_a_file() {
    kill_again_and_again(1, Records::InFile, kills() / 2);
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_on_two_tokens_whose_records_are_in_files() {
    kill_again_and_again(2, Records::InFile, kills() / 2);
}
