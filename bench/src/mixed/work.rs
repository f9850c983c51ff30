//! What the callers of a mixed load ask for, and what comes.

use std::fmt;
use std::sync::Arc;

use crate::dice::Dice;

/// A kind of operation, with its form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// RSA signature, PKCS#1 v1.5 with SHA-256.
    SignRsaPkcs1,
    /// RSA signature, PSS with SHA-256.
    SignRsaPss,
    /// ECDSA on P-256 with SHA-256, `r || s`.
    SignP256,
    /// ECDSA on P-256 with SHA-256, DER.
    SignP256Der,
    /// ECDSA on P-384 with SHA-384, `r || s`.
    SignP384,
    /// ECDSA on P-384 with SHA-384, DER.
    SignP384Der,
    /// HMAC with SHA-256.
    SignHmac,
    /// AES-GCM encryption.
    EncryptGcm,
    /// AES-GCM decryption of a ciphertext that software made.
    DecryptGcm,
    /// AES-ECB encryption.
    EncryptEcb,
    /// AES-ECB decryption of a ciphertext that software made.
    DecryptEcb,
    /// Random bytes.
    Random,
    /// AES-CMAC.
    SignCmac,
    /// AES-CBC encryption with padding.
    EncryptCbcPad,
    /// AES-CBC decryption with padding, of a ciphertext that software made, as all below.
    DecryptCbcPad,
    /// AES-CBC encryption of whole blocks.
    EncryptCbc,
    /// AES-CBC decryption of whole blocks.
    DecryptCbc,
    /// AES-CTR encryption.
    EncryptCtr,
    /// AES-CTR decryption, some of it up to the last value of the counter.
    DecryptCtr,
    /// CMAC with triple DES.
    SignDesCmac,
    /// Triple DES in ECB mode, encryption.
    EncryptDesEcb,
    /// Triple DES in ECB mode, decryption.
    DecryptDesEcb,
    /// Triple DES in CBC mode with padding, encryption.
    EncryptDesCbc,
    /// Triple DES in CBC mode with padding, decryption.
    DecryptDesCbc,
}

/// An answered request: what was asked, and what came.
#[expect(missing_debug_implementations, reason = "it holds payload")]
pub struct Done {
    /// What was asked for.
    pub work: Work,
    /// Whether the second key of its kind was asked.
    pub second: bool,
    /// The message: signed, encrypted, or the one that decryption has to yield; as long as the random bytes.
    pub message: Vec<u8>,
    /// Additional data of AES-GCM.
    pub aad: Arc<[u8]>,
    /// What came.
    pub output: Vec<u8>,
}

impl Work {
    /// What the keys of every [`Labels`](super::Labels) can do.
    pub const COMMON: &[Self] = Self::ALL.split_at(12).0;

    /// Every kind.
    pub const ALL: [Self; 24] = [
        Self::SignRsaPkcs1,
        Self::SignRsaPss,
        Self::SignP256,
        Self::SignP256Der,
        Self::SignP384,
        Self::SignP384Der,
        Self::SignHmac,
        Self::EncryptGcm,
        Self::DecryptGcm,
        Self::EncryptEcb,
        Self::DecryptEcb,
        Self::Random,
        Self::SignCmac,
        Self::EncryptCbcPad,
        Self::DecryptCbcPad,
        Self::EncryptCbc,
        Self::DecryptCbc,
        Self::EncryptCtr,
        Self::DecryptCtr,
        Self::SignDesCmac,
        Self::EncryptDesEcb,
        Self::DecryptDesEcb,
        Self::EncryptDesCbc,
        Self::DecryptDesCbc,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignRsaPkcs1 => "sign-rsa-pkcs1",
            Self::SignRsaPss => "sign-rsa-pss",
            Self::SignP256 => "sign-p256",
            Self::SignP256Der => "sign-p256-der",
            Self::SignP384 => "sign-p384",
            Self::SignP384Der => "sign-p384-der",
            Self::SignHmac => "sign-hmac",
            Self::EncryptGcm => "encrypt-aes-gcm",
            Self::DecryptGcm => "decrypt-aes-gcm",
            Self::EncryptEcb => "encrypt-aes-ecb",
            Self::DecryptEcb => "decrypt-aes-ecb",
            Self::Random => "random",
            Self::SignCmac => "sign-aes-cmac",
            Self::EncryptCbcPad => "encrypt-aes-cbc-pad",
            Self::DecryptCbcPad => "decrypt-aes-cbc-pad",
            Self::EncryptCbc => "encrypt-aes-cbc",
            Self::DecryptCbc => "decrypt-aes-cbc",
            Self::EncryptCtr => "encrypt-aes-ctr",
            Self::DecryptCtr => "decrypt-aes-ctr",
            Self::SignDesCmac => "sign-3des-cmac",
            Self::EncryptDesEcb => "encrypt-3des-ecb",
            Self::DecryptDesEcb => "decrypt-3des-ecb",
            Self::EncryptDesCbc => "encrypt-3des-cbc",
            Self::DecryptDesCbc => "decrypt-3des-cbc",
        }
    }

    /// How often it comes up. A software token takes a millisecond for RSA and P-384 and microseconds for the rest:
    /// weighed so, no kind has the token for itself.
    pub(super) const fn weight(self) -> u64 {
        match self {
            Self::SignRsaPkcs1 | Self::SignRsaPss | Self::SignP384 | Self::SignP384Der => 2,
            Self::SignP256 | Self::SignP256Der | Self::Random => 10,
            _ => 20,
        }
    }

    /// One of these by weight; random bytes if there is nothing to choose from.
    pub(super) fn draw(works: &[Self], dice: &mut Dice) -> Self {
        let mut left = dice.below(works.iter().map(|work| work.weight()).sum());
        for &work in works {
            match left.checked_sub(work.weight()) {
                Some(rest) => left = rest,
                None => return work,
            }
        }
        Self::Random
    }

    /// The decryption of what this encrypts.
    pub(crate) const fn decryption(self) -> Option<Self> {
        match self {
            Self::EncryptCbcPad => Some(Self::DecryptCbcPad),
            Self::EncryptCbc => Some(Self::DecryptCbc),
            Self::EncryptCtr => Some(Self::DecryptCtr),
            _ => None,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_own_place() {
        Work::ALL.iter().enumerate().for_each(|(i, &work)| assert_eq!(work as usize, i));
    }

    #[test]
    fn every_kind_comes_up_in_proportion_to_its_weight() {
        let mut dice = Dice::new(7);
        let mut counts = [0_u64; Work::ALL.len()];
        let all: u64 = Work::ALL.iter().map(|work| work.weight()).sum();
        (0..all * 1_000).for_each(|_| counts[Work::draw(&Work::ALL, &mut dice) as usize] += 1);
        for work in Work::ALL {
            let (count, expected) = (counts[work as usize], work.weight() * 1_000);
            assert!(count.abs_diff(expected) < expected / 5, "{work}: {count}, expected {expected}");
        }
        assert_eq!(Work::draw(&[Work::SignHmac], &mut dice), Work::SignHmac);
        assert_eq!(Work::draw(&[], &mut dice), Work::Random);
    }
}
