//! Where an example or demonstration runs: on the tokens that the environment names, or on throw-away ones.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::error::Error;
use crate::keys::TestKey;
use crate::softhsm::{required, SoftHsm, PIN};

/// Module, tokens and PIN for an example.
#[derive(Debug)]
pub struct ExampleHsm {
    module: PathBuf,
    tokens: Vec<String>,
    pin: SecretString,
    // Last, so that the token directory goes last.
    softhsm: Option<SoftHsm>,
}

impl ExampleHsm {
    /// The token that `PKCS11_MODULE_PATH`, `TOKEN` and `PIN_FILE` name together; without them `count` throw-away
    /// tokens that all hold `keys`; `None`, said aloud, if SoftHSM2 is not installed for that.
    ///
    /// # Errors
    /// If the PIN cannot be read, if only some of the variables are set, or if SoftHSM2 does not work; `Missing`
    /// in place of `None` if `HSMUX_REQUIRE_SOFTHSM=1`.
    pub fn open(count: usize, keys: &[(&str, TestKey)]) -> Result<Option<Self>, Error> {
        let read = |name| std::env::var(name).ok();
        match (read("PKCS11_MODULE_PATH"), read("TOKEN"), read("PIN_FILE")) {
            (Some(module), Some(token), Some(pin_file)) => {
                let mut text = std::fs::read_to_string(pin_file)?;
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
                let (module, tokens, pin) = (module.into(), vec![token], text.into());
                Ok(Some(Self { module, tokens, pin, softhsm: None }))
            }
            (None, None, None) => match Self::throw_away(count, keys) {
                Err(Error::Missing) if !required() => {
                    eprintln!("SKIPPED: {}", Error::Missing);
                    Ok(None)
                }
                made => made.map(Some),
            },
            _ => Err(Error::Other("set all of PKCS11_MODULE_PATH, TOKEN and PIN_FILE, or none".into())),
        }
    }

    /// Starts SoftHSM2 and makes tokens that all hold the same keys.
    ///
    /// # Errors
    /// As [`SoftHsm::start`]; what SoftHSM2 answers.
    pub fn throw_away(count: usize, keys: &[(&str, TestKey)]) -> Result<Self, Error> {
        let softhsm = SoftHsm::start()?;
        let mut tokens = Vec::new();
        for number in 1..=count {
            let token = softhsm.token(&format!("throw-away-{number}"))?;
            for &(label, key) in keys {
                token.try_import(label, key)?;
            }
            tokens.push(token.label().to_owned());
        }
        Ok(Self {
            module: softhsm.module().to_owned(),
            tokens,
            pin: PIN.to_owned().into(),
            softhsm: Some(softhsm),
        })
    }

    /// The module's path.
    #[must_use]
    pub fn module(&self) -> &std::path::Path {
        &self.module
    }

    /// The tokens' labels.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The user PIN of every token.
    #[must_use]
    pub fn pin(&self) -> SecretString {
        self.pin.clone()
    }

    /// Whether the tokens are throw-away ones, whose keys are known.
    #[must_use]
    pub const fn is_throw_away(&self) -> bool {
        self.softhsm.is_some()
    }
}
