//! Public keys in the form that other software reads.

use der::Encode;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::asn1::IntegerPair;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::token::facts::{Curve, PublicKey};

/// The public key as a `SubjectPublicKeyInfo` in DER (RFC 5280, 4.1.2.7).
///
/// # Errors
/// [`ErrorKind::Device`] if the token's attributes are no public key, such as an RSA key without a modulus.
pub(crate) fn spki_der(public: &PublicKey) -> Result<Vec<u8>> {
    match public {
        PublicKey::Rsa { modulus, exponent } => rsa(modulus, exponent),
        PublicKey::Ec { curve, point } => ec(*curve, point),
        // RFC 8410, 3: "the parameters MUST be absent".
        PublicKey::Ed25519(point) => info(ED25519, None, point),
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>> {
    if modulus.is_empty() || exponent.is_empty() {
        return Err(malformed());
    }
    let key = IntegerPair::new(modulus, exponent).and_then(|pair| pair.to_der()).map_err(|_| malformed())?;
    // RFC 3279, 2.3.1: "The parameters field MUST have ASN.1 type NULL for this algorithm identifier."
    info(RSA_ENCRYPTION, Some(AnyRef::NULL), &key)
}

fn ec(curve: Curve, point: &[u8]) -> Result<Vec<u8>> {
    // SEC 1, 2.3.3: an uncompressed point is 04, then both coordinates in the length of the field.
    if point.len() != 1 + 2 * curve.field_len() || point.first() != Some(&4) {
        return Err(malformed());
    }
    let name = match curve {
        Curve::P256 => &SECP256R1,
        Curve::P384 => &SECP384R1,
        Curve::P521 => &SECP521R1,
    };
    info(EC_PUBLIC_KEY, Some(AnyRef::from(name)), point)
}

fn info(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<Vec<u8>> {
    let encode = || {
        SubjectPublicKeyInfoRef {
            algorithm: AlgorithmIdentifierRef { oid, parameters },
            subject_public_key: BitStringRef::from_bytes(key)?,
        }
        .to_der()
    };
    encode().map_err(|_| malformed())
}

fn malformed() -> Error {
    Error::new(ErrorKind::Device, Retry::Never, Outcome::NotDone)
        .because("the attributes of the public key are malformed")
}

/// RFC 8017, appendix C.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// RFC 5480, 2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// RFC 5480, 2.1.1.1.
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// RFC 5480, 2.1.1.1.
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// RFC 5480, 2.1.1.1.
const SECP521R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// RFC 8410, 3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

#[cfg(test)]
mod tests {
    use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
    use rsa::traits::PublicKeyParts;

    use super::super::oracle;
    use super::*;

    #[test]
    fn the_public_key_of_p256_reads_back_in_p256() {
        let key = oracle::p256();
        let der = spki_der(&oracle::p256_public()).unwrap();
        assert_eq!(p256::PublicKey::from_public_key_der(&der).unwrap(), key.verifying_key().into());
        assert_eq!(der, key.verifying_key().to_public_key_der().unwrap().as_bytes());
    }

    #[test]
    fn the_public_key_of_p384_reads_back_in_p384() {
        let key = oracle::p384();
        let der = spki_der(&oracle::p384_public()).unwrap();
        assert_eq!(der, key.verifying_key().to_public_key_der().unwrap().as_bytes());
    }

    #[test]
    fn the_public_key_of_rsa_reads_back_in_rsa() {
        let der = spki_der(&oracle::rsa_public()).unwrap();
        let back = rsa::PublicKey::from_public_key_der(&der).unwrap();
        assert_eq!((back.n(), back.e()), (oracle::rsa().n(), oracle::rsa().e()));
        assert_eq!(SubjectPublicKeyInfoRef::try_from(der.as_slice()).unwrap().algorithm.oid, RSA_ENCRYPTION);
    }

    #[test]
    fn malformed_attributes_are_a_fault_of_the_device() {
        let point = |len: usize, first: u8| {
            let mut point = vec![7; len];
            point[0] = first;
            PublicKey::Ec { curve: Curve::P256, point }
        };
        for public in [
            PublicKey::Rsa { modulus: vec![], exponent: vec![3] },
            PublicKey::Rsa { modulus: vec![5], exponent: vec![] },
            point(64, 4),
            point(97, 4),
            point(65, 2),
        ] {
            assert_eq!(spki_der(&public).unwrap_err().kind(), ErrorKind::Device, "{public:?}");
        }
    }
}
