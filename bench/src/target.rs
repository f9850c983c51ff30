//! An engine under load: how its requests are made, and what it counted meanwhile.

use std::sync::Arc;

use hdrhistogram::Histogram;
use hsmux::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cipher, Cmac, Decrypt, Ecdsa, Ed25519, Encrypt, Engine, Error, Hmac, Key,
    Many, Operation, Random, Request, RsaOaep, RsaPkcs1, RsaPss, Sign, SignAlgorithm, Snapshot, Stage,
};

use crate::case::{Case, Op};
use crate::cell::{Cell, Window, add, histogram};
use crate::drive::{Load, drive};
use crate::inputs::Inputs;

/// An engine and a key, ready for a case.
#[derive(Debug)]
pub struct Target {
    engine: Arc<Engine>,
    inputs: Inputs,
    asks: Asks,
}

/// A cell, and what the engine says of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The cell.
    pub cell: Cell,
    /// Times by stage in the order of [`Stage::ALL`], in nanoseconds, warm-up included.
    pub stages: [Histogram<u64>; Stage::ALL.len()],
    /// PKCS#11 calls, warm-up included.
    pub calls: u64,
}

/// How the requests of a case are made.
pub(crate) trait Ask: Send + Sync + 'static {
    type Operation: Operation<Output: AsRef<[u8]>>;

    fn one<'a>(&'a self, message: &'a [u8]) -> Request<'a, Self::Operation>;

    /// One request for each message, in one batch; `None` if the engine has no batches of this operation.
    fn many<'a>(&'a self, messages: Vec<&'a [u8]>) -> Option<Many<'a, Self::Operation>>;
}

#[derive(Clone, Debug)]
enum Asks {
    Sign(Arc<Signing>),
    Encrypt(Arc<Encrypting>),
    Decrypt(Arc<Decrypting>),
    Random(Arc<Drawing>),
}

#[derive(Debug)]
struct Signing {
    key: Key,
    how: SignAlgorithm,
}

#[derive(Debug)]
struct Encrypting {
    key: Key,
    how: Cipher,
}

#[derive(Debug)]
struct Decrypting {
    key: Key,
    how: Cipher,
}

#[derive(Debug)]
struct Drawing {
    engine: Arc<Engine>,
}

impl Target {
    /// Makes a target of an engine, and tries the case once.
    ///
    /// # Errors
    /// That of the one operation; `KeyNotFound` if the engine has no such key, which random bytes do not need.
    ///
    /// # Blocking
    /// As long as one operation takes.
    pub fn new(engine: &Arc<Engine>, case: Case, key: Option<&str>) -> Result<Self, Error> {
        let key = || engine.key(key.unwrap_or_default());
        let sign = |key: Key, how: SignAlgorithm| Asks::Sign(Arc::new(Signing { key, how }));
        let encrypt = |key: Key, how: Cipher| Asks::Encrypt(Arc::new(Encrypting { key, how }));
        let decrypt = |key: Key, how: Cipher| Asks::Decrypt(Arc::new(Decrypting { key, how }));
        let unpadded = || AesCbc::new().unpadded().into();
        let mut inputs = Inputs::new(case);
        let asks = match case.op {
            Op::Rsa2048Sha256 | Op::Rsa4096Sha256 => sign(key()?, RsaPkcs1::SHA256.into()),
            Op::Rsa2048Pss => sign(key()?, RsaPss::SHA256.into()),
            Op::EcdsaP256 => sign(key()?, Ecdsa::P256_SHA256.into()),
            Op::EcdsaP384 => sign(key()?, Ecdsa::P384_SHA384.into()),
            Op::Rsa2048Oaep => {
                let key = key()?;
                inputs = Inputs::under(case, &key.public_key_der()?);
                decrypt(key, RsaOaep::SHA1.into())
            }
            Op::Ed25519 => sign(key()?, Ed25519.into()),
            Op::HmacSha256 => sign(key()?, Hmac::SHA256.into()),
            Op::AesCmac => sign(key()?, Cmac::Aes.into()),
            Op::AesGcm => encrypt(key()?, AesGcm::new().into()),
            Op::AesEcb => encrypt(key()?, AesEcb.into()),
            Op::AesCbcEncrypt => encrypt(key()?, unpadded()),
            Op::AesCbcDecrypt => decrypt(key()?, unpadded()),
            Op::AesCtr => encrypt(key()?, AesCtr::new().into()),
            Op::Random => Asks::Random(Arc::new(Drawing { engine: Arc::clone(engine) })),
        };
        let target = Self { engine: Arc::clone(engine), inputs, asks };
        target.once()?;
        Ok(target)
    }

    /// What is done.
    #[must_use]
    pub const fn case(&self) -> Case {
        self.inputs.case()
    }

    /// What the operations are given, for the other side of a comparison.
    #[must_use]
    pub const fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Sessions that work or idle, of all tokens.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.engine.snapshot().tokens.iter().map(|token| token.sessions).sum()
    }

    /// Runs a cell: callers in a closed loop until the window closes.
    ///
    /// # Blocking
    /// Until the window has closed and every caller has its last answer.
    #[must_use]
    pub fn run(&self, load: Load, window: Window) -> Measured {
        let before = self.engine.snapshot();
        let cell = match &self.asks {
            Asks::Sign(ask) => drive(ask, &self.inputs, load, window),
            Asks::Encrypt(ask) => drive(ask, &self.inputs, load, window),
            Asks::Decrypt(ask) => drive(ask, &self.inputs, load, window),
            Asks::Random(ask) => drive(ask, &self.inputs, load, window),
        };
        let after = self.engine.snapshot();
        let calls = calls(&after) - calls(&before);
        Measured { cell, stages: Stage::ALL.map(|stage| self.between(&before, &after, stage)), calls }
    }

    /// Runs one operation; returns its input and its output.
    ///
    /// # Errors
    /// That of the operation.
    ///
    /// # Blocking
    /// As long as the operation takes.
    pub fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let (mut message, mut out) = (self.inputs.message(0), vec![0; self.case().output_len()]);
        let input = message.advance().to_vec();
        let len = match &self.asks {
            Asks::Sign(ask) => ask.one(&input).wait_into(&mut out)?,
            Asks::Encrypt(ask) => ask.one(&input).wait_into(&mut out)?,
            Asks::Decrypt(ask) => ask.one(&input).wait_into(&mut out)?,
            Asks::Random(ask) => ask.one(&input).wait_into(&mut out)?,
        };
        out.truncate(len);
        Ok((input, out))
    }

    /// What a stage gained between two snapshots.
    fn between(&self, before: &Snapshot, after: &Snapshot, stage: Stage) -> Histogram<u64> {
        let mut gained = self.stage(after, stage);
        // Counts only grow; should they not, all since the start is the honest answer left.
        let _ = gained.subtract(self.stage(before, stage));
        gained
    }

    fn stage(&self, snapshot: &Snapshot, stage: Stage) -> Histogram<u64> {
        let mut sum = histogram();
        let operations = snapshot.tokens.iter().flat_map(|token| &token.operations);
        for operation in operations.filter(|operation| operation.kind == self.case().op.kind()) {
            add(&mut sum, operation.stage(stage));
        }
        sum
    }
}

impl Measured {
    /// Nothing yet.
    #[must_use]
    pub fn empty() -> Self {
        Self { cell: Cell::empty(), stages: [histogram(), histogram(), histogram()], calls: 0 }
    }

    /// Adds another measurement of the same target.
    pub fn add(&mut self, other: &Self) {
        self.cell.add(&other.cell);
        self.stages.iter_mut().zip(&other.stages).for_each(|(sum, stage)| add(sum, stage));
        self.calls += other.calls;
    }
}

impl Ask for Signing {
    type Operation = Sign;

    fn one<'a>(&'a self, message: &'a [u8]) -> Request<'a, Sign> {
        self.key.sign(self.how.clone(), message)
    }

    fn many<'a>(&'a self, messages: Vec<&'a [u8]>) -> Option<Many<'a, Sign>> {
        Some(self.key.sign_many(self.how.clone(), messages))
    }
}

impl Ask for Encrypting {
    type Operation = Encrypt;

    fn one<'a>(&'a self, message: &'a [u8]) -> Request<'a, Encrypt> {
        self.key.encrypt(self.how.clone(), message)
    }

    fn many<'a>(&'a self, messages: Vec<&'a [u8]>) -> Option<Many<'a, Encrypt>> {
        Some(self.key.encrypt_many(self.how.clone(), messages))
    }
}

impl Ask for Decrypting {
    type Operation = Decrypt;

    fn one<'a>(&'a self, sealed: &'a [u8]) -> Request<'a, Decrypt> {
        self.key.decrypt(self.how.clone(), sealed)
    }

    fn many<'a>(&'a self, sealed: Vec<&'a [u8]>) -> Option<Many<'a, Decrypt>> {
        Some(self.key.decrypt_many(self.how.clone(), sealed))
    }
}

impl Ask for Drawing {
    type Operation = Random;

    fn one<'a>(&'a self, message: &'a [u8]) -> Request<'a, Random> {
        self.engine.random(message.len())
    }

    fn many<'a>(&'a self, _: Vec<&'a [u8]>) -> Option<Many<'a, Random>> {
        None
    }
}

fn calls(snapshot: &Snapshot) -> u64 {
    snapshot.calls.values().sum()
}
