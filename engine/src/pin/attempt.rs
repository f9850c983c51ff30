//! A login, and what is remembered of it: one in flight on a token, and none after one that was refused.

use std::time::Duration;

use super::Pin;
use super::directory::{Directory, Lock};
use super::record::{Found, Generation, PinState, Record, TokenId, Verdict, Why, judge};
use crate::clock::time_of_day;
use crate::error::{Error, ErrorKind, Result};

/// The right to log in to a token, which one process has at a time: those with the same state directory, that is. The
/// token's flags are to be read while it is had, and not before.
pub(crate) struct Claim<'a> {
    pin: &'a Pin,
    /// None without a state directory.
    held: Option<(Files<'a>, Found)>,
}

/// A login that may be tried.
pub(crate) struct Attempt<'a> {
    pin: &'a Pin,
    /// None where nothing is remembered; no step where a person types the PIN.
    held: Option<(Files<'a>, Option<Step>)>,
}

/// Whether a login that has failed counts as a wrong try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Certainly not.
    No,
    /// Nobody knows: it is as one that was cut off.
    Perhaps,
    Yes,
}

/// What an attempt makes of the record.
struct Step {
    /// The number of this one among those in a row of which nobody knows how they ended.
    attempts: u32,
    /// Those before it.
    before: Found,
}

/// The files of a token, as who has its lock sees them.
struct Files<'a> {
    directory: &'a Directory,
    token: TokenId<'a>,
    id: String,
    /// Goes last: until then nobody else reads the record.
    _lock: Lock,
}

impl Pin {
    /// Waits until no other process logs in to the token, at most for `limit`, and reads what is remembered of it.
    ///
    /// # Errors
    /// `Busy`; `Configuration`, if the record cannot be read: then no PIN is sent.
    pub(crate) fn claim<'a>(&'a self, token: TokenId<'a>, limit: Duration) -> Result<Claim<'a>> {
        let Some(directory) = self.state() else { return Ok(Claim { pin: self, held: None }) };
        let id = token.hash();
        let lock = directory.lock(&id, limit)?;
        let found = Found::read(directory.read(&id)?.as_deref(), Some(token));
        Ok(Claim { pin: self, held: Some((Files { directory, token, id, _lock: lock }, found)) })
    }
}

impl<'a> Claim<'a> {
    /// Whether a login may be tried. `warns`: flags of the token that were read after this claim was made say that wrong
    /// PINs were tried, or that it is locked.
    ///
    /// # Errors
    /// `PinRefused`; `Configuration`, if a record cannot be written.
    pub(crate) fn allow(self, warns: bool) -> Result<Attempt<'a>> {
        let Self { pin, held } = self;
        let Some((files, found)) = held else { return Ok(Attempt { pin, held: None }) };
        if pin.is_typed() {
            // Who types it sees what becomes of it, and no restart repeats what they typed.
            return Ok(Attempt { pin, held: Some((files, None)) });
        }
        match judge(&found, warns) {
            Verdict::Try { attempts } => {
                Ok(Attempt { pin, held: Some((files, Some(Step { attempts, before: found }))) })
            }
            Verdict::Refused(why) => Err(files.refusal(why, found)),
        }
    }
}

impl Attempt<'_> {
    /// What a person has to do if the PIN is refused.
    pub(crate) fn remedy(&self) -> Option<String> {
        match &self.held {
            Some((files, Some(_))) => Some(files.remedy()),
            _ => None,
        }
    }

    /// Lends the PIN for a login, once, as [`Pin::show`] does. `counted` says of an error whether the token counts a wrong
    /// try. If so the record says that the PIN was refused, and if nobody knows, that it is being tried. Only a login that succeeds
    /// settles attempts before it: what did not count says nothing of them. Nor does `CKR_USER_ALREADY_LOGGED_IN`: the PIN
    /// of that login may have been another, and none was looked at here.
    ///
    /// # Errors
    /// `PinUnavailable`; `Configuration`, if the record cannot be written: then the PIN was not lent.
    pub(crate) fn send<E>(
        self,
        has_own_way: bool,
        login: impl FnOnce(Option<&[u8]>) -> Result<(), E>,
        counted: impl FnOnce(&E) -> Counted,
    ) -> Result<Result<(), E>> {
        let Some((files, Some(step))) = &self.held else { return self.pin.show(has_own_way, login) };
        let generation = self.pin.generation();
        // Once there is a PIN: a source that gives none leaves no trace.
        self.pin.show(has_own_way, |pin| {
            if let Err(error) = files.write(PinState::Trying, step.attempts, generation.clone()) {
                // It may be there all the same, and would count as an attempt although nothing is sent.
                let _best_effort = files.put_back(&step.before);
                return Err(error);
            }
            let answer = login(pin);
            let settled = match &answer {
                Ok(()) => files.directory.remove(&files.id),
                Err(error) => match counted(error) {
                    Counted::No => files.put_back(&step.before),
                    Counted::Perhaps => Ok(()),
                    Counted::Yes => files.write(PinState::Refused, step.attempts, generation),
                },
            };
            // It says `trying` then, which is settled by the token's flags when it is read.
            if let Err(error) = settled {
                tracing::error!(%error, "the end of a login cannot be written down");
            }
            Ok(answer)
        })?
    }
}

impl Files<'_> {
    fn write(&self, state: PinState, attempts: u32, source: Generation) -> Result<()> {
        let record = Record::new(self.token, state, attempts, source, time_of_day());
        self.directory.write(&self.id, &record.to_text()?)
    }

    /// Has the record say what was found before an attempt that does not count.
    fn put_back(&self, before: &Found) -> Result<()> {
        match before {
            Found::Record(record) => self.directory.write(&self.id, &record.to_text()?),
            // After a damaged one there is no attempt.
            Found::Nothing | Found::Damaged => self.directory.remove(&self.id),
        }
    }

    /// Keeps a login from being tried; from now on until a person has looked at it.
    fn refusal(&self, why: Why, found: Found) -> Error {
        let since = match &found {
            Found::Record(record) => format!(" at {}", humantime::format_rfc3339_seconds(record.since)),
            _ => String::new(),
        };
        let said = match why {
            Why::Refused => format!("the login{since} was refused, or may have been"),
            Why::Damaged => "the record of its logins is damaged, which counts as a refusal".to_owned(),
            Why::Warned => format!("a login{since} was cut off, and the token says that a PIN was wrong"),
            Why::Unsettled => format!("logins were cut off again and again, the last{since}"),
        };
        if let (Why::Warned | Why::Unsettled, Found::Record(record)) = (why, found)
            && let Err(error) = self.write(PinState::Refused, record.attempts, record.source)
        {
            return error;
        }
        let text = format!("token {}: {said}; {}", self.token.label, self.remedy());
        Error::operator(ErrorKind::PinRefused, text)
    }

    fn remedy(&self) -> String {
        let directory = self.directory.path().to_string_lossy();
        // No path has a NUL in it, the only thing that a shell has no quotes for.
        let directory = shlex::try_quote(&directory).unwrap_or_default();
        format!("it is not sent again before `hsmux pin clear --state-dir {directory} {}`", self.id)
    }
}

#[cfg(test)]
mod tests {
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
            attempt
                .send(false, |_| -> Result<(), bool> { panic!("killed") }, |_| Counted::No)
                .unwrap()
                .unwrap();
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
}
