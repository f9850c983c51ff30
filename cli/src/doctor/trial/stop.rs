//! Whether other tokens may be sent a PIN after one login has failed.

use hsmux::{ErrorKind, PinRecord, PinState, TokenDescription};

use super::super::login::{Outcome, Untried};
use super::super::token::Seen;
use crate::connection::Site;
use crate::exit::Exit;

/// What is known of a token before it is logged in to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// Its flags keep the engine from sending a PIN.
    is_locked_out: bool,
    /// They would not keep a service from it, whose configuration consents; the doctor takes no consent from there.
    pub(super) waits_for_consent: bool,
    /// The state directory does.
    is_on_record: bool,
}

/// Why a login, or what came after it, failed.
pub(super) struct Unlogged {
    /// Kind and outcome; none if it did not come back.
    pub(super) error: Option<(ErrorKind, hsmux::Outcome)>,
    pub(super) why: String,
}

impl Before {
    pub(super) fn look(site: &Site, seen: &Seen, place: usize, token: &TokenDescription) -> Self {
        let flags = seen.flags(place);
        let warns = flags.user_pin_count_low || flags.user_pin_final_try || flags.user_pin_locked;
        let is_locked_out = flags.user_pin_locked || (warns && !site.has_consent());
        let waits_for_consent = is_locked_out && !flags.user_pin_locked && site.sends_despite_warning();
        let records =
            site.state_dir().and_then(|directory| PinRecord::list(directory).ok()).unwrap_or_default();
        let is_on_record = records.iter().any(|record| {
            let is_it = record.serial() == token.serial && record.label() == token.label;
            is_it && (warns || record.state() != PinState::Trying)
        });
        Self { is_locked_out, waits_for_consent, is_on_record }
    }
}

impl Unlogged {
    /// Why the others are not tried any more, if so: unless it is certain that this token was sent nothing that may be wrong.
    pub(super) fn stops(&self, token: &str, before: Before) -> Option<Untried> {
        use ErrorKind::{
            Busy, Configuration, Forked, Module, PinLocked, PinRefused, PinUnavailable, SessionLost,
            TokenLost, TokenNotFound,
        };
        let token = || token.to_owned();
        let Some((kind, outcome)) = self.error else { return Some(Untried::Unsettled(token())) };
        match kind {
            PinRefused if before.is_on_record => Some(Untried::OnRecord(token())),
            PinRefused => Some(Untried::Refused(token())),
            PinUnavailable => Some(Untried::NoPin),
            PinLocked if before.is_locked_out => None,
            Busy | Forked | Module | SessionLost | TokenLost | TokenNotFound | Configuration
                if outcome == hsmux::Outcome::NotDone =>
            {
                None
            }
            _ => Some(Untried::Unsettled(token())),
        }
    }
}

impl From<hsmux::Error> for Unlogged {
    fn from(error: hsmux::Error) -> Self {
        Self { error: Some((error.kind(), error.outcome())), why: error.to_string() }
    }
}

impl From<Unlogged> for Outcome {
    fn from(Unlogged { error, why }: Unlogged) -> Self {
        Self::Failed { exit: error.map_or(Exit::Busy, |(kind, _)| Exit::of(kind)), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_are_tried_only_if_this_token_was_certainly_sent_nothing_wrong() {
        use ErrorKind::{Busy, Device, Hung, Internal, NotPermitted, PinLocked, PinRefused, PinUnavailable};
        use hsmux::Outcome::{NotDone, Unknown};
        let sound = Before::default();
        let (locked, on_record) =
            (Before { is_locked_out: true, ..sound }, Before { is_on_record: true, ..sound });
        let token = || "pay-1".to_owned();
        for (error, before, stop) in [
            (Some((PinRefused, NotDone)), sound, Some(Untried::Refused(token()))),
            (Some((PinRefused, NotDone)), on_record, Some(Untried::OnRecord(token()))),
            (Some((PinUnavailable, NotDone)), sound, Some(Untried::NoPin)),
            (Some((PinLocked, NotDone)), locked, None),
            // As the answer to the PIN that was sent.
            (Some((PinLocked, NotDone)), sound, Some(Untried::Unsettled(token()))),
            (Some((Busy, NotDone)), sound, None),
            (Some((Busy, Unknown)), sound, Some(Untried::Unsettled(token()))),
            (Some((Device, Unknown)), sound, Some(Untried::Unsettled(token()))),
            (Some((Internal, NotDone)), sound, Some(Untried::Unsettled(token()))),
            (Some((NotPermitted, NotDone)), sound, Some(Untried::Unsettled(token()))),
            (Some((Hung, Unknown)), sound, Some(Untried::Unsettled(token()))),
            (None, sound, Some(Untried::Unsettled(token()))),
        ] {
            let unlogged = Unlogged { error, why: String::new() };
            assert_eq!(unlogged.stops("pay-1", before), stop, "{error:?} {before:?}");
        }
    }
}
