//! Every check that needs no token: the algorithm against the key, the key's permissions, the input.
//!
//! Modules are not trusted with what does not fit: some answer it with a crash of the process.

use super::algorithm::Ecdsa;
use super::ask::{Ask, Form, Mac, Mode, Scheme, What};
use super::encode::DIGEST_INFO_PREFIX_LEN;
use super::lengths::{RSA_PKCS1_OVERHEAD, fits_form, modulus_len};
use crate::error::{Error, ErrorKind, Result};
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::task::{AES_BLOCK_LEN, DES_BLOCK_LEN, GCM_TAG_LEN, Iv, Mechanism};

/// PKCS#11 2.40, 4.9: such a key wants `C_Login` for every use, between Init and the operation. Sessions are shared here,
/// and wrong PINs might be the token's last.
const ALWAYS_AUTHENTICATE: &str = "CKA_ALWAYS_AUTHENTICATE is set: the key wants a PIN for every use";

impl Ask {
    /// Refuses what cannot succeed, before any session is used.
    ///
    /// # Errors
    /// [`ErrorKind::KeyMismatch`] if the algorithm does not fit the key, [`ErrorKind::NotPermitted`] if the
    /// key's attributes forbid the use, [`ErrorKind::InvalidInput`] if the input or a parameter has a length
    /// that the algorithm does not allow; but a ciphertext of an impossible length is
    /// [`ErrorKind::DecryptFailed`], like every other ciphertext that is not accepted.
    #[inline]
    pub(crate) fn check(&self, facts: Option<&KeyFacts>, input: &[u8]) -> Result<()> {
        match self.what {
            What::Random { len } => return check_random(len),
            What::Joint { .. } => return Ok(()),
            _ => {}
        }
        let facts = facts.ok_or_else(without_key)?;
        self.check_key(facts)?;
        self.check_message(facts, input)
    }

    /// The part of [`Ask::check`] that is about the key.
    #[inline]
    pub(crate) fn check_key(&self, facts: &KeyFacts) -> Result<()> {
        self.check_fit(facts.kind)?;
        self.check_permission(facts)
    }

    /// The part of [`Ask::check`] that is about the input.
    #[inline]
    pub(crate) fn check_message(&self, facts: &KeyFacts, input: &[u8]) -> Result<()> {
        self.check_parameters(input)?;
        self.check_input(facts.kind, input.len())
    }

    fn check_fit(&self, kind: KeyKind) -> Result<()> {
        let fits = match &self.what {
            What::Sign { scheme, .. } => sign_fits(*scheme, kind),
            What::Verify { scheme, .. } => sign_fits(*scheme, kind) && host_verifies(kind),
            What::Encrypt(mode) | What::Decrypt(mode) => cipher_fits(mode, kind),
            What::Random { .. } | What::Joint { .. } => true,
        };
        if fits { Ok(()) } else { Err(mismatch()) }
    }

    fn check_permission(&self, facts: &KeyFacts) -> Result<()> {
        // What the host does with the public half needs no login.
        if facts.always_authenticate && self.mechanism().is_some() {
            return Err(Error::refused(ErrorKind::NotPermitted, ALWAYS_AUTHENTICATE));
        }
        let retail = |scheme: &Scheme| matches!(scheme, Scheme::Mac(Mac::Retail(_)));
        match &self.what {
            // Made by encryption: no token knows it as a signature.
            What::Sign { scheme, .. } | What::Verify { scheme, .. } if retail(scheme) => {
                permit(facts.encrypt, "a retail MAC is made by encryption, and CKA_ENCRYPT is not set")
            }
            What::Sign { .. } => permit(facts.sign, "CKA_SIGN is not set"),
            What::Verify { .. } => permit(facts.verify, "CKA_VERIFY is not set"),
            What::Encrypt(_) => permit(facts.encrypt, "CKA_ENCRYPT is not set"),
            What::Decrypt(_) => permit(facts.decrypt, "CKA_DECRYPT is not set"),
            What::Random { .. } | What::Joint { .. } => Ok(()),
        }?;
        match (&self.what, self.mechanism()) {
            (What::Verify { .. } | What::Encrypt(_), None) => {
                permit(facts.public.is_some(), "the token shows no public half of this key")
            }
            (What::Verify { scheme, .. }, Some(mechanism)) => {
                let why = "a MAC is verified by making it again, and CKA_SIGN is not set";
                permit(facts.sign || retail(scheme), why)?;
                permit_mechanism(facts, mechanism)
            }
            (_, Some(mechanism)) => permit_mechanism(facts, mechanism),
            (_, None) => Ok(()),
        }
    }

    /// IVs, counters, additional data, forms.
    fn check_parameters(&self, input: &[u8]) -> Result<()> {
        match self.mechanism() {
            Some(Mechanism::AesGcm { iv, aad }) => {
                check_gcm_parameters(iv, aad.as_deref().unwrap_or_default().len())
            }
            Some(Mechanism::AesCtr { iv, counter_bits }) => self.check_counter(iv, *counter_bits, input),
            Some(mechanism @ (Mechanism::AesCbc(iv) | Mechanism::AesCbcPad(iv)))
            | Some(mechanism @ (Mechanism::TripleDesCbc(iv) | Mechanism::TripleDesCbcPad(iv))) => match iv {
                Iv::Given(iv) if iv.len() != mechanism.drawn_iv_len().0 => {
                    Err(invalid("an IV for CBC is as long as a block"))
                }
                _ => Ok(()),
            },
            _ => match &self.what {
                What::Sign { scheme: Scheme::Raw { output_max: Some(max) }, .. }
                | What::Encrypt(Mode::Raw { output_max: Some(max) })
                | What::Decrypt(Mode::Raw { output_max: Some(max) })
                    if *max > RAW_OUTPUT_MAX =>
                {
                    Err(invalid("the output of a raw mechanism has 64 MiB at most"))
                }
                What::Verify { scheme: Scheme::Raw { .. }, .. } => {
                    Err(invalid("what a raw mechanism makes cannot be verified"))
                }
                What::Sign { scheme, form } | What::Verify { scheme, form, .. } => {
                    check_form(*scheme, *form, input)
                }
                _ => Ok(()),
            },
        }
    }

    /// PKCS#11 2.40, `CK_AES_CTR_PARAMS`: "If an attempt to encrypt/decrypt is made which will cause an overflow of
    /// the counter block's counter bits, then the mechanism shall return CKR_DATA_LEN_RANGE." Modules that do not
    /// look wrap the counter, to blocks that may have been used.
    fn check_counter(&self, iv: &Iv, counter_bits: u32, input: &[u8]) -> Result<()> {
        let (block, text_len) = match (&self.what, iv) {
            (What::Decrypt(Mode::Ctr { front }), _) if *front > 0 => match input.split_first_chunk() {
                Some((block, text)) => (*block, text.len()),
                None => return Err(Error::decrypt_failed()),
            },
            (_, Iv::Given(block)) => match block[..].try_into() {
                Ok(block) => (block, input.len()),
                Err(_) => return Err(invalid("a counter block has 16 bytes")),
            },
            (_, Iv::Drawn) => ([0; AES_BLOCK_LEN], input.len()),
        };
        if !(1..=128).contains(&counter_bits) {
            return Err(invalid("a counter has 1 to 128 bits"));
        }
        let counts_max = u128::MAX >> (128 - counter_bits);
        let first = u128::from_be_bytes(block) & counts_max;
        let more = (text_len.div_ceil(AES_BLOCK_LEN) as u128).saturating_sub(1);
        match &self.what {
            _ if more <= counts_max - first => Ok(()),
            What::Decrypt(Mode::Ctr { front }) if *front > 0 => Err(Error::decrypt_failed()),
            _ => Err(invalid("the counter would overflow")),
        }
    }

    fn check_input(&self, kind: KeyKind, input_len: usize) -> Result<()> {
        let (encrypts, mode) = match &self.what {
            What::Encrypt(mode) => (true, mode),
            What::Decrypt(mode) => (false, mode),
            _ => return Ok(()),
        };
        let fits = match mode {
            Mode::Ecb { block } | Mode::Cbc { block, front: 0, padded: false } => {
                is_blocks(*block, input_len)
            }
            Mode::Cbc { block, padded: false, .. } if encrypts => is_blocks(*block, input_len),
            Mode::Gcm { .. } if encrypts => is_gcm_text(input_len),
            Mode::Oaep { hash, .. } if encrypts => input_len + 2 * hash.len() + 2 <= modulus_len_of(kind),
            Mode::RsaPkcs1 if encrypts => input_len + RSA_PKCS1_OVERHEAD <= modulus_len_of(kind),
            Mode::Cbc { .. } | Mode::Ctr { .. } | Mode::Raw { .. } if encrypts => true,
            Mode::Gcm { front } => input_len.checked_sub(front + GCM_TAG_LEN).is_some_and(is_gcm_text),
            Mode::Cbc { block, front, .. } => {
                input_len.checked_sub(*front).is_some_and(|len| is_blocks(*block, len))
            }
            Mode::Ctr { front } => input_len >= *front,
            Mode::Oaep { .. } | Mode::RsaPkcs1 => input_len == modulus_len_of(kind),
            Mode::Raw { .. } => true,
        };
        match (fits, encrypts) {
            (true, _) => Ok(()),
            (false, true) => Err(invalid(mode.takes())),
            (false, false) => Err(Error::decrypt_failed()),
        }
    }
}

impl Mode {
    /// What it can encrypt, for errors.
    const fn takes(&self) -> &'static str {
        match self {
            Self::Gcm { .. } => "longer than AES-GCM can encrypt under one IV",
            Self::Ecb { block: DES_BLOCK_LEN } | Self::Cbc { block: DES_BLOCK_LEN, .. } => {
                "triple DES without padding takes whole blocks of 8 bytes, at least one"
            }
            Self::Ecb { .. } | Self::Cbc { .. } => {
                "AES without padding takes whole blocks of 16 bytes, at least one"
            }
            Self::Oaep { .. } | Self::RsaPkcs1 => "longer than the modulus less the padding",
            Self::Ctr { .. } | Self::Raw { .. } => "any length is taken",
        }
    }
}

/// Whether the scheme runs with a key of this type and size.
fn sign_fits(scheme: Scheme, kind: KeyKind) -> bool {
    match (scheme, kind) {
        (Scheme::Ecdsa(Ecdsa { curve, .. }), KeyKind::Ec(of_key)) => curve == of_key,
        // RFC 8017, 9.2, step 3: "If emLen < tLen + 11, output "intended encoded message length too short"
        // and stop."
        (Scheme::RsaPkcs1(hash), KeyKind::Rsa { bits }) => {
            modulus_len(bits) >= DIGEST_INFO_PREFIX_LEN + hash.len() + 11
        }
        // RFC 8017, 9.1.1, step 3: "If emLen < hLen + sLen + 2, output "encoding error" and stop." The encoded
        // message is one bit shorter than the modulus (8.1.1, step 1).
        (Scheme::RsaPss { hash, salt_len }, KeyKind::Rsa { bits }) => {
            modulus_len(bits.saturating_sub(1)) >= hash.len() + usize::from(salt_len) + 2
        }
        (Scheme::Mac(Mac::Hmac(_)), KeyKind::Generic { len }) => len > 0,
        (Scheme::Mac(Mac::AesCmac), kind) => is_aes(kind),
        (Scheme::Mac(Mac::TripleDesCmac | Mac::Retail(_)), KeyKind::TripleDes { .. })
        | (Scheme::Ed25519, KeyKind::Ed25519)
        | (Scheme::Raw { .. }, _) => true,
        _ => false,
    }
}

/// Whether the mode runs with a key of this type and size.
fn cipher_fits(mode: &Mode, kind: KeyKind) -> bool {
    match (mode, kind) {
        (Mode::Ecb { block: DES_BLOCK_LEN } | Mode::Cbc { block: DES_BLOCK_LEN, .. }, kind) => {
            matches!(kind, KeyKind::TripleDes { .. })
        }
        (Mode::Gcm { .. } | Mode::Ecb { .. } | Mode::Cbc { .. } | Mode::Ctr { .. }, kind) => is_aes(kind),
        // RFC 8017, 7.1.1, step 1b: a message of no bytes is the shortest.
        (Mode::Oaep { hash, .. }, KeyKind::Rsa { bits }) => {
            host_encrypts(bits) && modulus_len(bits) >= 2 * hash.len() + 2
        }
        (Mode::RsaPkcs1, KeyKind::Rsa { bits }) => host_encrypts(bits),
        (Mode::Raw { .. }, _) => true,
        _ => false,
    }
}

/// FIPS 197, section 5: keys of 128, 192 and 256 bits.
const fn is_aes(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::Aes { len: 16 | 24 | 32 })
}

const fn modulus_len_of(kind: KeyKind) -> usize {
    match kind {
        KeyKind::Rsa { bits } => modulus_len(bits),
        _ => 0,
    }
}

/// Whether the host's verifier takes keys of this size: RSA of 2048 to 8192 bits, counted in whole bytes.
const fn host_verifies(kind: KeyKind) -> bool {
    match kind {
        KeyKind::Rsa { bits } => 256 <= modulus_len(bits) && modulus_len(bits) <= 1024,
        _ => true,
    }
}

/// RSA of 1 024 to 8 192 bits, both ways: what nobody can encrypt to need not be decrypted.
const fn host_encrypts(bits: u32) -> bool {
    1024 <= bits && bits <= 8192
}

fn permit(allowed: bool, otherwise: &'static str) -> Result<()> {
    if allowed { Ok(()) } else { Err(not_permitted(otherwise)) }
}

/// An empty list forbids nothing: so SoftHSM2 2.6.1 reads it, which shows one for every key that was made
/// without `CKA_ALLOWED_MECHANISMS`. A token that reads it otherwise refuses by itself.
fn permit_mechanism(facts: &KeyFacts, mechanism: &Mechanism) -> Result<()> {
    permit(allows(facts, mechanism), "the mechanism is not among its CKA_ALLOWED_MECHANISMS")
}

/// Whether the key's `CKA_ALLOWED_MECHANISMS` lets the mechanism run.
#[inline]
pub(crate) fn allows(facts: &KeyFacts, mechanism: &Mechanism) -> bool {
    facts.allows(number_used(mechanism))
}

/// The mechanism that a call runs with the key it is asked of.
const fn number_used(mechanism: &Mechanism) -> u64 {
    match mechanism {
        // The chain is made with the other key.
        Mechanism::RetailMac { .. } => Mechanism::TripleDesEcb.number(),
        mechanism => mechanism.number(),
    }
}

fn check_form(scheme: Scheme, form: Form, input: &[u8]) -> Result<()> {
    if fits_form(scheme, form, input.len()) {
        return Ok(());
    }
    Err(invalid(match scheme.hash() {
        Some(_) => "the digest has not the length of its hash",
        None => "this algorithm takes the message, not a digest",
    }))
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

/// Longest output of a raw mechanism, in bytes: its memory is taken before the call, also by who runs it inline.
const RAW_OUTPUT_MAX: u32 = 64 << 20;

/// Longest IV that the definition of `CKM_AES_GCM` in PKCS#11 2.40 allows.
const GCM_GIVEN_IV_LEN_MAX: usize = 256;

/// Most random bytes of one request: a bound because a call cannot be broken off, and a slow token that draws
/// for seconds looks like a hung one. Larger amounts are many requests, which sessions can share.
const RANDOM_LEN_MAX: usize = 1 << 20;

/// Whether a text of this length may be encrypted under one IV (SP 800-38D, 5.2.1.1: at most 2^39 - 256 bits).
fn is_gcm_text(len: usize) -> bool {
    u64::try_from(len).is_ok_and(|len| len <= (1 << 36) - 32)
}

const fn is_blocks(block: usize, len: usize) -> bool {
    len != 0 && len.is_multiple_of(block)
}

// The errors are made out of line, so that the way of a request that is accepted stays short.

#[cold]
pub(crate) fn without_key() -> Error {
    Error::internal("an operation with a key was asked without one")
}

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
