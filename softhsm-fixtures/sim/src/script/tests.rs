use std::collections::BTreeSet;

use super::code::CODES;
use super::event::Kind;
use super::steps::Timeline;
use super::*;

const DOCUMENT: &str = include_str!("../../../docs/sim-scripts.md");

fn parsed(text: &str) -> Script {
    Script::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn refusal(text: &str) -> String {
    match Script::parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

fn assert_refused(text: &str, place: &str, why: &str) {
    let error = refusal(text);
    let what = error.strip_prefix(&format!("{place}: "));
    let what = what.unwrap_or_else(|| panic!("{error}, expected {place}: {text}"));
    assert!(what.contains(why), "{error}, expected {why}");
}

/// A device of two tokens to which this happens; events begin at line 4.
fn with(events: &str) -> String {
    format!("tokens = 2\nop = \"1ms\"\n\n{events}")
}

fn event(fields: &str) -> String {
    with(&format!("[[at]]\nafter = \"1s\"\n{fields}\n"))
}

/// When, what is changed, and what is said.
fn steps_of(events: &str) -> Vec<(f64, String, String)> {
    let steps = parsed(&with(events)).steps;
    steps.iter().map(|step| (step.at.as_secs_f64(), step.change.clone(), step.says.clone())).collect()
}

fn assert_steps(events: &str, expected: &[(f64, &str, &str)]) {
    let found = steps_of(events);
    let found: Vec<_> =
        found.iter().map(|(at, change, says)| (*at, change.as_str(), says.as_str())).collect();
    assert_eq!(found, expected, "{events}");
}

/// An event in one line: `after`, and the rest.
fn at(after: &str, rest: &str) -> String {
    format!("[[at]]\nafter = \"{after}\"\n{}\n", rest.replace("; ", "\n"))
}

#[test]
fn a_device_is_configured_as_the_script_says() {
    assert_eq!(parsed("").config, "tokens=1");
    let all = r#"
        tokens = 3
        op = "1500ns"
        call = "80us"
        cores = 4
        sessions = 64
        throttle = 5
        null = true
        seed = 7
        pin = "4711"
        keys = ["orders:p256@sim-0+sim-2", "spare"]
        config = "input_max=16,reuse=sessions"
    "#;
    let script = parsed(all);
    let expected = "tokens=3,op_us=1.500,call_us=80.000,cores=4,sessions=64,throttle=5,seed=7,null=1,pin=4711,\
                    keys=orders:p256@sim-0+sim-2;spare,input_max=16,reuse=sessions";
    assert_eq!(script.config, expected);
    assert_eq!((script.tokens, script.pin.as_str()), (vec![label(0), label(1), label(2)], "4711"));
    assert!(script.steps.is_empty());
}

fn label(token: usize) -> String {
    super::event::label(token)
}

#[test]
fn a_token_is_lost_and_comes_back() {
    let expected = [(10.0, "removed=sim-0", "token sim-0 lost"), (20.0, "removed=", "token sim-0 back")];
    let two = at("10s", "what = \"lost\"; token = 0") + &at("20s", "what = \"back\"; token = 0");
    assert_steps(&two, &expected);
    assert_steps(&at("10s", "what = \"lost\"; token = 0; for = \"10s\""), &expected);
    assert_steps(
        &(at("1s", "what = \"lost\"; token = 1; for = \"2s\"") + &at("2s", "what = \"lost\"; for = \"2s\"")),
        &[
            (1.0, "removed=sim-1", "token sim-1 lost"),
            (2.0, "removed=sim-0;sim-1", "all tokens lost"),
            (3.0, "removed=sim-0", "token sim-1 back"),
            (4.0, "removed=", "all tokens back"),
        ],
    );
    let early = at("1s", "what = \"lost\"; for = \"9s\"") + &at("2s", "what = \"back\"");
    assert_steps(
        &early,
        &[(1.0, "removed=sim-0;sim-1", "all tokens lost"), (2.0, "removed=", "all tokens back")],
    );
}

#[test]
fn events_last_as_long_as_they_say_and_leave_others_in_force() {
    let slow = "what = \"slower\"; by = 2.5; for = \"4s\"";
    assert_steps(
        &(at("1s", slow) + &at("2s", "what = \"slower\"; by = 4; token = 1")),
        &[
            (1.0, "slower=2.500", "all tokens slower by 2.5 for 4s"),
            (2.0, "slower=2.500;4.000@sim-1", "token sim-1 slower by 4"),
            (5.0, "slower=4.000@sim-1", "all tokens no longer slower"),
        ],
    );
    let errors = "what = \"errors\"; code = \"CKR_DEVICE_ERROR\"; for = \"2s\"";
    let some = "what = \"errors\"; code = \"5\"; share = \"5%\"; calls = \"C_Sign\"; token = 0";
    let hang = "what = \"hang\"; token = 1; for = \"2s\"";
    assert_steps(
        &(at("0s", errors) + &at("1s", some) + &at("1s", hang) + &at("2s", hang)),
        &[
            (0.0, "rules=runs:1+=0x30", "CKR_DEVICE_ERROR from all of runs for 2s"),
            (
                1.0,
                "rules=runs:1+=0x30;C_Sign:5%=0x5@sim-0",
                "CKR_GENERAL_ERROR from 5% of C_Sign on token sim-0",
            ),
            (
                1.0,
                "rules=runs:1+=0x30;C_Sign:5%=0x5@sim-0;runs:1=hang-2000@sim-1",
                "the next call of runs on token sim-1 hangs for 2s",
            ),
            (2.0, "rules=C_Sign:5%=0x5@sim-0;runs:1=hang-2000@sim-1", "no more CKR_DEVICE_ERROR"),
            (
                2.0,
                "rules=C_Sign:5%=0x5@sim-0;runs:1=hang-2000@sim-1;runs:1=hang-2000@sim-1",
                "the next call of runs on token sim-1 hangs for 2s",
            ),
        ],
    );
}

#[test]
fn a_stall_of_the_same_tokens_goes_on_until_the_last_is_over() {
    let stall = |after, rest: &str| at(after, &format!("what = \"stall\"; {rest}"));
    assert_steps(
        &(stall("1s", "for = \"3s\"")
            + &stall("2s", "for = \"1s\"")
            + &stall("2s", "for = \"1s\"; token = 1")),
        &[
            (1.0, "stall=3000", "stall for 3s"),
            (2.0, "stall=1000", "stall for 1s"),
            (2.0, "stall=1000@sim-1", "stall of token sim-1 for 1s"),
            (3.0, "stall=0@sim-1", "stall of token sim-1 over"),
            (4.0, "stall=0", "stall over"),
        ],
    );
}

#[test]
fn every_step_is_a_change_that_the_simulator_takes() {
    let Some(example) = examples().last().cloned() else { panic!("no example") };
    let script = parsed(&example);
    assert!(script.steps.len() > 8);
    for step in script.steps.iter() {
        crate::config::Live::default().changed(&step.change).unwrap();
    }
    crate::config::Live::default().changed(play::NOTHING).unwrap();
}

#[test]
fn steps_are_due_once_and_in_their_order() {
    let steps = parsed(&with(
        &(at("1s", "what = \"lost\"; token = 0; for = \"2s\"") + &at("1s", "what = \"lost\"; token = 1")),
    ))
    .steps;
    let mut timeline = Timeline::new(&steps);
    let mut due =
        |ms| timeline.due(Duration::from_millis(ms)).iter().map(|step| step.says.as_str()).collect();
    let none: Vec<&str> = due(999);
    assert!(none.is_empty());
    let both: Vec<&str> = due(1_000);
    assert_eq!(both, ["token sim-0 lost", "token sim-1 lost"]);
    let none: Vec<&str> = due(2_000);
    assert!(none.is_empty());
    let late: Vec<&str> = due(60_000);
    assert_eq!(late, ["token sim-0 back"]);
    assert_eq!(timeline.next_at(), None);
}

#[test]
fn a_wrong_device_is_refused_with_its_place_and_what_would_be_right() {
    let refused = [
        ("nonsense = 1", "1:1", "unknown field `nonsense`, expected one of `tokens`"),
        ("tokens = 0", "1:10", "from 1 to 64"),
        ("tokens = 65", "1:10", "from 1 to 64"),
        ("tokens = \"2\"", "1:10", "from 1 to 64"),
        ("tokens", "1:7", "expected"),
        ("seed = 1\nseed = 1", "2:1", "duplicate key"),
        ("op = 5", "1:6", "expected a time such as"),
        ("op = \"soon\"", "1:6", "expected a time such as"),
        ("call = \"1001s\"", "1:8", "to 16m 40s"),
        ("cores = -1", "1:9", "from 0 to 65536"),
        ("sessions = 4097", "1:12", "from 0 to 4096"),
        ("throttle = 1.5", "1:12", "from 0 to"),
        ("null = 1", "1:8", "expected true or false"),
        ("pin = \"12,34\"", "1:7", "without commas"),
        ("pin = 1234", "1:7", "4 to 64"),
        ("pin = \"123\"", "1:7", "4 to 64"),
        ("keys = [\"a\", \"b:des\"]", "1:14", "expected a key such as"),
        ("keys = [\"a;b\"]", "1:9", "expected a key such as"),
        ("keys = [\"a,seed=1\"]", "1:9", "expected a key such as"),
        ("config = \"speed=9\"", "1:10", "unknown"),
        ("config = \"op_us=9\"", "1:10", "use the field `op`"),
        ("config = \"removed=sim-0\"", "1:10", "use an event"),
        ("config = \"forward=/m.so\"", "1:10", "are simulated"),
        ("at = 5", "1:6", "sequence"),
    ];
    refused.into_iter().for_each(|(text, place, why)| assert_refused(text, place, why));
}

#[test]
fn a_wrong_event_is_refused_with_its_place_and_what_would_be_right() {
    let refused = [
        ("what = \"lost\"\nnonsense = 1", "7:1", "unknown field `nonsense`, expected one of `after`, `what`"),
        ("what = \"gone\"", "6:8", "expected one of \"lost\", \"back\""),
        ("what = \"lost\"\ntoken = 2", "7:9", "from 0 to 1"),
        ("what = \"lost\"\ntoken = \"sim-0\"", "7:9", "from 0 to 1"),
        ("what = \"lost\"\nfor = \"0s\"", "7:7", "from 1ms"),
        ("what = \"lost\"\nfor = \"1500us\"", "7:7", "whole milliseconds"),
        ("what = \"lost\"\ncode = \"0x30\"", "7:8", "\"lost\" takes no `code`"),
        ("what = \"back\"", "6:8", "not lost"),
        ("what = \"back\"\nfor = \"1s\"", "7:7", "\"back\" takes no `for`"),
        ("what = \"stall\"", "6:8", "\"stall\" needs a `for`"),
        ("what = \"stall\"\nfor = \"2h\"", "7:7", "to 1h"),
        ("what = \"hang\"\ncalls = \"C_Sing\"", "7:9", "the name of a function"),
        ("what = \"hang\"\ncalls = \"C_Sign:1=flip;runs\"", "7:9", "the name of a function"),
        ("what = \"errors\"", "6:8", "\"errors\" needs a `code`"),
        ("what = \"errors\"\ncode = \"CKR_OK\"", "7:8", "expected a number such as"),
        ("what = \"errors\"\ncode = \"0\"", "7:8", "CKR_DEVICE_ERROR"),
        ("what = \"errors\"\ncode = \"5\"\nshare = \"101%\"", "8:9", "expected a share"),
        ("what = \"errors\"\ncode = \"5\"\nshare = \"0%\"", "8:9", "expected a share"),
        ("what = \"errors\"\ncode = \"5\"\nshare = \"5\"", "8:9", "expected a share"),
        ("what = \"slower\"", "6:8", "\"slower\" needs a `by`"),
        ("what = \"slower\"\nby = 1.0", "7:6", "above 1"),
        ("what = \"slower\"\nby = nan", "7:6", "above 1"),
        ("what = \"slower\"\nby = 1e7", "7:6", "up to 1000000"),
        ("what = \"slower\"\nby = \"4\"", "7:6", "above 1"),
    ];
    refused.into_iter().for_each(|(fields, place, why)| assert_refused(&event(fields), place, why));
    assert_refused(&with("[[at]]\nwhat = \"lost\"\n"), "4:1", "missing field `after`");
    assert_refused(&with("[[at]]\nafter = \"1s\"\n"), "4:1", "missing field `what`");
    assert_refused(&with(&at("25h", "what = \"lost\"")), "5:9", "to 1day");
    let twice = at("1s", "what = \"lost\"") + &at("2s", "what = \"lost\"; token = 0");
    assert_refused(&with(&twice), "9:8", "sim-0 cannot be lost here: lost already");
    assert_refused(
        "[[at]]\nafter = \"1s\"\nwhat = \"slower\"\nby = 2",
        "3:8",
        "give the script `op` or `call`",
    );
    let many = "[[at]]\nafter = \"1s\"\nwhat = \"hang\"\n".repeat(1_001);
    assert_refused(&many, "3001:1", "more than 1000 events");
}

#[test]
fn the_pin_does_not_reach_debug_or_errors() {
    let shown = format!("{:?}", parsed("pin = \"90817263\""));
    assert!(!shown.contains("90817263"), "{shown}");
    for pin in ["\"90817263,\"", "90817263"] {
        assert!(!refusal(&format!("pin = {pin}")).contains("90817263"));
    }
}

/// Blocks of TOML in the document.
fn examples() -> Vec<String> {
    let blocks = DOCUMENT.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// The cells of the table under a heading of the document.
fn documented(heading: &str) -> Vec<Vec<String>> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading));
    let rows = section.unwrap_or_else(|| panic!("no section {heading}")).lines();
    let rows = rows.filter_map(|row| row.strip_prefix("| `"));
    rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches(['`', ' ', '|']).to_owned()).collect())
        .collect()
}

fn first_cells(heading: &str) -> BTreeSet<String> {
    documented(heading).into_iter().map(|row| row[0].clone()).collect()
}

/// Names that the parser says there are, when it meets another.
fn known(text: &str) -> BTreeSet<String> {
    let error = refusal(text);
    assert!(error.contains("unknown"), "{error}");
    error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_examples_of_the_document_are_scripts() {
    let examples = examples();
    assert!(examples.len() >= 2);
    examples.iter().for_each(|example| assert!(!parsed(example).steps.is_empty()));
}

#[test]
fn the_document_names_the_fields_that_there_are() {
    assert_eq!(first_cells("Fields of the device"), known("nonsense = 1"));
    assert_eq!(first_cells("Fields of an event"), known(&event("what = \"lost\"\nnonsense = 1")));
}

#[test]
fn the_document_names_the_events_that_there_are_with_their_fields() {
    let rows = documented("Events");
    let found: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str(), row[2].as_str())).collect();
    let names = |fields: &[&str]| if fields.is_empty() { "none".to_owned() } else { fields.join("`, `") };
    let lists = Kind::ALL.map(|kind| (kind.name(), names(kind.needs()), names(kind.takes())));
    let expected: Vec<_> =
        lists.iter().map(|(kind, needs, takes)| (*kind, needs.as_str(), takes.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_document_names_the_codes_that_have_names() {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with("Codes")).unwrap();
    let found: BTreeSet<_> =
        section.split('`').skip(1).step_by(2).filter(|word| word.starts_with("CKR_")).collect();
    assert_eq!(found, CODES.iter().map(|(name, _)| *name).collect());
}

#[test]
fn a_key_more_stands_beside_those_of_the_script() {
    let with =
        |text: &str| Script::parse(text).unwrap().with_key("load-0:aes-mac").with_key("load-1:p256").config;
    assert!(with("tokens = 2").ends_with(",keys=load-0:aes-mac;load-1:p256"), "{}", with("tokens = 2"));
    let beside = with("keys = [\"orders:p256\"]\nseed = 7");
    assert!(beside.contains("keys=orders:p256;load-0:aes-mac;load-1:p256"), "{beside}");
}
