//! How the requests of a case are made.

use std::sync::Arc;

use hsmux::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cipher, Cmac, Decrypt, Ecdsa, Ed25519, Encrypt, Engine, Error, Hmac, Key,
    Many, Operation, Random, Request, RsaOaep, RsaPkcs1, RsaPss, Sign, SignAlgorithm,
};

use crate::case::{Case, Op};
use crate::inputs::Inputs;

/// How the requests of a case are made.
pub(crate) trait Ask: Send + Sync + 'static {
    type Operation: Operation<Output: AsRef<[u8]>>;

    fn one<'a>(&'a self, message: &'a [u8]) -> Request<'a, Self::Operation>;

    /// One request for each message, in one batch; `None` if the engine has no batches of this operation.
    fn many<'a>(&'a self, messages: Vec<&'a [u8]>) -> Option<Many<'a, Self::Operation>>;
}

/// By kind of operation.
#[derive(Clone, Debug)]
pub(crate) enum Asks {
    Sign(Arc<Signing>),
    Encrypt(Arc<Encrypting>),
    Decrypt(Arc<Decrypting>),
    Random(Arc<Drawing>),
}

#[derive(Debug)]
pub(crate) struct Signing {
    key: Key,
    how: SignAlgorithm,
}

#[derive(Debug)]
pub(crate) struct Encrypting {
    key: Key,
    how: Cipher,
}

#[derive(Debug)]
pub(crate) struct Decrypting {
    key: Key,
    how: Cipher,
}

#[derive(Debug)]
pub(crate) struct Drawing {
    engine: Arc<Engine>,
}

impl Asks {
    /// Those of a case by a key of this label, which random bytes do not need, and what they are given.
    pub(crate) fn new(engine: &Arc<Engine>, case: Case, key: Option<&str>) -> Result<(Self, Inputs), Error> {
        let key = || engine.key(key.unwrap_or_default());
        let sign = |key: Key, how: SignAlgorithm| Self::Sign(Arc::new(Signing { key, how }));
        let encrypt = |key: Key, how: Cipher| Self::Encrypt(Arc::new(Encrypting { key, how }));
        let decrypt = |key: Key, how: Cipher| Self::Decrypt(Arc::new(Decrypting { key, how }));
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
            Op::Random => Self::Random(Arc::new(Drawing { engine: Arc::clone(engine) })),
        };
        Ok((asks, inputs))
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
