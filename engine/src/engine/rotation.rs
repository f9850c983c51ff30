//! Another PIN for the tokens of an engine, while it serves.

use std::sync::Arc;

use crate::engine::audit::Recorded;
use crate::engine::{Engine, Shared};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::pin::{Change, PinSource, Side, TokenId};
use crate::request::{Label, check_not_forked};
use crate::token::login::{id, stale};
use crate::token::rotate::{ALONE_LIMIT, Changed};
use crate::token::{Token, named};

/// What [`Engine::rotate_pin`] has done: every token of the engine has the new PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinRotation {
    /// The tokens, in the order in which they were named.
    pub tokens: Vec<RotatedToken>,
}

/// A token that has a new PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotatedToken {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Whether it had the PIN before: from a rotation that was cut off, and that this one has finished.
    pub had_it: bool,
}

impl Engine {
    /// Gives every token of the engine another user PIN, one after the other, while requests go on. Sessions and logins stay;
    /// later logins of this engine, such as those to a token that was lost, send the new PIN.
    ///
    /// The engine needs a [`Builder::state_dir`](crate::Builder::state_dir), in which it is written down before each step
    /// which PIN a token has, or that one of the two is being set. Nothing that either PIN tells is written: the form of
    /// their sources and when those files were changed. So a rotation may be cut off at any moment, by `SIGKILL` or a loss
    /// of power, and no PIN is guessed afterwards: an engine with both PINs
    /// ([`Builder::resume_rotation`](crate::Builder::resume_rotation)) goes on. Other engines with the same directory no
    /// longer send the old PIN to a token that has the new one, as long as they have it from a file that has not changed
    /// since.
    ///
    /// If a token refuses the new PIN, those that have it already are given the old one back, in reverse order, and the error
    /// says so. Where a token's answer is lost it is asked once more, with the same PINs, which tells how it stands; if
    /// that is not possible, because its session is gone, its next login tells: this engine then tries the new PIN once
    /// and, if that is refused, the old one once. The rotation stops there with [`Outcome::Unknown`], and goes on when this is
    /// called again with the same PIN.
    ///
    /// With [`PinKeep::Reread`](crate::PinKeep::Reread) the new source takes the place of the old one for as long as the engine
    /// lives. With several [instances](crate::Builder::instances) the PIN of each token is changed once, by the first.
    /// Nobody else may change the PINs meanwhile. What the operator has to do then is to put the new PIN where this engine and others have
    /// the old one from, and to build those others anew.
    ///
    /// # Errors
    /// Before anything was sent: `Configuration` without a state directory, for a PIN that is typed at the token, or a source
    /// that was changed since the last login; `InvalidInput` if the new PIN is the old one, or of a length that a
    /// token does not take; `PinUnavailable`; `TokenLost` or `SessionLost` if a token is not in service; `Busy` while another engine rotates;
    /// `Conflict` if a rotation to another PIN was cut off. Then what a token answers, such as `PinRefused`, with
    /// [`Outcome::NotDone`] if every token has the old PIN, and [`Outcome::Unknown`] if one does not, or may not.
    ///
    /// # Blocking
    /// As long as a person or a pipe takes to give the PIN, and until every token has answered: two minutes at most for each.
    pub fn rotate_pin(&self, new: impl Into<PinSource>) -> Result<PinRotation> {
        check_not_forked()?;
        let shared = &self.shared;
        shared.core.check_open()?;
        let note = |record: &mut Recorded| record.note("tokens", serials(named(&shared.tokens)));
        let mut record = shared.begin_change("rotate-pin", &Label::default(), note)?;
        let rotated = shared.rotate_pin(new.into(), &mut record);
        record.end(rotated)
    }
}

impl Shared {
    fn rotate_pin(&self, new: PinSource, record: &mut Recorded) -> Result<PinRotation> {
        let shared = self;
        if shared.tokens.iter().any(|token| token.is_lost()) {
            return Err(stale());
        }
        let tokens: Vec<_> = named(&shared.tokens).collect();
        let lengths = tokens.iter().map(|token| token.pin_lengths()).collect::<Result<Vec<_>>>()?;
        let ids: Vec<_> = tokens.iter().map(|token| id(&token.info)).collect();
        let change = shared.pin.begin_change(new, &lengths, &ids, ALONE_LIMIT)?;
        let mut rotated = Vec::new();
        for (number, token) in tokens.iter().enumerate() {
            let had_it = match shared.change_pin(token, Side::New) {
                Changed::Done => false,
                Changed::Already => true,
                Changed::No(error, _) => {
                    return Err(shared.way_back(change, &tokens, number, &ids, &error, record));
                }
                Changed::Unknown(error, _) => {
                    return Err(in_doubt(&tokens, number, &error, change.resumes(), record));
                }
            };
            tracing::info!(token = token.index, "a token has a new PIN");
            let (label, serial) = (token.info.label.clone(), token.info.serial.clone());
            rotated.push(RotatedToken { label, serial, had_it });
        }
        change.finish();
        note_tokens(record, "new_pin", &tokens);
        Ok(PinRotation { tokens: rotated })
    }

    /// Has a token change its PIN, and sees to it if that has cost it its login.
    fn change_pin(&self, token: &Arc<Token>, to: Side) -> Changed {
        let changed = token.change_pin(to);
        if let Changed::No(error, Some(lost)) | Changed::Unknown(error, Some(lost)) = &changed {
            self.core.token_is_lost(token.index, lost.loss, Arc::clone(&lost.epoch), error.why());
        }
        changed
    }

    /// A token has not taken the new PIN: those that have it get the old one back. Returns what is to be said.
    fn way_back(
        &self,
        change: Change<'_>,
        tokens: &[&Arc<Token>],
        refused: usize,
        ids: &[TokenId<'_>],
        error: &Error,
        record: &mut Recorded,
    ) -> Error {
        let said = format!("token {}: {}", tokens[refused].info.label, error_text(error));
        let (mut left, mut old, mut new, mut unknown) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        // Also those that come later: they may have it from a rotation that was cut off.
        for (number, token) in tokens.iter().enumerate().rev() {
            match self.change_pin(token, Side::Old) {
                Changed::Done | Changed::Already => old.push(*token),
                // It has the PIN that it had: the new one, if this rotation has given it to it, else the one that was written
                // down when it began, if that was known.
                Changed::No(error, _) => {
                    let (had, said) = match (number < refused, change.resumes()) {
                        (true, _) => (&mut new, "keeps the new one"),
                        (false, false) => (&mut old, "could not be asked and has the old one"),
                        (false, true) => (&mut unknown, "could not be asked and has one of the two"),
                    };
                    had.push(*token);
                    left.push(format!("token {} {said} ({})", token.info.label, error_text(&error)));
                }
                Changed::Unknown(error, _) => {
                    unknown.push(*token);
                    left.push(format!(
                        "token {} has one of the two ({})",
                        token.info.label,
                        error_text(&error)
                    ));
                }
            }
        }
        note_tokens(record, "old_pin", &old);
        note_tokens(record, "new_pin", &new);
        note_tokens(record, "unknown_pin", &unknown);
        if left.is_empty() {
            change.undo(ids);
            let text = format!("{said}; every token has the old PIN");
            return Error::new(error.kind(), error.retry(), Outcome::NotDone).because(text);
        }
        let text =
            format!("{said}; the other tokens have the old PIN again, but {}; {GO_ON}", left.join(", "));
        Error::new(error.kind(), Retry::Operator, Outcome::Unknown).because(text)
    }
}

/// Nobody knows whether a token has taken the new PIN.
fn in_doubt(
    tokens: &[&Arc<Token>],
    doubtful: usize,
    error: &Error,
    resumes: bool,
    record: &mut Recorded,
) -> Error {
    // Those that come later were not asked: they may have the new one from a rotation that was cut off.
    let known = if resumes { tokens.len() } else { doubtful + 1 };
    note_tokens(record, "new_pin", &tokens[..doubtful]);
    note_tokens(record, "unknown_pin", &tokens[doubtful..known]);
    note_tokens(record, "old_pin", &tokens[known..]);
    let names = |tokens: &[&Arc<Token>]| {
        let names: Vec<_> = tokens.iter().map(|token| token.info.label.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let text = format!(
        "token {}: {}: nobody knows whether it has the new PIN; with the new one: {}; {}: {}; {GO_ON}",
        tokens[doubtful].info.label,
        error_text(error),
        names(&tokens[..doubtful]),
        if resumes { "not asked" } else { "with the old one" },
        names(&tokens[doubtful + 1..]),
    );
    let kind = if error.kind() == ErrorKind::Internal { ErrorKind::Device } else { error.kind() };
    Error::new(kind, Retry::Operator, Outcome::Unknown).because(text)
}

/// Notes by serial number which tokens have a PIN, if any have.
fn note_tokens(record: &mut Recorded, name: &'static str, tokens: &[&Arc<Token>]) {
    if !tokens.is_empty() {
        record.note(name, serials(tokens.iter().copied()));
    }
}

fn serials<'a>(tokens: impl Iterator<Item = &'a Arc<Token>>) -> String {
    tokens.map(|token| token.info.serial.as_str()).collect::<Vec<_>>().join(" ")
}

const GO_ON: &str = "it is written down: rotate again with the same new PIN (`hsmux pin rotate --resume`)";

fn error_text(error: &Error) -> &str {
    if error.why().is_empty() { error.kind().name() } else { error.why() }
}
