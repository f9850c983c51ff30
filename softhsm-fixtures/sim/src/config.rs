//! The configuration: `key=value` pairs separated by commas.

mod items;

use std::path::PathBuf;
use std::time::Duration;

use crate::executions::INPUTS_MAX;
use crate::key::{Kind, Use};
use crate::mix;
use crate::rule::Rule;
use items::{
    extra_key, flipped, hidden, interface, messages, micros, number, own_iv, slower, small, stall, wrong,
};

pub(crate) use items::pairs;

/// What a simulator is. The keys are documented at the top of the crate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) forward: Option<PathBuf>,
    pub(crate) null: bool,
    pub(crate) tokens: usize,
    pub(crate) pin: String,
    pub(crate) pin_tries: u32,
    pub(crate) pin_log: Option<PathBuf>,
    /// Where objects and PINs live that outlive the process.
    pub(crate) store: Option<PathBuf>,
    /// Whether there are data objects.
    pub(crate) data: bool,
    pub(crate) keypad: bool,
    pub(crate) holds_back: bool,
    pub(crate) input_max: u64,
    pub(crate) own_iv: OwnIv,
    pub(crate) interface_3: bool,
    pub(crate) messages: Messages,
    pub(crate) wrong: Vec<Wrong>,
    pub(crate) reuse: Reuse,
    /// Whether what is signed says when it is due.
    pub(crate) stamped: bool,
    pub(crate) seed: u64,
    pub(crate) keys: Vec<ExtraKey>,
    pub(crate) hidden: Vec<Hidden>,
    pub(crate) flipped: Vec<Flipped>,
    pub(crate) live: Live,
}

/// What becomes of the IVs that a caller gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OwnIv {
    /// They are used.
    #[default]
    No,
    /// AES-GCM encrypts under others, which are written over them.
    Written,
    /// Nothing heeds them, and nobody is told.
    Silent,
}

/// The part that can be changed while the module is in use. 0 is no limit and no delay.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Live {
    pub(crate) op_ns: u64,
    pub(crate) call_ns: u64,
    pub(crate) cores: u32,
    pub(crate) sessions: u64,
    pub(crate) throttle: u64,
    /// Most inputs of which executions are counted; 0 if none are.
    pub(crate) executions: u64,
    pub(crate) hangs: Vec<Rule>,
    pub(crate) faults: Vec<Rule>,
    /// Labels of tokens that are not there.
    pub(crate) removed: Vec<String>,
    pub(crate) slower: Vec<Slower>,
    /// Stalls that begin with this configuration; those before it are in [`crate::stalls`].
    pub(crate) stalls: Vec<Stall>,
}

/// Times that count several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slower {
    pub(crate) thousandths: u64,
    /// Label of the token; all if none.
    pub(crate) token: Option<String>,
}

/// What becomes of stalls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// One begins, or ends if the time is none.
    Begin {
        time: Duration,
        /// Label of the token; that of the device if none.
        token: Option<String>,
    },
    /// All end.
    End,
}

/// What the functions for messages do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    Missing,
    Right,
    Wrong,
}

/// What comes out wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Every block of ECB but the first of a call.
    Ecb,
    /// The same in decryption only.
    EcbDecrypt,
    /// The same in parts of an operation only.
    EcbParts,
    /// CBC: it runs under another IV than its own.
    Cbc,
    /// CTR: likewise.
    Ctr,
}

/// Whose numbers are given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reuse {
    pub(crate) sessions: bool,
    pub(crate) objects: bool,
}

/// A key beside those that every token has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtraKey {
    pub(crate) label: String,
    pub(crate) kind: Kind,
    /// All that the kind is for, if none.
    pub(crate) usage: Option<Use>,
    /// Keys of one label and kind are the same on all tokens, unless this number differs.
    pub(crate) variant: u64,
    /// Labels of the tokens that hold it; all if empty.
    pub(crate) tokens: Vec<String>,
}

/// A mechanism that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) mechanism: u64,
    /// Labels of the tokens that do not have it; all if empty.
    pub(crate) tokens: Vec<String>,
}

/// Flags of tokens that are the other way round than they would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flipped {
    pub(crate) flags: u64,
    /// Label of the token; all if none.
    pub(crate) token: Option<String>,
}

/// Most tokens.
pub(crate) const TOKENS_MAX: usize = 64;

/// Most cores of a token: enough for any real device, and small enough to be allocated without a thought.
const CORES_MAX: u32 = 65_536;

/// Most times as long as is configured, in thousandths: as for rules.
pub(crate) const SLOWER_MAX: u64 = 1_000_000_000;

impl Default for Config {
    fn default() -> Self {
        Self {
            forward: None,
            null: false,
            tokens: 1,
            pin: "1234".into(),
            pin_tries: 3,
            pin_log: None,
            store: None,
            data: true,
            keypad: false,
            holds_back: false,
            input_max: 0,
            own_iv: OwnIv::No,
            interface_3: true,
            messages: Messages::Right,
            wrong: Vec::new(),
            reuse: Reuse::default(),
            stamped: false,
            seed: 0,
            keys: Vec::new(),
            hidden: Vec::new(),
            flipped: Vec::new(),
            live: Live::default(),
        }
    }
}

impl Config {
    /// Reads a whole configuration; keys that are not named have their defaults.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        for (key, value) in pairs(text)? {
            config.set(key, value)?;
        }
        let keys = !config.keys.is_empty() || !config.hidden.is_empty() || config.reuse.objects;
        let objects = config.store.is_some() || !config.data;
        if config.forward.is_some() && (config.null || keys || objects) {
            return Err("forward excludes null, keys, hide, store, data=0 and reuse=objects".into());
        }
        Ok(config)
    }

    /// The flags that the token of this label has the other way round.
    pub(crate) fn flipped(&self, label: &str) -> u64 {
        let mut flipped =
            self.flipped.iter().filter(|of| of.token.as_deref().is_none_or(|token| token == label));
        flipped.by_ref().fold(0, |flags, of| flags ^ of.flags)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "forward" if !value.is_empty() => self.forward = Some(value.into()),
            "null" => self.null = number(key, value, 1)? == 1,
            "tokens" => {
                self.tokens = usize::try_from(number(key, value, TOKENS_MAX as u64)?).unwrap_or(TOKENS_MAX);
            }
            "pin" if !value.is_empty() => self.pin = value.into(),
            "pin_tries" => self.pin_tries = small(key, value, u32::MAX)?,
            "pin_log" if !value.is_empty() => self.pin_log = Some(value.into()),
            "store" if !value.is_empty() => self.store = Some(value.into()),
            "data" => self.data = number(key, value, 1)? == 1,
            "interface" => self.interface_3 = interface(value)?,
            "messages" => self.messages = messages(key, value)?,
            "keypad" => self.keypad = number(key, value, 1)? == 1,
            "input_max" => self.input_max = number(key, value, u64::MAX)?,
            "own_iv" => self.own_iv = own_iv(key, value)?,
            "holds_back" => self.holds_back = number(key, value, 1)? == 1,
            "stamped" => self.stamped = number(key, value, 1)? == 1,
            // None that a configuration is likely to name.
            "seed" if value == "process" => self.seed = u64::from(std::process::id()) << 32,
            "seed" => self.seed = number(key, value, u64::MAX)?,
            "wrong" => {
                for item in value.split(';') {
                    self.wrong.push(wrong(item)?);
                }
            }
            "keys" => {
                for item in value.split(';') {
                    self.keys.push(extra_key(item)?);
                }
            }
            "reuse" => {
                for item in value.split(';') {
                    self.reuse.set(item)?;
                }
            }
            "flags" => {
                for item in value.split(';') {
                    self.flipped.push(flipped(item)?);
                }
            }
            "hide" => {
                for item in value.split(';') {
                    self.hidden.push(hidden(item)?);
                }
            }
            _ => self.live.set(key, value)?,
        }
        Ok(())
    }
}

impl Hidden {
    /// Whether it is missing on the token of this label.
    pub(crate) fn is_on(&self, token: &String) -> bool {
        self.tokens.is_empty() || self.tokens.contains(token)
    }
}

impl Reuse {
    fn set(&mut self, item: &str) -> Result<(), String> {
        match item {
            "sessions" => self.sessions = true,
            "objects" => self.objects = true,
            _ => return Err(format!("reuse={item} is neither sessions nor objects")),
        }
        Ok(())
    }
}

impl Live {
    /// Changes what the text names and leaves the rest; nothing at all if the text is wrong.
    pub(crate) fn changed(&self, text: &str) -> Result<Self, String> {
        let mut live = self.clone();
        let pairs = pairs(text)?;
        let names = |name| pairs.iter().any(|(key, _)| *key == name);
        if names("hang") {
            live.hangs.clear();
        }
        if names("fault") || names("faults") || names("rules") {
            live.faults.clear();
        }
        if names("slower") {
            live.slower.clear();
        }
        live.stalls.clear();
        for (key, value) in pairs {
            live.set(key, value)?;
        }
        Ok(live)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "op_us" => self.op_ns = micros(key, value)?,
            "call_us" => self.call_ns = micros(key, value)?,
            "cores" => self.cores = small(key, value, CORES_MAX)?,
            "sessions" => self.sessions = number(key, value, u64::MAX)?,
            "throttle" => self.throttle = number(key, value, u64::MAX)?,
            "hang" => {
                for item in value.split(';').filter(|item| !item.is_empty()) {
                    self.hangs.push(Rule::hang(item)?);
                }
            }
            "fault" | "rules" => {
                for item in value.split(';').filter(|item| !item.is_empty()) {
                    self.faults.push(Rule::fault(item)?);
                }
            }
            "faults" => self.faults.extend(mix::rules(value)?),
            "count_executions" => self.executions = number(key, value, INPUTS_MAX)?,
            "removed" => {
                self.removed = value.split(';').filter(|item| !item.is_empty()).map(str::to_owned).collect();
            }
            "slower" => {
                for item in value.split(';').filter(|item| !item.is_empty()) {
                    self.slower.push(slower(item)?);
                }
            }
            "stall" if value.is_empty() => self.stalls.push(Stall::End),
            "stall" => {
                for item in value.split(';') {
                    self.stalls.push(stall(item)?);
                }
            }
            _ => return Err(format!("unknown, empty or fixed: {key}={value}")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
