//! Verification on the host: public keys need no token.

use ring::signature::{self as verifier, RsaParameters, UnparsedPublicKey, VerificationAlgorithm};

use super::algorithm::{Ecdsa, RsaPkcs1, RsaPss, SignAlgorithm};
use super::ask::{Ask, What};
use super::encode::{ecdsa_der_len_max, ecdsa_to_der};
use super::output::Verdict;
use crate::error::{Error, Result};
use crate::token::facts::{Curve, KeyFacts, PublicKey};
use crate::token::task::Hash;

impl Ask {
    /// Verifies with the public key that the facts hold, for a request that [`Ask::check`] has accepted and
    /// whose [`Ask::call`] is `None`. A malformed signature is [`Verdict::Invalid`], not an error.
    ///
    /// # Errors
    /// Internal, if this is no request for the host or the facts hold no public key of its type.
    pub(crate) fn verify_on_host(&self, facts: &KeyFacts, input: &[u8]) -> Result<Verdict> {
        let What::Verify { algorithm, signature } = &self.what else {
            return Err(not_for_the_host());
        };
        let valid = match (*algorithm, &facts.public) {
            (SignAlgorithm::Ecdsa(ecdsa), Some(PublicKey::Ec { curve, point })) if ecdsa.curve == *curve => {
                verify_ecdsa(ecdsa, point, input, signature)?
            }
            (SignAlgorithm::RsaPkcs1(RsaPkcs1 { hash }), Some(PublicKey::Rsa { modulus, exponent })) => {
                verify_rsa(pkcs1_parameters(hash), modulus, exponent, input, signature)
            }
            (SignAlgorithm::RsaPss(RsaPss { hash }), Some(PublicKey::Rsa { modulus, exponent })) => {
                verify_rsa(pss_parameters(hash), modulus, exponent, input, signature)
            }
            _ => return Err(not_for_the_host()),
        };
        Ok(Verdict::from_valid(valid))
    }
}

/// Verifies in the DER form, which the verifier has for every pair of curve and hash; two halves are
/// rewritten first.
fn verify_ecdsa(ecdsa: Ecdsa, point: &[u8], input: &[u8], signature: &[u8]) -> Result<bool> {
    let key = UnparsedPublicKey::new(ecdsa_verifier(ecdsa)?, point);
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

fn ecdsa_verifier(ecdsa: Ecdsa) -> Result<&'static dyn VerificationAlgorithm> {
    match (ecdsa.curve, ecdsa.hash) {
        (Curve::P256, Hash::Sha256) => Ok(&verifier::ECDSA_P256_SHA256_ASN1),
        (Curve::P384, Hash::Sha256) => Ok(&verifier::ECDSA_P384_SHA256_ASN1),
        (Curve::P384, Hash::Sha384) => Ok(&verifier::ECDSA_P384_SHA384_ASN1),
        _ => Err(not_for_the_host()),
    }
}

fn verify_rsa(parameters: &RsaParameters, n: &[u8], e: &[u8], input: &[u8], signature: &[u8]) -> bool {
    verifier::RsaPublicKeyComponents { n, e }.verify(parameters, input, signature).is_ok()
}

const fn pkcs1_parameters(hash: Hash) -> &'static RsaParameters {
    match hash {
        Hash::Sha256 => &verifier::RSA_PKCS1_2048_8192_SHA256,
        Hash::Sha384 => &verifier::RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => &verifier::RSA_PKCS1_2048_8192_SHA512,
    }
}

const fn pss_parameters(hash: Hash) -> &'static RsaParameters {
    match hash {
        Hash::Sha256 => &verifier::RSA_PSS_2048_8192_SHA256,
        Hash::Sha384 => &verifier::RSA_PSS_2048_8192_SHA384,
        Hash::Sha512 => &verifier::RSA_PSS_2048_8192_SHA512,
    }
}

#[cold]
fn not_for_the_host() -> Error {
    Error::internal("a request reached the host's verifier with another key or algorithm")
}

#[cfg(test)]
mod tests;
