//! What one request asks for, and what becomes of its bytes on the way to the token and back.

use std::fmt;
use std::sync::Arc;

use cryptoki_sys as sys;

use super::algorithm::{
    AesCbc, AesCtr, AesGcm, Cipher, Cmac, Ecdsa, FirstKey, Hmac, MacPadding, RetailMac, RsaOaep, RsaPkcs1,
    RsaPss, SignAlgorithm, TripleDesCbc,
};
use super::encode::{self, Scratch};
use super::kind::OperationKind;
use super::padding;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::token::facts::KeyKind;
use crate::token::task::{AES_BLOCK_LEN, Call, DES_BLOCK_LEN, Handles, Hash, Iv, Mechanism, Part, Usage};

/// One request's "what", without its input.
///
/// Built once and then used in this order: [`Ask::choose`]; [`Ask::check`]; if [`Ask::call`] is `None`,
/// [`Ask::on_host`] and nothing else; otherwise [`Ask::bind`], [`Ask::encode`], the call into a buffer
/// of exactly [`Ask::output_len`] bytes, [`Ask::finish`]. Every method takes the caller's input, or its length, as
/// the caller gave it.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(super) what: What,
    /// What the token does; `None` when the host answers by itself.
    pub(super) call: Option<Call>,
}

/// The part of a request that the host acts on.
#[derive(Clone)]
pub(super) enum What {
    Sign {
        scheme: Scheme,
        form: Form,
    },
    /// Verify: on the host with the public key, but a MAC by making it again on the token.
    Verify {
        scheme: Scheme,
        form: Form,
        signature: Box<[u8]>,
    },
    Encrypt(Mode),
    Decrypt(Mode),
    /// Draw so many random bytes.
    Random {
        len: usize,
    },
    /// Several requests of one kind, each checked and bound: their inputs and outputs one after the other. Without
    /// parts they are blocks that the call takes as they are.
    Joint {
        kind: OperationKind,
        output_len: usize,
        parts: Box<[Part]>,
    },
}

/// What is signed: a message, or the digest of one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Message,
    Digest,
}

/// A [`SignAlgorithm`] without what only its mechanism needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Ecdsa(Ecdsa),
    Ed25519,
    RsaPkcs1(Hash),
    RsaPss { hash: Hash, salt_len: u16 },
    Mac(Mac),
    Raw { output_max: Option<u32> },
}

/// The schemes that are verified by signing again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mac {
    Hmac(Hash),
    AesCmac,
    TripleDesCmac,
    Retail(MacPadding),
}

/// How a cipher frames its bytes. `front` bytes of IV stand before the body.
#[derive(Clone)]
pub(super) enum Mode {
    /// The body, the tag.
    Gcm { front: usize },
    /// Whole blocks and nothing else.
    Ecb { block: usize },
    /// Whole blocks; if `padded`, of which the last ends in padding.
    Cbc { block: usize, front: usize, padded: bool },
    /// As long as the message.
    Ctr { front: usize },
    /// A block as long as the modulus.
    Oaep { hash: Hash, label: Option<Arc<[u8]>> },
    /// The same with the padding of PKCS#1 v1.5.
    RsaPkcs1,
    /// What the token makes of it.
    Raw { output_max: Option<u32> },
}

impl Ask {
    pub(crate) fn sign(algorithm: impl Into<SignAlgorithm>) -> Self {
        Self::signing(algorithm.into(), Form::Message)
    }

    pub(crate) fn sign_digest(algorithm: impl Into<SignAlgorithm>) -> Self {
        Self::signing(algorithm.into(), Form::Digest)
    }

    pub(crate) fn verify(algorithm: impl Into<SignAlgorithm>, signature: &[u8]) -> Self {
        Self::verifying(algorithm.into(), Form::Message, signature)
    }

    pub(crate) fn verify_digest(algorithm: impl Into<SignAlgorithm>, signature: &[u8]) -> Self {
        Self::verifying(algorithm.into(), Form::Digest, signature)
    }

    pub(crate) fn encrypt(cipher: impl Into<Cipher>) -> Self {
        let (mode, mechanism) = cipher_parts(cipher.into());
        // Public keys need no token.
        let on_host = matches!(mode, Mode::Oaep { .. } | Mode::RsaPkcs1);
        Self { what: What::Encrypt(mode), call: (!on_host).then_some(Call::Encrypt(mechanism)) }
    }

    pub(crate) fn decrypt(cipher: impl Into<Cipher>) -> Self {
        let (mode, mechanism) = cipher_parts(cipher.into());
        Self { what: What::Decrypt(mode), call: Some(Call::Decrypt(mechanism)) }
    }

    pub(crate) const fn random(len: usize) -> Self {
        Self { what: What::Random { len }, call: Some(Call::Random) }
    }

    /// Several requests like this one, as one. Without parts if they are nothing but blocks.
    pub(crate) fn joint(&self, output_len: usize, parts: Vec<Part>) -> Self {
        let what = What::Joint { kind: self.kind(), output_len, parts: parts.into() };
        Self { what, call: self.call.clone() }
    }

    /// The requests of a joined one.
    #[inline]
    pub(crate) fn parts(&self) -> &[Part] {
        match &self.what {
            What::Joint { parts, .. } => parts,
            _ => &[],
        }
    }

    /// Takes from the input what belongs into the call: the IV in front of a ciphertext.
    ///
    /// To be called once the input is known and checked, before [`Ask::call`] is carried out. A second time
    /// with the same input changes nothing.
    #[inline]
    pub(crate) fn bind(&mut self, input: &[u8]) {
        if let (What::Decrypt(mode), Some(Call::Decrypt(mechanism))) = (&self.what, &mut self.call)
            && let Some(front) = input.get(..mode.front()).filter(|front| !front.is_empty())
            && let Some(iv) = mechanism.iv_mut()
        {
            *iv = Iv::Given(front.into());
        }
    }

    /// Whether doing it again harms nobody, should the first time have been executed after all: signatures, MACs,
    /// decryption, and encryption under an IV that is new for every attempt or the caller's own. Nobody knows what a raw
    /// mechanism does: a signature of a stateful scheme uses up a key (PKCS#11 3.1, `CKR_KEY_EXHAUSTED`).
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self.mechanism(), Some(Mechanism::Raw { .. }))
    }

    /// How many random bytes it asks for, if that is what it does.
    #[inline]
    pub(crate) const fn random_len(&self) -> Option<usize> {
        match self.what {
            What::Random { len } => Some(len),
            _ => None,
        }
    }

    /// What the token does, or `None` if the host answers by [`Ask::on_host`].
    #[inline]
    pub(crate) const fn call(&self) -> Option<&Call> {
        self.call.as_ref()
    }

    /// As [`Ask::call`].
    pub(crate) fn into_call(self) -> Option<Call> {
        self.call
    }

    /// Whether the host reads the whole input to hash it, in [`Ask::encode`] or [`Ask::on_host`], so
    /// that a long input should be prepared away from a thread that must not be held up.
    pub(crate) const fn hashes(&self) -> bool {
        match (&self.what, self.mechanism()) {
            (What::Sign { form: Form::Message, .. }, Some(mechanism)) => takes_digest(mechanism),
            (What::Verify { form: Form::Message, .. }, None) => true,
            _ => false,
        }
    }

    /// What the token is given, for an input that [`Ask::check`] has accepted.
    #[inline]
    pub(crate) fn encode<'b>(&self, input: &'b [u8], scratch: &'b mut Scratch) -> &'b [u8] {
        match (&self.what, self.mechanism()) {
            (What::Sign { scheme, .. } | What::Verify { scheme, .. }, Some(mechanism))
                if !takes_digest(mechanism) =>
            {
                match scheme {
                    Scheme::Mac(Mac::Retail(method)) => padding::for_mac(*method, input, scratch),
                    _ => input,
                }
            }
            (What::Sign { scheme, form: Form::Message }, _) => encode::message(*scheme, input, scratch),
            (What::Sign { scheme, form: Form::Digest }, _) => encode::digest(*scheme, input, scratch),
            (What::Encrypt(Mode::Cbc { block, padded: true, .. }), Some(mechanism))
                if host_pads(mechanism) =>
            {
                padding::pkcs7(*block, input, scratch)
            }
            (What::Decrypt(mode), _) => input.get(mode.front()..).unwrap_or_default(),
            (What::Verify { .. } | What::Encrypt(_), _) => input,
            (What::Joint { .. }, _) => input,
            (What::Random { .. }, _) => &[],
        }
    }

    /// Turns what the call has written, `output[..written]`, into its final form in place; returns the final
    /// length. `output` is as long as [`Ask::output_len`] said, and an IV that the session drew counts as
    /// written.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if the module claims a length that the algorithm cannot have;
    /// [`ErrorKind::DecryptFailed`] if the padding is wrong.
    #[inline]
    pub(crate) fn finish(&self, key: Option<KeyKind>, output: &mut [u8], written: usize) -> Result<usize> {
        let expected = self.written_len(key, output.len());
        if !expected.contains(&written) || written > output.len() {
            return Err(implausible(written, *expected.end()));
        }
        let len = match (&self.what, self.mechanism()) {
            (What::Sign { scheme: Scheme::Ecdsa(ecdsa), .. }, _) if ecdsa.der => {
                return encode::ecdsa_to_der(ecdsa.curve, output);
            }
            (What::Decrypt(Mode::Cbc { block, padded: true, .. }), Some(mechanism))
                if host_pads(mechanism) =>
            {
                padding::pkcs7_len(*block, &output[..written])?
            }
            (What::Decrypt(Mode::Oaep { hash, label }), Some(Mechanism::RsaRaw)) => {
                padding::take_oaep(*hash, label.as_deref().unwrap_or_default(), &mut output[..written])?
            }
            (What::Decrypt(Mode::RsaPkcs1), Some(Mechanism::RsaRaw)) => {
                padding::take_pkcs1(&mut output[..written])?
            }
            _ => return Ok(written),
        };
        // Padding, and what padding was taken off by: nothing of it is the caller's.
        output[len..].fill(0);
        Ok(len)
    }

    #[inline]
    pub(crate) const fn kind(&self) -> OperationKind {
        match &self.what {
            What::Sign { scheme, .. } => scheme.kind(),
            What::Verify { .. } => OperationKind::Verify,
            What::Encrypt(mode) => mode.kinds().0,
            What::Decrypt(mode) => mode.kinds().1,
            What::Random { .. } => OperationKind::Random,
            What::Joint { kind, .. } => *kind,
        }
    }

    /// The key that comes before the one that is asked, of a retail MAC.
    pub(crate) fn first_key(&self) -> Option<&Handles> {
        match self.mechanism() {
            Some(Mechanism::RetailMac { first, .. }) => Some(first),
            _ => None,
        }
    }

    /// The mechanism that the token runs; none for random bytes and for what the host answers.
    #[inline]
    pub(crate) const fn mechanism(&self) -> Option<&Mechanism> {
        match self.used() {
            Some((_, mechanism)) => Some(mechanism),
            None => None,
        }
    }

    /// What AES-GCM authenticates besides the message.
    pub(crate) fn additional_data(&self) -> Option<&[u8]> {
        match self.mechanism() {
            Some(Mechanism::AesGcm { aad, .. }) => aad.as_deref(),
            _ => None,
        }
    }

    /// Whether it runs by a raw mechanism.
    pub(crate) const fn is_raw(&self) -> bool {
        matches!(self.mechanism(), Some(Mechanism::Raw { .. }))
    }

    /// Whether it decrypts by a raw mechanism that takes the padding of PKCS#1 v1.5 off, or leaves it to the caller.
    #[inline]
    pub(crate) const fn is_raw_rsa_decryption(&self) -> bool {
        matches!(
            &self.call,
            Some(Call::Decrypt(Mechanism::Raw { number: sys::CKM_RSA_PKCS | sys::CKM_RSA_X_509, .. }))
        )
    }

    /// The hash of a request that signs or verifies a digest.
    pub(crate) const fn hash(&self) -> Option<Hash> {
        match &self.what {
            What::Sign { scheme, .. } | What::Verify { scheme, .. } => scheme.hash(),
            _ => None,
        }
    }

    /// The mechanism that the token runs, and what for.
    #[inline]
    pub(crate) const fn used(&self) -> Option<(Usage, &Mechanism)> {
        match &self.call {
            Some(Call::Sign(mechanism)) => Some((Usage::Sign, mechanism)),
            Some(Call::Encrypt(mechanism)) => Some((Usage::Encrypt, mechanism)),
            Some(Call::Decrypt(mechanism)) => Some((Usage::Decrypt, mechanism)),
            Some(Call::Random) | None => None,
        }
    }

    fn signing(algorithm: SignAlgorithm, form: Form) -> Self {
        let (scheme, mechanism) = scheme_parts(algorithm);
        Self { what: What::Sign { scheme, form }, call: Some(Call::Sign(mechanism)) }
    }

    fn verifying(algorithm: SignAlgorithm, form: Form, signature: &[u8]) -> Self {
        let (scheme, mechanism) = scheme_parts(algorithm);
        let on_token = matches!(scheme, Scheme::Mac(_) | Scheme::Raw { .. });
        let kept = signature.get(..SIGNATURE_KEPT_MAX).unwrap_or(signature);
        let what = What::Verify { scheme, form, signature: kept.into() };
        Self { what, call: on_token.then_some(Call::Sign(mechanism)) }
    }
}

impl Scheme {
    const fn kind(self) -> OperationKind {
        match self {
            Self::RsaPkcs1(_) => OperationKind::SignRsaPkcs1,
            Self::RsaPss { .. } => OperationKind::SignRsaPss,
            Self::Ecdsa(_) => OperationKind::SignEcdsa,
            Self::Ed25519 => OperationKind::SignEd25519,
            Self::Mac(Mac::Hmac(_)) => OperationKind::SignHmac,
            Self::Mac(Mac::AesCmac) => OperationKind::SignAesCmac,
            Self::Mac(Mac::TripleDesCmac) => OperationKind::SignTripleDesCmac,
            Self::Mac(Mac::Retail(_)) => OperationKind::SignRetailMac,
            Self::Raw { .. } => OperationKind::SignRaw,
        }
    }

    /// The hash of a scheme that signs digests.
    pub(super) const fn hash(self) -> Option<Hash> {
        match self {
            Self::Ecdsa(Ecdsa { hash, .. }) | Self::RsaPkcs1(hash) | Self::RsaPss { hash, .. } => Some(hash),
            Self::Ed25519 | Self::Mac(_) | Self::Raw { .. } => None,
        }
    }
}

impl Mode {
    /// Bytes of IV in front of a ciphertext.
    pub(super) const fn front(&self) -> usize {
        match self {
            Self::Gcm { front } | Self::Cbc { front, .. } | Self::Ctr { front } => *front,
            Self::Ecb { .. } | Self::Oaep { .. } | Self::RsaPkcs1 | Self::Raw { .. } => 0,
        }
    }

    /// Of encryption and of decryption.
    const fn kinds(&self) -> (OperationKind, OperationKind) {
        use OperationKind as K;
        match self {
            Self::Gcm { .. } => (K::EncryptAesGcm, K::DecryptAesGcm),
            Self::Ecb { block: DES_BLOCK_LEN } => (K::EncryptTripleDesEcb, K::DecryptTripleDesEcb),
            Self::Ecb { .. } => (K::EncryptAesEcb, K::DecryptAesEcb),
            Self::Cbc { block: DES_BLOCK_LEN, .. } => (K::EncryptTripleDesCbc, K::DecryptTripleDesCbc),
            Self::Cbc { .. } => (K::EncryptAesCbc, K::DecryptAesCbc),
            Self::Ctr { .. } => (K::EncryptAesCtr, K::DecryptAesCtr),
            Self::Oaep { .. } => (K::EncryptRsaOaep, K::DecryptRsaOaep),
            Self::RsaPkcs1 => (K::EncryptRsaPkcs1, K::DecryptRsaPkcs1),
            Self::Raw { .. } => (K::EncryptRaw, K::DecryptRaw),
        }
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

/// Whether the token is given what the host has hashed.
#[inline]
const fn takes_digest(mechanism: &Mechanism) -> bool {
    matches!(mechanism, Mechanism::Ecdsa | Mechanism::RsaPkcs1 | Mechanism::RsaPss { .. })
}

/// Whether the padding of a padded message is the host's work.
#[inline]
pub(super) const fn host_pads(mechanism: &Mechanism) -> bool {
    matches!(mechanism, Mechanism::AesCbc(_) | Mechanism::TripleDesCbc(_))
}

fn scheme_parts(algorithm: SignAlgorithm) -> (Scheme, Mechanism) {
    match algorithm {
        SignAlgorithm::Ecdsa(ecdsa) => (Scheme::Ecdsa(ecdsa), Mechanism::Ecdsa),
        SignAlgorithm::Ed25519 => (Scheme::Ed25519, Mechanism::Ed25519),
        SignAlgorithm::RsaPkcs1(RsaPkcs1 { hash }) => (Scheme::RsaPkcs1(hash), Mechanism::RsaPkcs1),
        SignAlgorithm::RsaPss(RsaPss { hash, salt_len }) => {
            (Scheme::RsaPss { hash, salt_len }, Mechanism::RsaPss { hash, salt_len: salt_len.into() })
        }
        SignAlgorithm::Hmac(Hmac { hash }) => (Scheme::Mac(Mac::Hmac(hash)), Mechanism::Hmac(hash)),
        SignAlgorithm::Cmac(Cmac::Aes) => (Scheme::Mac(Mac::AesCmac), Mechanism::AesCmac),
        SignAlgorithm::Cmac(Cmac::TripleDes) => (Scheme::Mac(Mac::TripleDesCmac), Mechanism::TripleDesCmac),
        SignAlgorithm::RetailMac(RetailMac { first, padding }) => {
            let FirstKey { handles, tokens, engine } = first;
            (Scheme::Mac(Mac::Retail(padding)), Mechanism::RetailMac { first: handles, tokens, engine })
        }
        SignAlgorithm::Raw(raw) => (
            Scheme::Raw { output_max: raw.output_max },
            Mechanism::Raw { number: raw.number, parameter: raw.parameter },
        ),
    }
}

fn cipher_parts(cipher: Cipher) -> (Mode, Mechanism) {
    match cipher {
        Cipher::AesGcm(gcm) => {
            let front = gcm.front_len();
            let AesGcm { iv, aad } = gcm;
            (Mode::Gcm { front }, Mechanism::AesGcm { iv, aad })
        }
        Cipher::AesEcb => (Mode::Ecb { block: AES_BLOCK_LEN }, Mechanism::AesEcb),
        Cipher::TripleDesEcb => (Mode::Ecb { block: DES_BLOCK_LEN }, Mechanism::TripleDesEcb),
        Cipher::AesCbc(cbc) => {
            let front = cbc.front_len();
            let AesCbc { iv, padded } = cbc;
            (Mode::Cbc { block: AES_BLOCK_LEN, front, padded }, Mechanism::AesCbc(iv))
        }
        Cipher::TripleDesCbc(cbc) => {
            let front = cbc.front_len();
            let TripleDesCbc { iv, padded } = cbc;
            (Mode::Cbc { block: DES_BLOCK_LEN, front, padded }, Mechanism::TripleDesCbc(iv))
        }
        Cipher::AesCtr(ctr) => {
            let front = ctr.front_len();
            let AesCtr { iv, counter_bits } = ctr;
            (Mode::Ctr { front }, Mechanism::AesCtr { iv, counter_bits: counter_bits.into() })
        }
        Cipher::RsaOaep(RsaOaep { hash, label }) => {
            (Mode::Oaep { hash, label: label.clone() }, Mechanism::RsaOaep { hash, label })
        }
        Cipher::RsaPkcs1 => (Mode::RsaPkcs1, Mechanism::RsaRaw),
        Cipher::Raw(raw) => (
            Mode::Raw { output_max: raw.output_max },
            Mechanism::Raw { number: raw.number, parameter: raw.parameter },
        ),
    }
}

#[cold]
fn implausible(written: usize, expected: usize) -> Error {
    Error::new(ErrorKind::Device, Retry::Now, Outcome::Done)
        .because(format!("the module wrote {written} bytes where the algorithm yields {expected}"))
}

#[cfg(test)]
mod tests;
