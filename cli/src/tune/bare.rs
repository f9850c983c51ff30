//! The engine that does nothing but keep the login and the keys while others are measured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use hsmux::{
    Builder, Copies, Engine, ErrorKind, Health, ModuleDescription, PinKeep, PinSource, Retry,
    TokenDescription,
};
use hsmux_bench::Works;
use hsmux_bench::profile::Profile;
use hsmux_bench::result::Made;
use secrecy::SecretString;

use super::args::Args;
use super::keys::Keys;
use super::sites::Sites;
use super::start::Start;
use super::tell;
use crate::connection::{Site, is_uri};
use crate::exit::{Exit, Failure, Result};
use crate::load::{DRAIN, made};

/// One session of each token, from the first login to the last. A login holds for all engines of a process, so that those that
/// are measured find themselves logged in; and whatever becomes of them, keys can be removed.
pub(super) struct Bare<'a> {
    site: &'a Site,
    /// As the site names them.
    names: Vec<String>,
    /// Read once: some sources give it once, and a person is not asked a hundred times.
    pin: SecretString,
    module: Option<ModuleDescription>,
    /// `None` where the tokens have no sessions to spare for it.
    engine: Option<Arc<Engine>>,
    pub(super) keys: Keys,
    /// In the order of their names.
    tokens: Vec<TokenDescription>,
    /// How many of them serve the load.
    serving: usize,
    /// Whether it has gone to make room, and that did not help.
    is_in_nobodys_way: bool,
    pub(super) made: Made,
    /// Whether no engine is built any more, not even to remove keys.
    is_over: bool,
}

/// Why a setting could not be measured.
#[derive(Debug)]
pub(super) enum Missed {
    /// Because of what it is.
    Setting(Failure),
    /// A login that may have counted as a wrong try has failed, or a token is lost.
    Final(Failure),
}

/// Requests in flight that engines take while they are measured: whoever has fewer callers is not refused.
pub(super) const REQUESTS_MAX: usize = 65_536;

/// Sessions that an engine keeps for itself, of each token and instance.
const OWN: usize = 2;

impl<'a> Bare<'a> {
    /// Logs in and makes the keys.
    pub(super) fn open(args: &Args, sites: &'a Sites, profile: &Profile) -> Result<Self> {
        let site = &sites.bare;
        let source = site.pin()?;
        if matches!(source, PinSource::ProtectedAuthenticationPath) {
            let text = "tune logs in a hundred times, for which nobody types a PIN at the token";
            return Err(Failure::new(Exit::Usage, text));
        }
        let names = site.tokens()?;
        let module = site.describe().ok();
        let pin = source.read()?;
        let engine = Arc::new(bare(site, &names, &pin).build()?);
        if let Some(failure) = not_serving(&engine) {
            return Err(failure);
        }
        let tokens = engine.tokens();
        check_scopes(&engine, tokens.len())?;
        let made = made(site.module(), module.as_ref(), &engine, BTreeMap::new(), profile.seed);
        let keys = Keys::make(args, site, &engine, profile)?;
        let in_service = engine.snapshot().tokens.iter().filter(|token| !token.drained).count();
        // Temporary keys are on the first token alone.
        let serving = if keys.are_temporary() { 1 } else { in_service.max(1) };
        let engine = Some(engine);
        let (is_in_nobodys_way, is_over) = (false, false);
        Ok(Self { site, names, pin, module, engine, keys, tokens, serving, is_in_nobodys_way, made, is_over })
    }

    pub(super) fn try_all(&self, profile: &Profile) -> Result {
        let Some(engine) = &self.engine else { return Ok(()) };
        let works = Works::new(engine, profile, |operation, key| self.keys.label(operation, key))?;
        Ok(works.try_all(profile)?)
    }

    /// So many callers that sessions have something to do, however many are tried. Where tokens do not have as many and those
    /// of this engine, it goes.
    pub(super) fn enough_callers(&mut self, args: &Args, profile: &Profile, start: &Start) -> Result<u32> {
        let most = start.limits(args, self.sessions_most());
        let instances = most.instances_max.max(start.instances);
        let sessions = most.sessions_max.saturating_mul(instances);
        let callers = args.callers(profile, sessions.saturating_mul(self.serving))?;
        let all = sessions.saturating_add(OWN * instances).saturating_add(1 + OWN);
        if self.sessions_most().is_some_and(|has| has < all) {
            self.go();
            tell("the token has no sessions to spare for keeping the login: each engine logs in by itself");
        }
        Ok(callers)
    }

    /// Most sessions that each of the tokens has, if they say so.
    pub(super) fn sessions_most(&self) -> Option<usize> {
        let most = self.tokens.iter().filter_map(|token| token.sessions_max).min()?;
        usize::try_from(most).ok()
    }

    /// Where the load is measured, if there are several tokens.
    pub(super) fn place(&self) -> Option<String> {
        let of = self.tokens.len();
        (self.serving < of).then(|| match self.serving {
            1 => format!("measured on the first of {of} tokens"),
            serving => format!("measured on {serving} of {of} tokens"),
        })
    }

    /// The tokens as a configuration names them: as they were named, or by what a URI led to, for a URI may say more than is
    /// to be written down. By the serial number, if another has the label, too.
    pub(super) fn token_names(&self) -> Vec<String> {
        let is_alone = |label: &str| {
            self.module.iter().flat_map(|module| &module.tokens).filter(|token| token.label == label).count()
                < 2
        };
        let name = |(name, token): (&String, &TokenDescription)| {
            written_name(name, &token.label, &token.serial, is_alone(&token.label)).to_owned()
        };
        self.names.iter().zip(&self.tokens).map(name).collect()
    }

    /// A builder of another engine on the same tokens.
    pub(super) fn builder(&self, site: &Site) -> Builder<PathBuf, Vec<String>, PinSource> {
        builder(site, &self.names, &self.pin)
    }

    /// Whether it has gone, so that another engine gets what it may have failed for.
    pub(super) fn makes_room_for(&mut self, failure: &Failure) -> bool {
        let is_of_setting = matches!(failure, Failure::Said { exit: Exit::Usage, .. });
        !is_of_setting && !self.is_in_nobodys_way && self.go()
    }

    /// Comes back after it has gone for nothing, and stays.
    pub(super) fn come_back(&mut self) -> std::result::Result<(), Missed> {
        self.is_in_nobodys_way = true;
        self.engine = Some(Arc::new(bare(self.site, &self.names, &self.pin).build()?));
        Ok(())
    }

    /// Ends the engine; returns whether there was one.
    fn go(&mut self) -> bool {
        let engine = self.engine.take();
        if let Some(engine) = &engine {
            engine.drain(DRAIN);
        }
        engine.is_some()
    }

    /// What has come of something that may be final.
    pub(super) fn watch<T>(&mut self, result: std::result::Result<T, Missed>) -> Result<T> {
        result.map_err(|missed| match missed {
            Missed::Setting(failure) => failure,
            Missed::Final(failure) => self.give_up(failure),
        })
    }

    /// From now on no PIN is sent.
    pub(super) fn give_up(&mut self, failure: Failure) -> Failure {
        self.is_over = true;
        failure
    }

    /// Removes the keys and ends the engine. Where there is none and none may be built, tells which keys remain.
    pub(super) fn close(&mut self) -> Result {
        if self.keys.are_temporary() && self.engine.is_none() && !self.is_over {
            match bare(self.site, &self.names, &self.pin).build() {
                Ok(engine) => self.engine = Some(Arc::new(engine)),
                Err(error) => tell(&format!("keys cannot be removed: {error}")),
            }
        }
        let removed = self.keys.remove(self.engine.as_ref());
        self.go();
        removed
    }

    /// The same on the way out of a failure that is told instead.
    pub(super) fn close_and_tell(&mut self) {
        if let Err(failure) = self.close() {
            tell(&failure.into_text());
        }
    }
}

/// What a configuration calls a token that was named so.
fn written_name<'a>(name: &'a str, label: &'a str, serial: &'a str, is_alone: bool) -> &'a str {
    match name {
        uri if is_uri(uri) && (label.is_empty() || !is_alone) => serial,
        uri if is_uri(uri) => label,
        name => name,
    }
}

/// The tokens of one device do together what it does: what is measured on one alone is not what each may have.
fn check_scopes(engine: &Engine, tokens: usize) -> Result {
    let scopes = engine.snapshot().scopes;
    match scopes.iter().find(|scope| scope.tokens.len() > 1) {
        Some(scope) if tokens > 1 => {
            let text = format!(
                "the tokens {} share the bottleneck {:?}: sessions that are right for one are too many for each; tune with one of them",
                scope.tokens.join(", "),
                scope.name
            );
            Err(Failure::new(Exit::Usage, text))
        }
        _ => Ok(()),
    }
}

fn builder(site: &Site, names: &[String], pin: &SecretString) -> Builder<PathBuf, Vec<String>, PinSource> {
    // It was read already, and cannot be again.
    site.builder(names, PinSource::from(pin.clone())).pin_keep(PinKeep::Memory)
}

fn bare(site: &Site, names: &[String], pin: &SecretString) -> Builder<PathBuf, Vec<String>, PinSource> {
    builder(site, names, pin).sessions(1).instances(1).coalescing(false).copies(Copies::Off)
}

/// A token of this engine that does not serve, which each further engine would log in to again.
pub(super) fn not_serving(engine: &Engine) -> Option<Failure> {
    let tokens = engine.snapshot().tokens;
    let token = tokens.iter().find(|token| token.health != Health::Serving && !token.drained)?;
    let text =
        format!("token {} does not serve any more ({:?}): no PIN is sent again", token.label, token.health);
    Some(Failure::new(Exit::Token, text))
}

pub(super) fn check_serving(engine: &Engine) -> std::result::Result<(), Missed> {
    not_serving(engine).map_or(Ok(()), |failure| Err(Missed::Final(failure)))
}

/// What only a person can change is final, but for what is wrong with the setting itself: a login may have counted.
impl From<hsmux::Error> for Missed {
    fn from(error: hsmux::Error) -> Self {
        let (kind, retry) = (error.kind(), error.retry());
        let is_of_pin = Exit::of(kind) == Exit::Pin;
        if is_of_pin || retry == Retry::Operator && kind != ErrorKind::Configuration {
            Self::Final(error.into())
        } else {
            Self::Setting(error.into())
        }
    }
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self::Setting(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_a_uri_named_is_written_by_a_name_that_no_other_has() {
        let uri = "pkcs11:serial=1?pin-value=1234";
        assert_eq!(written_name(uri, "pay", "1", true), "pay");
        assert_eq!(written_name(uri, "pay", "1", false), "1");
        assert_eq!(written_name(uri, "", "1", true), "1");
        assert_eq!(written_name("pay", "pay", "1", true), "pay");
    }
}
