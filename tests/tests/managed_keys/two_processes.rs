//! Two processes on the same tokens see the same keys, and change them one at a time.

use std::collections::HashMap;
use std::time::Duration;

use hsmux_tests::eventually;
use p256::ecdsa::signature::Verifier;
use quanta::Instant;

use crate::worker::{Worker, engine};

/// What one process changes holds in another within so long.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self, tokens: usize) -> String {
        format!("tokens={tokens},store={}", self.0.path().display())
    }
}

/// The public key of each version, by an engine that looks once.
fn public_keys(config: &str, tokens: usize, id: &str) -> HashMap<u32, p256::ecdsa::VerifyingKey> {
    use spki::DecodePublicKey;
    let engine = engine(config, tokens).unwrap();
    let id: hsmux::KeyId = id.parse().unwrap();
    let key = engine.key(&id).unwrap();
    let versions = engine.managed_keys().info(&id).unwrap().versions;
    let of = |number| {
        let der = key.version_numbered(number).unwrap().public_key_der().unwrap();
        (number, p256::ecdsa::VerifyingKey::from_public_key_der(&der).unwrap())
    };
    versions.iter().map(|version| of(version.version)).collect()
}

fn is_by(key: &p256::ecdsa::VerifyingKey, text: &str, signature: &str) -> bool {
    let bytes: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&signature[i..i + 2], 16).unwrap())
        .collect();
    key.verify(text.as_bytes(), &p256::ecdsa::Signature::from_slice(&bytes).unwrap()).is_ok()
}

#[test]
fn what_one_process_changes_holds_in_the_other_within_five_seconds_and_no_output_is_of_a_wrong_version() {
    for tokens in [1, 2] {
        let site = Site::new();
        let config = site.config(tokens);
        let (mut a, mut b) = (Worker::start(&config, tokens), Worker::start(&config, tokens));
        let id = a.ask("create card").unwrap();
        // One that began before there was a catalogue finds it, too.
        b.ask(&format!("sign {id} first")).unwrap();
        let (mut said, mut rounds) = (Vec::new(), Vec::new());
        let mut until_seen = |b: &mut Worker, what: &str, holds: &dyn Fn(&Result<String, String>) -> bool| {
            let started = Instant::now();
            loop {
                let text = format!("text-{}", said.len());
                let answer = b.ask(&format!("sign {id} {text}"));
                let seen = holds(&answer);
                said.extend(answer.ok().map(|answer| (text, answer)));
                if seen {
                    rounds.push(started.elapsed());
                    return;
                }
                assert!(started.elapsed() < SEEN_WITHIN, "{what} is not seen");
            }
        };
        for round in 0..3 {
            let version = a.ask("rotate card").unwrap();
            assert_eq!(version, (round + 2).to_string());
            let is_newest = |answer: &Result<String, String>| {
                answer.as_ref().is_ok_and(|answer| answer.starts_with(&format!("{version} ")))
            };
            until_seen(&mut b, "a rotation", &is_newest);
            a.ask("suspend card").unwrap();
            until_seen(&mut b, "a suspension", &|answer| {
                answer.as_ref().is_err_and(|kind| kind == "key-state")
            });
            a.ask("resume card").unwrap();
            until_seen(&mut b, "that it is resumed", &|answer| answer.is_ok());
        }
        let publics = public_keys(&config, tokens, &id);
        assert!(publics.len() == 4 && said.len() > 6, "{} versions, {} outputs", publics.len(), said.len());
        for (text, answer) in &said {
            let (version, signature) = answer.split_once(' ').unwrap();
            assert!(
                is_by(&publics[&version.parse().unwrap()], text, signature),
                "an output of another version"
            );
        }
        println!(
            "{tokens} tokens: seen after {:?} at most; {} outputs",
            rounds.iter().max().unwrap(),
            said.len()
        );
    }
}

#[test]
fn two_that_change_one_key_at_once_never_both_think_that_they_made_the_same_version() {
    let site = Site::new();
    let config = site.config(1);
    let mut workers = [Worker::start(&config, 1), Worker::start(&config, 1)];
    let id = workers[0].ask("create card").unwrap();
    let mut made = HashMap::new();
    let (mut conflicts, mut rounds) = (0, 0);
    while made.len() < 20 {
        workers.iter_mut().for_each(|worker| worker.order("rotate card"));
        for (index, worker) in workers.iter_mut().enumerate() {
            let answer = worker.next().unwrap();
            match answer.split(' ').collect::<Vec<_>>()[..] {
                ["ok", version] => made.entry(version.to_owned()).or_insert_with(Vec::new).push(index),
                ["error", "conflict", ..] => conflicts += 1,
                _ => unreachable!("{answer}"),
            }
        }
        rounds += 1;
        assert!(rounds < 500, "only {} versions", made.len());
    }
    println!("{} versions in {rounds} rounds, {conflicts} conflicts", made.len());
    assert!(made.values().all(|by| by.len() == 1), "each was made by one: {made:?}");
    assert!(conflicts > 0, "they never met");
    let publics = public_keys(&config, 1, &id);
    assert_eq!(publics.len(), made.len() + 1, "what was said to be made is there, and nothing else");
    let distinct: std::collections::HashSet<_> =
        publics.values().map(|key| key.to_sec1_point(true)).collect();
    assert_eq!(distinct.len(), publics.len());
}

#[test]
fn two_that_make_a_key_of_one_name_at_once_make_one() {
    let site = Site::new();
    let config = site.config(2);
    let mut workers = [Worker::start(&config, 2), Worker::start(&config, 2)];
    for round in 0..10 {
        workers.iter_mut().for_each(|worker| worker.order(&format!("create name-{round}")));
        let answers: Vec<_> = workers.iter_mut().map(|worker| worker.next().unwrap()).collect();
        let made = answers.iter().filter(|answer| answer.starts_with("ok")).count();
        let refused = |answer: &&String| {
            answer.starts_with("error conflict") || answer.starts_with("error key-ambiguous")
        };
        assert!(made <= 1 && answers.iter().filter(refused).count() == 2 - made, "{answers:?}");
    }
    let engine = engine(&config, 2).unwrap();
    eventually("nothing is half-made", || {
        let named: Vec<_> = engine.managed_keys().list().unwrap();
        let objects = engine.keys().iter().filter(|key| key.label.starts_with("name-")).count();
        objects == 2 * named.len()
    });
}
