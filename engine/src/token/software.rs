//! Signatures checked by software, with the public key: for requests that verify, and for outputs of tokens.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::digest;
use rsa::hazmat::rsa_encrypt;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, Pkcs1v15Sign, Pss};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::token::facts::{Curve, PublicKey};
use crate::token::task::{Hash, Mechanism};

/// Whether a signature that a token has made by a mechanism, of what it was given, is one by this key. None if the
/// mechanism makes no signatures, or not with such a key, or the key is none.
pub(crate) fn is_signature(
    mechanism: &Mechanism,
    public: &PublicKey,
    input: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let of = |hash| digest::digest(digest_algorithm(hash), input);
    let valid = match (mechanism, public) {
        (Mechanism::Ecdsa, PublicKey::Ec { curve, point }) => {
            is_ecdsa(*curve, point, input, Form::Halves, signature)
        }
        (Mechanism::EcdsaHashing(hash), PublicKey::Ec { curve, point }) => {
            is_ecdsa(*curve, point, of(*hash).as_ref(), Form::Halves, signature)
        }
        (Mechanism::Ed25519, PublicKey::Ed25519(point)) => {
            let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, point);
            Ok(key.verify(input, signature).is_ok())
        }
        // The input is a DigestInfo, whole.
        (Mechanism::RsaPkcs1, PublicKey::Rsa { modulus, exponent }) => rsa_key(modulus, exponent)
            .map(|key| key.verify(Pkcs1v15Sign::new_unprefixed(), input, signature).is_ok()),
        (Mechanism::RsaPkcs1Hashing(hash), PublicKey::Rsa { modulus, exponent }) => {
            is_pkcs1(*hash, modulus, exponent, of(*hash).as_ref(), signature)
        }
        (Mechanism::RsaPss { hash, salt_len }, PublicKey::Rsa { modulus, exponent }) => {
            is_pss(*hash, *salt_len as usize, modulus, exponent, input, signature)
        }
        (Mechanism::RsaPssHashing { hash, salt_len }, PublicKey::Rsa { modulus, exponent }) => {
            is_pss(*hash, *salt_len as usize, modulus, exponent, of(*hash).as_ref(), signature)
        }
        _ => return None,
    };
    valid.ok()
}

/// Whether the bare function of RSA makes this of that. None if nothing shows it: the key is none, or the input is no
/// number below the modulus, which a token may refuse or reduce.
///
/// In a time that depends on neither (`rsa` 0.10 raises in constant time but for the exponent): what was deciphered may
/// hold a padding that nobody must learn of.
pub(crate) fn is_bare_rsa(public: &PublicKey, input: &[u8], deciphered: &[u8]) -> Option<bool> {
    let PublicKey::Rsa { modulus, exponent } = public else { return None };
    let key = rsa_key(modulus, exponent).ok()?;
    let bits = key.n().bits_precision();
    let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, bits).ok();
    let (given, made) = (number(input)?, Zeroizing::new(number(deciphered)?));
    if given >= *key.n().as_ref() {
        return None;
    }
    let raised = rsa_encrypt(&key, &made).ok()?;
    Some((*made < *key.n().as_ref()) & (raised == given))
}

/// How the two halves of a signature by ECDSA are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One after the other, each as long as the field.
    Halves,
    Der,
}

/// Verifies the signature of a digest on one curve: the three crates have the same names for different types.
macro_rules! verify_on_curve {
    ($curve:ident, $digest:expr, $point:expr, $form:expr, $signature:expr) => {{
        let key = $curve::ecdsa::VerifyingKey::from_sec1_bytes($point).map_err(|_| not_a_key())?;
        let signature = match $form {
            Form::Der => $curve::ecdsa::Signature::from_der($signature),
            Form::Halves => $curve::ecdsa::Signature::from_slice($signature),
        };
        signature.is_ok_and(|signature| key.verify_prehash($digest, &signature).is_ok())
    }};
}

/// Of a digest, whole or only its bytes that count.
pub(crate) fn is_ecdsa(
    curve: Curve,
    point: &[u8],
    digest: &[u8],
    form: Form,
    signature: &[u8],
) -> Result<bool> {
    let field_len = curve.field_len();
    // FIPS 186-5, 6.4.2, step 2: of a digest longer than the order the leftmost bits count.
    let digest = &digest[..digest.len().min(field_len)];
    // As an integer (step 3), which zeros in front do not change: the verifiers refuse digests of less than half a
    // field, as SHA-256 is for P-521.
    let mut whole = [0; Curve::P521.field_len()];
    whole[field_len - digest.len()..field_len].copy_from_slice(digest);
    let digest = &whole[..field_len];
    Ok(match curve {
        Curve::P256 => verify_on_curve!(p256, digest, point, form, signature),
        Curve::P384 => verify_on_curve!(p384, digest, point, form, signature),
        Curve::P521 => verify_on_curve!(p521, digest, point, form, signature),
    })
}

pub(crate) fn is_pkcs1(hash: Hash, n: &[u8], e: &[u8], digest: &[u8], signature: &[u8]) -> Result<bool> {
    let padding = match hash {
        // No algorithm of this crate signs with SHA-1.
        Hash::Sha1 | Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    };
    Ok(rsa_key(n, e)?.verify(padding, digest, signature).is_ok())
}

pub(crate) fn is_pss(
    hash: Hash,
    salt_len: usize,
    n: &[u8],
    e: &[u8],
    digest: &[u8],
    signature: &[u8],
) -> Result<bool> {
    let key = rsa_key(n, e)?;
    let verified = match hash {
        Hash::Sha1 | Hash::Sha256 => key.verify(Pss::<Sha256>::new_with_salt(salt_len), digest, signature),
        Hash::Sha384 => key.verify(Pss::<Sha384>::new_with_salt(salt_len), digest, signature),
        Hash::Sha512 => key.verify(Pss::<Sha512>::new_with_salt(salt_len), digest, signature),
    };
    Ok(verified.is_ok())
}

/// Moduli that the host computes with, in bits. Shorter ones are broken; longer ones cost time without gain.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 1024..=8192;

pub(crate) fn rsa_key(n: &[u8], e: &[u8]) -> Result<rsa::PublicKey> {
    rsa::PublicKey::new_with_size_limits(
        BoxedUint::from_be_slice_vartime(n),
        BoxedUint::from_be_slice_vartime(e),
        MODULUS_BITS,
    )
    .map_err(|_| not_a_key())
}

pub(crate) fn digest_algorithm(hash: Hash) -> &'static digest::Algorithm {
    match hash {
        Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    }
}

fn not_a_key() -> Error {
    Error::new(ErrorKind::Device, Retry::Never, Outcome::NotDone)
        .because("the public key that the token shows is none")
}
