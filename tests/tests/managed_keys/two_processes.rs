//! Two processes on the same tokens see the same keys, and change them one at a time.

use std::collections::HashMap;
use std::time::Duration;

use hsmux_tests::eventually;
use p256::ecdsa::signature::Verifier;
use quanta::Instant;

use crate::worker::{Place, Records, Site, Worker};

/// What one process changes holds in another within so long.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// The public key of each version, by a process that looks once.
fn public_keys(place: &Place, id: &str) -> HashMap<u32, p256::ecdsa::VerifyingKey> {
    use spki::DecodePublicKey;
    let mut process = Worker::start(place);
    let answer = process.ask(&format!("publics {id}")).unwrap();
    process.end();
    let read = |version: &str| {
        let (number, der) = version.split_once(':').unwrap();
        let key = p256::ecdsa::VerifyingKey::from_public_key_der(&of_hex(der)).unwrap();
        (number.parse().unwrap(), key)
    };
    answer.split(' ').map(read).collect()
}

fn of_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn is_by(key: &p256::ecdsa::VerifyingKey, text: &str, signature: &str) -> bool {
    let signature = p256::ecdsa::Signature::from_slice(&of_hex(signature)).unwrap();
    key.verify(text.as_bytes(), &signature).is_ok()
}

/// Has one process rotate, suspend and resume a key, and another sign with it meanwhile, until it has seen each change.
pub(crate) fn changes_hold_in_the_other(place: &Place) {
    let (mut a, mut b) = (Worker::start(place), Worker::start(place));
    let id = a.ask("create card").unwrap();
    // One that began before there was a catalogue finds it, too.
    b.ask(&format!("sign {id} first")).unwrap();
    let (mut said, mut seen_after) = (Vec::new(), Vec::new());
    let mut until_seen = |b: &mut Worker, what: &str, holds: &dyn Fn(&Result<String, String>) -> bool| {
        let started = Instant::now();
        loop {
            let text = format!("text-{}", said.len());
            let answer = b.ask(&format!("sign {id} {text}"));
            let seen = holds(&answer);
            said.extend(answer.ok().map(|answer| (text, answer)));
            if seen {
                seen_after.push(started.elapsed());
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
        until_seen(&mut b, "a suspension", &|answer| answer.as_ref().is_err_and(|kind| kind == "key-state"));
        a.ask("resume card").unwrap();
        until_seen(&mut b, "that it is resumed", &|answer| answer.is_ok());
    }
    a.end();
    b.end();
    let publics = public_keys(place, &id);
    assert!(publics.len() == 4 && said.len() > 6, "{} versions, {} outputs", publics.len(), said.len());
    for (text, answer) in &said {
        let (version, signature) = answer.split_once(' ').unwrap();
        assert!(is_by(&publics[&version.parse().unwrap()], text, signature), "an output of another version");
    }
    let latest = seen_after.iter().max().unwrap();
    println!("{} tokens: seen after {latest:?} at most; {} outputs", place.tokens(), said.len());
}

/// Has two processes rotate one key at once, until there are so many more versions.
pub(crate) fn each_version_is_made_by_one(place: &Place, versions: usize) {
    let mut workers = [Worker::start(place), Worker::start(place)];
    let id = workers[0].ask("create card").unwrap();
    let mut made = HashMap::new();
    let (mut conflicts, mut rounds) = (0, 0);
    while made.len() < versions {
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
    workers.into_iter().for_each(Worker::end);
    let publics = public_keys(place, &id);
    assert_eq!(publics.len(), made.len() + 1, "what was said to be made is there, and nothing else");
    let distinct: std::collections::HashSet<_> =
        publics.values().map(|key| key.to_sec1_point(true)).collect();
    assert_eq!(distinct.len(), publics.len());
}

#[test]
fn what_one_process_changes_holds_in_the_other_within_five_seconds_and_no_output_is_of_a_wrong_version() {
    for (tokens, records) in
        [(1, Records::OnToken), (2, Records::OnToken), (1, Records::InFile), (2, Records::InFile)]
    {
        let site = Site::new();
        changes_hold_in_the_other(&site.place(tokens, records));
    }
}

#[test]
fn two_that_change_one_key_at_once_never_both_think_that_they_made_the_same_version() {
    for records in Records::BOTH {
        let site = Site::new();
        each_version_is_made_by_one(&site.place(1, records), 20);
    }
}

#[test]
fn two_that_make_a_key_of_one_name_at_once_make_one() {
    for records in Records::BOTH {
        let site = Site::new();
        let place = site.place(2, records);
        let mut workers = [Worker::start(&place), Worker::start(&place)];
        for round in 0..10 {
            workers.iter_mut().for_each(|worker| worker.order(&format!("create name-{round}")));
            let answers: Vec<_> = workers.iter_mut().map(|worker| worker.next().unwrap()).collect();
            let made = answers.iter().filter(|answer| answer.starts_with("ok")).count();
            let refused = |answer: &&String| {
                answer.starts_with("error conflict") || answer.starts_with("error key-ambiguous")
            };
            assert!(made <= 1 && answers.iter().filter(refused).count() == 2 - made, "{answers:?}");
        }
        let engine = place.engine().unwrap();
        eventually("nothing is half-made", || {
            let named: Vec<_> = engine.managed_keys().list().unwrap();
            let objects = engine.keys().iter().filter(|key| key.label.starts_with("name-")).count();
            objects == 2 * named.len()
        });
    }
}

#[test]
fn the_first_key_of_all_is_found_by_its_name_in_an_engine_that_began_before_and_never_as_a_plain_one() {
    for records in Records::BOTH {
        let site = Site::new();
        let place = site.place(1, records);
        let engine = place.engine().unwrap();
        Worker::start(&place).ask("create card").unwrap();
        let key = engine.key("card").unwrap();
        assert_eq!((key.id().is_some(), key.version_number()), (true, Some(1)));
        Worker::start(&place).ask("suspend card").unwrap();
        eventually("its state holds here", || {
            key.sign(hsmux::Ecdsa::P256_SHA256, b"message").wait().is_err()
        });
    }
}

#[test]
fn what_one_process_has_made_another_that_lives_destroys_for_good() {
    for records in Records::BOTH {
        let site = Site::new();
        let place = site.place(2, records);
        let engine = place.engine().unwrap();
        let mut other = Worker::start(&place);
        other.ask("create card").unwrap();
        let keys = engine.managed_keys();
        keys.deactivate("card").unwrap();
        keys.destroy("card").unwrap();
        drop(other);
        let fresh = place.engine().unwrap();
        assert!(
            fresh.keys().iter().all(|object| object.label != "card"),
            "its objects are gone from both tokens"
        );
    }
}

#[test]
fn a_change_that_was_cut_off_is_undone_by_an_engine_that_lives_meanwhile() {
    for records in Records::BOTH {
        let site = Site::new();
        let place = site.place(2, records);
        let engine = place.engine().unwrap();
        engine.managed_keys().create("own", &hsmux::KeyConfig::new(hsmux::KeySpec::Hmac(32))).unwrap();
        for kill in 0..8_u64 {
            let mut worker = Worker::start(&place);
            worker.order(&format!("loop {kill}"));
            std::thread::park_timeout(Duration::from_millis(7 * kill));
            worker.kill();
        }
        eventually("every object is a living key's", || {
            let living = engine.managed_keys().list().unwrap().into_iter();
            let living = living.filter(|key| key.state != hsmux::KeyState::Destroyed);
            let named: std::collections::HashSet<_> =
                living.flat_map(|key| key.versions).map(|version| version.object).collect();
            let fresh = place.engine().unwrap();
            let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let orphans = fresh
                .keys()
                .into_iter()
                .filter(|key| key.label.starts_with("key-"))
                .filter(|key| !named.contains(&hex(&key.id)))
                .count();
            drop(fresh);
            orphans == 0
        });
    }
}
