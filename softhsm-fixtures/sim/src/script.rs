//! Scripts: a simulated device, and what befalls it over time, as a TOML file says it.
//!
//! The file is [parsed](parse) into the device's configuration and [steps], changes of it at set times; a thin thread
//! [plays](play) them.

mod code;
mod error;
mod event;
mod parse;
mod play;
mod steps;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::loaded::{LoadError, Loaded, module_path};
use steps::Step;

pub use error::ScriptError;
pub use play::{Happened, Playing};

#[doc = include_str!("../../docs/sim-scripts.md")]
///
/// # In programs
///
/// ```
/// use p11_sim::Script;
///
/// let script = Script::parse(
///     r#"
///     tokens = 2
///     op = "1ms"
///     [[at]]
///     after = "10s"
///     what = "lost"
///     token = 0
///     "#,
/// )?;
/// assert_eq!(script.last().unwrap().as_secs(), 10);
///
/// let error = Script::parse("tokens = 0").unwrap_err();
/// assert_eq!((error.line(), error.column()), (1, 10));
/// # Ok::<(), p11_sim::ScriptError>(())
/// ```
///
/// [`Script::load`] makes the device, [`Simulated::play`] lets it all happen.
#[derive(Clone, PartialEq)]
pub struct Script {
    /// In the simulator's own form.
    config: String,
    tokens: Vec<String>,
    pin: String,
    steps: Arc<[Step]>,
}

/// A simulated device as a script describes it, which nobody else has.
///
/// Its module's file is removed when the value is dropped; keep it for as long as programs may load the module.
#[derive(Debug)]
pub struct Simulated {
    script: Script,
    sim: Arc<Loaded>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        parse::script(text)
    }

    /// With one more key on every token: a label, with a colon and its kind, as in the script's `keys`.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        let mut pairs: Vec<_> =
            self.config.split(',').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
        match pairs.iter_mut().find(|pair| pair.starts_with("keys=")) {
            Some(keys) => keys.extend([";", key]),
            None => pairs.push(format!("keys={key}")),
        }
        self.config = pairs.join(",");
        self
    }

    /// When the last thing happens, from the start; `None` if nothing does.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        self.steps.last().map(|step| step.at)
    }

    /// Loads a private copy of the simulator's module, from where [`module_path()`] finds it, and configures it. Nothing
    /// happens to it until it is [played](Simulated::play).
    ///
    /// # Errors
    /// If there is no module, it cannot be copied, or it is of another version and knows no such changes.
    ///
    /// # Blocking
    /// Reads and writes a file of some megabytes.
    pub fn load(&self) -> Result<Simulated, LoadError> {
        let sim = Loaded::copy_of(&module_path()?, &self.config)?;
        sim.change(play::NOTHING)?;
        Ok(Simulated { script: self.clone(), sim: Arc::new(sim) })
    }
}

impl Simulated {
    /// The file to load. Whoever loads it in this process has this device.
    #[must_use]
    pub fn module(&self) -> &Path {
        self.sim.path()
    }

    /// The configuration, for `C_Initialize`. The copy at [`Simulated::module`] has it already; further copies of the
    /// file, as an engine with several instances of the module makes, are devices of their own, to which nothing happens.
    #[must_use]
    pub fn init_args(&self) -> &str {
        &self.script.config
    }

    /// The labels of the tokens.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.script.tokens
    }

    /// The user PIN of all tokens.
    #[must_use]
    pub fn pin(&self) -> &str {
        &self.script.pin
    }

    /// What the device was asked and how it is to behave.
    #[must_use]
    pub fn sim(&self) -> &Loaded {
        &self.sim
    }

    /// Lets happen what the script says, on a thread of its own, in a run that began `elapsed` ago.
    ///
    /// The device does not have to be in use: what happens before `C_Initialize` is so from there on, and a client that
    /// initialises the module anew finds its tokens as they are then.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn play(&self, elapsed: Duration) -> std::io::Result<Playing> {
        Playing::start(Arc::clone(&self.sim), Arc::clone(&self.script.steps), elapsed)
    }
}

/// Without the PIN.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("tokens", &self.tokens)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
