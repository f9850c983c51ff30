//! The kinds of operation under which requests are counted.

use std::fmt;

/// What a request does and with which family of algorithms: the label of its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OperationKind {
    /// RSA signature, PKCS#1 v1.5.
    SignRsaPkcs1,
    /// RSA signature, PSS.
    SignRsaPss,
    /// ECDSA signature.
    SignEcdsa,
    /// Ed25519 signature.
    SignEd25519,
    /// HMAC.
    SignHmac,
    /// AES-CMAC.
    SignAesCmac,
    /// CMAC with triple DES.
    SignTripleDesCmac,
    /// Retail MAC.
    SignRetailMac,
    /// Signature or MAC by a raw mechanism.
    SignRaw,
    /// AES-GCM encryption.
    EncryptAesGcm,
    /// AES-GCM decryption.
    DecryptAesGcm,
    /// AES-ECB encryption.
    EncryptAesEcb,
    /// AES-ECB decryption.
    DecryptAesEcb,
    /// AES-CBC encryption.
    EncryptAesCbc,
    /// AES-CBC decryption.
    DecryptAesCbc,
    /// AES-CTR encryption.
    EncryptAesCtr,
    /// AES-CTR decryption.
    DecryptAesCtr,
    /// Triple DES ECB encryption.
    EncryptTripleDesEcb,
    /// Triple DES ECB decryption.
    DecryptTripleDesEcb,
    /// Triple DES CBC encryption.
    EncryptTripleDesCbc,
    /// Triple DES CBC decryption.
    DecryptTripleDesCbc,
    /// RSA-OAEP encryption. On the host, which records nothing.
    EncryptRsaOaep,
    /// RSA-OAEP decryption.
    DecryptRsaOaep,
    /// RSA PKCS#1 v1.5 encryption. On the host, which records nothing.
    EncryptRsaPkcs1,
    /// RSA PKCS#1 v1.5 decryption.
    DecryptRsaPkcs1,
    /// Raw-mechanism encryption.
    EncryptRaw,
    /// Raw-mechanism decryption.
    DecryptRaw,
    /// Random bytes from the token.
    Random,
    /// Verification of any signature or MAC.
    Verify,
}

impl OperationKind {
    /// Every kind, each at the place that [`OperationKind::index`] gives.
    pub const ALL: [Self; 29] = [
        Self::SignRsaPkcs1,
        Self::SignRsaPss,
        Self::SignEcdsa,
        Self::SignEd25519,
        Self::SignHmac,
        Self::SignAesCmac,
        Self::SignTripleDesCmac,
        Self::SignRetailMac,
        Self::SignRaw,
        Self::EncryptAesGcm,
        Self::DecryptAesGcm,
        Self::EncryptAesEcb,
        Self::DecryptAesEcb,
        Self::EncryptAesCbc,
        Self::DecryptAesCbc,
        Self::EncryptAesCtr,
        Self::DecryptAesCtr,
        Self::EncryptTripleDesEcb,
        Self::DecryptTripleDesEcb,
        Self::EncryptTripleDesCbc,
        Self::DecryptTripleDesCbc,
        Self::EncryptRsaOaep,
        Self::DecryptRsaOaep,
        Self::EncryptRsaPkcs1,
        Self::DecryptRsaPkcs1,
        Self::EncryptRaw,
        Self::DecryptRaw,
        Self::Random,
        Self::Verify,
    ];

    /// The place of this kind in [`OperationKind::ALL`], for tables with one row per kind.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of this kind in metrics and reports: lower case, words joined by hyphens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignRsaPkcs1 => "sign-rsa-pkcs1",
            Self::SignRsaPss => "sign-rsa-pss",
            Self::SignEcdsa => "sign-ecdsa",
            Self::SignEd25519 => "sign-ed25519",
            Self::SignHmac => "sign-hmac",
            Self::SignAesCmac => "sign-aes-cmac",
            Self::SignTripleDesCmac => "sign-3des-cmac",
            Self::SignRetailMac => "sign-retail-mac",
            Self::SignRaw => "sign-raw",
            Self::EncryptAesGcm => "encrypt-aes-gcm",
            Self::DecryptAesGcm => "decrypt-aes-gcm",
            Self::EncryptAesEcb => "encrypt-aes-ecb",
            Self::DecryptAesEcb => "decrypt-aes-ecb",
            Self::EncryptAesCbc => "encrypt-aes-cbc",
            Self::DecryptAesCbc => "decrypt-aes-cbc",
            Self::EncryptAesCtr => "encrypt-aes-ctr",
            Self::DecryptAesCtr => "decrypt-aes-ctr",
            Self::EncryptTripleDesEcb => "encrypt-3des-ecb",
            Self::DecryptTripleDesEcb => "decrypt-3des-ecb",
            Self::EncryptTripleDesCbc => "encrypt-3des-cbc",
            Self::DecryptTripleDesCbc => "decrypt-3des-cbc",
            Self::EncryptRsaOaep => "encrypt-rsa-oaep",
            Self::DecryptRsaOaep => "decrypt-rsa-oaep",
            Self::EncryptRsaPkcs1 => "encrypt-rsa-pkcs1",
            Self::DecryptRsaPkcs1 => "decrypt-rsa-pkcs1",
            Self::EncryptRaw => "encrypt-raw",
            Self::DecryptRaw => "decrypt-raw",
            Self::Random => "random",
            Self::Verify => "verify",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_stands_at_its_own_index() {
        OperationKind::ALL.iter().enumerate().for_each(|(i, kind)| assert_eq!(kind.index(), i));
    }

    #[test]
    fn every_kind_has_its_own_name() {
        let names: HashSet<_> = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), OperationKind::ALL.len());
    }
}
