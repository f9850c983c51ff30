//! Several instances of one module: how their tokens are started, and how one of them writes for all.

use std::sync::Arc;
use std::time::Duration;

use super::{Shared, open_sessions};
use crate::builder::Settings;
use crate::clock::now;
use crate::error::{Error, ErrorKind, Result};
use crate::pin::Pin;
use crate::pkcs11::{self, Library, Slot, TokenInfo, refused_copy};
use crate::schedule::dispatch::tokens;
use crate::schedule::quiet::Quiet;
use crate::sessions::Bounds;
use crate::token::gate::{Gate, Pass};
use crate::token::measured::Measured;
use crate::token::service::Held;
use crate::token::session::Session;
use crate::token::{SERVICE_LIMIT, Standing, Terms, Token, instances_of};

/// Most tokens of an engine, each instance's counted: sets of them are kept in the bits of a word.
const TOKENS_MAX: usize = 64;

/// How long a write waits for calls on the other instances of its token: twice the shortest hang limit that the engine
/// chooses, so that a call that hangs has been written off by then.
const QUIET_LIMIT: Duration = Duration::from_secs(10);

/// The instances of an engine's module, and what they have: the tokens of the first in the order in which they were
/// named, then those of the second, and so on.
pub(super) struct Started {
    pub(super) libraries: Vec<Library>,
    pub(super) tokens: Vec<Arc<Token>>,
    /// By token.
    pub(super) sessions: Vec<Vec<Session>>,
    /// By token: how many sessions it may have.
    pub(super) bounds: Vec<Bounds>,
}

/// Logs in to the tokens in these slots and opens their first sessions, then the same in further instances: one after
/// the other, and each only when the one before has succeeded.
pub(super) fn start(
    library: Library,
    slots: &[Slot],
    pin: &Arc<Pin>,
    settings: &Settings,
    measured: &Measured,
) -> Result<Started> {
    let instances = settings.instances.max(1);
    if slots.len().saturating_mul(instances) > TOKENS_MAX {
        let text = "the number of tokens times the number of instances may be 64 at most";
        return Err(Error::operator(ErrorKind::Configuration, text));
    }
    let _starting = Gate::of_module(library.path()).pass(SERVICE_LIMIT)?;
    let (tokens, sessions, bounds) = (Vec::new(), Vec::new(), Vec::new());
    let mut started = Started { libraries: vec![library], tokens, sessions, bounds };
    for (index, &slot) in slots.iter().enumerate() {
        started.log_in(slot, Standing { index, instance: 0, first: None }, pin, settings, measured)?;
    }
    for number in 1..instances {
        let copy = started.libraries[0].copy(number, settings.init_args.as_deref())?;
        let slots = slots_of(&copy, &started.tokens[..slots.len()])?;
        started.libraries.push(copy);
        for (named, slot) in slots.into_iter().enumerate() {
            let (index, first) = (started.tokens.len(), Arc::clone(&started.tokens[named]));
            let standing = Standing { index, instance: number, first: Some(&first) };
            started.log_in(slot, standing, pin, settings, measured)?;
        }
    }
    Ok(started)
}

impl Started {
    /// Logs in to a token of the last instance, and opens its sessions.
    fn log_in(
        &mut self,
        slot: Slot,
        standing: Standing<'_>,
        pin: &Arc<Pin>,
        settings: &Settings,
        measured: &Measured,
    ) -> Result<()> {
        let library = self.libraries.last().ok_or_else(|| Error::internal("an engine without a module"))?;
        let terms = Terms {
            consent: settings.pin_despite_warning,
            coalescing: settings.coalescing,
            holding: settings.holding,
            messages: settings.message_api,
            verify: settings.verify_outputs,
        };
        let (token, _pass) = Token::log_in(library, slot, standing, pin, terms, measured)?;
        let (told, instances) = (token.info.sessions_max, settings.instances.max(1));
        let wanted = settings.sessions.bounds(told, instances, measured.sessions);
        let opened = open_sessions(&token, wanted.start)?;
        self.bounds.push(wanted.with(opened.len()));
        self.sessions.push(opened);
        self.tokens.push(Arc::new(token));
        Ok(())
    }
}

impl Shared {
    /// Writes objects of a token on its service session, while the other instances of the token stand still; then each
    /// instance lists its keys anew. `epoch` is that of the objects that the job is about, if there are any; `pass` is that of the token's gate: no listing is overtaken by an older one.
    ///
    /// # Errors
    /// `Busy`, if a call on another instance does not come back: then nothing was written. What the job answers; what
    /// listing the keys does, after they were written.
    pub(super) fn write<R: Send + 'static>(
        &self,
        token: usize,
        epoch: Option<u64>,
        pass: &Arc<Pass>,
        job: impl FnOnce(&mut pkcs11::Session, u64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let written = self.write_unlisted(token, epoch, pass, job)?;
        self.list_written(token)?;
        Ok(written)
    }

    /// After [`Shared::write_unlisted`] of keys: each instance of the token lists them anew, under the same pass.
    pub(super) fn list_written(&self, token: usize) -> Result<()> {
        let instances = instances_of(&self.tokens, self.tokens[token].first);
        tokens(instances).try_for_each(|instance| self.list_now(instance))
    }

    /// As [`Shared::write`], of objects that are no keys, or whose listing the caller sees to: nothing is listed anew.
    pub(super) fn write_unlisted<R: Send + 'static>(
        &self,
        token: usize,
        epoch: Option<u64>,
        pass: &Arc<Pass>,
        job: impl FnOnce(&mut pkcs11::Session, u64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let writer = &self.tokens[token];
        let instances = instances_of(&self.tokens, writer.first);
        let still = self.stand_still(instances & !(1 << token))?;
        let inside = Arc::clone(pass);
        let job = move |session: &mut pkcs11::Session, now: u64| {
            let written = job(session, now);
            // The next write waits for this one, however long the caller does.
            drop(inside);
            written
        };
        let written = match epoch {
            Some(epoch) => writer.with_objects(epoch, move |session| job(session, epoch)),
            None => writer.with_service(job),
        };
        drop(still);
        written
    }

    /// Waits until nobody is inside a call on these tokens, and keeps it so: no request, and no service thread.
    fn stand_still(&self, mask: u64) -> Result<(Vec<Held>, Option<Quiet>)> {
        let until = now().after(QUIET_LIMIT);
        let hold = |token: usize| self.tokens[token].hold_service(now().until(until));
        // First, for no session may be opened while those that there are are waited for.
        let services = tokens(mask).map(hold).collect::<Result<Vec<_>>>()?;
        let quiet = if mask == 0 { None } else { Some(Quiet::begin(&self.core, mask, until)?) };
        Ok((services, quiet))
    }
}

/// The slots in which a further instance has the same tokens. Slots have numbers of their own there.
fn slots_of(copy: &Library, wanted: &[Arc<Token>]) -> Result<Vec<Slot>> {
    // A slot whose token cannot be read is not one of those asked for, as far as anyone can tell.
    let present: Vec<_> = copy.slots()?.into_iter().filter_map(|slot| copy.token_info(slot).ok()).collect();
    wanted.iter().map(|token| slot_of(&present, &token.info)).collect()
}

fn slot_of(present: &[TokenInfo], wanted: &TokenInfo) -> Result<Slot> {
    let mut same =
        present.iter().filter(|info| (&info.serial, &info.label) == (&wanted.serial, &wanted.label));
    match (same.next(), same.next()) {
        (Some(info), None) => Ok(info.slot),
        (found, _) => {
            let count = if found.is_some() { "several tokens" } else { "no token" };
            Err(refused_copy(&format!("a copy of it shows {count} like {}", wanted.label)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_again_by_serial_number_and_label_in_whatever_slot() {
        let token = |slot, serial: &str| TokenInfo {
            slot: Slot::numbered(slot),
            slot_description: String::new(),
            slot_manufacturer: String::new(),
            label: "pay".to_owned(),
            serial: serial.to_owned(),
            model: String::new(),
            manufacturer: String::new(),
            flags: 0,
            sessions_max: None,
            sessions: crate::pkcs11::SessionCounts::default(),
            clock: None,
        };
        let present = [token(7, "01"), token(8, "02"), token(9, "03"), token(10, "03")];
        assert_eq!(slot_of(&present, &token(1, "02")).unwrap().number(), 8);
        for (serial, said) in [("04", "no token like pay"), ("03", "several tokens like pay")] {
            let error = slot_of(&present, &token(1, serial)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
