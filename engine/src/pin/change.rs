//! A change of the PIN of an engine's tokens: what is written down before each step, so that it may be cut off anywhere.

use std::time::Duration;

use subtle::ConstantTimeEq;

use super::attempt::Files;
use super::directory::{Directory, Lock};
use super::keep::{Kept, Next};
use super::record::TokenId;
use super::rotation::{Begun, FoundRotation, Rotation, Side, Stage};
use super::{Pin, PinKeep, PinSource, unusable};
use crate::clock::time_of_day;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// What a call that changes a PIN came to, if it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The token has the PIN that it had.
    Unchanged,
    /// It does not have the PIN that was taken for its own.
    NotItsPin,
    /// Nobody knows.
    Unknown,
}

/// A rotation, which one engine makes at a time: of those with the same state directory.
pub(crate) struct Change<'a> {
    pin: &'a Pin,
    directory: &'a Directory,
    /// As records name it.
    rotation: String,
    began: Begun,
    /// What takes the place of the PIN in the end.
    later: Arc<Kept>,
    /// What is the PIN if all of it is undone.
    before: Arc<Kept>,
    /// It goes on with one that was cut off.
    resumes: bool,
    _alone: Lock,
}

/// The right to change the PIN of one token, which one thread has at a time.
pub(crate) struct Turn<'a> {
    files: Files<'a>,
    record: Rotation,
    old: Arc<Kept>,
    new: Arc<Kept>,
}

/// Of the lock that one engine at a time has for its rotation.
const ALONE: &str = "rotation";

/// How long another engine's rotation is waited for, and another process that logs in to a token.
pub(crate) const TURN_LIMIT: Duration = Duration::from_secs(60);

impl Pin {
    /// Takes the new PIN of a rotation that was cut off: tokens get what their records say.
    ///
    /// # Errors
    /// `Configuration`, if there is no state directory or none was cut off; `PinUnavailable`.
    pub(crate) fn resume(&self, new: PinSource) -> Result<()> {
        let directory = self.state().ok_or_else(no_directory)?;
        let (mut rotations, mut count) = (Vec::new(), 0);
        for id in directory.rotation_ids()? {
            let read = directory.read(&rotation_name(&id))?;
            if let FoundRotation::Rotation(record) = FoundRotation::read(read.as_deref(), None) {
                count += 1;
                rotations.extend((record.stage != Stage::New).then_some(record.rotation));
            }
        }
        if rotations.is_empty() {
            let said = if count > 0 { "every token has its new PIN" } else { "there was none" };
            return Err(unusable(&format!("no rotation of the PIN was cut off: {said}")));
        }
        let (current, pin) = (self.current(), Arc::new(read_new(new)?));
        if are_equal(&current, &pin)? {
            return Err(same());
        }
        let mut held = self.held();
        if held.demands_lock {
            pin.check_locked()?;
        }
        held.next = Some(Next { pin, rotations, before: None });
        Ok(())
    }

    /// Begins to change the PIN of these tokens, each of which is logged in to by the PIN that is here: looks at both PINs
    /// and, when it returns, it is written down for good that each token has the old one.
    ///
    /// # Errors
    /// `Configuration`, `InvalidInput`, `PinUnavailable`, `Busy`, `Conflict`: nothing was begun then.
    pub(crate) fn begin_change<'a>(
        &'a self,
        new: PinSource,
        lengths: &[(usize, usize)],
        tokens: &[TokenId<'_>],
        alone_limit: Duration,
    ) -> Result<Change<'a>> {
        let directory = self.state().ok_or_else(no_directory)?;
        self.keep().check(&new)?;
        let before = self.check_current(&new)?;
        let alone = directory.lock(ALONE, alone_limit).map_err(|error| match error.kind() {
            ErrorKind::Busy => error.because("another engine changes the PIN"),
            _ => error,
        })?;
        // In memory from here on: its source may be written anew meanwhile.
        let (old, pin) = (Arc::new(self.current().snapshot()?), Arc::new(read_new(new.clone())?));
        if self.held().demands_lock {
            old.check_locked()?;
            pin.check_locked()?;
        }
        check_new(&old, &pin, lengths)?;
        let resumed = self.resumed(&pin)?;
        let found = found(directory, tokens)?;
        let rotation = rotation_of(&found, resumed.as_deref())?;
        let later = match self.keep() {
            PinKeep::Memory => Arc::clone(&pin),
            PinKeep::Reread => Arc::new(Kept::Source(new)),
        };
        let (resumes, rotation) = (rotation.is_some(), rotation.map_or_else(random_name, Ok)?);
        let (of_old, of_new) = (old.generation(), pin.generation());
        let began = Begun { rotation: rotation.clone(), old: of_old, new: of_new, at: time_of_day() };
        let change = Change { pin: self, directory, rotation, began, later, before, resumes, _alone: alone };
        change.write_down(tokens)?;
        let rotations = vec![change.rotation.clone()];
        let mut held = self.held();
        let before = Some(Arc::clone(&change.before));
        (held.current, held.next) = (old, Some(Next { pin, rotations, before }));
        drop(held);
        Ok(change)
    }

    /// The right to change the PIN of a token of the rotation that is under way.
    ///
    /// # Errors
    /// `Busy`; `Configuration`, if there is no record of it any more.
    pub(crate) fn turn<'a>(&'a self, token: TokenId<'a>, limit: Duration) -> Result<Turn<'a>> {
        let files = Files::lock(self.state().ok_or_else(no_directory)?, token, limit)?;
        let held = self.held();
        let next = held.next.as_ref().ok_or_else(|| Error::internal("a turn of no rotation"))?;
        match files.rotation()? {
            FoundRotation::Rotation(record) if next.rotations.contains(&record.rotation) => {
                let (old, new) = (Arc::clone(&held.current), Arc::clone(&next.pin));
                drop(held);
                Ok(Turn { files, record, old, new })
            }
            _ => Err(unusable("the record of the rotation has gone")),
        }
    }

    /// The PIN that is there now, which must be the one that tokens have accepted.
    fn check_current(&self, new: &PinSource) -> Result<Arc<Kept>> {
        let held = self.held();
        if held.current.is_typed() || matches!(new, PinSource::ProtectedAuthenticationPath) {
            return Err(unusable("a PIN that a person types at the token is changed there"));
        }
        let is_accepted =
            held.accepted.as_ref().is_none_or(|accepted| *accepted == held.current.generation());
        if !is_accepted {
            return Err(unusable("the source of the PIN was changed since the last login: which one holds?"));
        }
        let before = held.next.as_ref().and_then(|next| next.before.as_ref());
        Ok(Arc::clone(before.unwrap_or(&held.current)))
    }

    /// The rotations that the new PIN belongs to already.
    fn resumed(&self, pin: &Kept) -> Result<Option<Vec<String>>> {
        let held = self.held();
        let Some(next) = &held.next else { return Ok(None) };
        if !are_equal(&next.pin, pin)? {
            let text = "a rotation to another new PIN was cut off, which has to be finished first";
            return Err(Error::operator(ErrorKind::Conflict, text));
        }
        Ok(Some(next.rotations.clone()))
    }
}

impl Change<'_> {
    /// Writes down that each token has the old PIN, unless its record says more.
    fn write_down(&self, tokens: &[TokenId<'_>]) -> Result<()> {
        for (number, token) in tokens.iter().enumerate() {
            let written = Files::lock(self.directory, *token, TURN_LIMIT).and_then(|files| {
                let before = files.rotation()?;
                let goes_on =
                    matches!(&before, FoundRotation::Rotation(record) if record.rotation == self.rotation);
                if goes_on {
                    Ok(())
                } else {
                    files.write_rotation(&Rotation::begin(*token, &self.began, &before))
                }
            });
            if let Err(error) = written {
                // All tokens have the old PIN, as their records say.
                if !self.resumes {
                    self.take_back(&tokens[..=number]);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether it goes on with a rotation that was cut off: tokens may have had the new PIN before it.
    pub(crate) const fn resumes(&self) -> bool {
        self.resumes
    }

    /// All tokens have the new PIN: it is the engine's.
    pub(crate) fn finish(self) {
        let mut held = self.pin.held();
        (held.current, held.next) = (Arc::clone(&self.later), None);
        held.accepted = Some(self.later.generation());
    }

    /// All tokens have the old PIN: nothing is changed, and records say nothing of the new one.
    pub(crate) fn undo(self, tokens: &[TokenId<'_>]) {
        self.take_back(tokens);
        let mut held = self.pin.held();
        (held.current, held.next) = (Arc::clone(&self.before), None);
    }

    /// What is left of a record says that the token has the old PIN, which is so.
    fn take_back(&self, tokens: &[TokenId<'_>]) {
        for token in tokens {
            let taken =
                Files::lock(self.directory, *token, TURN_LIMIT).and_then(|files| match files.rotation()? {
                    FoundRotation::Rotation(record)
                        if record.rotation == self.rotation && record.stage == Stage::Old =>
                    {
                        match record.before() {
                            Some(before) => files.write_rotation(&before),
                            None => files.remove_rotation(),
                        }
                    }
                    _ => Ok(()),
                });
            if let Err(error) = taken {
                tracing::warn!(%error, "the record of a rotation that was undone is left");
            }
        }
    }
}

impl Turn<'_> {
    /// Which PIN the token has, as far as that is known.
    pub(crate) const fn stage(&self) -> Stage {
        self.record.stage
    }

    /// Whether a wrong try that the token's flags tell of is written down here.
    pub(crate) const fn explains_warning(&self) -> bool {
        self.record.is_tried()
    }

    /// Gives the token a PIN in the place of the other one, once: `set` gets the one that it has and the one that it is to have.
    /// Where nobody knows which one it has, it must not have been tried yet: then a refusal tells that it is changed already,
    /// and is no failure.
    ///
    /// # Errors
    /// `PinUnavailable`; `Configuration`, if the record cannot be written; `PinRefused`, if it was tried: then nothing was sent.
    pub(crate) fn set<E>(
        mut self,
        to: Side,
        set: impl FnOnce(&[u8], &[u8]) -> Result<(), E>,
        failed: impl FnOnce(&E) -> Failed,
    ) -> Result<Result<(), E>> {
        let (from, before) = (to.other(), self.record.clone());
        let is_known = before.stage == from.stage();
        if !is_known {
            if before.has_tried(from) {
                let text = "nobody knows which PIN the token has, and this one was tried";
                return Err(Error::operator(ErrorKind::PinRefused, text));
            }
            self.record.set_tried(from);
        }
        self.record.set_stage(Stage::Changing, time_of_day());
        let (has, gets) = match to {
            Side::New => (Arc::clone(&self.old), Arc::clone(&self.new)),
            Side::Old => (Arc::clone(&self.new), Arc::clone(&self.old)),
        };
        // Both are in memory; that they are there was seen when the rotation began.
        has.show(false, |has_pin| {
            gets.show(false, |gets_pin| {
                if let Err(error) = self.files.write_rotation(&self.record) {
                    let _best_effort = self.files.write_rotation(&before);
                    return Err(error);
                }
                let answer = set(has_pin.unwrap_or_default(), gets_pin.unwrap_or_default());
                let (record, answer) = self.settle(&before, to, answer, failed);
                // What it says now, that nobody knows, is true as well.
                if let Err(error) = record {
                    tracing::error!(%error, "the end of a change of PIN cannot be written down");
                }
                Ok(answer)
            })
        })??
    }

    /// Writes down what a call came to.
    fn settle<E>(
        &mut self,
        before: &Rotation,
        to: Side,
        answer: Result<(), E>,
        failed: impl FnOnce(&E) -> Failed,
    ) -> (Result<()>, Result<(), E>) {
        let was_known = before.stage != Stage::Changing;
        let now = time_of_day();
        match answer.as_ref().map_err(failed) {
            Ok(()) => {
                self.record.set_stage(to.stage(), now);
                self.record.clear_tried();
                (self.files.write_rotation(&self.record), Ok(()))
            }
            Err(Failed::NotItsPin) if !was_known => {
                self.record.set_stage(to.stage(), now);
                (self.files.write_rotation(&self.record), Ok(()))
            }
            Err(Failed::NotItsPin) => {
                // Neither of the two, as far as anybody can tell: a person has to look at it.
                let refused = self.files.write_refused(self.old.generation());
                (refused.and_then(|()| self.files.write_rotation(before)), answer)
            }
            Err(Failed::Unchanged) if was_known => (self.files.write_rotation(before), answer),
            Err(Failed::Unchanged | Failed::Unknown) => (Ok(()), answer),
        }
    }
}

/// Reads a new PIN, to be had in memory while tokens get it.
fn read_new(new: PinSource) -> Result<Kept> {
    match new {
        PinSource::ProtectedAuthenticationPath => {
            Err(unusable("a PIN that a person types at the token is changed there"))
        }
        new => Kept::new(new, PinKeep::Memory),
    }
}

fn are_equal(one: &Kept, other: &Kept) -> Result<bool> {
    let compare = |one: &[u8], other: &[u8]| bool::from(one.ct_eq(other));
    one.show(false, |one| {
        other.show(false, |other| compare(one.unwrap_or_default(), other.unwrap_or_default()))
    })?
}

/// Whether the new PIN is another one, and of a length that every token takes: shortest and longest, in bytes.
fn check_new(old: &Kept, new: &Kept, lengths: &[(usize, usize)]) -> Result<()> {
    if are_equal(old, new)? {
        return Err(same());
    }
    let len = new.show(false, |pin| pin.map_or(0, <[u8]>::len))?;
    match lengths.iter().find(|(min, max)| !(*min..=*max).contains(&len)) {
        // Which of the two bounds it breaks would tell something of it.
        Some((min, max)) => {
            let text =
                format!("a token takes PINs of {min} to {max} bytes, and the new one is none of these");
            Err(Error::operator(ErrorKind::InvalidInput, text))
        }
        None => Ok(()),
    }
}

/// What is remembered of these tokens. Nobody else changes which rotation a token is in meanwhile.
fn found(directory: &Directory, tokens: &[TokenId<'_>]) -> Result<Vec<Rotation>> {
    let mut records = Vec::new();
    for token in tokens {
        let read = directory.read(&rotation_name(&token.hash()))?;
        match FoundRotation::read(read.as_deref(), Some(*token)) {
            FoundRotation::Nothing => {}
            FoundRotation::Rotation(record) => records.push(record),
            FoundRotation::Damaged => {
                return Err(unusable(&format!(
                    "the record of a rotation of token {} is damaged",
                    token.label
                )));
            }
        }
    }
    Ok(records)
}

/// The rotation that is to go on, if one was cut off; `resumed` are those of which the new PIN is known.
///
/// # Errors
/// `Conflict`, if tokens have different PINs, or may have, and nobody has said that this is known.
fn rotation_of(found: &[Rotation], resumed: Option<&[String]>) -> Result<Option<String>> {
    let unfinished = |rotation: &str| {
        let of = || found.iter().filter(|record| record.rotation == rotation);
        let any = |stage| of().any(|record| record.stage == stage);
        any(Stage::Changing) || (any(Stage::Old) && any(Stage::New))
    };
    let mut cut_off = found.iter().map(|record| &record.rotation).filter(|rotation| unfinished(rotation));
    match (cut_off.next(), resumed) {
        (Some(rotation), Some(resumed)) if resumed.contains(rotation) => Ok(Some(rotation.clone())),
        (Some(_), _) => {
            let text = "a rotation of the PIN was cut off, and tokens may have different ones: \
                        it has to be finished with the new PIN that it had (`hsmux pin rotate --resume`)";
            Err(Error::operator(ErrorKind::Conflict, text))
        }
        (None, Some(resumed)) => Ok(found
            .iter()
            .map(|record| &record.rotation)
            .find(|rotation| resumed.contains(rotation))
            .cloned()),
        (None, None) => Ok(None),
    }
}

fn same() -> Error {
    Error::operator(ErrorKind::InvalidInput, "the new PIN is the old one")
}

fn random_name() -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| Error::internal("the kernel gives no random bytes"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn rotation_name(id: &str) -> String {
    format!("{}{id}", super::directory::ROTATION)
}

fn no_directory() -> Error {
    unusable("a PIN is changed only where it can be written down: set a state directory")
}
