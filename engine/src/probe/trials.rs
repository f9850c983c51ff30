//! What is tried: a row for each mechanism that the engine uses, and each way in which it does.

use crate::describe::kind_name;
use crate::keys::generate::KeySpec;
use crate::token::facts::{Curve, KeyKind};
use crate::token::measured::Failing;
use crate::token::task::{Hash, Iv, Mechanism, Usage};

use Hash::{Sha1, Sha256, Sha384, Sha512};
use Mechanism as M;
use TrialKey as K;
use Usage::{Decrypt, Encrypt, Sign};

/// One operation that is tried.
pub(super) struct Trial {
    /// What a profile calls it.
    pub(super) operation: &'static str,
    pub(super) key: TrialKey,
    pub(super) usage: Usage,
    mechanism: fn() -> Mechanism,
}

/// A key that is made for trials. Each is for one purpose: many devices allow no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrialKey {
    Rsa,
    RsaDecryption,
    Ec(Curve),
    Ed25519,
    Hmac,
    AesMac,
    TripleDesMac,
    Aes,
    TripleDes,
}

const fn row(operation: &'static str, key: TrialKey, usage: Usage, mechanism: fn() -> Mechanism) -> Trial {
    Trial { operation, key, usage, mechanism }
}

/// Every encryption with its decryption behind it.
#[rustfmt::skip]
pub(super) static TRIALS: [Trial; 43] = [
    row("sign-ecdsa-p256", K::Ec(Curve::P256), Sign, || M::Ecdsa),
    row("sign-ecdsa-p384", K::Ec(Curve::P384), Sign, || M::Ecdsa),
    row("sign-ecdsa-p521", K::Ec(Curve::P521), Sign, || M::Ecdsa),
    row("sign-ecdsa-sha256", K::Ec(Curve::P256), Sign, || M::EcdsaHashing(Sha256)),
    row("sign-ecdsa-sha384", K::Ec(Curve::P384), Sign, || M::EcdsaHashing(Sha384)),
    row("sign-ecdsa-sha512", K::Ec(Curve::P521), Sign, || M::EcdsaHashing(Sha512)),
    row("sign-ed25519", K::Ed25519, Sign, || M::Ed25519),
    row("sign-rsa-pkcs1", K::Rsa, Sign, || M::RsaPkcs1),
    row("sign-rsa-pkcs1-sha256", K::Rsa, Sign, || M::RsaPkcs1Hashing(Sha256)),
    row("sign-rsa-pkcs1-sha384", K::Rsa, Sign, || M::RsaPkcs1Hashing(Sha384)),
    row("sign-rsa-pkcs1-sha512", K::Rsa, Sign, || M::RsaPkcs1Hashing(Sha512)),
    row("sign-rsa-pss", K::Rsa, Sign, || M::RsaPss { hash: Sha256, salt_len: 32 }),
    row("sign-rsa-pss-sha256", K::Rsa, Sign, || M::RsaPssHashing { hash: Sha256, salt_len: 32 }),
    row("sign-rsa-pss-sha384", K::Rsa, Sign, || M::RsaPssHashing { hash: Sha384, salt_len: 48 }),
    row("sign-rsa-pss-sha512", K::Rsa, Sign, || M::RsaPssHashing { hash: Sha512, salt_len: 64 }),
    row("sign-hmac-sha256", K::Hmac, Sign, || M::Hmac(Sha256)),
    row("sign-hmac-sha384", K::Hmac, Sign, || M::Hmac(Sha384)),
    row("sign-hmac-sha512", K::Hmac, Sign, || M::Hmac(Sha512)),
    row("sign-aes-cmac", K::AesMac, Sign, || M::AesCmac),
    row("sign-3des-cmac", K::TripleDesMac, Sign, || M::TripleDesCmac),
    row("encrypt-aes-gcm", K::Aes, Encrypt, || M::AesGcm { iv: Iv::Drawn, aad: None }),
    row("decrypt-aes-gcm", K::Aes, Decrypt, || M::AesGcm { iv: Iv::Drawn, aad: None }),
    row("encrypt-aes-ecb", K::Aes, Encrypt, || M::AesEcb),
    row("decrypt-aes-ecb", K::Aes, Decrypt, || M::AesEcb),
    row("encrypt-aes-cbc", K::Aes, Encrypt, || M::AesCbc(Iv::Drawn)),
    row("decrypt-aes-cbc", K::Aes, Decrypt, || M::AesCbc(Iv::Drawn)),
    row("encrypt-aes-cbc-pad", K::Aes, Encrypt, || M::AesCbcPad(Iv::Drawn)),
    row("decrypt-aes-cbc-pad", K::Aes, Decrypt, || M::AesCbcPad(Iv::Drawn)),
    row("encrypt-aes-ctr", K::Aes, Encrypt, || M::AesCtr { iv: Iv::Drawn, counter_bits: 32 }),
    row("decrypt-aes-ctr", K::Aes, Decrypt, || M::AesCtr { iv: Iv::Drawn, counter_bits: 32 }),
    row("encrypt-aes-ctr-128", K::Aes, Encrypt, || M::AesCtr { iv: Iv::Drawn, counter_bits: 128 }),
    row("decrypt-aes-ctr-128", K::Aes, Decrypt, || M::AesCtr { iv: Iv::Drawn, counter_bits: 128 }),
    row("encrypt-3des-ecb", K::TripleDes, Encrypt, || M::TripleDesEcb),
    row("decrypt-3des-ecb", K::TripleDes, Decrypt, || M::TripleDesEcb),
    row("encrypt-3des-cbc", K::TripleDes, Encrypt, || M::TripleDesCbc(Iv::Drawn)),
    row("decrypt-3des-cbc", K::TripleDes, Decrypt, || M::TripleDesCbc(Iv::Drawn)),
    row("encrypt-3des-cbc-pad", K::TripleDes, Encrypt, || M::TripleDesCbcPad(Iv::Drawn)),
    row("decrypt-3des-cbc-pad", K::TripleDes, Decrypt, || M::TripleDesCbcPad(Iv::Drawn)),
    row("decrypt-rsa-oaep-sha1", K::RsaDecryption, Decrypt, || M::RsaOaep { hash: Sha1, label: None }),
    row("decrypt-rsa-oaep-sha256", K::RsaDecryption, Decrypt, || M::RsaOaep { hash: Sha256, label: None }),
    row("decrypt-rsa-oaep-label", K::RsaDecryption, Decrypt, || M::RsaOaep { hash: Sha1, label: Some(LABEL.into()) }),
    row("decrypt-rsa-x509", K::RsaDecryption, Decrypt, || M::RsaRaw),
    row("decrypt-rsa-pkcs1", K::RsaDecryption, Decrypt, || M::RsaPkcs1),
];

/// A label of OAEP.
const LABEL: &[u8] = b"hsmux probe";

/// The trial that profiles call so.
pub(super) fn named(operation: &str) -> Option<&'static Trial> {
    TRIALS.iter().find(|trial| trial.operation == operation)
}

impl Trial {
    pub(super) fn mechanism(&self) -> Mechanism {
        (self.mechanism)()
    }

    /// What is not to be used if it fails: of ECDSA over a digest, curves are tried one by one; all else holds whatever the key.
    pub(super) fn as_failing(&self) -> Option<Failing> {
        let mechanism = self.mechanism();
        let curve = match (self.key, &mechanism) {
            (TrialKey::Ec(curve), Mechanism::Ecdsa) => Some(curve),
            _ => None,
        };
        Some(Failing { index: mechanism.index()?, usage: self.usage, curve })
    }
}

impl TrialKey {
    pub(super) const fn kind(self) -> KeyKind {
        match self {
            Self::Rsa | Self::RsaDecryption => KeyKind::Rsa { bits: 2048 },
            Self::Ec(curve) => KeyKind::Ec(curve),
            Self::Ed25519 => KeyKind::Ed25519,
            // SoftHSM2 2.6.1 takes none shorter than the hash, and one key is for all three.
            Self::Hmac => KeyKind::Generic { len: 64 },
            Self::AesMac | Self::Aes => KeyKind::Aes { len: 32 },
            Self::TripleDesMac | Self::TripleDes => KeyKind::TripleDes { len: 24 },
        }
    }

    pub(super) fn name(self) -> String {
        kind_name(self.kind())
    }

    /// What it is made by, if the engine makes such keys.
    pub(super) const fn spec(self) -> Option<KeySpec> {
        Some(match self {
            Self::Rsa => KeySpec::Rsa(2048),
            Self::RsaDecryption => KeySpec::RsaDecryption(2048),
            Self::Ec(curve) => KeySpec::Ec(curve),
            Self::Ed25519 => KeySpec::Ed25519,
            Self::Hmac => KeySpec::Hmac(64),
            Self::AesMac => KeySpec::AesMac(32),
            Self::Aes => KeySpec::Aes(32),
            Self::TripleDes => KeySpec::TripleDes,
            Self::TripleDesMac => return None,
        })
    }

    /// `CKA_ID`: who finds such a key on a token that does not destroy it knows where it came from.
    pub(super) fn id(self) -> Vec<u8> {
        let name = match self {
            Self::Rsa => "rsa",
            Self::RsaDecryption => "rsa-decryption",
            Self::Ec(Curve::P256) => "p256",
            Self::Ec(Curve::P384) => "p384",
            Self::Ec(Curve::P521) => "p521",
            Self::Ed25519 => "ed25519",
            Self::Hmac => "hmac",
            Self::AesMac => "aes-mac",
            Self::TripleDesMac => "3des-mac",
            Self::Aes => "aes",
            Self::TripleDes => "3des",
        };
        format!("hsmux-probe-{name}").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_operation_has_a_name_of_its_own_by_which_it_is_found() {
        let names: HashSet<_> = TRIALS.iter().map(|trial| trial.operation).collect();
        assert_eq!(names.len(), TRIALS.len());
        assert!(TRIALS.iter().all(|trial| named(trial.operation).is_some()));
        assert!(named("sign-rot13").is_none());
    }

    #[test]
    fn every_mechanism_of_the_engine_is_tried_but_the_retail_mac_which_is_made_of_two_others() {
        let tried: HashSet<_> = TRIALS.iter().filter_map(|trial| trial.mechanism().index()).collect();
        let missing: Vec<_> = (0..Mechanism::COUNT).filter(|index| !tried.contains(index)).collect();
        assert_eq!(missing, [Mechanism::RETAIL_MAC]);
    }

    #[test]
    fn every_encryption_has_its_decryption_behind_it() {
        for (at, trial) in TRIALS.iter().enumerate().filter(|(_, trial)| trial.usage == Usage::Encrypt) {
            let next = &TRIALS[at + 1];
            assert_eq!(next.operation, trial.operation.replace("encrypt", "decrypt"));
            assert_eq!(next.key, trial.key);
            assert_eq!((next.mechanism(), next.usage), (trial.mechanism(), Usage::Decrypt));
        }
    }
}
