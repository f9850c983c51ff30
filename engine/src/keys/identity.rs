//! Identity proof: keys of one name on several tokens are used together only if they are the same.

use std::sync::Arc;

use cryptoki_sys as sys;
use ring::digest::{SHA256, digest};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::Listed;
use crate::pkcs11::Mechanism;
use crate::token::Token;
use crate::token::facts::KeyKind;

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
    match facts.kind {
        KeyKind::Generic { .. } if facts.sign => token.with_service(move |session, _| {
            let mut mac = [0; 32];
            let how = Mechanism::Plain(sys::CKM_SHA256_HMAC);
            let written = session.sign(object, &how, MAC_PROBE, &mut mac)?;
            Ok(Some(hash(b"mac", &mac[..written])))
        }),
        KeyKind::Aes { .. } if facts.encrypt && token.offers(sys::CKM_AES_ECB) => {
            token.with_service(move |session, _| {
                let mut block = [0; 16];
                let how = Mechanism::Plain(sys::CKM_AES_ECB);
                let written = session.encrypt(object, &how, BLOCK_PROBE, &mut block)?;
                Ok(Some(hash(b"block", &block[..written])))
            })
        }
        _ => Ok(None),
    }
}

fn hash(label: &[u8], answer: &[u8]) -> Vec<u8> {
    digest(&SHA256, &[label, b":", answer].concat()).as_ref().to_vec()
}
