//! Every check that needs no token: the algorithm against the key, the key's permissions, the input.
//!
//! Modules are not trusted with what does not fit: some answer it with a crash of the process.

use super::algorithm::{Ecdsa, RsaPkcs1, RsaPss, SignAlgorithm};
use super::ask::{Ask, Mode, What, modulus_len};
use super::encode::DIGEST_INFO_PREFIX_LEN;
use crate::error::{Error, ErrorKind, Result};
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::task::{GCM_TAG_LEN, Iv, Mechanism};

impl Ask {
    /// Refuses what cannot succeed, before any session is used.
    ///
    /// # Errors
    /// [`ErrorKind::KeyMismatch`] if the algorithm does not fit the key, [`ErrorKind::NotPermitted`] if the
    /// key's attributes forbid the use, [`ErrorKind::InvalidInput`] if the input or a parameter has a length
    /// that the algorithm does not allow; but a ciphertext of an impossible length is
    /// [`ErrorKind::DecryptFailed`], like every other ciphertext that is not accepted.
    pub(crate) fn check(&self, facts: Option<&KeyFacts>, input_len: usize) -> Result<()> {
        if let What::Random { len } = self.what {
            return check_random(len);
        }
        let facts = facts.ok_or_else(|| Error::internal("an operation with a key was asked without one"))?;
        self.check_fit(facts.kind)?;
        self.check_permission(facts)?;
        self.check_input(input_len)
    }

    fn check_fit(&self, kind: KeyKind) -> Result<()> {
        let fits = match &self.what {
            What::Sign { algorithm, .. } => sign_fits(*algorithm, kind),
            What::Verify { algorithm, .. } => sign_fits(*algorithm, kind) && host_verifies(kind),
            // FIPS 197, section 5: keys of 128, 192 and 256 bits.
            What::Encrypt(_) | What::Decrypt(_) => matches!(kind, KeyKind::Aes { len: 16 | 24 | 32 }),
            What::Random { .. } => true,
        };
        if fits { Ok(()) } else { Err(mismatch()) }
    }

    fn check_permission(&self, facts: &KeyFacts) -> Result<()> {
        match &self.what {
            What::Sign { .. } => permit(facts.sign, "CKA_SIGN is not set"),
            What::Verify { .. } => permit(facts.verify, "CKA_VERIFY is not set"),
            What::Encrypt(_) => permit(facts.encrypt, "CKA_ENCRYPT is not set"),
            What::Decrypt(_) => permit(facts.decrypt, "CKA_DECRYPT is not set"),
            What::Random { .. } => Ok(()),
        }?;
        match (&self.what, self.mechanism()) {
            (What::Verify { .. }, None) => {
                permit(facts.public.is_some(), "the token shows no public half of this key")
            }
            (What::Verify { .. }, Some(mechanism)) => {
                permit(facts.sign, "a MAC is verified by making it again, and CKA_SIGN is not set")?;
                permit_mechanism(facts, mechanism)
            }
            (_, Some(mechanism)) => permit_mechanism(facts, mechanism),
            (_, None) => Ok(()),
        }
    }

    fn check_input(&self, input_len: usize) -> Result<()> {
        if let Some(Mechanism::AesGcm { iv, aad }) = self.mechanism() {
            check_gcm_parameters(iv, aad.as_deref().unwrap_or_default().len())?;
        }
        match &self.what {
            What::Sign { algorithm, prehashed: true } => check_digest(*algorithm, input_len),
            What::Encrypt(Mode::AesEcb) if !is_blocks(input_len) => {
                Err(invalid("AES-ECB takes whole blocks of 16 bytes, at least one"))
            }
            What::Encrypt(Mode::AesGcm { .. }) if !is_gcm_text(input_len) => {
                Err(invalid("longer than AES-GCM can encrypt under one IV"))
            }
            What::Decrypt(Mode::AesEcb) if !is_blocks(input_len) => Err(Error::decrypt_failed()),
            What::Decrypt(Mode::AesGcm { front }) => match input_len.checked_sub(front + GCM_TAG_LEN) {
                Some(body_len) if is_gcm_text(body_len) => Ok(()),
                _ => Err(Error::decrypt_failed()),
            },
            _ => Ok(()),
        }
    }
}

/// Whether the algorithm runs with a key of this type and size.
fn sign_fits(algorithm: SignAlgorithm, kind: KeyKind) -> bool {
    match (algorithm, kind) {
        (SignAlgorithm::Ecdsa(Ecdsa { curve, .. }), KeyKind::Ec(of_key)) => curve == of_key,
        // RFC 8017, 9.2, step 3: "If emLen < tLen + 11, output "intended encoded message length too short"
        // and stop."
        (SignAlgorithm::RsaPkcs1(RsaPkcs1 { hash }), KeyKind::Rsa { bits }) => {
            modulus_len(bits) >= DIGEST_INFO_PREFIX_LEN + hash.len() + 11
        }
        // RFC 8017, 9.1.1, step 3: "If emLen < hLen + sLen + 2, output "encoding error" and stop." The encoded
        // message is one bit shorter than the modulus (8.1.1, step 1).
        (SignAlgorithm::RsaPss(RsaPss { hash }), KeyKind::Rsa { bits }) => {
            modulus_len(bits.saturating_sub(1)) >= 2 * hash.len() + 2
        }
        (SignAlgorithm::Hmac(_), KeyKind::Generic { len }) => len > 0,
        _ => false,
    }
}

/// Whether the host's verifier takes keys of this size: RSA of 2048 to 8192 bits, counted in whole bytes.
const fn host_verifies(kind: KeyKind) -> bool {
    match kind {
        KeyKind::Rsa { bits } => 256 <= modulus_len(bits) && modulus_len(bits) <= 1024,
        _ => true,
    }
}

fn permit(allowed: bool, otherwise: &'static str) -> Result<()> {
    if allowed { Ok(()) } else { Err(not_permitted(otherwise)) }
}

/// An empty list forbids nothing: so SoftHSM2 2.6.1 reads it, which shows one for every key that was made
/// without `CKA_ALLOWED_MECHANISMS`. A token that reads it otherwise refuses by itself.
fn permit_mechanism(facts: &KeyFacts, mechanism: &Mechanism) -> Result<()> {
    let allowed = facts.allowed.as_deref().unwrap_or_default();
    permit(
        allowed.is_empty() || allowed.contains(&mechanism.mechanism_type()),
        "the mechanism is not among its CKA_ALLOWED_MECHANISMS",
    )
}

fn check_digest(algorithm: SignAlgorithm, len: usize) -> Result<()> {
    if matches!(algorithm, SignAlgorithm::Hmac(_)) {
        return Err(invalid("HMAC takes the message, not a digest"));
    }
    if len != algorithm.hash().len() {
        return Err(invalid("the digest has not the length of its hash"));
    }
    Ok(())
}

fn check_gcm_parameters(iv: &Iv, aad_len: usize) -> Result<()> {
    if let Iv::Given(iv) = iv
        && !(1..=GCM_GIVEN_IV_LEN_MAX).contains(&iv.len())
    {
        return Err(invalid("an IV for AES-GCM has 1 to 256 bytes"));
    }
    if u32::try_from(aad_len).is_err() {
        return Err(invalid("the additional data is longer than AES-GCM allows"));
    }
    Ok(())
}

fn check_random(len: usize) -> Result<()> {
    if (1..=RANDOM_LEN_MAX).contains(&len) {
        return Ok(());
    }
    Err(invalid("random bytes are drawn 1 to 1048576 at a time"))
}

/// Longest IV that the definition of `CKM_AES_GCM` in PKCS#11 2.40 allows.
const GCM_GIVEN_IV_LEN_MAX: usize = 256;

/// Most random bytes of one request: a bound because a call cannot be broken off, and a slow token that draws
/// for seconds looks like a hung one. Larger amounts are many requests, which sessions can share.
const RANDOM_LEN_MAX: usize = 1 << 20;

/// Whether a text of this length may be encrypted under one IV (SP 800-38D, 5.2.1.1: at most 2^39 - 256 bits).
fn is_gcm_text(len: usize) -> bool {
    u64::try_from(len).is_ok_and(|len| len <= (1 << 36) - 32)
}

const fn is_blocks(len: usize) -> bool {
    len != 0 && len.is_multiple_of(16)
}

// The errors are made out of line, so that the way of a request that is accepted stays short.

#[cold]
fn mismatch() -> Error {
    Error::refused(ErrorKind::KeyMismatch, "another type, size or curve is needed")
}

#[cold]
fn not_permitted(why: &'static str) -> Error {
    Error::refused(ErrorKind::NotPermitted, why)
}

#[cold]
fn invalid(why: &'static str) -> Error {
    Error::refused(ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests;
