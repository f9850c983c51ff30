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
    /// HMAC.
    SignHmac,
    /// AES-GCM encryption.
    EncryptAesGcm,
    /// AES-GCM decryption.
    DecryptAesGcm,
    /// AES-ECB encryption.
    EncryptAesEcb,
    /// AES-ECB decryption.
    DecryptAesEcb,
    /// Random bytes from the token.
    Random,
    /// Verification of any signature or MAC.
    Verify,
}

impl OperationKind {
    /// Every kind, each at the place that [`OperationKind::index`] gives.
    pub const ALL: [Self; 10] = [
        Self::SignRsaPkcs1,
        Self::SignRsaPss,
        Self::SignEcdsa,
        Self::SignHmac,
        Self::EncryptAesGcm,
        Self::DecryptAesGcm,
        Self::EncryptAesEcb,
        Self::DecryptAesEcb,
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
            Self::SignHmac => "sign-hmac",
            Self::EncryptAesGcm => "encrypt-aes-gcm",
            Self::DecryptAesGcm => "decrypt-aes-gcm",
            Self::EncryptAesEcb => "encrypt-aes-ecb",
            Self::DecryptAesEcb => "decrypt-aes-ecb",
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
