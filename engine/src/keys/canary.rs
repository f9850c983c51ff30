//! What a token that is under suspicion is asked to do with the operator's canary key.

use ring::digest::{SHA256, digest};

use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::identity::{self, Proof};
use crate::keys::{KeyVersion, allows};
use crate::pkcs11::{self, ObjectHandle, Session};
use crate::sync::{Arc, Mutex};
use crate::token::Token;
use crate::token::facts::KeyKind;
use crate::token::task::{Mechanism, Usage};

/// What is signed: a text that no protocol uses.
const TEXT: &[u8] = b"hsmux canary 1: this text is signed to see whether a token works";

/// RFC 8017, 9.2, note 1: what stands before a SHA-256 digest.
const SHA256_DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

/// Longest signature of a canary, in bytes: RSA with 16 384 bits.
const SIGNATURE_MAX: usize = 2_048;

/// A key that its operator lets the engine use to see whether a token works.
pub(crate) struct Canary {
    version: Arc<KeyVersion>,
    /// What it made of the probe when it was asked first: the same on all tokens, for it was proven to be the same key.
    known: Mutex<Option<Proof>>,
}

impl Canary {
    /// # Errors
    /// `KeyMismatch`, if nothing can be asked of a key like this.
    pub(crate) fn new(version: Arc<KeyVersion>, tokens: &[Arc<Token>]) -> Result<Self> {
        let usable = tokens.iter().any(|token| {
            identity::probe(token, &version.facts).is_some() || signing(token, &version).is_some()
        });
        match usable {
            true => Ok(Self { version, known: Mutex::new(None) }),
            false => Err(Error::operator(
                ErrorKind::KeyMismatch,
                "a canary key makes MACs or signatures, or enciphers single blocks",
            )),
        }
    }

    /// Has the token use it, if it is there. A secret key must yield what it did the first time.
    ///
    /// # Errors
    /// What the token answers; `Device` if that is not what it answered before.
    pub(crate) fn ask(&self, session: &mut Session, token: &Token, epoch: u64) -> Result<()> {
        let handle = self.version.handles.on(token.index).filter(|handle| handle.epoch == epoch);
        let Some(handle) = handle else { return Ok(()) };
        if let Some(mechanism) = signing(token, &self.version) {
            return sign(session, handle.object, &mechanism);
        }
        let answer = identity::answer(session, token, &self.version.facts, handle.object)?;
        let mut known = self.known.lock();
        if known.is_some() && *known != answer {
            let wrong = Error::new(ErrorKind::Device, Retry::Operator, Outcome::Done);
            return Err(wrong.because("the canary key yields something else than before"));
        }
        known.clone_from(&answer);
        Ok(())
    }
}

/// By which mechanism a private key signs.
fn signing(token: &Token, version: &KeyVersion) -> Option<Mechanism> {
    let mechanism = match version.facts.kind {
        KeyKind::Rsa { .. } => Mechanism::RsaPkcs1,
        KeyKind::Ec(_) => Mechanism::Ecdsa,
        KeyKind::Ed25519 => Mechanism::Ed25519,
        _ => return None,
    };
    let works = !token.is_known_to_fail(&mechanism, Usage::Sign, version.facts.kind);
    let may = version.facts.sign && allows(&version.facts, &mechanism) && token.offers(mechanism.number());
    (works && may).then_some(mechanism)
}

fn sign(session: &mut Session, key: ObjectHandle, mechanism: &Mechanism) -> Result<()> {
    let hash = digest(&SHA256, TEXT);
    let data = match mechanism {
        Mechanism::RsaPkcs1 => [&SHA256_DIGEST_INFO, hash.as_ref()].concat(),
        Mechanism::Ecdsa => hash.as_ref().to_vec(),
        _ => TEXT.to_vec(),
    };
    let how = pkcs11::Mechanism::Plain(mechanism.number());
    session.sign(key, &how, &data, &mut [0; SIGNATURE_MAX])?;
    Ok(())
}
