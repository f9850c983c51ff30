//! Identity proof: keys of one name on several tokens are used together only if they are the same.

use std::sync::Arc;

use cryptoki_sys as sys;
use ring::digest::{SHA256, digest};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::listing::Listed;
use crate::operation::allows;
use crate::pkcs11::{Mechanism, ObjectHandle, Session};
use crate::token::Token;
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::task::{Hash, Mechanism as TaskMechanism, Usage};

/// What is MACed to tell MAC keys apart: a text that no protocol uses.
const MAC_PROBE: &[u8] = b"hsmux key identity 1: this text is MACed to compare keys";

/// What is encrypted to tell AES keys apart. Domain-separated: neither the zero block, which is the secret
/// subkey of GCM and CMAC, nor like a counter.
const BLOCK_PROBE: &[u8; 16] = b"hsmux-identity-1";

/// On which tokens a key was shown to be the same.
pub(super) struct Proven {
    /// Those: bit i is token i.
    pub(super) tokens: u64,
    /// Those that could not be asked, because they are lost.
    pub(super) unasked: u64,
    /// What the key yields, if anything can be shown.
    pub(super) proof: Option<Proof>,
}

/// Asks the tokens that hold a key. An error if two of them differ; where nothing can be shown, the first token alone, or all
/// of them if somebody vouches for it.
pub(super) fn prove(tokens: &[Arc<Token>], held: &[(usize, &Listed)], vouched: bool) -> Result<Proven> {
    if let [(only, listed)] = held
        && listed.facts.public.is_none()
    {
        // Nothing to compare it with.
        return Ok(Proven { tokens: 1 << only, unasked: 0, proof: None });
    }
    let (mut proofs, mut unasked, mut lost) = (Vec::new(), 0, None);
    for &(index, listed) in held {
        match proof(&tokens[index], listed) {
            Ok(proof) => proofs.push((index, proof)),
            Err(error) if matches!(error.kind(), ErrorKind::TokenLost | ErrorKind::SessionLost) => {
                unasked |= 1 << index;
                lost = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let Some((first, wanted)) = proofs.first() else {
        return lost.map_or(Ok(Proven { tokens: 0, unasked, proof: None }), Err);
    };
    let Some(wanted) = wanted else {
        let all = proofs.iter().fold(0, |mask, (index, _)| mask | 1 << index);
        let tokens = if vouched { all } else { 1 << first };
        return Ok(Proven { tokens, unasked, proof: None });
    };
    let mut mask = 0;
    for (index, proof) in &proofs {
        match proof {
            Some(proof) if proof == wanted => mask |= 1 << index,
            Some(_) => {
                let text = format!("tokens {first} and {index} hold different keys under this name");
                return Err(Error::operator(ErrorKind::KeyAmbiguous, text));
            }
            None => {}
        }
    }
    Ok(Proven { tokens: mask, unasked, proof: Some(wanted.clone()) })
}

/// A labelled hash of what only this key yields; nothing else of the answer is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof(Vec<u8>);

impl Proof {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn proof(token: &Token, listed: &Listed) -> Result<Option<Proof>> {
    if let Some(shown) = show_public(&listed.facts)? {
        return Ok(Some(shown));
    }
    let (Some(probe), object) = (probe(token, &listed.facts), listed.object) else { return Ok(None) };
    token.with_objects(listed.epoch, move |session| show(session, object, probe))
}

/// As `proof`, where the session is at hand.
pub(crate) fn proof_by(session: &mut Session, token: &Token, listed: &Listed) -> Result<Option<Proof>> {
    if let Some(shown) = show_public(&listed.facts)? {
        return Ok(Some(shown));
    }
    answer(session, token, &listed.facts, listed.object)
}

/// What a secret key makes of its probe, if it has one.
pub(super) fn answer(
    session: &mut Session,
    token: &Token,
    facts: &KeyFacts,
    object: ObjectHandle,
) -> Result<Option<Proof>> {
    probe(token, facts).map_or(Ok(None), |probe| show(session, object, probe))
}

/// How a secret key of a token can be told from another.
pub(super) fn probe(token: &Token, facts: &KeyFacts) -> Option<Probe> {
    let can = |mechanism: &TaskMechanism| {
        let usage = if mechanism.is_ecb() { Usage::Encrypt } else { Usage::Sign };
        let works = !token.is_known_to_fail(mechanism, usage, facts.kind);
        works && token.offers(mechanism.number()) && allows(facts, mechanism)
    };
    Some(match facts.kind {
        KeyKind::Generic { .. } if facts.sign && can(&TaskMechanism::Hmac(Hash::Sha256)) => {
            Probe::Mac(sys::CKM_SHA256_HMAC)
        }
        KeyKind::Aes { .. } if facts.encrypt && can(&TaskMechanism::AesEcb) => Probe::Block(sys::CKM_AES_ECB),
        KeyKind::Aes { .. } if facts.sign && can(&TaskMechanism::AesCmac) => Probe::Mac(sys::CKM_AES_CMAC),
        KeyKind::TripleDes { .. } if facts.encrypt && can(&TaskMechanism::TripleDesEcb) => {
            Probe::Block(sys::CKM_DES3_ECB)
        }
        KeyKind::TripleDes { .. } if facts.sign && can(&TaskMechanism::TripleDesCmac) => {
            Probe::Mac(sys::CKM_DES3_CMAC)
        }
        _ => return None,
    })
}

/// A public key shows itself.
fn show_public(facts: &KeyFacts) -> Result<Option<Proof>> {
    let Some(public) = &facts.public else { return Ok(None) };
    Ok(Some(hash(b"public", &crate::operation::spki_der(public)?)))
}

/// A secret one by what it makes of the probe.
fn show(session: &mut Session, object: ObjectHandle, probe: Probe) -> Result<Option<Proof>> {
    let mut answer = [0; 32];
    let (label, made) = match probe {
        Probe::Mac(number) => {
            (b"mac", session.sign(object, &Mechanism::Plain(number), MAC_PROBE, &mut answer))
        }
        Probe::Block(number) => {
            (b"blk", session.encrypt(object, &Mechanism::Plain(number), BLOCK_PROBE, &mut answer))
        }
    };
    match made {
        Ok(written) => Ok(Some(hash(label, &answer[..written]))),
        // Listed and refused: it shows nothing.
        Err(fault) if fault.is_unsupported() => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// How a secret key is told from another, with the mechanism's number.
#[derive(Clone, Copy)]
pub(super) enum Probe {
    Mac(u64),
    Block(u64),
}

fn hash(label: &[u8], answer: &[u8]) -> Proof {
    Proof(digest(&SHA256, &[label, b":", answer].concat()).as_ref().to_vec())
}
