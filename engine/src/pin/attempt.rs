//! A login, and what is remembered of it: one in flight on a token, and none after one that was refused.

use std::time::Duration;

use super::Pin;
use super::directory::{Directory, Lock, ROTATION};
use super::keep::Kept;
use super::record::{Found, Generation, PinState, Record, TokenId, Verdict, Why, judge};
use super::rotation::{FoundRotation, Given, Known, Rotation, Side, Step, Stop, decide};
use crate::clock::time_of_day;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::sync::Arc;

/// The right to log in to a token, which one process has at a time: those with the same state directory, that is. The
/// token's flags are to be read while it is had, and not before.
pub(crate) struct Claim<'a> {
    pin: &'a Pin,
    /// None without a state directory.
    held: Option<(Files<'a>, Found, FoundRotation)>,
}

/// A login that may be tried.
pub(crate) struct Attempt<'a> {
    pin: &'a Pin,
    /// What it sends.
    kept: Arc<Kept>,
    /// None where nothing is remembered.
    held: Option<(Files<'a>, Mark)>,
}

/// Whether a login that has failed counts as a wrong try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Certainly not.
    No,
    /// Nobody knows: it is as one that was cut off.
    Perhaps,
    Yes,
    /// It does, and the PIN is not the token's.
    Wrong,
}

/// What an attempt makes of the records.
enum Mark {
    /// Nothing: a person types the PIN.
    Typed,
    /// The record of logins says that the PIN is being tried. With the record of a rotation whose tries a good login settles.
    Login(Tried, Option<Rotation>),
    /// The record of a rotation says that one of its PINs is.
    Settle { rotation: Rotation, side: Side, certain: bool },
}

/// What an attempt makes of the record of logins.
struct Tried {
    /// The number of this one among those in a row of which nobody knows how they ended.
    attempts: u32,
    /// Those before it.
    before: Found,
}

/// The files of a token, as who has its lock sees them.
pub(super) struct Files<'a> {
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
        let files = Files::lock(directory, token, limit)?;
        let found = Found::read(directory.read(&files.id)?.as_deref(), Some(token));
        let rotation = files.rotation()?;
        Ok(Claim { pin: self, held: Some((files, found, rotation)) })
    }

    /// The PINs that there are for a token of this rotation.
    fn given(&self, rotation: &Rotation) -> (Given, Arc<Kept>, Option<Arc<Kept>>) {
        let held = self.held();
        let current = Arc::clone(&held.current);
        let next = held.next.as_ref().filter(|next| next.rotations.contains(&rotation.rotation));
        let next = next.map(|next| Arc::clone(&next.pin));
        drop(held);
        // Who has the new PIN in both places has no old one.
        let given = match rotation.known(&current.generation()) {
            Known::New => Given::One(Known::New),
            _ if next.is_some() => Given::Both,
            known => Given::One(known),
        };
        (given, current, next)
    }
}

impl<'a> Claim<'a> {
    /// Whether a login may be tried. `warns`: flags of the token that were read after this claim was made say that wrong
    /// PINs were tried, or that it is locked.
    ///
    /// # Errors
    /// `PinRefused`, with [`Retry::Later`] if the source of the PIN is read again and may hold another by then;
    /// `Configuration`, if a record cannot be written.
    pub(crate) fn allow(self, warns: bool) -> Result<Attempt<'a>> {
        let Self { pin, held } = self;
        let current = pin.current();
        let Some((files, found, rotation)) = held else {
            return Ok(Attempt { pin, kept: current, held: None });
        };
        if current.is_typed() {
            // Who types it sees what becomes of it, and no restart repeats what they typed.
            return Ok(Attempt { pin, kept: current, held: Some((files, Mark::Typed)) });
        }
        let tried = match judge(&found, warns) {
            Verdict::Try { attempts } => Tried { attempts, before: found },
            Verdict::Refused(why) => return Err(files.refusal(why, found)),
        };
        let rotation = match rotation {
            FoundRotation::Rotation(rotation) => rotation,
            FoundRotation::Nothing => {
                return Ok(Attempt { pin, kept: current, held: Some((files, Mark::Login(tried, None))) });
            }
            FoundRotation::Damaged => return Err(files.refusal(Why::DamagedRotation, Found::Damaged)),
        };
        let (given, current, next) = pin.given(&rotation);
        let chosen = |side| match (side, next) {
            (Side::New, Some(next)) => next,
            _ => current.clone(),
        };
        let (kept, mark) = match decide(&rotation, given, warns) {
            Step::Plain(side) => (chosen(side), Mark::Login(tried, Some(rotation))),
            Step::Try { side, certain } => (chosen(side), Mark::Settle { rotation, side, certain }),
            Step::Refuse(stop) => return Err(files.stopped(stop, &rotation, current.may_change())),
        };
        Ok(Attempt { pin, kept, held: Some((files, mark)) })
    }
}

impl Attempt<'_> {
    /// What a person has to do if the PIN is refused.
    pub(crate) fn remedy(&self) -> Option<String> {
        match &self.held {
            Some((files, Mark::Login(..))) => Some(files.remedy()),
            Some((files, Mark::Settle { .. })) => Some(files.resume()),
            _ => None,
        }
    }

    /// Whether it finds out which of two PINs the token has: where it is refused, another attempt may follow.
    pub(crate) const fn settles(&self) -> bool {
        matches!(self.held, Some((_, Mark::Settle { .. })))
    }

    /// Whether a wrong try that the token's flags tell of is one that was written down here, made to find out which PIN the
    /// token has.
    pub(crate) const fn explains_warning(&self) -> bool {
        match &self.held {
            Some((_, Mark::Login(_, Some(rotation)) | Mark::Settle { rotation, .. })) => rotation.is_tried(),
            _ => false,
        }
    }

    /// Lends the PIN for a login, once, as [`Kept::show`] does. `counted` says of an error whether the token counts a wrong
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
        let Self { pin, kept, held } = self;
        let generation = kept.generation();
        let answer = match &held {
            None | Some((_, Mark::Typed)) => kept.show(has_own_way, login),
            Some((files, Mark::Login(tried, rotation))) => {
                files.log_in(&kept, tried, rotation.as_ref(), has_own_way, login, counted)
            }
            Some((files, Mark::Settle { rotation, side, certain })) => {
                files.settle(&kept, rotation, *side, *certain, login, counted)
            }
        }?;
        let mut known = pin.held();
        if answer.is_ok() && Arc::ptr_eq(&known.current, &kept) {
            known.accepted = Some(generation);
        }
        drop(known);
        Ok(answer)
    }
}

impl<'a> Files<'a> {
    /// # Errors
    /// `Busy`; `Configuration`.
    pub(super) fn lock(directory: &'a Directory, token: TokenId<'a>, limit: Duration) -> Result<Self> {
        let id = token.hash();
        let lock = directory.lock(&id, limit)?;
        Ok(Self { directory, token, id, _lock: lock })
    }

    /// What is remembered of a change of the token's PIN.
    pub(super) fn rotation(&self) -> Result<FoundRotation> {
        let read = self.directory.read(&self.rotation_name())?;
        Ok(FoundRotation::read(read.as_deref(), Some(self.token)))
    }

    pub(super) fn write_rotation(&self, rotation: &Rotation) -> Result<()> {
        self.directory.write(&self.rotation_name(), &rotation.to_text()?)
    }

    pub(super) fn remove_rotation(&self) -> Result<()> {
        self.directory.remove(&self.rotation_name())
    }

    fn rotation_name(&self) -> String {
        format!("{ROTATION}{}", self.id)
    }

    /// The PIN was refused where nobody logged in: it is not sent again.
    pub(super) fn write_refused(&self, source: Generation) -> Result<()> {
        self.write(PinState::Refused, 1, source)
    }

    fn log_in<E>(
        &self,
        kept: &Kept,
        tried: &Tried,
        rotation: Option<&Rotation>,
        has_own_way: bool,
        login: impl FnOnce(Option<&[u8]>) -> Result<(), E>,
        counted: impl FnOnce(&E) -> Counted,
    ) -> Result<Result<(), E>> {
        let generation = kept.generation();
        // Once there is a PIN: a source that gives none leaves no trace.
        kept.show(has_own_way, |pin| {
            if let Err(error) = self.write(PinState::Trying, tried.attempts, generation.clone()) {
                // It may be there all the same, and would count as an attempt although nothing is sent.
                let _best_effort = self.put_back(&tried.before);
                return Err(error);
            }
            let answer = login(pin);
            let settled = match &answer {
                Ok(()) => self.forgiven(rotation).and_then(|()| self.directory.remove(&self.id)),
                Err(error) => match counted(error) {
                    Counted::No => self.put_back(&tried.before),
                    Counted::Perhaps => Ok(()),
                    Counted::Yes | Counted::Wrong => {
                        self.write(PinState::Refused, tried.attempts, generation)
                    }
                },
            };
            // It says `trying` then, which is settled by the token's flags when it is read.
            tell(settled);
            Ok(answer)
        })?
    }

    /// Finds out which of two PINs the token has.
    fn settle<E>(
        &self,
        kept: &Kept,
        before: &Rotation,
        side: Side,
        certain: bool,
        login: impl FnOnce(Option<&[u8]>) -> Result<(), E>,
        counted: impl FnOnce(&E) -> Counted,
    ) -> Result<Result<(), E>> {
        let mut rotation = before.clone();
        rotation.set_tried(side);
        kept.show(false, |pin| {
            if let Err(error) = self.write_rotation(&rotation) {
                let _best_effort = self.write_rotation(before);
                return Err(error);
            }
            let answer = login(pin);
            let now = time_of_day();
            let settled = match answer.as_ref().map_err(counted) {
                Ok(()) => {
                    rotation.clear_tried();
                    if certain {
                        rotation.set_stage(side.stage(), now);
                    }
                    self.write_rotation(&rotation).and_then(|()| self.directory.remove(&self.id))
                }
                Err(Counted::No) => self.write_rotation(before),
                Err(Counted::Wrong) if certain => {
                    rotation.set_stage(side.other().stage(), now);
                    self.write_rotation(&rotation)
                }
                // It was written down before it was sent.
                Err(Counted::Perhaps | Counted::Yes | Counted::Wrong) => Ok(()),
            };
            tell(settled);
            Ok(answer)
        })?
    }

    /// The token has taken the PIN of a rotation: wrong tries before are forgiven.
    fn forgiven(&self, rotation: Option<&Rotation>) -> Result<()> {
        let Some(rotation) = rotation.filter(|rotation| rotation.is_tried()) else { return Ok(()) };
        let mut settled = rotation.clone();
        settled.clear_tried();
        self.write_rotation(&settled)
    }

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
            Why::DamagedRotation => "the record of a rotation of its PIN is damaged".to_owned(),
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

    /// Why no PIN is sent to a token of a rotation. `may_change`: the source of the PIN is read again.
    fn stopped(&self, stop: Stop, rotation: &Rotation, may_change: bool) -> Error {
        let since = humantime::format_rfc3339_seconds(rotation.since);
        let said = match stop {
            Stop::Replaced => format!(
                "the PIN was rotated at {since}; its source has not changed since, and is to hold the new one"
            ),
            Stop::NotYet => format!(
                "a rotation of the PIN was cut off before the token got the new one, which stands since {since}; {}",
                self.resume()
            ),
            Stop::Warned => format!(
                "a change of its PIN at {since} was cut off, and the token says that a PIN was wrong; {}",
                self.remedy()
            ),
            Stop::Exhausted => format!(
                "a change of its PIN at {since} was cut off, and of the two PINs those that are here were tried; {}; {}",
                self.resume(),
                self.remedy()
            ),
        };
        let text = format!("token {}: {said}", self.token.label);
        let waits = may_change && matches!(stop, Stop::Replaced | Stop::NotYet);
        let retry = if waits { Retry::Later } else { Retry::Operator };
        Error::new(ErrorKind::PinRefused, retry, Outcome::NotDone).because(text)
    }

    fn remedy(&self) -> String {
        format!("it is not sent again before `hsmux pin clear --state-dir {} {}`", self.shown_path(), self.id)
    }

    /// What to do where a process has one of two PINs.
    fn resume(&self) -> String {
        format!("`hsmux pin rotate --resume --state-dir {}` goes on with both PINs", self.shown_path())
    }

    /// The state directory, as a shell reads it.
    fn shown_path(&self) -> String {
        let directory = self.directory.path().to_string_lossy();
        // No path has a NUL in it, the only thing that a shell has no quotes for.
        shlex::try_quote(&directory).unwrap_or_default().into_owned()
    }
}

/// A record that cannot be written after the answer says less than is known, which errs on the safe side.
fn tell(settled: Result<()>) {
    if let Err(error) = settled {
        tracing::error!(%error, "the end of a login cannot be written down");
    }
}

#[cfg(test)]
mod tests;
