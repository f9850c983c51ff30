//! What one request asks for, and what becomes of its bytes on the way to the token and back.

use std::fmt;

use super::algorithm::{AesGcm, Cipher, Ecdsa, Hmac, RsaPkcs1, RsaPss, SignAlgorithm};
use super::encode::{self, Scratch, ecdsa_der_len_max};
use super::kind::OperationKind;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::task::{Call, GCM_IV_LEN, GCM_TAG_LEN, Hash, Iv, Mechanism};

/// One request's "what", without its input.
///
/// Built once and then used in this order: [`Ask::check`]; if [`Ask::call`] is `None`,
/// [`Ask::verify_on_host`] and nothing else; otherwise [`Ask::bind`], [`Ask::encode`], the call into a buffer
/// of exactly [`Ask::output_len`] bytes, [`Ask::finish`]. Nothing on that way allocates. Every method takes
/// the caller's input, or its length, as the caller gave it.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(super) what: What,
    /// What the token does; `None` when the host answers by itself.
    pub(super) call: Option<Call>,
}

/// The part of a request that the host acts on.
#[derive(Clone)]
pub(super) enum What {
    /// Sign a message or, if `prehashed`, the digest of one.
    Sign { algorithm: SignAlgorithm, prehashed: bool },
    /// Verify: on the host with the public key, but a MAC by making it again on the token.
    Verify { algorithm: SignAlgorithm, signature: Box<[u8]> },
    /// Encrypt.
    Encrypt(Mode),
    /// Decrypt.
    Decrypt(Mode),
    /// Draw so many random bytes.
    Random { len: usize },
}

/// How a cipher frames its bytes.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    /// `front` bytes of IV, the body, the tag.
    AesGcm { front: usize },
    /// Whole blocks and nothing else.
    AesEcb,
}

impl Ask {
    pub(crate) fn sign(algorithm: impl Into<SignAlgorithm>) -> Self {
        Self::signing(algorithm.into(), false)
    }

    pub(crate) fn sign_digest(algorithm: impl Into<SignAlgorithm>) -> Self {
        Self::signing(algorithm.into(), true)
    }

    pub(crate) fn verify(algorithm: impl Into<SignAlgorithm>, signature: &[u8]) -> Self {
        let algorithm = algorithm.into();
        let call = match algorithm {
            SignAlgorithm::Hmac(_) => Some(Call::Sign(sign_mechanism(algorithm))),
            SignAlgorithm::Ecdsa(_) | SignAlgorithm::RsaPkcs1(_) | SignAlgorithm::RsaPss(_) => None,
        };
        let kept = signature.get(..SIGNATURE_KEPT_MAX).unwrap_or(signature);
        Self { what: What::Verify { algorithm, signature: kept.into() }, call }
    }

    pub(crate) fn encrypt(cipher: impl Into<Cipher>) -> Self {
        let (mode, mechanism) = cipher_parts(cipher.into());
        Self { what: What::Encrypt(mode), call: Some(Call::Encrypt(mechanism)) }
    }

    pub(crate) fn decrypt(cipher: impl Into<Cipher>) -> Self {
        let (mode, mechanism) = cipher_parts(cipher.into());
        Self { what: What::Decrypt(mode), call: Some(Call::Decrypt(mechanism)) }
    }

    pub(crate) const fn random(len: usize) -> Self {
        Self { what: What::Random { len }, call: Some(Call::Random) }
    }

    /// Takes from the input what belongs into the call: the IV in front of a ciphertext.
    ///
    /// To be called once the input is known and checked, before [`Ask::call`] is carried out. A second time
    /// with the same input changes nothing.
    pub(crate) fn bind(&mut self, input: &[u8]) {
        if let (What::Decrypt(Mode::AesGcm { front: GCM_IV_LEN }), Some(Call::Decrypt(mechanism))) =
            (&self.what, &mut self.call)
            && let Mechanism::AesGcm { iv, .. } = mechanism
            && let Some(front) = input.get(..GCM_IV_LEN)
        {
            *iv = Iv::Given(front.into());
        }
    }

    /// What the token does, or `None` if the host answers by [`Ask::verify_on_host`].
    pub(crate) const fn call(&self) -> Option<&Call> {
        self.call.as_ref()
    }

    /// Whether the host reads the whole input to hash it, in [`Ask::encode`] or [`Ask::verify_on_host`], so
    /// that a long input should be prepared away from a thread that must not be held up.
    pub(crate) const fn hashes(&self) -> bool {
        match &self.what {
            What::Sign { algorithm, prehashed } => {
                !*prehashed && !matches!(algorithm, SignAlgorithm::Hmac(_))
            }
            What::Verify { algorithm, .. } => !matches!(algorithm, SignAlgorithm::Hmac(_)),
            What::Encrypt(_) | What::Decrypt(_) | What::Random { .. } => false,
        }
    }

    /// What the token is given, for an input that [`Ask::check`] has accepted.
    pub(crate) fn encode<'b>(&self, input: &'b [u8], scratch: &'b mut Scratch) -> &'b [u8] {
        match &self.what {
            What::Sign { algorithm, prehashed: false } => encode::message(*algorithm, input, scratch),
            What::Sign { algorithm, prehashed: true } => encode::digest(*algorithm, input, scratch),
            What::Decrypt(Mode::AesGcm { front }) => input.get(*front..).unwrap_or_default(),
            What::Verify { .. } | What::Encrypt(_) | What::Decrypt(Mode::AesEcb) => input,
            What::Random { .. } => &[],
        }
    }

    /// The length of the output buffer: room for what the module writes and for what [`Ask::finish`] makes
    /// of it.
    pub(crate) fn output_len(&self, facts: Option<&KeyFacts>, input_len: usize) -> usize {
        match &self.what {
            What::Sign { algorithm: SignAlgorithm::Ecdsa(Ecdsa { curve, der: true, .. }), .. } => {
                ecdsa_der_len_max(*curve)
            }
            What::Sign { algorithm, .. } => signature_len(*algorithm, facts),
            What::Verify { .. } if self.call.is_none() => 0,
            What::Verify { algorithm, .. } => signature_len(*algorithm, facts),
            What::Encrypt(Mode::AesGcm { front }) => front + input_len + GCM_TAG_LEN,
            // The body alone would be shorter by the tag, but some modules want room for all they are given.
            What::Decrypt(Mode::AesGcm { front }) => input_len.saturating_sub(*front),
            What::Encrypt(Mode::AesEcb) | What::Decrypt(Mode::AesEcb) => input_len,
            What::Random { len } => *len,
        }
    }

    /// The longest that the final form can be.
    pub(crate) fn final_len_max(&self, facts: Option<&KeyFacts>, input_len: usize) -> usize {
        let output_len = self.output_len(facts, input_len);
        match &self.what {
            What::Decrypt(Mode::AesGcm { .. }) => output_len.saturating_sub(GCM_TAG_LEN),
            _ => output_len,
        }
    }

    /// Turns what the call has written, `output[..written]`, into its final form in place; returns the final
    /// length. `output` is as long as [`Ask::output_len`] said, and an IV that the session drew counts as
    /// written.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if the module claims a length that the algorithm cannot have.
    pub(crate) fn finish(
        &self,
        facts: Option<&KeyFacts>,
        output: &mut [u8],
        written: usize,
    ) -> Result<usize> {
        let expected = match &self.what {
            // PKCS#11 2.40, 2.3.1: "For signatures created by a token, the resulting signature is always of
            // length 2nLen", so a shorter one is no signature with its zeros cut off, but a fault.
            What::Sign { algorithm, .. } | What::Verify { algorithm, .. } => signature_len(*algorithm, facts),
            What::Decrypt(Mode::AesGcm { .. }) => output.len().saturating_sub(GCM_TAG_LEN),
            What::Encrypt(_) | What::Decrypt(Mode::AesEcb) | What::Random { .. } => output.len(),
        };
        if written != expected || written > output.len() {
            return Err(implausible(written, expected));
        }
        match &self.what {
            What::Sign { algorithm: SignAlgorithm::Ecdsa(Ecdsa { curve, der: true, .. }), .. } => {
                encode::ecdsa_to_der(*curve, output)
            }
            _ => Ok(written),
        }
    }

    pub(crate) const fn kind(&self) -> OperationKind {
        match &self.what {
            What::Sign { algorithm: SignAlgorithm::RsaPkcs1(_), .. } => OperationKind::SignRsaPkcs1,
            What::Sign { algorithm: SignAlgorithm::RsaPss(_), .. } => OperationKind::SignRsaPss,
            What::Sign { algorithm: SignAlgorithm::Ecdsa(_), .. } => OperationKind::SignEcdsa,
            What::Sign { algorithm: SignAlgorithm::Hmac(_), .. } => OperationKind::SignHmac,
            What::Verify { .. } => OperationKind::Verify,
            What::Encrypt(Mode::AesGcm { .. }) => OperationKind::EncryptAesGcm,
            What::Encrypt(Mode::AesEcb) => OperationKind::EncryptAesEcb,
            What::Decrypt(Mode::AesGcm { .. }) => OperationKind::DecryptAesGcm,
            What::Decrypt(Mode::AesEcb) => OperationKind::DecryptAesEcb,
            What::Random { .. } => OperationKind::Random,
        }
    }

    /// The mechanism that the token runs; none for random bytes and for what the host answers.
    pub(crate) const fn mechanism(&self) -> Option<&Mechanism> {
        match &self.call {
            Some(Call::Sign(mechanism) | Call::Encrypt(mechanism) | Call::Decrypt(mechanism)) => {
                Some(mechanism)
            }
            Some(Call::Random) | None => None,
        }
    }

    fn signing(algorithm: SignAlgorithm, prehashed: bool) -> Self {
        Self { what: What::Sign { algorithm, prehashed }, call: Some(Call::Sign(sign_mechanism(algorithm))) }
    }
}

/// Shows the kind only: signatures, IVs and additional data are payload.
impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// Bytes kept of a signature to verify: one more than the longest that any algorithm here accepts (RSA with
/// 8192 bits), so that a longer one stays too long without being copied whole.
const SIGNATURE_KEPT_MAX: usize = 8192 / 8 + 1;

const fn sign_mechanism(algorithm: SignAlgorithm) -> Mechanism {
    match algorithm {
        SignAlgorithm::Ecdsa(_) => Mechanism::Ecdsa,
        SignAlgorithm::RsaPkcs1(RsaPkcs1 { .. }) => Mechanism::RsaPkcs1,
        SignAlgorithm::RsaPss(RsaPss { hash }) => Mechanism::RsaPss { hash, salt_len: salt_len(hash) },
        SignAlgorithm::Hmac(Hmac { .. }) => Mechanism::HmacSha256,
    }
}

/// RFC 8017, 9.1, note 4: "Typical salt lengths in octets are hLen (the length of the output of the hash
/// function Hash) and 0."
#[expect(clippy::cast_possible_truncation, reason = "a digest has at most 64 bytes")]
const fn salt_len(hash: Hash) -> u32 {
    hash.len() as u32
}

fn cipher_parts(cipher: Cipher) -> (Mode, Mechanism) {
    match cipher {
        Cipher::AesGcm(gcm) => {
            let front = gcm.front_len();
            let AesGcm { iv, aad } = gcm;
            (Mode::AesGcm { front }, Mechanism::AesGcm { iv, aad })
        }
        Cipher::AesEcb => (Mode::AesEcb, Mechanism::AesEcb),
    }
}

/// Length of the signature that the token writes.
fn signature_len(algorithm: SignAlgorithm, facts: Option<&KeyFacts>) -> usize {
    match algorithm {
        SignAlgorithm::Ecdsa(Ecdsa { curve, .. }) => 2 * curve.field_len(),
        SignAlgorithm::Hmac(Hmac { hash }) => hash.len(),
        SignAlgorithm::RsaPkcs1(_) | SignAlgorithm::RsaPss(_) => match facts.map(|facts| facts.kind) {
            Some(KeyKind::Rsa { bits }) => modulus_len(bits),
            _ => 0,
        },
    }
}

/// Length in bytes of a modulus of so many bits.
pub(super) const fn modulus_len(bits: u32) -> usize {
    bits.div_ceil(8) as usize
}

#[cold]
fn implausible(written: usize, expected: usize) -> Error {
    Error::new(ErrorKind::Device, Retry::Now, Outcome::Done)
        .because(format!("the module wrote {written} bytes where the algorithm yields {expected}"))
}

#[cfg(test)]
mod tests;
