//! Profiles that are wrong, and what is said of them.

use super::*;

fn assert_refused(text: &str, place: &str, why: &str) {
    let error = refusal(text);
    let what =
        error.strip_prefix(&format!("{place}: ")).unwrap_or_else(|| panic!("{error}, expected {place}"));
    assert!(what.contains(why), "{error}, expected {why}");
}

#[test]
fn a_wrong_head_is_refused_with_its_place_and_what_would_be_right() {
    let refused = [
        ("nonsense = 1", "2:1", "unknown field `nonsense`, expected one of `name`, `description`"),
        ("name = \"twice\"", "2:1", "duplicate key"),
        ("seed", "2:5", "expected"),
        ("pace = \"gauss\"", "2:8", "one of \"constant\", \"poisson\""),
        ("pace = 5", "2:8", "one of \"constant\", \"poisson\""),
        ("pace = true", "2:8", "one of \"constant\", \"poisson\""),
        ("pace = {}", "2:8", "no table"),
        ("api = \"window\"", "2:7", "one of \"blocking\", \"tasks\""),
        ("callers = 0", "2:11", "from 1 to 65535"),
        ("callers = -1", "2:11", "from 1 to 65535"),
        ("callers = 1.5", "2:11", "from 1 to 65535"),
        ("callers = \"many\"", "2:11", "from 1 to 65535"),
        ("callers = 99999999999999999999", "2:11", "from 1 to 65535"),
        ("api = \"blocking\"\ncallers = 4097", "3:11", "need `api = \"tasks\"`"),
        ("deadline = \"soon\"", "2:12", "or \"none\""),
        ("deadline = \"0s\"", "2:12", "or \"none\""),
        ("deadline = 5", "2:12", "or \"none\""),
        ("seed = -1", "2:8", "from 0 to"),
        ("description = 5", "2:15", "expected a string"),
    ];
    refused.into_iter().for_each(|(head, place, why)| assert_refused(&with(head, "", ""), place, why));
    assert_refused(&LEAST.replace("\"n\"", "\"\""), "1:8", "1 to 64 characters");
    assert_refused(&LEAST.replace("\"n\"", "\"a\\nb\""), "1:8", "in one line");
    assert_refused(&LEAST.replace("name = \"n\"", ""), "1:1", "missing field `name`");
    let long = format!("description = \"{}\"", "long ".repeat(1_000));
    assert_refused(&with(&long, "", ""), "2:15", "shorten it");
}

#[test]
fn a_wrong_phase_is_refused_with_its_place_and_what_would_be_right() {
    let open = "pace = \"poisson\"";
    let refused = [
        ("", "nonsense = 1", "6:1", "unknown field `nonsense`, expected one of `name`, `for`"),
        ("", "callers = 0", "6:11", "from 1 to 65535"),
        ("api = \"blocking\"", "callers = 5000", "6:11", "need `api = \"tasks\"`"),
        ("", "counted = 1", "6:11", "expected a boolean"),
        ("", "counted = false", "3:1", "leave `counted = false` out"),
        ("", "rate = \"5/s\"", "6:8", "give the profile `pace"),
        ("", "ramp = [1, 2]", "6:8", "give the profile `pace"),
        (open, "", "3:1", "a phase needs a `rate` or a `ramp`"),
        (open, "rate = 5\ncallers = 4", "7:11", "set `callers` of the profile"),
        (open, "rate = 5\nramp = [1, 2]", "7:8", "take one away"),
        (open, "rate = 0", "6:8", "from 1/h to 10M/s"),
        (open, "rate = \"NaN\"", "6:8", "from 1/h to 10M/s"),
        (open, "rate = nan", "6:8", "from 1/h to 10M/s"),
        (open, "rate = \"11M/s\"", "6:8", "from 1/h to 10M/s"),
        (open, "rate = \"fast\"", "6:8", "a rate such as"),
        (open, "ramp = [\"1/s\", \"-5/s\"]", "6:16", "from 1/h to 10M/s"),
        (open, "ramp = [\"1/s\"]", "6:8", "length 2"),
        (open, "ramp = \"1/s\"", "6:8", "length 2"),
    ];
    for (head, phase, place, why) in refused {
        assert_refused(&with(head, phase, ""), place, why);
    }
    for length in ["\"0s\"", "\"1us\"", "\"13h\"", "\"5\"", "\"long\"", "5"] {
        assert_refused(&LEAST.replace("\"1s\"", length), "5:7", "a duration such as");
    }
    let many = |count: u32| {
        let entry = |n| format!("[[phase]]\nname = \"{n}\"\nfor = \"1s\"\n");
        with("", &(1..count).map(entry).collect::<String>(), "")
    };
    assert_eq!(parsed(&many(1000)).phases.len(), 1000);
    assert!(refusal(&many(1001)).contains("from 1 to 1000 [[phase]]"));
    let twice = "[[phase]]\nname = \"p\"\nfor = \"12h\"";
    assert_refused(&with("", twice, ""), "6:1", "give this one another");
    assert_refused(&with("", &twice.replace("\"p\"", "\"q\""), ""), "6:1", "shorten them");
    assert_refused(&LEAST.replace("name = \"p\"\n", ""), "3:1", "missing field `name`");
    assert_refused("name = \"n\"\n[[operation]]\nop = \"random\"", "1:1", "from 1 to 1000 [[phase]]");
}

#[test]
fn a_wrong_operation_is_refused_with_its_place_and_what_would_be_right() {
    let refused = [
        ("nonsense = 1", "9:1", "unknown field `nonsense`, expected one of `op`, `name`"),
        ("weight = 0", "7:1", "give at least one another `weight`"),
        ("weight = -1", "9:10", "from 0 to 4294967295"),
        ("size = 0", "9:8", "sizes go from 1 to"),
        ("size = 17", "9:8", "a multiple of 16 bytes"),
        ("size = \"2MiB\"", "9:8", "sizes go from 1 to"),
        ("size = -16", "9:8", "a number of bytes"),
        ("size = \"5 stones\"", "9:8", "a number of bytes"),
        ("size = {}", "9:8", "exactly one of `uniform`"),
        ("size = { uniform = [16, 16], choice = [[16, 1]] }", "9:8", "exactly one of `uniform`"),
        ("size = { normal = 5 }", "9:10", "expected one of `uniform`, `choice`, `lognormal`"),
        ("size = { uniform = [64, 16] }", "9:8", "the first size of `uniform` is the smaller"),
        ("size = { uniform = [16, 40] }", "9:8", "a multiple of 16 bytes"),
        ("size = { uniform = [16, \"x\"] }", "9:25", "a number of bytes"),
        ("size = { choice = [] }", "9:8", "from 1 to 256 pairs"),
        ("size = { choice = [[16, 0], [32, 0]] }", "9:8", "sum to zero"),
        ("size = { choice = [[16, 1], [33, 1]] }", "9:8", "a multiple of 16 bytes"),
        ("size = { choice = [[16, -1]] }", "9:25", "from 0 to 4294967295"),
        ("size = { lognormal = { median = 5, sigma = 1, max = 40 } }", "9:8", "a multiple of 16 bytes"),
        ("size = { lognormal = { median = 64, sigma = 1, max = 32 } }", "9:8", "from 1 to `max`"),
        ("size = { lognormal = { median = 5, sigma = 9, max = 16 } }", "9:44", "from 0 to 5"),
        ("size = { lognormal = { median = 5, sigma = 1 } }", "9:22", "missing field `max`"),
        ("keys = 0", "9:8", "from 1 to 4096"),
        ("keys = { count = 5000 }", "9:18", "from 1 to 4096"),
        ("keys = { count = 5, zipf = -1.0 }", "9:28", "from 0 to 5"),
        ("keys = { zipf = 1 }", "9:8", "missing field `count`"),
        ("tenant = -1", "9:10", "from 0 to"),
        ("tenant = { count = 200000 }", "9:20", "from 1 to 100000"),
        ("priority = \"urgent\"", "9:12", "one of \"high\", \"normal\", \"low\""),
        ("deadline = \"\"", "9:12", "or \"none\""),
        ("name = \"\"", "9:8", "1 to 64 characters"),
        ("[[operation]]\nop = \"aes-ecb\"", "9:1", "another `name`"),
    ];
    refused
        .into_iter()
        .for_each(|(operation, place, why)| assert_refused(&with("", "", operation), place, why));
    let of = |op: &str, line: &str| with("", "", line).replace("aes-ecb", op);
    assert_refused(&of("ed448", ""), "8:6", "one of \"rsa2048-sha256\"");
    assert!(
        Op::ALL.iter().all(|op| refusal(&of("ed448", "")).contains(op.as_str())),
        "all of them are listed"
    );
    assert_refused(&of("random", "keys = 2"), "9:8", "takes no key");
    assert_refused(&of("rsa2048-oaep", "size = { uniform = [1, 215] }"), "9:8", "up to 214 bytes");
    let more = "keys = 4000\n[[operation]]\nname = \"b\"\nop = \"aes-gcm\"\nkeys = 97";
    assert_refused(&with("", "", more), "10:1", "more than 4096 keys together");
    parsed(&with("", "", &more.replace("97", "96")));
    let many = |count: u32| {
        let entry = |n| format!("[[operation]]\nop = \"random\"\nname = \"{n}\"\n");
        with("", "", &(1..count).map(entry).collect::<String>())
    };
    assert_eq!(parsed(&many(256)).operations.len(), 256);
    assert!(refusal(&many(257)).contains("from 1 to 256 [[operation]]"));
    let none = LEAST.split("[[operation]]").next().unwrap();
    assert_refused(none, "1:1", "from 1 to 256 [[operation]]");
}

#[test]
fn a_message_holds_no_control_character_of_the_file() {
    let message = refusal(&with("\"a\\u001b[2Jb\" = 1", "", ""));
    assert!(message.contains("`a\u{fffd}[2Jb`") && !message.contains(char::is_control), "{message:?}");
}

#[test]
fn columns_count_characters() {
    let phase = "name = \"n\"\nphase = [{ name = \"\u{fc}\u{fc}\", for = \"soon\" }]";
    assert_refused(phase, "2:31", "a duration such as");
    assert_refused(&phase.replace('\u{fc}', "u"), "2:31", "a duration such as");
}
