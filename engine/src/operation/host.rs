//! What the host does alone, because public keys need no token: verification, and encryption with RSA.

use getrandom::SysRng;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::signature::{self as verifier, RsaParameters, UnparsedPublicKey, VerificationAlgorithm};
use rsa::{BoxedUint, Oaep, Pkcs1v15Encrypt, Pkcs1v15Sign, Pss};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::algorithm::Ecdsa;
use super::ask::{Ask, Form, Mode, Scheme, What};
use super::encode::{ecdsa_der_len_max, ecdsa_to_der, hashed};
use super::output::Verdict;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::token::facts::{Curve, KeyFacts, PublicKey};
use crate::token::task::Hash;

impl Ask {
    /// Carries the request out with the public key that the facts hold, for a request that [`Ask::check`] has
    /// accepted and whose [`Ask::call`] is `None`: a ciphertext, or one byte that says whether a signature is valid.
    /// A malformed signature is not, and no error.
    ///
    /// # Errors
    /// Internal, if this is no request for the host or the facts hold no public key of its type; `Device` if the
    /// public key is none.
    pub(crate) fn on_host(&self, facts: &KeyFacts, input: &[u8]) -> Result<Vec<u8>> {
        match (&self.what, &facts.public) {
            (What::Verify { scheme, form, signature }, Some(public)) => {
                let valid = verify(*scheme, *form, public, input, signature)?;
                Ok(vec![u8::from(Verdict::from_valid(valid).is_valid())])
            }
            (What::Encrypt(mode), Some(PublicKey::Rsa { modulus, exponent })) => {
                encrypt(mode, modulus, exponent, input)
            }
            _ => Err(not_for_the_host()),
        }
    }
}

/// Verifies with *ring* what that has, and the rest, which is rare, with slower software.
fn verify(scheme: Scheme, form: Form, public: &PublicKey, input: &[u8], signature: &[u8]) -> Result<bool> {
    match (scheme, public) {
        (Scheme::Ed25519, PublicKey::Ed25519(point)) => {
            Ok(UnparsedPublicKey::new(&verifier::ED25519, point).verify(input, signature).is_ok())
        }
        (Scheme::Ecdsa(ecdsa), PublicKey::Ec { curve, point }) if ecdsa.curve == *curve => {
            match ecdsa_verifier(ecdsa) {
                Some(verifier) if form == Form::Message => {
                    verify_ecdsa(verifier, ecdsa, point, input, signature)
                }
                _ => verify_ecdsa_digest(ecdsa, point, &digest(ecdsa.hash, form, input), signature),
            }
        }
        (Scheme::RsaPkcs1(hash), PublicKey::Rsa { modulus, exponent }) => match form {
            Form::Message => Ok(verify_rsa(pkcs1_parameters(hash), modulus, exponent, input, signature)),
            Form::Digest => verify_pkcs1_digest(hash, modulus, exponent, input, signature),
        },
        (Scheme::RsaPss { hash, salt_len }, PublicKey::Rsa { modulus, exponent }) => {
            if form == Form::Message && usize::from(salt_len) == hash.len() {
                return Ok(verify_rsa(pss_parameters(hash), modulus, exponent, input, signature));
            }
            let digest = digest(hash, form, input);
            verify_pss_digest(hash, salt_len, modulus, exponent, &digest, signature)
        }
        _ => Err(not_for_the_host()),
    }
}

fn digest(hash: Hash, form: Form, input: &[u8]) -> Vec<u8> {
    match form {
        Form::Message => hashed(hash, input).as_ref().to_vec(),
        Form::Digest => input.to_vec(),
    }
}

/// Verifies in the DER form, which the verifier has for every pair of curve and hash; two halves are
/// rewritten first.
fn verify_ecdsa(
    verifier: &'static dyn VerificationAlgorithm,
    ecdsa: Ecdsa,
    point: &[u8],
    input: &[u8],
    signature: &[u8],
) -> Result<bool> {
    let key = UnparsedPublicKey::new(verifier, point);
    if ecdsa.der {
        return Ok(key.verify(input, signature).is_ok());
    }
    if signature.len() != 2 * ecdsa.curve.field_len() {
        return Ok(false);
    }
    let mut der = [0; ecdsa_der_len_max(Curve::P384)];
    der[..signature.len()].copy_from_slice(signature);
    let len = ecdsa_to_der(ecdsa.curve, &mut der)?;
    Ok(key.verify(input, &der[..len]).is_ok())
}

fn ecdsa_verifier(ecdsa: Ecdsa) -> Option<&'static dyn VerificationAlgorithm> {
    match (ecdsa.curve, ecdsa.hash) {
        (Curve::P256, Hash::Sha256) => Some(&verifier::ECDSA_P256_SHA256_ASN1),
        (Curve::P256, Hash::Sha384) => Some(&verifier::ECDSA_P256_SHA384_ASN1),
        (Curve::P384, Hash::Sha256) => Some(&verifier::ECDSA_P384_SHA256_ASN1),
        (Curve::P384, Hash::Sha384) => Some(&verifier::ECDSA_P384_SHA384_ASN1),
        _ => None,
    }
}

/// Verifies the signature of a digest on one curve: the three crates have the same names for different types.
macro_rules! verify_on_curve {
    ($curve:ident, $digest:expr, $point:expr, $der:expr, $signature:expr) => {{
        let key = $curve::ecdsa::VerifyingKey::from_sec1_bytes($point).map_err(|_| not_a_key())?;
        let signature = if $der {
            $curve::ecdsa::Signature::from_der($signature)
        } else {
            $curve::ecdsa::Signature::from_slice($signature)
        };
        signature.is_ok_and(|signature| key.verify_prehash($digest, &signature).is_ok())
    }};
}

fn verify_ecdsa_digest(ecdsa: Ecdsa, point: &[u8], digest: &[u8], signature: &[u8]) -> Result<bool> {
    let digest = &digest[..digest.len().min(ecdsa.digest_len())];
    // As an integer (FIPS 186-5, 6.4.2, step 3), which zeros in front do not change: the verifiers refuse digests
    // of less than half a field, as SHA-256 is for P-521.
    let mut whole = [0; Curve::P521.field_len()];
    let field_len = ecdsa.curve.field_len();
    whole[field_len - digest.len()..field_len].copy_from_slice(digest);
    let digest = &whole[..field_len];
    Ok(match ecdsa.curve {
        Curve::P256 => verify_on_curve!(p256, digest, point, ecdsa.der, signature),
        Curve::P384 => verify_on_curve!(p384, digest, point, ecdsa.der, signature),
        Curve::P521 => verify_on_curve!(p521, digest, point, ecdsa.der, signature),
    })
}

fn verify_rsa(parameters: &RsaParameters, n: &[u8], e: &[u8], input: &[u8], signature: &[u8]) -> bool {
    verifier::RsaPublicKeyComponents { n, e }.verify(parameters, input, signature).is_ok()
}

fn verify_pkcs1_digest(hash: Hash, n: &[u8], e: &[u8], digest: &[u8], signature: &[u8]) -> Result<bool> {
    let padding = match hash {
        Hash::Sha1 | Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    };
    Ok(rsa_key(n, e)?.verify(padding, digest, signature).is_ok())
}

fn verify_pss_digest(
    hash: Hash,
    salt_len: u16,
    n: &[u8],
    e: &[u8],
    digest: &[u8],
    signature: &[u8],
) -> Result<bool> {
    let (key, salt_len) = (rsa_key(n, e)?, usize::from(salt_len));
    let verified = match hash {
        Hash::Sha1 | Hash::Sha256 => key.verify(Pss::<Sha256>::new_with_salt(salt_len), digest, signature),
        Hash::Sha384 => key.verify(Pss::<Sha384>::new_with_salt(salt_len), digest, signature),
        Hash::Sha512 => key.verify(Pss::<Sha512>::new_with_salt(salt_len), digest, signature),
    };
    Ok(verified.is_ok())
}

/// No algorithm of this crate signs with SHA-1.
const fn pkcs1_parameters(hash: Hash) -> &'static RsaParameters {
    match hash {
        Hash::Sha1 | Hash::Sha256 => &verifier::RSA_PKCS1_2048_8192_SHA256,
        Hash::Sha384 => &verifier::RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => &verifier::RSA_PKCS1_2048_8192_SHA512,
    }
}

const fn pss_parameters(hash: Hash) -> &'static RsaParameters {
    match hash {
        Hash::Sha1 | Hash::Sha256 => &verifier::RSA_PSS_2048_8192_SHA256,
        Hash::Sha384 => &verifier::RSA_PSS_2048_8192_SHA384,
        Hash::Sha512 => &verifier::RSA_PSS_2048_8192_SHA512,
    }
}

fn encrypt(mode: &Mode, n: &[u8], e: &[u8], input: &[u8]) -> Result<Vec<u8>> {
    let key = rsa_key(n, e)?;
    let encrypted = match mode {
        Mode::Oaep { hash, label } => {
            let label = label.as_deref().unwrap_or_default();
            match hash {
                Hash::Sha1 => key.encrypt(&mut SysRng, Oaep::<Sha1>::new_with_label(label), input),
                Hash::Sha256 => key.encrypt(&mut SysRng, Oaep::<Sha256>::new_with_label(label), input),
                Hash::Sha384 => key.encrypt(&mut SysRng, Oaep::<Sha384>::new_with_label(label), input),
                Hash::Sha512 => key.encrypt(&mut SysRng, Oaep::<Sha512>::new_with_label(label), input),
            }
        }
        Mode::RsaPkcs1 => key.encrypt(&mut SysRng, Pkcs1v15Encrypt, input),
        _ => return Err(not_for_the_host()),
    };
    encrypted.map_err(|error| Error::internal("RSA encryption on the host").because(error.to_string()))
}

/// Moduli that the host computes with, in bits. Shorter ones are broken; longer ones cost time without gain.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 1024..=8192;

fn rsa_key(n: &[u8], e: &[u8]) -> Result<rsa::PublicKey> {
    rsa::PublicKey::new_with_size_limits(
        BoxedUint::from_be_slice_vartime(n),
        BoxedUint::from_be_slice_vartime(e),
        MODULUS_BITS,
    )
    .map_err(|_| not_a_key())
}

fn not_a_key() -> Error {
    Error::new(ErrorKind::Device, Retry::Never, Outcome::NotDone)
        .because("the public key that the token shows is none")
}

#[cold]
fn not_for_the_host() -> Error {
    Error::internal("a request reached the host with another key or algorithm")
}

#[cfg(test)]
mod tests;
