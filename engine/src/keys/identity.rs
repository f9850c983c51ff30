//! Identity proof: keys of one name on several tokens are used together only if they are the same.

use std::sync::Arc;

use cryptoki_sys as sys;
use ring::digest::{SHA256, digest};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::Listed;
use crate::operation::allows;
use crate::pkcs11::Mechanism;
use crate::token::Token;
use crate::token::facts::KeyKind;
use crate::token::task::{Hash, Mechanism as TaskMechanism};

/// What is MACed to tell MAC keys apart: a text that no protocol uses.
const MAC_PROBE: &[u8] = b"hsmux key identity 1: this text is MACed to compare keys";

/// What is encrypted to tell AES keys apart. Domain-separated: neither the zero block, which is the secret
/// subkey of GCM and CMAC, nor like a counter.
const BLOCK_PROBE: &[u8; 16] = b"hsmux-identity-1";

/// The tokens (as a mask) on which the key is the same. An error if two of them differ; where nothing can be
/// proven, the first token alone.
pub(super) fn prove(tokens: &[Arc<Token>], held: &[(usize, &Listed)]) -> Result<u64> {
    let [(first, _), rest @ ..] = held else { return Ok(0) };
    if rest.is_empty() {
        return Ok(1 << first);
    }
    let proofs = held
        .iter()
        .map(|&(index, listed)| Ok((index, proof(&tokens[index], listed)?)))
        .collect::<Result<Vec<_>>>()?;
    let Some(wanted) = &proofs[0].1 else { return Ok(1 << first) };
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
    Ok(mask)
}

/// A labelled hash of what only this key yields; nothing else of the answer is kept.
fn proof(token: &Token, listed: &Listed) -> Result<Option<Vec<u8>>> {
    let facts = &listed.facts;
    if let Some(public) = &facts.public {
        return Ok(Some(crate::operation::spki_der(public)?).map(|der| hash(b"public", &der)));
    }
    let object = listed.object;
    let can = |mechanism: &TaskMechanism| token.offers(mechanism.number()) && allows(facts, mechanism);
    let probe = match facts.kind {
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
        _ => return Ok(None),
    };
    token.with_service(move |session, _| {
        let mut answer = [0; 32];
        let (label, written) = match probe {
            Probe::Mac(number) => {
                (b"mac", session.sign(object, &Mechanism::Plain(number), MAC_PROBE, &mut answer)?)
            }
            Probe::Block(number) => {
                (b"blk", session.encrypt(object, &Mechanism::Plain(number), BLOCK_PROBE, &mut answer)?)
            }
        };
        Ok(Some(hash(label, &answer[..written])))
    })
}

/// How a secret key is told from another, with the mechanism's number.
enum Probe {
    Mac(u64),
    Block(u64),
}

fn hash(label: &[u8], answer: &[u8]) -> Vec<u8> {
    digest(&SHA256, &[label, b":", answer].concat()).as_ref().to_vec()
}
