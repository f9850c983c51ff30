//! RSA keys: the fixed ones, and those that came from elsewhere.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock, OnceLock};

use cryptoki_sys as sys;
use rsa::BoxedUint;
use rsa::pkcs1::der::asn1::UintRef;
use rsa::pkcs1::der::{Decode, Encode};
use rsa::pkcs1::{DecodeRsaPrivateKey, RsaPrivateKeyRef};

use crate::material::{RSA_2048, RSA_4096, TestRsaKey};
use crate::object::Attributes;

/// A pair; its numbers are prepared for use when it is first used.
pub(crate) struct RsaKey {
    bits: u32,
    der: Cow<'static, [u8]>,
    parsed: OnceLock<Result<rsa::PrivateKey, sys::CK_RV>>,
}

/// The public half of a pair.
pub(crate) struct RsaPublicKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    parsed: OnceLock<Result<rsa::PublicKey, sys::CK_RV>>,
}

/// Sizes of a modulus in bytes: those that the mechanisms tell of.
const MODULUS_LEN: std::ops::RangeInclusive<usize> = 256..=512;

impl RsaKey {
    /// The pair in a PKCS#1 `RSAPrivateKey` in DER. Whether it is sound shows when it is used; a fixed one is prepared
    /// for use once for all who have it.
    pub(crate) fn from_der(der: &[u8]) -> Result<Arc<Self>, sys::CK_RV> {
        if let Some(fixed) = KEYS_2048.iter().chain(KEYS_4096.iter()).find(|fixed| *fixed.der == *der) {
            return Ok(fixed.clone());
        }
        let key = RsaPrivateKeyRef::from_der(der).map_err(|_| sys::CKR_ATTRIBUTE_VALUE_INVALID)?;
        let bits = modulus_bits(key.modulus.as_bytes())?;
        Ok(Arc::new(Self { bits, der: Cow::Owned(der.to_vec()), parsed: OnceLock::new() }))
    }

    /// The pair of these numbers.
    pub(crate) fn from_attributes(attributes: &Attributes) -> Result<Arc<Self>, sys::CK_RV> {
        let number = |kind| {
            let value = attributes.get(kind).ok_or(sys::CKR_TEMPLATE_INCOMPLETE)?;
            UintRef::new(value).map_err(|_| sys::CKR_ATTRIBUTE_VALUE_INVALID)
        };
        let key = RsaPrivateKeyRef {
            modulus: number(sys::CKA_MODULUS)?,
            public_exponent: number(sys::CKA_PUBLIC_EXPONENT)?,
            private_exponent: number(sys::CKA_PRIVATE_EXPONENT)?,
            prime1: number(sys::CKA_PRIME_1)?,
            prime2: number(sys::CKA_PRIME_2)?,
            exponent1: number(sys::CKA_EXPONENT_1)?,
            exponent2: number(sys::CKA_EXPONENT_2)?,
            coefficient: number(sys::CKA_COEFFICIENT)?,
            other_prime_infos: None,
        };
        Self::from_der(&key.to_der().map_err(|_| sys::CKR_ATTRIBUTE_VALUE_INVALID)?)
    }

    pub(crate) const fn bits(&self) -> u32 {
        self.bits
    }

    /// Length of the modulus in bytes.
    pub(crate) const fn len(&self) -> usize {
        (self.bits / 8) as usize
    }

    /// As a PKCS#1 `RSAPrivateKey`.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The key, checked and prepared for use, which takes a while the first time.
    pub(crate) fn private(&self) -> Result<&rsa::PrivateKey, sys::CK_RV> {
        let parse = || rsa::PrivateKey::from_pkcs1_der(&self.der).map_err(|_| sys::CKR_DEVICE_ERROR);
        self.parsed.get_or_init(parse).as_ref().map_err(|&code| code)
    }

    /// Its numbers, big-endian without leading zeros, read without preparing the key.
    pub(crate) fn numbers(&self) -> Vec<(sys::CK_ATTRIBUTE_TYPE, Vec<u8>)> {
        let key = RsaPrivateKeyRef::from_der(&self.der);
        debug_assert!(key.is_ok(), "it was read before, or is fixed");
        let Ok(key) = key else { return Vec::new() };
        let numbers = [
            (sys::CKA_MODULUS, key.modulus),
            (sys::CKA_PUBLIC_EXPONENT, key.public_exponent),
            (sys::CKA_PRIVATE_EXPONENT, key.private_exponent),
            (sys::CKA_PRIME_1, key.prime1),
            (sys::CKA_PRIME_2, key.prime2),
            (sys::CKA_EXPONENT_1, key.exponent1),
            (sys::CKA_EXPONENT_2, key.exponent2),
            (sys::CKA_COEFFICIENT, key.coefficient),
        ];
        numbers.map(|(kind, number)| (kind, number.as_bytes().to_vec())).into()
    }

    /// The public half.
    pub(crate) fn public(&self) -> RsaPublicKey {
        let key = RsaPrivateKeyRef::from_der(&self.der);
        let part = |part: Option<UintRef<'_>>| part.map(|part| part.as_bytes().to_vec()).unwrap_or_default();
        let key = key.ok();
        RsaPublicKey {
            modulus: part(key.as_ref().map(|key| key.modulus)),
            exponent: part(key.as_ref().map(|key| key.public_exponent)),
            parsed: OnceLock::new(),
        }
    }

    const fn fixed(bits: u32, key: TestRsaKey) -> Self {
        Self { bits, der: Cow::Borrowed(key.der), parsed: OnceLock::new() }
    }
}

impl RsaPublicKey {
    /// The key of these numbers, which may have zeros in front.
    pub(crate) fn new(modulus: &[u8], exponent: &[u8]) -> Result<Self, sys::CK_RV> {
        let [modulus, exponent] = [modulus, exponent].map(without_zeros);
        modulus_bits(modulus)?;
        let key = Self { modulus: modulus.into(), exponent: exponent.into(), parsed: OnceLock::new() };
        key.prepared().map_err(|_| sys::CKR_ATTRIBUTE_VALUE_INVALID)?;
        Ok(key)
    }

    pub(crate) fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    pub(crate) fn exponent(&self) -> &[u8] {
        &self.exponent
    }

    /// Length of the modulus in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.modulus.len()
    }

    /// The key, prepared for use.
    pub(crate) fn prepared(&self) -> Result<&rsa::PublicKey, sys::CK_RV> {
        let parse = || {
            let numbers = [&self.modulus, &self.exponent].map(|number| {
                let bits = u32::try_from(number.len() * 8).unwrap_or(u32::MAX);
                BoxedUint::from_be_slice(number, bits).map_err(|_| sys::CKR_DEVICE_ERROR)
            });
            let [modulus, exponent] = numbers;
            rsa::PublicKey::new(modulus?, exponent?).map_err(|_| sys::CKR_DEVICE_ERROR)
        };
        self.parsed.get_or_init(parse).as_ref().map_err(|&code| code)
    }
}

/// The key that `C_GenerateKeyPair` gives out as the `count`th of its size: never that of the stock.
pub(crate) fn generated_rsa(bits: u64, count: u64) -> Option<Arc<RsaKey>> {
    match bits {
        2_048 => Some(pick(&KEYS_2048[1..], count)),
        4_096 => Some(pick(&KEYS_4096[1..], count)),
        _ => None,
    }
}

/// The fixed key of 2048 bits of this number, counted on from the first after the last.
pub(super) fn rsa_2048(number: u64) -> Arc<RsaKey> {
    pick(&*KEYS_2048, number)
}

/// The same of 4096 bits.
pub(super) fn rsa_4096(number: u64) -> Arc<RsaKey> {
    pick(&*KEYS_4096, number)
}

fn pick(keys: &[Arc<RsaKey>], number: u64) -> Arc<RsaKey> {
    let index = usize::try_from(number % keys.len() as u64).unwrap_or(0);
    keys[index].clone()
}

static KEYS_2048: LazyLock<[Arc<RsaKey>; RSA_2048.len()]> =
    LazyLock::new(|| RSA_2048.map(|key| Arc::new(RsaKey::fixed(2_048, key))));

static KEYS_4096: LazyLock<[Arc<RsaKey>; RSA_4096.len()]> =
    LazyLock::new(|| RSA_4096.map(|key| Arc::new(RsaKey::fixed(4_096, key))));

/// Bits of a modulus without zeros in front: whole words, as the bare function needs them.
fn modulus_bits(modulus: &[u8]) -> Result<u32, sys::CK_RV> {
    let whole = modulus.len().is_multiple_of(8) && modulus.first().is_some_and(|first| *first >= 0x80);
    if !whole || !MODULUS_LEN.contains(&modulus.len()) {
        return Err(sys::CKR_KEY_SIZE_RANGE);
    }
    u32::try_from(modulus.len() * 8).map_err(|_| sys::CKR_KEY_SIZE_RANGE)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use rsa::traits::PublicKeyParts;

    use super::*;

    fn attributes(key: &RsaKey) -> Attributes {
        key.numbers().into_iter().collect()
    }

    #[test]
    fn every_fixed_rsa_key_is_sound_and_has_the_size_it_claims() {
        for key in KEYS_2048.iter().chain(KEYS_4096.iter()) {
            let private = key.private().unwrap();
            private.validate().unwrap();
            let public = key.public();
            assert_eq!(public.modulus(), private.n_bytes().to_vec());
            let first = public.modulus()[0] >> 7;
            assert_eq!((public.len(), first, public.exponent()), (key.len(), 1, &[1, 0, 1][..]));
            assert_eq!(public.prepared().unwrap(), private.as_public_key());
        }
    }

    #[test]
    fn generated_rsa_keys_are_not_those_of_the_stock() {
        for count in 0..9 {
            assert!(!Arc::ptr_eq(&generated_rsa(2_048, count).unwrap(), &KEYS_2048[0]));
            assert!(!Arc::ptr_eq(&generated_rsa(4_096, count).unwrap(), &KEYS_4096[0]));
        }
        assert!(generated_rsa(3_072, 0).is_none());
    }

    #[test]
    fn a_fixed_key_is_known_by_its_numbers() {
        for key in KEYS_2048.iter().chain(KEYS_4096.iter()) {
            assert!(Arc::ptr_eq(&RsaKey::from_attributes(&attributes(key)).unwrap(), key));
        }
        let mut other = attributes(&KEYS_2048[0]);
        other.set(sys::CKA_PUBLIC_EXPONENT, vec![3]);
        let other = RsaKey::from_attributes(&other).unwrap();
        assert!(other.private().is_err(), "numbers that do not belong together");
    }
}
