//! Which mechanisms really work: each is run on a key that is thrown away, and its output is checked by other software
//! where there is some, else by the token's own way back.

use std::sync::Arc;

use cryptoki_sys as sys;
use ring::digest::{SHA256, digest};

use super::found::{MechanismFound, ProbeResult};
use super::trials::{TRIALS, Trial};
use super::workbench::{Made, OUTPUT_MAX, Workbench, is_end};
use crate::clock::{Time, now};
use crate::describe::mechanism_name;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{Ask, RsaOaep, RsaPkcs1, RsaPkcs1Encryption, Scratch};
use crate::pkcs11::{self, Fault};
use crate::token::session::without_iv;
use crate::token::software;
use crate::token::task::{GCM_TAG_LEN, Hash, Mechanism, Usage};

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tried {
    Right,
    /// It does not work, and why.
    Failed(Arc<str>),
    /// Nobody knows.
    Not(Arc<str>),
}

/// What is signed.
const TEXT: &[u8] = b"hsmux probe: this text is signed to see whether it can be";

/// What is enciphered: whole blocks of either cipher.
const PLAIN: &[u8; 48] = b"hsmux probe: three blocks, or six of triple DES.";

/// What goes to mechanisms that take any length: it ends inside a block.
const PLAIN_LEN: usize = 45;

/// Tries all of them; `step` is told which comes. With what was found whether there was time for all.
pub(super) fn try_all(
    bench: &mut Workbench,
    until: Time,
    mut step: impl FnMut(usize, usize, &'static str),
) -> Result<(Vec<MechanismFound>, bool)> {
    let mut found = Vec::new();
    let (mut decrypted, mut is_whole) = (None, true);
    for (at, trial) in TRIALS.iter().enumerate() {
        step(at, TRIALS.len(), trial.operation);
        let tried = match (trial.usage, decrypted.take()) {
            (Usage::Decrypt, Some(tried)) => tried,
            _ if now() >= until => {
                is_whole = false;
                not("the time was up")
            }
            (Usage::Encrypt, _) => {
                let [encrypted, then] = try_cipher(bench, trial)?;
                decrypted = Some(then);
                encrypted
            }
            (Usage::Sign, _) => try_twice(bench, trial, signs)?,
            (Usage::Decrypt, None) => try_twice(bench, trial, decrypts)?,
        };
        let mechanism = trial.mechanism().number();
        let (result, why) = judge(bench.lists(mechanism, trial.usage), &tried);
        found.push(MechanismFound {
            operation: trial.operation.to_owned(),
            mechanism: mechanism_name(mechanism),
            key: trial.key.name(),
            result,
            why,
        });
    }
    Ok((found, is_whole))
}

/// What a trial says of a mechanism that is listed, or not.
fn judge(is_listed: bool, tried: &Tried) -> (ProbeResult, Option<String>) {
    let (result, why) = match (tried, is_listed) {
        (Tried::Right, true) => (ProbeResult::Works, None),
        (Tried::Right, false) => (ProbeResult::NotListedButWorks, None),
        (Tried::Failed(why), true) => (ProbeResult::ListedButFails, Some(why)),
        (Tried::Not(why), true) => (ProbeResult::NotTried, Some(why)),
        // It was not promised.
        (Tried::Failed(_) | Tried::Not(_), false) => (ProbeResult::NotOffered, None),
    };
    (result, why.map(|why| why.to_string()))
}

/// What a fault says of a mechanism. Nothing is concluded of what may be over in a moment, or when the key has gone.
fn of_fault(fault: Fault) -> Tried {
    let why = format!("{} answered {}", fault.function.name(), fault.name()).into();
    match fault.class().kind {
        ErrorKind::Busy | ErrorKind::SessionLost | ErrorKind::TokenLost | ErrorKind::KeyNotFound => {
            Tried::Not(why)
        }
        _ => Tried::Failed(why),
    }
}

fn failed(why: &str) -> Tried {
    Tried::Failed(why.into())
}

fn not(why: &str) -> Tried {
    Tried::Not(why.into())
}

/// Runs a trial with its key; once more, in another session, if it does not go well: what fails twice fails.
///
/// # Errors
/// If the token is gone.
fn try_twice(
    bench: &mut Workbench,
    trial: &Trial,
    run: fn(&mut Workbench, &Made, &Mechanism) -> Result<Tried, Fault>,
) -> Result<Tried> {
    let made = match bench.key(trial.key) {
        Ok(made) => made,
        Err(fault) => return unmade(fault),
    };
    let mechanism = trial.mechanism();
    let mut last = not("no session was to be had");
    for _ in 0..2 {
        last = match run(bench, &made, &mechanism) {
            Ok(Tried::Right) => return Ok(Tried::Right),
            Ok(tried) => tried,
            Err(fault) if is_end(fault) => return Err(fault.into()),
            Err(fault) => of_fault(fault),
        };
        bench.renew()?;
    }
    Ok(last)
}

/// Without a key nothing is known of what would be done with it.
fn unmade(fault: Fault) -> Result<Tried> {
    if is_end(fault) {
        return Err(fault.into());
    }
    let text = format!("no key: {} answered {}", fault.function.name(), fault.name());
    Ok(Tried::Not(text.into()))
}

/// What a signing mechanism is given: the message, or what the host makes of it.
pub(super) fn input(mechanism: &Mechanism) -> Vec<u8> {
    match mechanism {
        Mechanism::RsaPkcs1 => Ask::sign(RsaPkcs1::SHA256).encode(TEXT, &mut Scratch::new()).to_vec(),
        Mechanism::RsaPss { .. } | Mechanism::Ecdsa => digest(&SHA256, TEXT).as_ref().to_vec(),
        _ => TEXT.to_vec(),
    }
}

fn signs(bench: &mut Workbench, made: &Made, mechanism: &Mechanism) -> Result<Tried, Fault> {
    let (how, input) = (without_iv(mechanism), input(mechanism));
    let mut out = [0; OUTPUT_MAX];
    let written = bench.work.sign(made.key, &how, &input, &mut out)?;
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
    match bench.work.verify(made.public.unwrap_or(made.key), &how, &input, signature) {
        Ok(()) => Ok(Tried::Right),
        Err(fault) if fault.is(sys::CKR_SIGNATURE_INVALID) || fault.is(sys::CKR_SIGNATURE_LEN_RANGE) => {
            Ok(failed("the token does not accept what it has made"))
        }
        // NSS 3.87 makes MACs by AES-CMAC and verifies none.
        Err(fault) if made.public.is_none() && !is_end(fault) => {
            bench.renew()?;
            let mut again = [0; OUTPUT_MAX];
            let len = bench.work.sign(made.key, &how, &input, &mut again)?;
            Ok(if again[..len] == *signature { Tried::Right } else { failed("the second MAC is another") })
        }
        Err(fault) => Err(fault),
    }
}

/// Encryption, and the decryption of what came of it. If that is not what went in, nobody knows which of them is wrong, and
/// neither is to be used.
fn try_cipher(bench: &mut Workbench, trial: &Trial) -> Result<[Tried; 2]> {
    let made = match bench.key(trial.key) {
        Ok(made) => made,
        Err(fault) => return unmade(fault).map(|tried| [tried.clone(), tried]),
    };
    let mechanism = trial.mechanism();
    let mut last = [not("no session was to be had"), not("no session was to be had")];
    for _ in 0..2 {
        last = match round_trip(bench, &made, &mechanism) {
            Ok(tried) => tried,
            Err(fault) if is_end(fault) => return Err(fault.into()),
            Err(fault) => [of_fault(fault), not("nothing was there to be decrypted")],
        };
        if last == [Tried::Right, Tried::Right] {
            break;
        }
        bench.renew()?;
    }
    Ok(last)
}

fn round_trip(bench: &mut Workbench, made: &Made, mechanism: &Mechanism) -> Result<[Tried; 2], Fault> {
    let plain = plain(mechanism);
    let mut sealed = [0; OUTPUT_MAX];
    let written = bench.work.encrypt(made.key, &with_fixed_iv(mechanism), plain, &mut sealed)?;
    if written != sealed_len(mechanism, plain.len()) || sealed.starts_with(plain) {
        let wrong = failed("the ciphertext has another length, or is the text itself");
        return Ok([wrong.clone(), wrong]);
    }
    let mut opened = [0; OUTPUT_MAX];
    match bench.work.decrypt(made.key, &with_fixed_iv(mechanism), &sealed[..written], &mut opened) {
        Ok(len) if opened[..len] == *plain => heeds_iv(bench, made, mechanism, &sealed[..written]),
        Ok(_) => {
            let wrong = failed("what was encrypted comes out otherwise");
            Ok([wrong.clone(), wrong])
        }
        Err(fault) if is_end(fault) => Err(fault),
        // The text could be got back by nobody: perhaps it is the encryption that errs.
        Err(fault) if fault.class().kind == ErrorKind::DecryptFailed => {
            Ok([failed("the token does not decrypt what it has encrypted"), of_fault(fault)])
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
    let written = bench.work.encrypt(made.key, &how, plain(mechanism), &mut other)?;
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
fn decrypts(bench: &mut Workbench, made: &Made, mechanism: &Mechanism) -> Result<Tried, Fault> {
    let ask = match mechanism {
        Mechanism::RsaOaep { hash: Hash::Sha1, .. } => Ask::encrypt(RsaOaep::SHA1),
        Mechanism::RsaOaep { .. } => Ask::encrypt(RsaOaep::SHA256),
        _ => Ask::encrypt(RsaPkcs1Encryption),
    };
    let text = &PLAIN[..PLAIN_LEN];
    let sealed = match ask.on_host(&made.facts, text) {
        Ok(sealed) => sealed,
        Err(error) => return Ok(unshown(&error)),
    };
    let mut out = [0; OUTPUT_MAX];
    let written = bench.work.decrypt(made.key, &without_iv(mechanism), &sealed, &mut out)?;
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
    use super::*;
    use crate::pkcs11::Function;

    fn judged(is_listed: bool, tried: Tried) -> (ProbeResult, Option<String>) {
        judge(is_listed, &tried)
    }

    #[test]
    fn what_is_listed_and_fails_is_told_from_what_was_never_promised() {
        let why = Some("no".to_owned());
        assert_eq!(judged(true, Tried::Right), (ProbeResult::Works, None));
        assert_eq!(judged(true, failed("no")), (ProbeResult::ListedButFails, why.clone()));
        assert_eq!(judged(true, not("no")), (ProbeResult::NotTried, why));
        assert_eq!(judged(false, Tried::Right), (ProbeResult::NotListedButWorks, None));
        assert_eq!(judged(false, failed("no")), (ProbeResult::NotOffered, None));
        assert_eq!(judged(false, not("no")), (ProbeResult::NotOffered, None));
    }

    #[test]
    fn of_what_may_be_over_in_a_moment_nothing_is_concluded() {
        let of = |code| of_fault(Fault::new(Function::SignInit, code));
        let passing = [sys::CKR_DEVICE_MEMORY, sys::CKR_SESSION_COUNT, sys::CKR_SESSION_HANDLE_INVALID];
        for code in passing.into_iter().chain([sys::CKR_KEY_HANDLE_INVALID]) {
            assert!(matches!(of(code), Tried::Not(_)), "0x{code:x}");
        }
        assert_eq!(of(sys::CKR_MECHANISM_INVALID), failed("C_SignInit answered CKR_MECHANISM_INVALID"));
        assert!(matches!(of(sys::CKR_FUNCTION_FAILED), Tried::Failed(_)));
    }

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
