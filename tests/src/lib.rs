//! Behaviours of hsmux through its public API: one file per risk, in `tests/`. Here is what those share that run on
//! the simulated HSM.

pub mod figures;

use std::path::PathBuf;
use std::time::Duration;

use hsmux::{Builder, Cipher, Ciphertext, Copies, Engine, Error, Health, Hmac, Key, PinSource};
use p11_sim::Loaded;

/// A bound on what should take a moment: only a test that fails waits for it.
pub const LONG: Duration = Duration::from_secs(30);

/// A simulated HSM that no other test has.
#[derive(Debug)]
pub struct Hsm {
    /// The module.
    pub sim: Loaded,
    /// The labels of its tokens.
    pub tokens: Vec<String>,
    /// Calls of `C_OpenSession` that the test knows to have been refused.
    pub refused: u64,
    /// The configuration, whole.
    config: String,
}

/// A builder to which only settings are missing.
pub type Ready = Builder<PathBuf, Vec<String>, PinSource>;

impl Hsm {
    /// With so many tokens, and the rest of the configuration as the simulator's documentation has it.
    ///
    /// # Panics
    /// If the configuration is wrong or the simulator was not built.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn new(tokens: usize, config: &str) -> Self {
        let config = format!("tokens={tokens},{config}");
        let sim = Loaded::private_copy(&config).expect("a simulator");
        let tokens = (0..tokens).map(|index| format!("sim-{index}")).collect();
        Self { sim, tokens, refused: 0, config }
    }

    /// Begins to build an engine on all tokens. Without warm copies and with a number of sessions, so that calls are
    /// counted, and hang, where a test expects them: to try a copy takes some, and so does opening further sessions.
    #[must_use]
    pub fn builder(&self) -> Ready {
        let builder = Engine::builder().module(self.sim.path()).tokens(self.tokens.clone());
        builder.pin("1234".to_owned()).copies(Copies::Off).sessions(2)
    }

    /// As [`Hsm::builder`], with so many instances of the module. Each is a device of its own, of which the further ones
    /// cannot be looked into: what is counted here is of the first.
    #[must_use]
    pub fn instances(&self, instances: usize) -> Ready {
        self.builder().init_args(&self.config).instances(instances)
    }

    /// What a key of the token makes of each message by a call of its own, as an engine that merges nothing has it done.
    ///
    /// # Panics
    /// If the token fails.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn one_by_one(&self, key: &str, how: impl Into<Cipher>, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let engine = self.builder().coalescing(false).holding(false).build().expect("an engine");
        let (key, how) = (engine.key(key).expect("a key"), how.into());
        let encrypt = |message| key.encrypt(how.clone(), message).wait().expect("a ciphertext").into();
        messages.iter().map(encrypt).collect()
    }

    /// Calls so far that carry out an operation, on one token.
    #[must_use]
    pub fn operations_on(&self, token: &str) -> u64 {
        OPERATIONS.iter().map(|function| self.sim.calls_on(function, token)).sum()
    }

    /// Calls so far that carry out an operation, on all tokens.
    #[must_use]
    pub fn operations(&self) -> u64 {
        OPERATIONS.iter().map(|function| self.sim.calls_of(function)).sum()
    }

    /// Calls so far that reach a token at all.
    #[must_use]
    pub fn calls(&self) -> u64 {
        let others =
            ["C_SignInit", "C_EncryptInit", "C_DecryptInit", "C_VerifyInit", "C_Verify", "C_FindObjects"];
        let others = others.iter().chain(&["C_Login", "C_OpenSession", "C_CloseSession", "C_Finalize"]);
        let others = others.chain(&["C_MessageEncryptInit", "C_MessageDecryptInit"]);
        self.operations() + others.map(|function| self.sim.calls_of(function)).sum::<u64>()
    }

    /// Sessions that are open on all tokens.
    #[must_use]
    pub fn open_sessions(&self) -> u64 {
        // Closed ones first: one that opens and closes in between then counts as open, never as less than none.
        let closed = self.sim.calls_of("C_CloseSession");
        self.sim.calls_of("C_OpenSession") - self.refused - closed
    }

    /// What holds of every engine: no session is used by two threads at once, and each token is logged in to once.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn assert_sound(&self) {
        assert_eq!(self.sim.concurrent_use(), 0, "two threads in one session");
        for token in &self.tokens {
            assert_eq!(self.sim.calls_on("C_Login", token), 1, "logins to {token}");
        }
    }

    /// Waits until nobody has anything of the module: every session is closed, every instance finalised.
    ///
    /// # Panics
    /// If that does not come about.
    pub fn wait_closed(&self) {
        eventually("every session is closed", || self.open_sessions() == 0);
        let calls = |function| self.sim.calls_of(function);
        eventually("the module is finalised", || calls("C_Finalize") == calls("C_Initialize"));
    }
}

/// So many messages of whole blocks of AES, of different lengths; each says its number.
#[must_use]
pub fn blocks(len: u16) -> Vec<Vec<u8>> {
    let message = |number: u16| number.to_be_bytes().repeat(8 + 8 * usize::from(number % 3));
    (0..len).map(message).collect()
}

/// The ciphertexts of answers that must be some.
///
/// # Panics
/// If one is an error.
#[must_use]
#[expect(clippy::expect_used, reason = "a test expects it")]
pub fn outputs(answers: Vec<Result<Ciphertext, Error>>) -> Vec<Vec<u8>> {
    answers.into_iter().map(|answer| answer.expect("a ciphertext").into()).collect()
}

/// Waits until an engine has nothing in flight: a session gives room back at the end of its turn, after the answers.
///
/// # Panics
/// If that does not come about.
pub fn wait_idle(engine: &Engine) {
    let in_flight = || {
        let snapshot = engine.snapshot();
        (snapshot.in_flight, snapshot.bytes_in_flight)
    };
    eventually("nothing is in flight", || in_flight() == (0, 0));
}

/// Makes the MAC of a text, within [`LONG`].
///
/// # Errors
/// What the engine answers.
pub fn sign(key: &Key, message: &[u8]) -> Result<Vec<u8>, Error> {
    key.sign(Hmac::SHA256, message).deadline_in(LONG).wait().map(Into::into)
}

/// How a token stands, by its number.
#[must_use]
pub fn health(engine: &Engine, token: usize) -> Health {
    engine.snapshot().tokens[token].health
}

/// Waits until a token stands so.
///
/// # Panics
/// If that does not come about.
pub fn wait_for(engine: &Engine, token: usize, wanted: Health) {
    eventually("the token's health is as it should be", || health(engine, token) == wanted);
}

/// Waits for something that no event tells of.
///
/// # Panics
/// If it does not come about within half a minute.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let step = Duration::from_millis(1);
    let looks = LONG.as_millis() / step.as_millis();
    let came = (0..looks).any(|_| {
        let came = condition();
        if !came {
            std::thread::park_timeout(step);
        }
        came
    });
    assert!(came, "waited in vain until {what}");
}

/// The functions that carry out an operation.
const OPERATIONS: [&str; 8] = [
    "C_Sign",
    "C_Encrypt",
    "C_EncryptUpdate",
    "C_EncryptMessage",
    "C_Decrypt",
    "C_DecryptUpdate",
    "C_DecryptMessage",
    "C_GenerateRandom",
];
