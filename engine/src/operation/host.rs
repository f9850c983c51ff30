//! What the host does alone, because public keys need no token: verification, and encryption with RSA.

use getrandom::SysRng;
use ring::signature::{self as verifier, RsaParameters, UnparsedPublicKey, VerificationAlgorithm};
use rsa::{Oaep, Pkcs1v15Encrypt};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::algorithm::Ecdsa;
use super::ask::{Ask, Form, Mode, Scheme, What};
use super::encode::{ecdsa_der_len_max, ecdsa_to_der, hashed};
use super::output::Verdict;
use crate::error::{Error, Result};
use crate::token::facts::{Curve, KeyFacts, PublicKey};
use crate::token::software::{self, rsa_key};
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
                _ => {
                    let form_of = if ecdsa.der { software::Form::Der } else { software::Form::Halves };
                    let digest = digest(ecdsa.hash, form, input);
                    software::is_ecdsa(*curve, point, &digest, form_of, signature)
                }
            }
        }
        (Scheme::RsaPkcs1(hash), PublicKey::Rsa { modulus, exponent }) => match form {
            Form::Message => Ok(verify_rsa(pkcs1_parameters(hash), modulus, exponent, input, signature)),
            Form::Digest => software::is_pkcs1(hash, modulus, exponent, input, signature),
        },
        (Scheme::RsaPss { hash, salt_len }, PublicKey::Rsa { modulus, exponent }) => {
            if form == Form::Message && usize::from(salt_len) == hash.len() {
                return Ok(verify_rsa(pss_parameters(hash), modulus, exponent, input, signature));
            }
            let digest = digest(hash, form, input);
            software::is_pss(hash, salt_len.into(), modulus, exponent, &digest, signature)
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

fn verify_rsa(parameters: &RsaParameters, n: &[u8], e: &[u8], input: &[u8], signature: &[u8]) -> bool {
    verifier::RsaPublicKeyComponents { n, e }.verify(parameters, input, signature).is_ok()
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

#[cold]
fn not_for_the_host() -> Error {
    Error::internal("a request reached the host with another key or algorithm")
}

#[cfg(test)]
mod tests;
