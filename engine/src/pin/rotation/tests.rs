use std::time::Duration;

use super::*;

const TOKEN: TokenId<'_> = TokenId { serial: "0042", label: "pay-1", model: "m", manufacturer: "hsmux" };

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn file(seconds: u64) -> Generation {
    Generation { form: "file".to_owned(), changed: Some(at(seconds)) }
}

fn form(form: &str) -> Generation {
    Generation { form: form.to_owned(), changed: None }
}

fn begin(old: Generation, new: Generation, before: &FoundRotation) -> Rotation {
    Rotation::begin(TOKEN, &Begun { rotation: "0badcafe".to_owned(), old, new, at: at(3) }, before)
}

fn begun() -> Rotation {
    begin(file(1), file(2), &FoundRotation::Nothing)
}

fn at_stage(stage: Stage, tried_old: bool, tried_new: bool) -> Rotation {
    Rotation { stage, tried_old, tried_new, ..begun() }
}

#[test]
fn what_is_sent_to_a_token_follows_from_record_sources_and_flags() {
    use Known::{New, Old, Other, Retired};
    use Stop::{Exhausted, NotYet, Replaced, Warned};
    const O: Side = Side::Old;
    const N: Side = Side::New;
    let of = |side, certain| Step::Try { side, certain };
    let (plain, no) = (Step::Plain, Step::Refuse);
    let all = [Given::One(Old), Given::One(New), Given::One(Retired), Given::One(Other), Given::Both];
    // Stage, tried old and new, flags warn: what becomes of who has all of these.
    let table = [
        (Stage::Old, [false, false], false, [plain(O), no(NotYet), no(Replaced), of(N, false), plain(O)]),
        (Stage::Old, [false, false], true, [plain(O), no(NotYet), no(Replaced), no(Warned), plain(O)]),
        (Stage::Old, [false, true], false, [plain(O), no(NotYet), no(Replaced), no(NotYet), plain(O)]),
        (Stage::Old, [false, true], true, [plain(O), no(NotYet), no(Replaced), no(NotYet), plain(O)]),
        (Stage::Old, [true, false], true, [plain(O), no(NotYet), no(Replaced), of(N, false), plain(O)]),
        (Stage::New, [false, false], false, [no(Replaced), plain(N), no(Replaced), plain(N), plain(N)]),
        (Stage::New, [false, false], true, [no(Replaced), plain(N), no(Replaced), plain(N), plain(N)]),
        (Stage::New, [true, false], true, [no(Replaced), plain(N), no(Replaced), plain(N), plain(N)]),
        (
            Stage::Changing,
            [false, false],
            false,
            [of(O, true), of(N, true), no(Replaced), of(N, false), of(N, true)],
        ),
        (
            Stage::Changing,
            [false, false],
            true,
            [no(Warned), no(Warned), no(Replaced), no(Warned), no(Warned)],
        ),
    ];
    for warns in [false, true] {
        let exhausted = [no(Exhausted), no(Exhausted), no(Replaced), no(Exhausted), no(Exhausted)];
        let replaced = [no(Replaced), no(Exhausted), no(Replaced), no(Exhausted), no(Exhausted)];
        let rest = [
            (Stage::Old, [true, true], warns, exhausted),
            (Stage::New, [true, true], warns, replaced),
            (
                Stage::Changing,
                [false, true],
                warns,
                [of(O, true), no(Exhausted), no(Replaced), no(Exhausted), of(O, true)],
            ),
            (
                Stage::Changing,
                [true, false],
                warns,
                [no(Exhausted), of(N, true), no(Replaced), of(N, false), of(N, true)],
            ),
            (Stage::Changing, [true, true], warns, exhausted),
        ];
        for (stage, [old, new], warns, wanted) in table.into_iter().chain(rest) {
            let record = at_stage(stage, old, new);
            let steps = all.map(|given| decide(&record, given, warns));
            assert_eq!(steps, wanted, "{stage:?}, tried {old} {new}, warns {warns}");
        }
    }
}

#[test]
fn two_tries_are_the_most_while_nobody_knows_which_pin_holds_whatever_is_killed() {
    let (mut record, mut sent) = (at_stage(Stage::Changing, false, false), Vec::new());
    for round in 0..100 {
        let given = [Given::Both, Given::One(Known::Old), Given::One(Known::Other)][round % 3];
        // The token never warns, and each one is killed before it hears the answer.
        if let Step::Try { side, .. } = decide(&record, given, false) {
            record.set_tried(side);
            sent.push(side);
        }
    }
    assert_eq!(sent, [Side::New, Side::Old]);
}

#[test]
fn a_source_is_known_by_its_form_and_time_and_one_without_a_time_is_not() {
    let first = begun();
    let second = begin(file(2), file(5), &FoundRotation::Rotation(first));
    for (source, known) in [
        (file(1), Known::Retired),
        (file(2), Known::Old),
        (file(5), Known::New),
        (file(7), Known::Other),
        (Generation { form: "credential".to_owned(), ..file(2) }, Known::Other),
        (form("value"), Known::Other),
    ] {
        assert_eq!(second.known(&source), known, "{source:?}");
    }
    let same = begin(form("value"), form("value"), &FoundRotation::Nothing);
    assert_eq!((same.known(&form("value")), same.known(&file(1))), (Known::Other, Known::Other));
    // A time that no record has words for is the one that is written in its place.
    let odd = file(1 << 40);
    let odd_one = begin(odd.clone(), file(2), &FoundRotation::Nothing);
    assert_eq!(odd_one.known(&odd), Known::Old);
}

#[test]
fn a_record_is_read_as_it_was_written_and_says_nothing_of_a_pin() {
    let mut record = begun();
    record.set_stage(Stage::Changing, at(1_000_000_000));
    record.set_tried(Side::New);
    let text = record.to_text().unwrap();
    let expected = "\
version = 1
rotation = \"0badcafe\"
stage = \"changing\"
serial = \"0042\"
label = \"pay-1\"
since = \"2001-09-09T01:46:40Z\"
tried_old = false
tried_new = true

[old]
form = \"file\"
changed = \"1970-01-01T00:00:01.000000000Z\"

[new]
form = \"file\"
changed = \"1970-01-01T00:00:02.000000000Z\"
";
    assert_eq!(text, expected);
    let read = |text: &str| FoundRotation::read(Some(text.as_bytes()), Some(TOKEN));
    assert_eq!(read(&text), FoundRotation::Rotation(record));
    for (from, to) in [
        ("version = 1", "version = 2"),
        ("changing", "done"),
        ("0042", "0043"),
        ("pay-1", "pay-2"),
        ("2001-09-09", "2001-99-09"),
        ("tried_new", "more"),
        ("[old]", "[older]"),
    ] {
        assert_eq!(read(&text.replace(from, to)), FoundRotation::Damaged, "{to}");
    }
    assert_eq!(read(&format!("{text}#{}", "x".repeat(RECORD_LEN_MAX))), FoundRotation::Damaged);
    assert_eq!(FoundRotation::read(None, Some(TOKEN)), FoundRotation::Nothing);
}

#[test]
fn what_was_undone_leaves_the_sources_of_earlier_pins_known() {
    let first = begun();
    assert_eq!(first.before(), None);
    let undone = begin(file(2), file(5), &FoundRotation::Rotation(first)).before().unwrap();
    let known = [file(1), file(2), file(5)].map(|source| undone.known(&source));
    assert_eq!((undone.stage, known), (Stage::New, [Known::Old, Known::New, Known::Other]));
}

#[test]
fn a_hundred_rotations_are_remembered_in_a_record_that_can_be_read() {
    let mut found = FoundRotation::Nothing;
    for number in 0..100 {
        let next = begin(file(number), file(number + 1), &found);
        let text = next.to_text().unwrap();
        assert!(text.len() < RECORD_LEN_MAX);
        found = FoundRotation::read(Some(text.as_bytes()), Some(TOKEN));
    }
    let FoundRotation::Rotation(last) = found else { unreachable!("{found:?}") };
    assert_eq!((last.known(&file(95)), last.known(&file(99))), (Known::Retired, Known::Old));
}
