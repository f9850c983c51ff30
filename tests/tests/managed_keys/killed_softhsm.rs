//! As `killed.rs`, on SoftHSM2: what SoftHSM2 itself loses is told from what an engine has done wrong.
//!
//! It writes in place: a process that is killed while it makes an object leaves a file that ends too early, or an object without
//! a class, a name or an id; one that is killed while it logs in may leave no token, for it writes the token's flags then.

use std::collections::HashSet;

use quanta::Instant;
use serde_json::Value;
use softhsm_fixtures::SoftHsm;

use crate::killed::{Acknowledged, Dice, KILLS_OF_A_SITE, Known, Tally, change_ns, kill_one, kills, list};
use crate::plain::{self, TokenDirectory};
use crate::worker::Worker;

/// Who has lost what was acknowledged.
#[derive(Debug, PartialEq)]
enum Loser {
    SoftHsm(String),
    Engine(String),
}

/// Looks at what is there after a kill, before an engine does. SoftHSM2 has lost something if a file is damaged which was whole
/// before; else what is not there was taken away by the engine.
fn blame(directory: &TokenDirectory, known: &Acknowledged, whole_before: &HashSet<String>) -> Option<Loser> {
    let damaged = directory.damaged();
    let spoilt: Vec<_> = damaged.into_iter().filter(|file| whole_before.contains(file)).collect();
    let missing = match directory.list() {
        Ok(listed) => missing(&listed, known),
        Err(error) => vec![format!("the tokens cannot be listed: {error}")],
    };
    if !spoilt.is_empty() {
        return Some(Loser::SoftHsm(format!("damaged: {spoilt:?}; missing: {missing:?}")));
    }
    (!missing.is_empty()).then(|| Loser::Engine(missing.join(", ")))
}

/// Objects of keys that were acknowledged, and are on none of the tokens or cannot be used.
fn missing(listed: &[(String, Vec<plain::Object>)], known: &Acknowledged) -> Vec<String> {
    let is_doomed =
        |name: &str| known.open.as_ref().is_some_and(|(what, of)| what == "destroy" && of == name);
    let keys: Vec<_> = known.keys.iter().filter(|(name, _)| !is_doomed(name)).collect();
    let of_token = |objects: &[plain::Object]| {
        let of_key = |(name, key): &(&String, &Known)| {
            let missing = plain::missing(objects, &key.objects).into_iter();
            missing.map(|what| format!("{name}: {what}")).collect::<Vec<_>>()
        };
        keys.iter().flat_map(of_key).collect::<Vec<_>>()
    };
    listed.iter().flat_map(|(_, objects)| of_token(objects)).collect()
}

/// What lies on the tokens once an engine has been there: no claim, no object of a key that no record names.
fn check_tidy(directory: &TokenDirectory, known: &Acknowledged) {
    let named: HashSet<_> = known.keys.values().flat_map(|key| &key.objects).collect();
    for (label, objects) in directory.list().unwrap() {
        for object in &objects {
            assert!(!object.label.starts_with("hsmux claim"), "a claim is left on {label}");
            let is_of_key = object.label.starts_with("key-");
            assert!(!is_of_key || named.contains(&object.id), "nobody's object on {label}: {object:?}");
        }
    }
}

fn kill_on_softhsm(softhsm: &SoftHsm, tokens: usize, kills: usize) {
    let (mut tally, mut dice) = (Tally::default(), Dice(tokens as u64));
    let (started, mut lost, mut cut, mut nameless) = (Instant::now(), 0, 0, 0);
    while tally.kills < kills {
        let change_ns = change_ns(&TokenDirectory::new(softhsm, tokens).place());
        let (directory, mut known) = (TokenDirectory::new(softhsm, tokens), Acknowledged::default());
        let (place, mut whole) = (directory.place(), directory.whole());
        for _ in 0..KILLS_OF_A_SITE.min(kills - tally.kills) {
            kill_one(&place, dice.throw(6 * change_ns), &mut known, &mut tally);
            match blame(&directory, &known, &whole) {
                None => {}
                Some(Loser::SoftHsm(loss)) => {
                    println!("SoftHSM2 has spoilt what was whole; {loss}");
                    lost += 1;
                    break;
                }
                Some(Loser::Engine(loss)) => panic!("no file is damaged, and this is missing: {loss}"),
            }
            let mut checker = Worker::start(&place);
            let found = checker.ask("look").unwrap();
            checker.end();
            known.check(&found.parse().unwrap(), tokens);
            check_tidy(&directory, &known);
            whole = directory.whole();
        }
        cut += directory.damaged().len();
        nameless += directory.list().map_or(0, |listed| plain::nameless(&listed));
    }
    println!("SoftHSM2, {tokens} tokens: {tally}, none lost by the engine ({:.0?})", started.elapsed());
    // What it was writing when it was killed, and nobody was told of.
    println!("left by SoftHSM2: {cut} files without a whole object, {nameless} objects without name and id");
    println!("spoilt by SoftHSM2: {lost} times what was whole");
    tally.assert_everything_was_hit();
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_on_one_token_of_softhsm() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    kill_on_softhsm(softhsm, 1, kills(20) / 2);
}

#[test]
fn no_key_is_lost_and_nothing_is_half_there_after_kills_on_two_tokens_of_softhsm() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    kill_on_softhsm(softhsm, 2, kills(20).div_ceil(2));
}

#[test]
fn what_softhsm_has_lost_is_told_from_what_somebody_has_taken_away() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    for (token_is_hit, is_taken_away) in [(false, false), (false, true), (true, false)] {
        let directory = TokenDirectory::new(softhsm, 1);
        let mut worker = Worker::start(&directory.place());
        let id = worker.ask("create key-0").unwrap();
        let found: Value = worker.ask("look").unwrap().parse().unwrap();
        worker.end();
        let mut known = Acknowledged::default();
        known.keys.extend(list(&found["keys"]).iter().map(Known::read));
        assert_eq!(known.keys["key-0"].id, id);
        let whole = directory.whole();
        assert_eq!(blame(&directory, &known, &whole), None);
        for file in directory.whole().iter().filter(|file| file.ends_with("token.object") == token_is_hit) {
            directory.harm(file, is_taken_away);
        }
        let loser = blame(&directory, &known, &whole);
        match is_taken_away {
            true => assert!(matches!(loser, Some(Loser::Engine(_))), "{loser:?}"),
            false => assert!(matches!(loser, Some(Loser::SoftHsm(_))), "{loser:?}"),
        }
    }
}

#[test]
fn what_softhsm_was_making_when_its_process_was_killed_holds_up_no_engine() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let directory = TokenDirectory::new(softhsm, 1);
    let mut worker = Worker::start(&directory.place());
    worker.ask("create key-0").unwrap();
    worker.end();
    // An object grows attribute by attribute, the class not first.
    directory.put_object_without_class();
    let mut worker = Worker::start(&directory.place());
    let found: Value = worker.ask("look").unwrap().parse().unwrap();
    worker.ask("rotate key-0").unwrap();
    worker.end();
    assert!(list(&found["keys"]).len() == 1 && found["keys"][0]["fault"].is_null(), "{found}");
}
