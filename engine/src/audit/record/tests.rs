use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::super::merkle::{leaf, sha256};
use super::*;

fn on() -> On {
    On {
        caller: Some("card \"desk\"\n".into()),
        key: Some("card-signing".into()),
        version: Some(3),
        object: None,
        operation: "sign".into(),
        algorithm: Some("ecdsa-p256-sha256".into()),
    }
}

fn one() -> Use {
    let input = Some(Hex(sha256(b"a message")));
    Use { request: Some("4711".into()), input, other: None }
}

fn end() -> End {
    let (token, error) = (Some("pay-1".into()), Some(ErrorKind::Device));
    End { intent: None, token, outcome: Outcome::Done, error }
}

fn stored() -> Stored {
    Stored { size: 7, sha256: Hex(sha256(b"a note")) }
}

/// One of each kind, with every field that it may have.
pub(in crate::audit) fn one_of_each() -> Vec<Record> {
    let time = UNIX_EPOCH + Duration::new(1_764_385_200, 123_456_789);
    let fields: Fields = vec![("state", "suspended".into())];
    // What only some have, or only instead of others.
    let on = || On { object: Some("pkcs11:id=%01".into()), ..on() };
    let one = || Use { other: Some("pkcs11:id=%02".into()), ..one() };
    let change = || Change { request: Some("4712".into()), fields: fields.clone() };
    let end = || End { intent: Some(11), ..end() };
    let gap = Gap { count: 2, from: time, to: time, policy: "shed", why: "no space".into() };
    let torn = Torn { file: "torn-1".into(), bytes: 3, sha256: Hex(sha256(b"abc")) };
    let start = Start {
        log: "example.com/audit/00".into(),
        writer: "hsmux 0",
        mode: "strict",
        found: Found::CutOff,
        checkpoint: Some(stored()),
        torn: Some(torn),
    };
    [
        What::Use(on(), one(), end()),
        What::Uses(on(), Uses::of([("1", &sha256(b"a"))]), end()),
        What::Intent(on(), Intent::Use(one())),
        What::Intent(on(), Intent::Change(change())),
        What::Change(on(), change(), end()),
        What::Gap(gap),
        What::Checkpoint(stored()),
        What::Start(start),
        What::Stop(Stop { reason: "closed" }),
    ]
    .map(|what| Record { time, what })
    .into()
}

fn written(record: &Record) -> String {
    let mut out = Vec::new();
    record.write(12, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_record_is_one_line_of_json_in_this_order() {
    let digest = super::super::hex::text(&sha256(b"a message"));
    let expected = [
        r#"{"v":1,"seq":12,"time":"2025-11-29T03:00:00.123456789Z","kind":"use","#,
        r#""caller":"card \"desk\"\n","key":"card-signing","version":3,"operation":"sign","#,
        r#""algorithm":"ecdsa-p256-sha256","request":"4711","input":""#,
        &digest,
        r#"","token":"pay-1","outcome":"done","error":"device"}"#,
    ];
    let record = Record { what: What::Use(on(), one(), end()), ..one_of_each().swap_remove(0) };
    assert_eq!(written(&record), expected.concat());
}

#[test]
fn what_is_not_there_is_left_out() {
    let (key, version, object) = (None, None, None);
    let on = On { caller: None, key, version, object, operation: "random".into(), algorithm: None };
    let end = End { intent: None, token: None, outcome: Outcome::Unknown, error: None };
    let what = What::Use(on, Use::named(None), end);
    let text = written(&Record { time: UNIX_EPOCH, what });
    assert!(text.ends_with(r#""kind":"use","operation":"random","outcome":"unknown"}"#), "{text}");
}

/// The kinds, each once.
fn kinds() -> Vec<&'static str> {
    let mut kinds: Vec<_> = one_of_each().iter().map(|record| record.what.kind()).collect();
    kinds.dedup();
    kinds
}

/// The fields of each kind as the tables of the specification have them: `| field | kinds | ..`.
fn documented() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut fields = BTreeMap::<_, Vec<_>>::new();
    let text = include_str!("../../../docs/audit.md").split("\n## Records\n").nth(1).unwrap();
    // The first table there.
    let rows = text.split("\n| kind |").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let kinds = match cells[2] {
            "all" => kinds(),
            kinds => kinds.split(", ").collect::<Vec<_>>(),
        };
        kinds.into_iter().for_each(|kind| fields.entry(kind).or_default().push(cells[1].trim_matches('`')));
    }
    fields
}

fn keys(prefix: &str, value: &Value, found: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        found.push(format!("{prefix}{name}"));
        // The names of these are whoever's who made the change.
        if name != "fields" {
            keys(&format!("{prefix}{name}."), value, found);
        }
    }
}

#[test]
fn every_field_that_is_written_is_specified_and_every_one_that_is_specified_is_written() {
    let specified = documented();
    assert_eq!(specified.len(), kinds().len());
    for kind in kinds() {
        let mut found = Vec::new();
        for record in one_of_each().iter().filter(|record| record.what.kind() == kind) {
            let mut line = Vec::new();
            super::super::line::seal(record, 12, &[0; 32], &mut line).unwrap();
            keys("", &serde_json::from_slice(&line).unwrap(), &mut found);
        }
        let mut specified = specified[kind].clone();
        specified.sort_unstable();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, specified, "{kind}");
    }
}

#[test]
fn the_root_of_a_shared_call_is_over_inputs_and_ids() {
    let inputs = [sha256(b"a"), sha256(b"b")];
    let uses = Uses::of(["1", "two"].into_iter().zip(&inputs));
    let mut tree = Tree::default();
    tree.push(leaf(&[&inputs[0][..], b"1"].concat()));
    tree.push(leaf(&[&inputs[1][..], b"two"].concat()));
    assert_eq!(uses, Uses { count: 2, root: Hex(tree.root()) });
}

#[test]
fn names_of_keys_are_not_shown_in_debug() {
    let change = Change { request: None, fields: vec![("name", "card-signing".into())] };
    let record = Record { time: UNIX_EPOCH, what: What::Change(on(), change, end()) };
    let shown = format!("{record:?} {:?}", Text::from("card-signing"));
    assert!(!shown.contains("card-signing") && !shown.contains("desk"), "{shown}");
}
