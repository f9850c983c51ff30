//! The options by which a command finds its module and tokens, and what they come to.

use std::env;
use std::path::{Path, PathBuf};

use hsmux::{Builder, Config, Engine, ModuleDescription, PinSource, Pkcs11Uri, TokenDescription};

use crate::exit::{Exit, Failure, Result};
use crate::pin;

/// Options that name a module, its tokens and the PIN.
#[derive(Debug, clap::Args)]
pub(crate) struct Connection {
    /// Configuration file (TOML), which says all of this; `hsmux config example` shows one
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["uri", "module", "tokens", "pin_source", "pin_despite_warning", "state_dir", "init_args"]
    )]
    config: Option<PathBuf>,

    /// PKCS#11 URI (RFC 7512) that names the module (module-path), token, PIN source and key, as far as it does.
    /// --module may not contradict it; --token goes only with one that names nothing but key, PIN source and
    /// module-path; --pin-source goes before its pin-source
    #[arg(long, value_name = "URI")]
    uri: Option<UriText>,

    /// Shared library of the PKCS#11 module. Default: that of --config, the module-path of --uri, else what the
    /// environment says in PKCS11_MODULE_PATH
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,

    /// Label, serial number or PKCS#11 URI of a token; may be given several times. Default: the only initialised
    /// token, or the only one that --uri selects
    #[arg(long = "token", value_name = "LABEL", num_args = 1..)]
    tokens: Vec<String>,

    /// Where the PIN is: file:PATH (of this user or root, nobody else may read it), env:NAME, fd:N, credential:NAME
    /// (of systemd), prompt, or protected (the token asks by itself)
    #[arg(long, value_name = "SOURCE")]
    pin_source: Option<pin::Named>,

    /// Send the PIN although the token warns that it was tried wrongly before or that one more wrong try locks it
    #[arg(long)]
    pin_despite_warning: bool,

    /// Directory of this user's in which it is remembered that a token refused the PIN, so that it is not sent again
    /// before `hsmux pin clear`, however often this is run. Default: that is forgotten
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// String for modules that read one when they are initialised
    #[arg(long, value_name = "STRING")]
    init_args: Option<String>,
}

/// Where a command works: the options, the URI and the configuration taken together.
#[derive(Debug)]
pub(crate) struct Site {
    module: PathBuf,
    init_args: Option<String>,
    named: Vec<String>,
    pin: Option<PinSource>,
    pin_despite_warning: bool,
    state_dir: Option<PathBuf>,
    config: Option<Config>,
    uri: Option<Pkcs11Uri>,
}

/// A URI as it was given, unparsed: if a PIN stands in it, no message of `clap` repeats it.
#[derive(Clone)]
struct UriText(String);

impl Connection {
    /// Whether an option says where to work.
    pub(crate) const fn is_given(&self) -> bool {
        self.config.is_some()
            || self.uri.is_some()
            || self.module.is_some()
            || !self.tokens.is_empty()
            || self.pin_source.is_some()
            || self.init_args.is_some()
    }

    /// The configuration file, if one is named.
    pub(crate) fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Reads the configuration and the URI, and refuses options that may contradict it.
    pub(crate) fn resolve(&self) -> Result<Site> {
        if let Some(path) = &self.config {
            return Ok(Site::of_config(Config::read(path)?));
        }
        let uri = self.uri.as_ref().map(|text| text.0.parse::<Pkcs11Uri>()).transpose();
        let uri = uri.map_err(|error| Failure::new(Exit::Usage, format!("--uri: {error}")))?;
        let module = self.module(uri.as_ref().and_then(Pkcs11Uri::module_path))?;
        if !self.tokens.is_empty() && uri.as_ref().is_some_and(restricts_tokens) {
            let text = "the --uri says itself which tokens or modules it is for: leave --token out";
            return Err(Failure::new(Exit::Usage, text));
        }
        let pin = match (&self.pin_source, &uri) {
            (Some(named), _) => Some(named.source()?),
            (None, Some(uri)) if uri.pin_source().is_some() => Some(PinSource::try_from(uri)?),
            (None, _) => None,
        };
        let mut named = self.tokens.clone();
        if named.is_empty() {
            named.extend(self.uri.as_ref().map(|text| text.0.clone()));
        }
        let (init_args, pin_despite_warning) = (self.init_args.clone(), self.pin_despite_warning);
        let state_dir = self.state_dir.clone();
        Ok(Site { module, init_args, named, pin, pin_despite_warning, state_dir, config: None, uri })
    }

    /// The module: of the option or the URI, which agree if both are there, else of the environment.
    fn module(&self, of_uri: Option<&str>) -> Result<PathBuf> {
        match (&self.module, of_uri.map(Path::new)) {
            (Some(option), Some(of_uri)) if !are_same(option, of_uri) => {
                Err(Failure::new(Exit::Usage, "--module is another than the module-path of --uri"))
            }
            (Some(path), _) => Ok(path.clone()),
            (None, Some(path)) => Ok(path.to_owned()),
            (None, None) => env::var_os(MODULE_VARIABLE)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
                .ok_or_else(|| Failure::new(Exit::Usage, NO_MODULE)),
        }
    }
}

const MODULE_VARIABLE: &str = "PKCS11_MODULE_PATH";

const NO_MODULE: &str =
    "--module, --config, a --uri with a module-path, or PKCS11_MODULE_PATH in the environment is needed";

impl Site {
    /// A module with these tokens, wherever its PIN comes from.
    pub(crate) fn of_tokens(module: &Path, init_args: &str, tokens: &[String], pin: PinSource) -> Self {
        Self {
            module: module.to_owned(),
            init_args: Some(init_args.to_owned()),
            named: tokens.to_vec(),
            pin: Some(pin),
            pin_despite_warning: false,
            state_dir: None,
            config: None,
            uri: None,
        }
    }

    /// All of a configuration.
    pub(crate) fn of_config(config: Config) -> Self {
        let (module, init_args) = config.module();
        Self {
            module: module.to_owned(),
            init_args: init_args.map(str::to_owned),
            named: config.token_names().map(str::to_owned).collect(),
            pin: Some(config.pin().clone()),
            pin_despite_warning: false,
            state_dir: None,
            config: Some(config),
            uri: None,
        }
    }

    pub(crate) fn module(&self) -> &Path {
        &self.module
    }

    pub(crate) fn init_args(&self) -> Option<&str> {
        self.init_args.as_deref()
    }

    /// The tokens that were named: a URI names all that it selects.
    pub(crate) fn named(&self) -> &[String] {
        &self.named
    }

    /// Whether a configuration says all of it.
    pub(crate) const fn has_config(&self) -> bool {
        self.config.is_some()
    }

    /// The configuration, if one was read.
    pub(crate) const fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// The key by which the configuration has it seen whether tokens work.
    pub(crate) fn canary_key(&self) -> Option<&str> {
        self.config.as_ref()?.canary_key()
    }

    /// Whether the configuration has an audit log.
    pub(crate) fn has_audit(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.audit().is_some())
    }

    /// Whether a service would send the PIN in spite of a token's warning: an option or the configuration says so.
    pub(crate) fn sends_despite_warning(&self) -> bool {
        self.pin_despite_warning || self.config.as_ref().is_some_and(Config::pin_despite_warning)
    }

    /// Whether the configuration has the PIN's memory locked, or no engine.
    pub(crate) fn hardens_process(&self) -> bool {
        self.config.as_ref().is_some_and(Config::harden_process)
    }

    /// Where the PIN is, if that is known.
    pub(crate) const fn pin_source(&self) -> Option<&PinSource> {
        self.pin.as_ref()
    }

    /// Whether there is a PIN source, so that the command can log in.
    pub(crate) const fn has_pin(&self) -> bool {
        self.pin.is_some()
    }

    /// What the module and its tokens say of themselves.
    pub(crate) fn describe(&self) -> Result<ModuleDescription> {
        Ok(hsmux::inspect(&self.module, self.init_args())?)
    }

    /// The tokens named, else the only one there is: no PIN is tried on a token that nobody named.
    pub(crate) fn tokens(&self) -> Result<Vec<String>> {
        if self.named.is_empty() {
            let module = self.describe()?;
            let unreadable: Vec<_> = module.unreadable.iter().map(|(slot, _)| *slot).collect();
            let token = only_token(&module.tokens.iter().collect::<Vec<_>>(), &unreadable)?;
            return Ok(vec![if token.label.is_empty() { &token.serial } else { &token.label }.clone()]);
        }
        self.named.iter().map(|name| self.to_one_token(name)).collect()
    }

    /// A name that selects one token: a URI without label and serial number may select a slot too whose token is not
    /// initialised. The rest of it stays, so that the engine compares it with module and slot before it logs in.
    fn to_one_token(&self, name: &str) -> Result<String> {
        if !is_wide(name) {
            return Ok(name.to_owned());
        }
        let module = self.describe()?;
        let selected = module.tokens.iter().filter(|token| token.is_named(name).unwrap_or(false));
        Ok(selecting(name, only_token(&selected.collect::<Vec<_>>(), &unreadable_for(name, &module))?))
    }

    /// Where the PIN is; without a source the command cannot log in.
    pub(crate) fn pin(&self) -> Result<PinSource> {
        let needed = || Failure::new(Exit::Usage, "a --pin-source is needed to log in, as file:PATH");
        self.pin.clone().ok_or_else(needed)
    }

    /// Whether an option consents to send a PIN in spite of a token's warning; what a configuration says does not count.
    pub(crate) const fn has_consent(&self) -> bool {
        self.pin_despite_warning
    }

    /// Where logins are remembered, if anywhere.
    pub(crate) fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_deref().or_else(|| self.config.as_ref()?.state_dir())
    }

    /// The URI, if it names a key.
    pub(crate) fn key_uri(&self) -> Option<&Pkcs11Uri> {
        self.uri.as_ref().filter(|uri| uri.object().is_some() || uri.id().is_some())
    }

    /// A builder with module, these tokens and the PIN, and whatever the configuration says.
    pub(crate) fn builder(
        &self,
        tokens: &[String],
        pin: PinSource,
    ) -> Builder<PathBuf, Vec<String>, PinSource> {
        // Whoever runs this program has no use for its core, in which the PIN would be.
        if let Some(config) = &self.config {
            return config.builder().pin(pin).harden_process(true);
        }
        let mut builder = Engine::builder().module(&self.module).tokens(tokens).pin(pin).harden_process(true);
        if self.pin_despite_warning {
            builder = builder.pin_despite_warning();
        }
        if let Some(directory) = &self.state_dir {
            builder = builder.state_dir(directory);
        }
        match &self.init_args {
            Some(text) => builder.init_args(text),
            None => builder,
        }
    }
}

impl std::str::FromStr for UriText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for UriText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UriText(..)")
    }
}

/// Whether a name is read as a URI.
pub(crate) fn is_uri(name: &str) -> bool {
    name.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

const SCHEME: &str = "pkcs11:";

/// Whether two paths lead to the same file.
fn are_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Whether a URI says anything of tokens, slots or modules, besides the path of one. A token that was named by an
/// option would get its PIN before that is compared.
fn restricts_tokens(uri: &Pkcs11Uri) -> bool {
    let texts = [
        uri.token(),
        uri.serial(),
        uri.manufacturer(),
        uri.model(),
        uri.slot_description(),
        uri.slot_manufacturer(),
        uri.library_description(),
        uri.library_manufacturer(),
        uri.module_name(),
    ];
    texts.iter().any(Option::is_some)
        || uri.slot_id().is_some()
        || uri.library_version().is_some()
        || uri.vendor_path_attributes().next().is_some()
}

/// A name that selects this token only: a URI without label and serial number gets those.
pub(crate) fn selecting(name: &str, token: &TokenDescription) -> String {
    if is_wide(name) { narrowed(name, token) } else { name.to_owned() }
}

/// Whether a name is a URI without label and serial number. What is no URI, the engine refuses.
fn is_wide(name: &str) -> bool {
    let uri = if is_uri(name) { name.parse::<Pkcs11Uri>().ok() } else { None };
    uri.is_some_and(|uri| uri.token().is_none() && uri.serial().is_none())
}

/// A URI that names neither label nor serial number, with those of a token before what it says.
fn narrowed(uri: &str, token: &TokenDescription) -> String {
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let rest = &uri[SCHEME.len()..];
    let separator = if rest.is_empty() || rest.starts_with('?') { "" } else { ";" };
    format!("{SCHEME}token={};serial={}{separator}{rest}", encoded(&token.label), encoded(&token.serial))
}

/// Slots that do not say what they hold, by number, and may hold what a name selects. A name that says which token it is
/// selects none of them: what is there is not that token, as far as anybody can tell.
pub(crate) fn unreadable_for(name: &str, module: &ModuleDescription) -> Vec<u64> {
    let slot = name.parse::<Pkcs11Uri>().ok().and_then(|uri| uri.slot_id());
    let may_be = |number: &u64| is_wide(name) && slot.is_none_or(|slot| slot == *number);
    module.unreadable.iter().map(|(number, _)| *number).filter(may_be).collect()
}

/// The only token there is. `unreadable`: slots that may hold another one.
fn only_token<'a>(tokens: &[&'a TokenDescription], unreadable: &[u64]) -> Result<&'a TokenDescription> {
    if let Some(slot) = unreadable.first() {
        let text = format!(
            "slot {slot} does not say what it holds, which may be another token: say which one with --token LABEL"
        );
        return Err(Failure::new(Exit::Token, text));
    }
    match tokens {
        [] => {
            Err(Failure::new(Exit::Token, "token not found: no slot holds an initialised token of that kind"))
        }
        [token] => Ok(token),
        several => {
            let names: Vec<_> = several.iter().map(|token| token.label.as_str()).collect();
            let text = format!("several tokens: choose with --token; present are: {}", names.join(", "));
            Err(Failure::new(Exit::Token, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_says_more_than_the_key_goes_with_no_token_option() {
        let of = |text: &str| restricts_tokens(&text.parse().unwrap());
        for more in [
            "token=a",
            "serial=1",
            "manufacturer=a",
            "model=a",
            "slot-id=1",
            "slot-description=a",
            "slot-manufacturer=a",
            "library-description=a",
            "library-manufacturer=a",
            "library-version=1",
            "x-vendor=a",
            "?module-name=a",
        ] {
            assert!(of(&format!("pkcs11:{more}")), "{more}");
        }
        assert!(!of("pkcs11:object=a;id=%01;type=private?pin-source=file:/pin&module-path=/m.so"));
    }
}
