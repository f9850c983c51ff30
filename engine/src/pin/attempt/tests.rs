use std::path::Path;

use super::super::{PinKeep, PinRecord, PinSource};
use super::*;

const TOKEN: TokenId<'_> = TokenId { serial: "0042", label: "pay-1", model: "m", manufacturer: "hsmux" };

fn kept(state: &Path) -> Pin {
    Pin::new(PinSource::from("918273"), PinKeep::Memory, Some(state)).unwrap()
}

/// A login that the token answers so; an error says whether it is certain that it did not count.
fn log_in(state: &Path, warns: bool, answer: Result<(), bool>) -> Result<Result<(), bool>> {
    let pin = kept(state);
    let attempt = pin.claim(TOKEN, Duration::ZERO)?.allow(warns)?;
    let counted = |did_not_count: &bool| if *did_not_count { Counted::No } else { Counted::Yes };
    attempt.send(false, |_| answer, counted)
}

/// What the only record says.
fn state(directory: &Path) -> Option<PinState> {
    let records = PinRecord::list(directory).unwrap();
    assert!(records.len() <= 1);
    records.first().map(PinRecord::state)
}

fn refused(state: &Path, warns: bool) -> String {
    let error = log_in(state, warns, Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinRefused);
    assert!(error.to_string().contains("`hsmux pin clear --state-dir "), "{error}");
    error.to_string()
}

#[test]
fn a_login_that_succeeds_leaves_nothing_and_one_that_is_refused_is_the_last() {
    let place = tempfile::tempdir().unwrap();
    log_in(place.path(), false, Ok(())).unwrap().unwrap();
    // What certainly did not count is forgotten too.
    log_in(place.path(), false, Err(true)).unwrap().unwrap_err();
    assert_eq!(state(place.path()), None);
    log_in(place.path(), false, Err(false)).unwrap().unwrap_err();
    assert_eq!(state(place.path()), Some(PinState::Refused));
    for warns in [false, true] {
        assert!(refused(place.path(), warns).contains("was refused"));
    }
    PinRecord::list(place.path()).unwrap()[0].clear().unwrap();
    log_in(place.path(), false, Ok(())).unwrap().unwrap();
}

#[test]
fn the_record_is_there_before_the_pin_is_sent_and_nobody_else_sends_it_meanwhile() {
    let place = tempfile::tempdir().unwrap();
    let pin = kept(place.path());
    let attempt = pin.claim(TOKEN, Duration::ZERO).unwrap().allow(false).unwrap();
    assert_eq!(state(place.path()), None, "nothing is tried yet");
    let during = |_: Option<&[u8]>| {
        assert_eq!(state(place.path()), Some(PinState::Trying));
        let error = log_in(place.path(), false, Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        let began = crate::clock::now();
        let error = PinRecord::list(place.path()).unwrap()[0].clear().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        // Not at once: most who have it have it for a moment.
        assert!(crate::clock::now() >= began.after(super::super::records::CLEAR_LIMIT));
        Ok::<_, bool>(())
    };
    attempt.send(false, during, |_| Counted::No).unwrap().unwrap();
    log_in(place.path(), false, Ok(())).unwrap().unwrap();
}

/// Leaves a record as who is killed while the token has the PIN.
fn die_within(place: &Path) {
    let died = std::panic::catch_unwind(|| {
        let pin = kept(place);
        let attempt = pin.claim(TOKEN, Duration::ZERO).unwrap().allow(false).unwrap();
        attempt.send(false, |_| -> Result<(), bool> { panic!("killed") }, |_| Counted::No).unwrap().unwrap();
    });
    assert!(died.is_err() && state(place) == Some(PinState::Trying));
}

#[test]
fn after_an_attempt_that_was_cut_off_the_flags_decide() {
    let place = tempfile::tempdir().unwrap();
    die_within(place.path());
    log_in(place.path(), false, Ok(())).unwrap().unwrap();
    assert_eq!(state(place.path()), None);
    die_within(place.path());
    assert!(refused(place.path(), true).contains("was cut off"));
    assert_eq!(state(place.path()), Some(PinState::Refused));
    // For good: also when the flags are clear again.
    refused(place.path(), false);
}

#[test]
fn what_did_not_count_settles_no_attempt_that_was_cut_off_before() {
    let place = tempfile::tempdir().unwrap();
    let record = || std::fs::read(place.path().join(format!("pin-{}.toml", TOKEN.hash()))).unwrap();
    die_within(place.path());
    let first = record();
    for _ in 0..3 {
        log_in(place.path(), false, Err(true)).unwrap().unwrap_err();
        assert_eq!(record(), first);
    }
    die_within(place.path());
    assert!(refused(place.path(), false).contains("again and again"));
}

#[test]
fn the_remedy_is_a_command_that_a_shell_reads_as_it_is_meant() {
    for name in ["plain", "two words", "it's $HOME; `true`"] {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join(name);
        log_in(&state, false, Err(false)).unwrap().unwrap_err();
        let said = refused(&state, false);
        let (_, command) = said.split_once("`hsmux ").unwrap();
        let script = format!("printf '%s|' {}", command.strip_suffix('`').unwrap());
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let state = state.canonicalize().unwrap();
        let words = format!("pin|clear|--state-dir|{}|{}|", state.display(), TOKEN.hash());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), words);
    }
}

#[test]
fn two_attempts_that_were_cut_off_are_the_last_whatever_the_flags_say() {
    let place = tempfile::tempdir().unwrap();
    die_within(place.path());
    die_within(place.path());
    assert!(refused(place.path(), false).contains("again and again"));
    assert_eq!(state(place.path()), Some(PinState::Refused));
}

#[test]
fn a_damaged_record_counts_as_refused_and_can_be_cleared() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join(format!("pin-{}.toml", TOKEN.hash())), "state = 1").unwrap();
    assert!(refused(place.path(), false).contains("damaged"));
    let record = PinRecord::list(place.path()).unwrap().remove(0);
    assert_eq!((record.state(), record.is_named(&TOKEN.hash())), (PinState::Damaged, true));
    record.clear().unwrap();
    log_in(place.path(), false, Ok(())).unwrap().unwrap();
}

#[test]
fn a_source_without_a_pin_and_a_record_that_cannot_be_written_send_nothing() {
    let place = tempfile::tempdir().unwrap();
    let source: PinSource = "file:/nonexistent/pin".parse().unwrap();
    let pin = Pin::new(source, PinKeep::Reread, Some(place.path())).unwrap();
    let attempt = pin.claim(TOKEN, Duration::ZERO).unwrap().allow(false).unwrap();
    let never = |_: Option<&[u8]>| -> Result<(), bool> { panic!("a PIN was lent") };
    let error = attempt.send(false, never, |_| Counted::Yes).unwrap_err();
    assert_eq!((error.kind(), state(place.path())), (ErrorKind::PinUnavailable, None));
    // Where the file belongs that becomes the record, something else is in the way.
    std::fs::create_dir(place.path().join(format!("pin-{}.new", TOKEN.hash()))).unwrap();
    let pin = kept(place.path());
    let attempt = pin.claim(TOKEN, Duration::ZERO).unwrap().allow(false).unwrap();
    let error = attempt.send(false, never, |_| Counted::Yes).unwrap_err();
    assert_eq!((error.kind(), state(place.path())), (ErrorKind::Configuration, None));
}

#[test]
fn what_a_person_types_is_not_remembered_but_is_asked_for_by_one_process_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    log_in(place.path(), false, Err(false)).unwrap().unwrap_err();
    let typed = Pin::new(PinSource::ProtectedAuthenticationPath, PinKeep::Memory, Some(place.path()));
    let typed = typed.unwrap();
    for answer in [Err(false), Ok(())] {
        let attempt = typed.claim(TOKEN, Duration::ZERO).unwrap().allow(true).unwrap();
        let during = |pin: Option<&[u8]>| {
            assert!(pin.is_none() && typed.claim(TOKEN, Duration::ZERO).is_err());
            answer
        };
        assert_eq!(attempt.send(true, during, |_| Counted::Yes).unwrap(), answer);
    }
    assert_eq!(state(place.path()), Some(PinState::Refused), "of the PIN that was sent");
}

#[test]
fn no_file_holds_anything_of_the_pin() {
    let place = tempfile::tempdir().unwrap();
    let watched = |_: Option<&[u8]>| {
        for entry in place.path().read_dir().unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains("918273"), "{text}");
        }
        Err(false)
    };
    let pin = kept(place.path());
    let attempt = pin.claim(TOKEN, Duration::ZERO).unwrap().allow(false).unwrap();
    attempt.send(false, watched, |_| Counted::Yes).unwrap().unwrap_err();
    let pin = Pin::new(PinSource::from("11111111111"), PinKeep::Memory, Some(place.path())).unwrap();
    // The same record whatever the PIN is.
    let record = |place: &Path| {
        let record = std::fs::read_to_string(place.join(format!("pin-{}.toml", TOKEN.hash()))).unwrap();
        record.lines().filter(|line| !line.starts_with("since")).collect::<Vec<_>>().join("\n")
    };
    let first = record(place.path());
    PinRecord::list(place.path()).unwrap()[0].clear().unwrap();
    let attempt = pin.claim(TOKEN, Duration::ZERO).unwrap().allow(false).unwrap();
    attempt.send(false, |_| Err(false), |_| Counted::Yes).unwrap().unwrap_err();
    assert_eq!(record(place.path()), first);
}
