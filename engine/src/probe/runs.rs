//! One run of each kind: an operation on a key that is thrown away. The output is checked by other software where there is some,
//! else by the token's own way back.

use cryptoki_sys as sys;
use ring::digest::{SHA256, digest};

use super::mechanisms::{Tried, failed, of_fault};
use super::workbench::{Made, OUTPUT_MAX, Workbench, is_end};
use crate::error::{Error, ErrorKind};
use crate::operation::{Ask, RsaOaep, RsaPkcs1, RsaPkcs1Encryption, Scratch};
use crate::pkcs11::{self, Fault};
use crate::token::session::without_iv;
use crate::token::software;
use crate::token::task::{GCM_TAG_LEN, Hash, Mechanism};

/// What is signed.
const TEXT: &[u8] = b"hsmux probe: this text is signed to see whether it can be";

/// What is enciphered: whole blocks of either cipher.
const PLAIN: &[u8; 48] = b"hsmux probe: three blocks, or six of triple DES.";

/// What goes to mechanisms that take any length: it ends inside a block.
const PLAIN_LEN: usize = 45;

/// What a signing mechanism is given: the message, or what the host makes of it.
pub(super) fn input(mechanism: &Mechanism) -> Vec<u8> {
    match mechanism {
        Mechanism::RsaPkcs1 => Ask::sign(RsaPkcs1::SHA256).encode(TEXT, &mut Scratch::new()).to_vec(),
        Mechanism::RsaPss { .. } | Mechanism::Ecdsa => digest(&SHA256, TEXT).as_ref().to_vec(),
        _ => TEXT.to_vec(),
    }
}

pub(super) fn signs(bench: &mut Workbench, made: &Made, mechanism: &Mechanism) -> Result<Tried, Fault> {
    let (how, input) = (without_iv(mechanism), input(mechanism));
    let mut out = [0; OUTPUT_MAX];
    let written = bench.work()?.sign(made.key, &how, &input, &mut out)?;
    let signature = &out[..written];
    let by_software = made.facts.public.as_ref();
    match by_software.and_then(|public| software::is_signature(mechanism, public, &input, signature)) {
        Some(true) => return Ok(Tried::Right),
        Some(false) => return Ok(failed("the signature does not fit the public key")),
        None => {}
    }
    if matches!(mechanism, Mechanism::Hmac(hash) if hash.len() != written) {
        return Ok(failed("the MAC has another length than its hash"));
    }
    // A MAC, or a key that does not show its public half.
    match bench.work()?.verify(made.public.unwrap_or(made.key), &how, &input, signature) {
        Ok(()) => Ok(Tried::Right),
        Err(fault) if fault.is(sys::CKR_SIGNATURE_INVALID) || fault.is(sys::CKR_SIGNATURE_LEN_RANGE) => {
            Ok(failed("the token does not accept what it has made"))
        }
        // NSS 3.87 makes MACs by AES-CMAC and verifies none.
        Err(fault) if made.public.is_none() && !is_end(fault) => {
            bench.renew_after(fault)?;
            let mut again = [0; OUTPUT_MAX];
            let len = bench.work()?.sign(made.key, &how, &input, &mut again)?;
            Ok(if again[..len] == *signature { Tried::Right } else { failed("the second MAC is another") })
        }
        Err(fault) => Err(fault),
    }
}

/// Encryption, and the decryption of what came of it. If that is not what went in, nobody knows which of them is wrong, and
/// neither is to be used.
pub(super) fn round_trip(
    bench: &mut Workbench,
    made: &Made,
    mechanism: &Mechanism,
) -> Result<[Tried; 2], Fault> {
    let plain = plain(mechanism);
    let mut sealed = [0; OUTPUT_MAX];
    let written = bench.work()?.encrypt(made.key, &with_fixed_iv(mechanism), plain, &mut sealed)?;
    if written != sealed_len(mechanism, plain.len()) || sealed.starts_with(plain) {
        let wrong = failed("the ciphertext has another length, or is the text itself");
        return Ok([wrong.clone(), wrong]);
    }
    let mut opened = [0; OUTPUT_MAX];
    match bench.work()?.decrypt(made.key, &with_fixed_iv(mechanism), &sealed[..written], &mut opened) {
        Ok(len) if opened[..len] == *plain => heeds_iv(bench, made, mechanism, &sealed[..written]),
        Ok(_) => {
            let wrong = failed("what was encrypted comes out otherwise");
            Ok([wrong.clone(), wrong])
        }
        Err(fault) if is_end(fault) => Err(fault),
        // The text could be got back by nobody: perhaps it is the encryption that errs.
        Err(fault) if fault.class().kind == ErrorKind::DecryptFailed => {
            Ok([Tried::Ill("the token does not decrypt what it has encrypted".into()), of_fault(fault)])
        }
        Err(fault) => Ok([Tried::Right, of_fault(fault)]),
    }
}

/// Whether the same text is another under another IV: a module that ignores IVs may do so both ways. Of AES-GCM more is found
/// out later.
fn heeds_iv(
    bench: &mut Workbench,
    made: &Made,
    mechanism: &Mechanism,
    sealed: &[u8],
) -> Result<[Tried; 2], Fault> {
    if mechanism.iv().is_none() || matches!(mechanism, Mechanism::AesGcm { .. }) {
        return Ok([Tried::Right, Tried::Right]);
    }
    let mut other = [0; OUTPUT_MAX];
    let how = with_iv(mechanism, &OTHER_IV);
    let written = bench.work()?.encrypt(made.key, &how, plain(mechanism), &mut other)?;
    let tried = if other[..written] == *sealed { failed("the IV makes no difference") } else { Tried::Right };
    Ok([tried.clone(), tried])
}

fn plain(mechanism: &Mechanism) -> &'static [u8] {
    match mechanism {
        Mechanism::AesGcm { .. }
        | Mechanism::AesCtr { .. }
        | Mechanism::AesCbcPad(_)
        | Mechanism::TripleDesCbcPad(_) => &PLAIN[..PLAIN_LEN],
        _ => PLAIN,
    }
}

const fn sealed_len(mechanism: &Mechanism, len: usize) -> usize {
    match mechanism {
        Mechanism::AesGcm { .. } => len + GCM_TAG_LEN,
        Mechanism::AesCbcPad(_) => (len / 16 + 1) * 16,
        Mechanism::TripleDesCbcPad(_) => (len / 8 + 1) * 8,
        _ => len,
    }
}

/// An IV that any throw-away key may have once, for one text.
const IV: [u8; 16] = *b"hsmux pr\0\0\0\0\0\0\0\0";

/// And one for the same text again.
const OTHER_IV: [u8; 16] = *b"HSMUX PR\0\0\0\0\0\0\0\0";

/// The mechanism with an IV as long as it takes.
pub(super) fn with_fixed_iv(mechanism: &Mechanism) -> pkcs11::Mechanism<'static> {
    with_iv(mechanism, &IV)
}

fn with_iv(mechanism: &Mechanism, iv: &'static [u8; 16]) -> pkcs11::Mechanism<'static> {
    let block = *iv;
    let iv = &iv[..mechanism.drawn_iv_len().0];
    match mechanism {
        Mechanism::AesGcm { .. } => pkcs11::Mechanism::Gcm { iv, aad: &[], tag_len: GCM_TAG_LEN },
        Mechanism::AesCtr { counter_bits, .. } => {
            pkcs11::Mechanism::Ctr { block, counter_bits: *counter_bits }
        }
        _ if iv.is_empty() => pkcs11::Mechanism::Plain(mechanism.number()),
        _ => pkcs11::Mechanism::Bytes(mechanism.number(), iv),
    }
}

/// What RSA is to decrypt is encrypted here, with the public key.
pub(super) fn decrypts(bench: &mut Workbench, made: &Made, mechanism: &Mechanism) -> Result<Tried, Fault> {
    let ask = match mechanism {
        Mechanism::RsaOaep { hash, label } => {
            let oaep = if *hash == Hash::Sha1 { RsaOaep::SHA1 } else { RsaOaep::SHA256 };
            Ask::encrypt(oaep.label(label.as_deref().unwrap_or_default()))
        }
        _ => Ask::encrypt(RsaPkcs1Encryption),
    };
    let text = &PLAIN[..PLAIN_LEN];
    let sealed = match ask.on_host(&made.facts, text) {
        Ok(sealed) => sealed,
        Err(error) => return Ok(unshown(&error)),
    };
    let mut out = [0; OUTPUT_MAX];
    let written = bench.work()?.decrypt(made.key, &without_iv(mechanism), &sealed, &mut out)?;
    let opened = &out[..written];
    let is_right = match (mechanism, &made.facts.public) {
        (Mechanism::RsaRaw, Some(public)) => software::is_bare_rsa(public, &sealed, opened) == Some(true),
        _ => opened == text,
    };
    Ok(if is_right { Tried::Right } else { failed("what was encrypted comes out otherwise") })
}

fn unshown(error: &Error) -> Tried {
    Tried::Not(format!("the public key cannot be used: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::super::trials::TRIALS;
    use super::*;
    use crate::token::task::Usage;

    #[test]
    fn each_mechanism_is_given_a_text_and_an_iv_of_a_length_that_it_takes() {
        for trial in TRIALS.iter().filter(|trial| trial.usage == Usage::Encrypt) {
            let (mechanism, text) = (trial.mechanism(), plain(&trial.mechanism()));
            let len = sealed_len(&mechanism, text.len());
            assert!(len >= text.len() && len < text.len() + 17, "{}", trial.operation);
            let takes_blocks =
                sealed_len(&mechanism, 45) == 45 && !matches!(mechanism, Mechanism::AesCtr { .. });
            assert!(!takes_blocks || text.len() == 48, "{}", trial.operation);
        }
    }
}
