//! Configuration in a file: what a [`Builder`] takes, as TOML.

mod audit;
mod settings;
mod value;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::builder::{Builder, VALIDATED_WITH_HOST_MODES};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::operate::{Tier, mask_of};
use crate::pin::PinSource;
use crate::pkcs11::ModuleKind;
use crate::probe::ModuleProfile;
use crate::request::check_not_forked;
use crate::token::name::TokenName;
use crate::token::verify::VerifyOutputs;
use audit::AuditConfig;
pub(crate) use value::read as read_text;
use value::{HangLimit, Instances, Limit, Pin, Sessions, Size};

/// The configuration of an engine, as a TOML file holds it.
///
/// Unknown fields are refused, and errors say line and column. [`Config::EXAMPLE`] holds every field with what it
/// bounds, its default, and who should change it at what cost.
///
/// ```
/// let config: hsmux::Config = r#"
///     module = "/usr/lib/softhsm/libsofthsm2.so"
///     pin = "file:/run/secrets/pin"
///     requests_max = 4096
///     deadline = "250ms"
///
///     [[token]]
///     name = "pay-1"
///
///     [[token]]
///     name = "pay-2"
///     tier = 1
///     extra_latency = "20ms"
/// "#
/// .parse()?;
/// assert_eq!(config.token_names().collect::<Vec<_>>(), ["pay-1", "pay-2"]);
/// let wrong = "modul = \"x\"".parse::<hsmux::Config>().unwrap_err();
/// assert!(wrong.to_string().contains("1:1: unknown field `modul`"), "{wrong}");
/// # Ok::<(), hsmux::Error>(())
/// ```
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(deserialize_with = "value::path")]
    module: PathBuf,
    #[serde(default, deserialize_with = "value::init_args")]
    init_args: Option<String>,
    pin: Pin,
    pin_keep: Option<Spanned<Keep>>,
    #[serde(default, deserialize_with = "value::some_path")]
    state_dir: Option<PathBuf>,
    #[serde(default)]
    pin_despite_warning: bool,
    #[serde(default)]
    harden_process: bool,
    #[serde(default)]
    sessions: Sessions,
    #[serde(default)]
    instances: Instances,
    #[serde(default = "default_deadline")]
    deadline: Limit,
    #[serde(default = "default_requests_max")]
    requests_max: NonZeroU32,
    #[serde(default = "default_bytes_max")]
    bytes_max: Size,
    #[serde(default)]
    hang_limit: HangLimit,
    #[serde(default)]
    allow_rsa_pkcs1_decryption: bool,
    #[serde(default = "yes")]
    coalescing: bool,
    #[serde(default = "yes")]
    holding: bool,
    #[serde(default)]
    copies: KeyCopies,
    #[serde(default)]
    host_modes: Vec<String>,
    validated_only: Option<Spanned<bool>>,
    #[serde(default = "yes")]
    random_pool: bool,
    #[serde(default = "yes")]
    message_api: bool,
    canary_key: Option<String>,
    audit: Option<AuditConfig>,
    key_group: Option<String>,
    gcm_messages_max: Option<u64>,
    #[serde(default)]
    module_kind: Kind,
    #[serde(default = "yes")]
    module_reset: bool,
    #[serde(default = "yes")]
    inline: bool,
    #[serde(default)]
    verify_outputs: Verify,
    #[serde(default, deserialize_with = "value::some_path")]
    module_profile: Option<PathBuf>,
    token: Vec<Spanned<TokenConfig>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenConfig {
    #[serde(deserialize_with = "value::name")]
    name: String,
    #[serde(default)]
    tier: u8,
    #[serde(default, with = "value::duration")]
    extra_latency: Duration,
    #[serde(default)]
    drained: bool,
    scope: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Keep {
    Memory,
    Reread,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyCopies {
    #[default]
    Auto,
    Off,
    Required,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Standard,
    CloudhsmSdk5,
    CloudhsmSdk3,
    Yubihsm,
    Pkcs11Proxy,
    LunaHa,
}

impl From<Kind> for ModuleKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Standard => Self::Standard,
            Kind::CloudhsmSdk5 => Self::CloudHsmSdk5,
            Kind::CloudhsmSdk3 => Self::CloudHsmSdk3,
            Kind::Yubihsm => Self::YubiHsm,
            Kind::Pkcs11Proxy => Self::Pkcs11Proxy,
            Kind::LunaHa => Self::LunaHa,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verify {
    #[default]
    Off,
    Sampled,
    Always,
}

impl Config {
    /// A configuration with every field, explained. It parses.
    pub const EXAMPLE: &str = include_str!("config/example.toml");

    /// Reads a file of at most a mebibyte: more is a wrong file.
    ///
    /// # Errors
    /// `Configuration`, with the path, and the line and column of what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let of_file =
            |why: String| Error::operator(ErrorKind::Configuration, format!("{}:{why}", path.display()));
        let text = value::read(path).map_err(|error| of_file(format!(" {error}")))?;
        Self::parse(&text).map_err(of_file)
    }

    /// The tokens, as they are named.
    pub fn token_names(&self) -> impl Iterator<Item = &str> {
        self.token.iter().map(|token| token.get_ref().name.as_str())
    }

    /// A builder with all of it, to which more can be set.
    #[must_use]
    pub fn builder(&self) -> Builder<PathBuf, Vec<String>, PinSource> {
        let mut builder = Engine::builder()
            .module(&self.module)
            .tokens(self.token_names())
            .pin(self.pin.0.clone())
            .pin_keep(self.pin_keep())
            .harden_process(self.harden_process)
            .instances(self.instances.0)
            .sessions(self.sessions.0)
            .deadline(self.deadline.0)
            .requests_max(self.requests_max())
            .bytes_max(self.bytes_max.0)
            .coalescing(self.coalescing)
            .holding(self.holding)
            .copies(self.copies())
            .host_modes(&self.host_modes)
            .validated_only(self.validated_only())
            .random_pool(self.random_pool)
            .message_api(self.message_api)
            .module_kind(self.module_kind.into())
            .module_reset(self.module_reset)
            .inline(self.inline)
            .verify_outputs(match self.verify_outputs {
                Verify::Off => VerifyOutputs::Off,
                Verify::Sampled => VerifyOutputs::Sampled,
                Verify::Always => VerifyOutputs::Always,
            });
        for token in self.tokens() {
            builder = builder.tier(&token.name, token.tier());
            if token.drained {
                builder = builder.drained(&token.name);
            }
            if let Some(scope) = &token.scope {
                builder = builder.scope(&token.name, scope);
            }
        }
        if let Some(text) = &self.init_args {
            builder = builder.init_args(text);
        }
        if let Some(path) = &self.state_dir {
            builder = builder.state_dir(path);
        }
        if let HangLimit(Some(limit)) = self.hang_limit {
            builder = builder.hang_limit(limit);
        }
        if let Some(name) = &self.canary_key {
            builder = builder.canary_key(name);
        }
        if let Some(audit) = &self.audit {
            builder = builder.audit(audit.settings());
        }
        if let Some(name) = &self.key_group {
            builder = builder.key_group(name);
        }
        if let Some(messages) = self.gcm_messages_max {
            builder = builder.gcm_messages_max(messages);
        }
        if let Some(path) = &self.module_profile {
            builder = builder.module_profile_file(path);
        }
        if self.pin_despite_warning {
            builder = builder.pin_despite_warning();
        }
        if self.allow_rsa_pkcs1_decryption {
            builder = builder.allow_rsa_pkcs1_decryption();
        }
        builder
    }

    /// Where the PIN is.
    #[must_use]
    pub const fn pin(&self) -> &PinSource {
        &self.pin.0
    }

    /// Where logins are remembered, if anywhere.
    #[must_use]
    pub fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_deref()
    }

    /// The module's path, and the string that it is initialised with.
    #[must_use]
    pub fn module(&self) -> (&Path, Option<&str>) {
        (&self.module, self.init_args.as_deref())
    }

    /// What is known of the module by trying, from the file that is named here.
    ///
    /// # Errors
    /// As [`ModuleProfile::read`].
    pub fn module_profile(&self) -> Result<Option<ModuleProfile>> {
        self.module_profile.as_deref().map(ModuleProfile::read).transpose()
    }

    /// Builds the engine.
    ///
    /// # Errors
    /// As [`Builder::build`].
    ///
    /// # Blocking
    /// As [`Builder::build`].
    pub fn build(&self) -> Result<Engine> {
        self.builder().build()
    }

    /// The fields of another configuration that a running engine cannot take over: they need a new one.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("module", self.module != other.module),
            ("init_args", self.init_args != other.init_args),
            ("pin", self.pin.1 != other.pin.1),
            ("pin_keep", self.pin_keep() != other.pin_keep()),
            ("state_dir", self.state_dir != other.state_dir),
            ("pin_despite_warning", self.pin_despite_warning != other.pin_despite_warning),
            ("harden_process", self.harden_process != other.harden_process),
            ("sessions", self.sessions != other.sessions),
            ("instances", self.instances != other.instances),
            (
                "allow_rsa_pkcs1_decryption",
                self.allow_rsa_pkcs1_decryption != other.allow_rsa_pkcs1_decryption,
            ),
            ("coalescing", self.coalescing != other.coalescing),
            ("copies", self.copies != other.copies),
            ("holding", self.holding != other.holding),
            ("host_modes", self.host_modes != other.host_modes),
            ("validated_only", self.validated_only() != other.validated_only()),
            ("random_pool", self.random_pool != other.random_pool),
            ("message_api", self.message_api != other.message_api),
            ("canary_key", self.canary_key != other.canary_key),
            ("audit", self.audit != other.audit),
            ("key_group", self.key_group != other.key_group),
            ("gcm_messages_max", self.gcm_messages_max != other.gcm_messages_max),
            ("module_kind", self.module_kind != other.module_kind),
            ("module_reset", self.module_reset != other.module_reset),
            ("inline", self.inline != other.inline),
            ("verify_outputs", self.verify_outputs != other.verify_outputs),
            ("module_profile", self.module_profile != other.module_profile),
            ("token", self.token_names().collect::<HashSet<_>>() != other.token_names().collect()),
            ("scope", self.scopes() != other.scopes()),
        ];
        differs.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let config: Self =
            toml::from_str(text).map_err(|error| located(text, error.span(), error.message()))?;
        let keep = config.pin_keep.as_ref().map(Spanned::span);
        config.pin_keep().check(config.pin()).map_err(|error| located(text, keep, error.why()))?;
        if config.validated_only() && !config.host_modes.is_empty() {
            let only = config.validated_only.as_ref().map(Spanned::span);
            return Err(located(text, only, VALIDATED_WITH_HOST_MODES));
        }
        let mut names = HashSet::new();
        for token in &config.token {
            if let Err(error) = TokenName::parse(&token.get_ref().name) {
                return Err(located(text, Some(token.span()), error.why()));
            }
            if !names.insert(&token.get_ref().name) {
                return Err(located(text, Some(token.span()), "a token of this name is there already"));
            }
        }
        if names.is_empty() || names.len() > 64 {
            return Err(located(text, None, "an engine needs between 1 and 64 [[token]]"));
        }
        if names.len().saturating_mul(config.instances.0) > 64 {
            return Err(located(text, None, "the number of [[token]] times `instances` may be 64 at most"));
        }
        Ok(config)
    }

    fn scopes(&self) -> HashMap<&str, &str> {
        self.tokens().filter_map(|token| Some((token.name.as_str(), token.scope.as_deref()?))).collect()
    }

    fn tokens(&self) -> impl Iterator<Item = &TokenConfig> {
        self.token.iter().map(Spanned::get_ref)
    }

    fn validated_only(&self) -> bool {
        self.validated_only.as_ref().is_some_and(|only| *only.get_ref())
    }

    fn requests_max(&self) -> usize {
        usize::try_from(self.requests_max.get()).unwrap_or(usize::MAX)
    }
}

impl TokenConfig {
    const fn tier(&self) -> Tier {
        Tier { rank: self.tier, extra_latency: self.extra_latency }
    }
}

impl std::str::FromStr for Config {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|why| Error::operator(ErrorKind::Configuration, why))
    }
}

/// Shows how many tokens there are: names, paths and strings for modules are the operator's own.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("tokens", &self.token.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Takes over from a configuration what can change while the engine runs: `requests_max`, `bytes_max`,
    /// `deadline`, `hang_limit`, and of each token `tier`, `extra_latency` and `drained`. The rest is not looked at:
    /// [`Config::needs_restart`] says whether it has changed.
    ///
    /// Nothing that is in flight fails, but for requests that only a newly drained token could serve.
    ///
    /// # Errors
    /// `TokenNotFound` for a token that the engine does not have, `Forked` in a forked child; then nothing is changed.
    pub fn reload(&self, config: &Config) -> Result<()> {
        check_not_forked()?;
        let tokens = config.tokens().map(|token| Ok((mask_of(&self.shared.tokens, &token.name)?, token)));
        let tokens = tokens.collect::<Result<Vec<_>>>()?;
        self.set_limits(config.requests_max(), config.bytes_max.0);
        self.set_deadline(config.deadline.0);
        self.set_hang_limit(config.hang_limit.0);
        let (mut out, mut back) = (0, 0);
        for (mask, token) in tokens {
            self.shared.core.set_tiers(mask, token.tier());
            *(if token.drained { &mut out } else { &mut back }) |= mask;
        }
        // At once: where one token takes over from another, nothing is left without either.
        self.shared.core.set_drained(out, back);
        Ok(())
    }
}

/// `LINE:COLUMN: what`, both counted from 1, the column in characters. Never the line itself: it may hold a PIN that
/// somebody wrote where its source belongs.
pub(crate) fn located(text: &str, span: Option<std::ops::Range<usize>>, what: &str) -> String {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    // What is named may be the file's own word, escaped there, and a terminal would obey it.
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let what = what.lines().next().unwrap_or_default();
    let what: String = unquoted(what).chars().take(MESSAGE_MAX).map(shown).collect();
    format!("{line}:{column}: {what}")
}

/// A message of the parser without the value that it quotes, which may be a PIN in the wrong field.
fn unquoted(what: &str) -> String {
    let quotes =
        ["unknown variant ", "invalid type: ", "invalid value: "].iter().any(|of| what.starts_with(of));
    match what.rsplit_once(", expected ") {
        Some((_, expected)) if quotes => format!("another value is expected here: {expected}"),
        _ => what.to_owned(),
    }
}

/// Longest message of the TOML parser that is passed on, in characters: it lists the fields there are.
const MESSAGE_MAX: usize = 600;

const fn default_deadline() -> Limit {
    Limit(Some(Duration::from_secs(10)))
}

const fn yes() -> bool {
    true
}

const fn default_requests_max() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(65_535)
}

const fn default_bytes_max() -> Size {
    Size(256 << 20)
}

#[cfg(test)]
mod tests;
