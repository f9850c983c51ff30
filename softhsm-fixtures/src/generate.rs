//! Fresh pairs, made by SoftHSM2: for tests that need keys which differ.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType};
use cryptoki::session::Session;

use crate::error::Error;
use crate::keys::{guarded, named, TestKey, P256_OID, P384_OID};

/// What kind of pair to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PairKind {
    /// RSA with a modulus of 2048 bits and exponent 65 537: 0.1 to 0.5 s.
    Rsa2048,
    /// On P-256.
    P256,
    /// On P-384.
    P384,
}

/// Generates a pair and returns its public key as SubjectPublicKeyInfo in DER.
pub(crate) fn generate(session: &Session, label: &str, kind: PairKind) -> Result<Vec<u8>, Error> {
    let (mechanism, own, read, pattern) = match kind {
        PairKind::Rsa2048 => (
            Mechanism::RsaPkcsKeyPairGen,
            vec![Attribute::ModulusBits(2048.into()), Attribute::PublicExponent(vec![1, 0, 1])],
            AttributeType::Modulus,
            TestKey::Rsa2048,
        ),
        PairKind::P256 => (Mechanism::EccKeyPairGen, curve(P256_OID), AttributeType::EcPoint, TestKey::P256),
        PairKind::P384 => (Mechanism::EccKeyPairGen, curve(P384_OID), AttributeType::EcPoint, TestKey::P384),
    };
    let mut public = named(label).to_vec();
    public.push(Attribute::Verify(true));
    public.extend(own);
    let mut private = guarded(label);
    private.push(Attribute::Sign(true));
    let (public, _) = session.generate_key_pair(&mechanism, &public, &private)?;
    let values = session.get_attributes(public, &[read])?;
    let value = match values.as_slice() {
        [Attribute::Modulus(modulus)] => modulus.clone(),
        // The point without the OCTET STRING around it.
        [Attribute::EcPoint(point)] if point.len() > 2 => point[2..].to_vec(),
        _ => return Err(Error::Other("SoftHSM2 shows no public key".into())),
    };
    filled(pattern, &value)
}

fn curve(oid: &[u8]) -> Vec<Attribute> {
    vec![Attribute::EcParams(oid.to_vec())]
}

/// The encoding of the fixed key of the same kind with another value: encodings of one kind of key are of one
/// length, and differ in the modulus or point only.
fn filled(pattern: TestKey, value: &[u8]) -> Result<Vec<u8>, Error> {
    // After an RSA modulus comes the exponent, an INTEGER of three bytes.
    let after = if pattern == TestKey::Rsa2048 { 5 } else { 0 };
    let mut der = pattern.public_key_der().unwrap_or_default().to_vec();
    let place = der.len().checked_sub(after + value.len()).map(|start| start..start + value.len());
    match place.and_then(|place| der.get_mut(place)) {
        Some(place) if !value.is_empty() => place.copy_from_slice(value),
        _ => return Err(Error::Other("a public key of an unexpected length".into())),
    }
    Ok(der)
}
