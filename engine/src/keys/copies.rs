//! Which keys get a warm copy: by policy, and where a measurement shows that it pays.

use std::sync::Arc;

use cryptoki_sys as sys;
use ring::digest::{SHA256, digest};

use crate::clock::now;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::listing::Listed;
use crate::operation::{Ask, RsaPkcs1, Scratch, allows};
use crate::pkcs11::{Mechanism, ObjectHandle, Session};
use crate::token::Token;
use crate::token::copies::Copies as OfToken;
use crate::token::facts::KeyKind;
use crate::token::task::{GCM_TAG_LEN, Handles, Hash, Iv, Mechanism as TaskMechanism};

/// Whether token keys get warm copies: session objects that stand in for them, which spares some modules fetching the
/// key for every operation (SoftHSM2 2.6.1: three times the rate for symmetric keys).
///
/// A copy never leaves the token either, and is as sensitive and as little extractable as its key. A key that this
/// engine destroys has no copy any more; one that somebody else destroys or changes may be used for a second longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copies {
    /// Where a few operations on the first key of each kind, under texts that no protocol uses, run at least a tenth
    /// faster on a copy. Keys that may only decrypt or wrap are not tried and have none.
    #[default]
    Auto,
    /// None.
    Off,
    /// Every key, or [`Engine::key`](crate::Engine::key) fails.
    Required,
}

/// How often each side is tried. The fastest of each counts: the rest is what the machine did meanwhile.
const TRIES: usize = 5;

/// What is signed or MACed to see whether a copy is faster.
const PROBE: &[u8] = b"hsmux copy probe 1: this text is signed to measure time";

/// As [`PROBE`], for block ciphers: neither the zero block nor like a counter.
const BLOCK_PROBE: &[u8; 16] = b"hsmux-copyprobe1";

/// Makes copies of a key on the tokens that hold it, as the policy says.
pub(super) fn make(
    policy: Copies,
    tokens: &[Arc<Token>],
    held: &[(usize, &Listed)],
    handles: &Arc<Handles>,
) -> Result<()> {
    if policy == Copies::Off {
        return Ok(());
    }
    for &(index, listed) in held {
        let token = &tokens[index];
        let made = make_on(policy, token, listed, handles);
        match made {
            Ok(true) => {}
            Ok(false) if policy == Copies::Auto => {}
            // A module that cannot copy serves the key itself.
            Err(error) if policy == Copies::Auto => tracing::debug!(token = index, %error, "no warm copy"),
            Ok(false) => {
                let text = format!("token {index}: no session copy of the key may be made");
                return Err(Error::operator(ErrorKind::NotPermitted, text));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A token has come back, and this key with it: makes its copy anew, if it had one or would have. On the service thread.
pub(crate) fn make_again(
    policy: Copies,
    session: &mut Session,
    token: &Token,
    listed: &Listed,
    handles: &Arc<Handles>,
) -> Result<()> {
    let wanted = match policy {
        Copies::Off => false,
        Copies::Auto => token.copies.gain(listed.facts.kind) == Some(true),
        Copies::Required => true,
    };
    if !wanted {
        return Ok(());
    }
    match OfToken::make(session, listed.object) {
        Ok(Some(new)) => token.copies.put(session, token.index, handles, new),
        Ok(None) => {}
        // As when the key was asked for: the token serves it without one.
        Err(error) if policy == Copies::Auto => tracing::debug!(token = token.index, %error, "no warm copy"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// True if a copy is used from now on.
fn make_on(policy: Copies, token: &Arc<Token>, listed: &Listed, handles: &Arc<Handles>) -> Result<bool> {
    let (kind, original) = (listed.facts.kind, listed.object);
    let probe = (policy == Copies::Auto).then(|| probe(|number| token.offers(number), listed));
    match (probe, token.copies.gain(kind)) {
        (Some(None), _) | (Some(_), Some(false)) => return Ok(false),
        _ => {}
    }
    let known = token.copies.gain(kind).is_some();
    let (copies, index, handles) = (Arc::clone(&token.copies), token.index, Arc::clone(handles));
    token.with_objects(listed.epoch, move |session| {
        let Some(new) = OfToken::make(session, original)? else { return Ok(false) };
        if let Some(Some(probe)) = probe.filter(|_| !known) {
            let gain = probe.fastest(session, [original, new.copy]).map(pays);
            copies.remember_gain(kind, matches!(gain, Ok(true)));
            if !matches!(gain, Ok(true)) {
                session.destroy(new.copy)?;
                return gain;
            }
        }
        copies.put(session, index, &handles, new);
        Ok(true)
    })
}

/// A harmless operation of a key.
#[derive(Clone, Copy)]
enum Probe {
    Sign(sys::CK_MECHANISM_TYPE),
    SignDigest(sys::CK_MECHANISM_TYPE),
    SignDigestInfo,
    Block(sys::CK_MECHANISM_TYPE),
    Gcm,
}

/// How long the fastest of a few operations takes on a token key and on its copy, in nanoseconds; none if nothing can be
/// tried with it.
pub(crate) fn measure(
    session: &mut Session,
    offers: impl Fn(u64) -> bool,
    listed: &Listed,
    copy: ObjectHandle,
) -> Result<Option<[u64; 2]>> {
    // One that wants a PIN for every use is not tried.
    let probe = probe(offers, listed).filter(|_| !listed.facts.always_authenticate);
    probe.map(|probe| probe.fastest(session, [listed.object, copy])).transpose()
}

/// Whether a copy takes at most nine tenths of the original's time.
pub(crate) const fn pays([original, copy]: [u64; 2]) -> bool {
    copy.saturating_mul(10) <= original.saturating_mul(9)
}

/// What can be tried with a key, if anything can.
fn probe(offers: impl Fn(u64) -> bool, listed: &Listed) -> Option<Probe> {
    let facts = &listed.facts;
    let can = |mechanism: TaskMechanism| offers(mechanism.number()) && allows(facts, &mechanism);
    let gcm = TaskMechanism::AesGcm { iv: Iv::Drawn, aad: None };
    Some(match facts.kind {
        KeyKind::Generic { .. } if facts.sign && can(TaskMechanism::Hmac(Hash::Sha256)) => {
            Probe::Sign(sys::CKM_SHA256_HMAC)
        }
        KeyKind::Aes { .. } if facts.encrypt && can(TaskMechanism::AesEcb) => Probe::Block(sys::CKM_AES_ECB),
        KeyKind::Aes { .. } if facts.sign && can(TaskMechanism::AesCmac) => Probe::Sign(sys::CKM_AES_CMAC),
        KeyKind::Aes { .. } if facts.encrypt && can(gcm) => Probe::Gcm,
        KeyKind::TripleDes { .. } if facts.encrypt && can(TaskMechanism::TripleDesEcb) => {
            Probe::Block(sys::CKM_DES3_ECB)
        }
        KeyKind::TripleDes { .. } if facts.sign && can(TaskMechanism::TripleDesCmac) => {
            Probe::Sign(sys::CKM_DES3_CMAC)
        }
        KeyKind::Ec(_) if facts.sign && can(TaskMechanism::Ecdsa) => Probe::SignDigest(sys::CKM_ECDSA),
        KeyKind::Ed25519 if facts.sign && can(TaskMechanism::Ed25519) => Probe::Sign(sys::CKM_EDDSA),
        KeyKind::Rsa { .. } if facts.sign && can(TaskMechanism::RsaPkcs1) => Probe::SignDigestInfo,
        _ => return None,
    })
}

impl Probe {
    /// The fastest of a few operations on each object, in nanoseconds.
    fn fastest(self, session: &mut Session, objects: [ObjectHandle; 2]) -> Result<[u64; 2]> {
        let mut fastest = [u64::MAX; 2];
        for _ in 0..TRIES {
            for (fastest, object) in fastest.iter_mut().zip(objects) {
                let begun = now();
                self.run(session, object)?;
                *fastest = (*fastest).min(now().ns_since(begun));
            }
        }
        Ok(fastest)
    }

    fn run(self, session: &mut Session, object: ObjectHandle) -> Result<()> {
        // As long as the longest modulus that is in use.
        let mut answer = [0; 2_048];
        let digest = digest(&SHA256, PROBE);
        match self {
            Self::Sign(number) => session.sign(object, &Mechanism::Plain(number), PROBE, &mut answer)?,
            Self::SignDigest(number) => {
                session.sign(object, &Mechanism::Plain(number), digest.as_ref(), &mut answer)?
            }
            Self::SignDigestInfo => {
                let mut scratch = Scratch::new();
                let info = Ask::sign(RsaPkcs1::SHA256).encode(PROBE, &mut scratch);
                session.sign(object, &Mechanism::Plain(sys::CKM_RSA_PKCS), info, &mut answer)?
            }
            Self::Block(number) => {
                session.encrypt(object, &Mechanism::Plain(number), BLOCK_PROBE, &mut answer)?
            }
            Self::Gcm => {
                let mut iv = [0; 12];
                session.random(&mut iv)?;
                let how = Mechanism::Gcm { iv: &iv, aad: &[], tag_len: GCM_TAG_LEN };
                session.encrypt(object, &how, BLOCK_PROBE, &mut answer)?
            }
        };
        Ok(())
    }
}
