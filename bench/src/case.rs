//! What a load does: an operation and the size of its input.

use std::fmt;
use std::str::FromStr;

use hsmux::{BaselineCall, Curve, KeySpec, OperationKind};

/// An operation that can be put under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// RSA-2048 signature, PKCS#1 v1.5 with SHA-256.
    Rsa2048Sha256,
    /// RSA-2048 signature, PSS with SHA-256.
    Rsa2048Pss,
    /// RSA-4096 signature, PKCS#1 v1.5 with SHA-256.
    Rsa4096Sha256,
    /// ECDSA signature on P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA signature on P-384 with SHA-384.
    EcdsaP384,
    /// RSA-2048 decryption, OAEP with SHA-1: the hash that every token has there.
    Rsa2048Oaep,
    /// Ed25519 signature.
    Ed25519,
    /// HMAC with SHA-256.
    HmacSha256,
    /// CMAC with AES-256.
    AesCmac,
    /// AES-256-GCM encryption.
    AesGcm,
    /// AES-256 encryption of blocks without a mode.
    AesEcb,
    /// AES-256 encryption in CBC mode, without padding.
    AesCbcEncrypt,
    /// AES-256 decryption in CBC mode, without padding.
    AesCbcDecrypt,
    /// AES-256 encryption in counter mode.
    AesCtr,
    /// Random bytes from the token.
    Random,
}

/// An operation and the size in bytes of its message: of its output for decryption and random bytes.
///
/// ```
/// let case: hsmux_bench::Case = "hmac-sha256:1024".parse()?;
/// assert_eq!((case.op.as_str(), case.size), ("hmac-sha256", 1024));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The operation.
    pub op: Op,
    /// Bytes per operation.
    pub size: usize,
}

/// Largest size: what one operation can move before it measures memory rather than a token.
const SIZE_MAX: usize = 1 << 20;

/// Most bytes that fit into a ciphertext of OAEP with SHA-1 and 2048 bits (RFC 8017, 7.1.1).
const OAEP_MAX: usize = 256 - 2 * 20 - 2;

impl Op {
    /// Every operation.
    pub const ALL: [Self; 15] = [
        Self::Rsa2048Sha256,
        Self::Rsa2048Pss,
        Self::Rsa4096Sha256,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::Rsa2048Oaep,
        Self::Ed25519,
        Self::HmacSha256,
        Self::AesCmac,
        Self::AesGcm,
        Self::AesEcb,
        Self::AesCbcEncrypt,
        Self::AesCbcDecrypt,
        Self::AesCtr,
        Self::Random,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa2048Sha256 => "rsa2048-sha256",
            Self::Rsa2048Pss => "rsa2048-pss",
            Self::Rsa4096Sha256 => "rsa4096-sha256",
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Rsa2048Oaep => "rsa2048-oaep",
            Self::Ed25519 => "ed25519",
            Self::HmacSha256 => "hmac-sha256",
            Self::AesCmac => "aes-cmac",
            Self::AesGcm => "aes-gcm",
            Self::AesEcb => "aes-ecb",
            Self::AesCbcEncrypt => "aes-cbc-enc",
            Self::AesCbcDecrypt => "aes-cbc-dec",
            Self::AesCtr => "aes-ctr",
            Self::Random => "random",
        }
    }

    /// The size where none is named: a short message to sign, a record of 1 KiB to encrypt, one block, a key of
    /// 32 bytes to draw or to unwrap.
    pub(crate) const fn default_size(self) -> usize {
        match self {
            Self::AesGcm | Self::AesCbcEncrypt | Self::AesCbcDecrypt | Self::AesCtr => 1024,
            Self::AesEcb => 16,
            Self::Random | Self::Rsa2048Oaep => 32,
            _ => 64,
        }
    }

    /// What its sizes are multiples of, in bytes.
    pub(crate) const fn block(self) -> usize {
        match self {
            Self::AesEcb | Self::AesCbcEncrypt | Self::AesCbcDecrypt => 16,
            _ => 1,
        }
    }

    /// Refuses a size that the operation does not take.
    pub(crate) fn check_size(self, size: usize) -> Result<(), String> {
        let name = self.as_str();
        if !(1..=SIZE_MAX).contains(&size) {
            return Err(format!("sizes go from 1 to {SIZE_MAX} bytes"));
        }
        if !size.is_multiple_of(self.block()) {
            return Err(format!("{name} takes whole blocks: a multiple of {} bytes", self.block()));
        }
        if self == Self::Rsa2048Oaep && size > OAEP_MAX {
            return Err(format!("{name} takes up to {OAEP_MAX} bytes"));
        }
        Ok(())
    }

    /// The key that it takes, as the engine generates it; none for random bytes.
    #[must_use]
    pub const fn key_spec(self) -> Option<KeySpec> {
        match self {
            Self::Rsa2048Sha256 | Self::Rsa2048Pss => Some(KeySpec::Rsa(2048)),
            Self::Rsa4096Sha256 => Some(KeySpec::Rsa(4096)),
            Self::EcdsaP256 => Some(KeySpec::Ec(Curve::P256)),
            Self::EcdsaP384 => Some(KeySpec::Ec(Curve::P384)),
            Self::Rsa2048Oaep => Some(KeySpec::RsaDecryption(2048)),
            Self::Ed25519 => Some(KeySpec::Ed25519),
            Self::HmacSha256 => Some(KeySpec::Hmac(32)),
            Self::AesCmac => Some(KeySpec::AesMac(32)),
            Self::AesGcm | Self::AesEcb | Self::AesCbcEncrypt | Self::AesCbcDecrypt | Self::AesCtr => {
                Some(KeySpec::Aes(32))
            }
            Self::Random => None,
        }
    }

    /// The kind of key that it takes, as [`hsmux::KeyDescription`] names it, where only one kind gives what the
    /// operation's name says and the engine would take another.
    #[must_use]
    pub const fn key_kind(self) -> Option<&'static str> {
        match self {
            Self::Rsa2048Sha256 | Self::Rsa2048Pss | Self::Rsa2048Oaep => Some("RSA-2048"),
            Self::Rsa4096Sha256 => Some("RSA-4096"),
            _ => None,
        }
    }

    /// The kind under which the engine counts it.
    #[must_use]
    pub const fn kind(self) -> OperationKind {
        match self {
            Self::Rsa2048Sha256 | Self::Rsa4096Sha256 => OperationKind::SignRsaPkcs1,
            Self::Rsa2048Pss => OperationKind::SignRsaPss,
            Self::EcdsaP256 | Self::EcdsaP384 => OperationKind::SignEcdsa,
            Self::Rsa2048Oaep => OperationKind::DecryptRsaOaep,
            Self::Ed25519 => OperationKind::SignEd25519,
            Self::HmacSha256 => OperationKind::SignHmac,
            Self::AesCmac => OperationKind::SignAesCmac,
            Self::AesGcm => OperationKind::EncryptAesGcm,
            Self::AesEcb => OperationKind::EncryptAesEcb,
            Self::AesCbcEncrypt => OperationKind::EncryptAesCbc,
            Self::AesCbcDecrypt => OperationKind::DecryptAesCbc,
            Self::AesCtr => OperationKind::EncryptAesCtr,
            Self::Random => OperationKind::Random,
        }
    }

    /// The raw call that does the same on the token.
    #[must_use]
    pub const fn raw_call(self) -> BaselineCall {
        match self {
            Self::Rsa2048Sha256 | Self::Rsa4096Sha256 => BaselineCall::RsaPkcs1,
            Self::Rsa2048Pss => BaselineCall::RsaPssSha256,
            Self::EcdsaP256 | Self::EcdsaP384 => BaselineCall::Ecdsa,
            Self::Rsa2048Oaep => BaselineCall::RsaOaepSha1,
            Self::Ed25519 => BaselineCall::Ed25519,
            Self::HmacSha256 => BaselineCall::HmacSha256,
            Self::AesCmac => BaselineCall::AesCmac,
            Self::AesGcm => BaselineCall::AesGcm,
            Self::AesEcb => BaselineCall::AesEcb,
            Self::AesCbcEncrypt => BaselineCall::AesCbcEncrypt,
            Self::AesCbcDecrypt => BaselineCall::AesCbcDecrypt,
            Self::AesCtr => BaselineCall::AesCtr,
            Self::Random => BaselineCall::Random,
        }
    }
}

impl Case {
    /// Length of what one operation is given.
    #[must_use]
    pub const fn input_len(self) -> usize {
        match self.op {
            Op::Rsa2048Oaep => 256,
            Op::AesCbcDecrypt => 16 + self.size,
            _ => self.size,
        }
    }

    /// Room for the output of one operation: for AES with IV and tag, and for OAEP as much as modules ask for.
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self.op {
            Op::Rsa2048Sha256 | Op::Rsa2048Pss | Op::Rsa2048Oaep => 256,
            Op::Rsa4096Sha256 => 512,
            Op::EcdsaP256 | Op::Ed25519 => 64,
            Op::EcdsaP384 => 96,
            Op::HmacSha256 => 32,
            Op::AesCmac => 16,
            Op::AesGcm => 12 + self.size + 16,
            Op::AesCbcEncrypt | Op::AesCtr => 16 + self.size,
            Op::AesEcb | Op::AesCbcDecrypt | Op::Random => self.size,
        }
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|op| op.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("no such operation; there are {names}")
        })
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, size) = match text.split_once(':') {
            Some((name, size)) => (name, Some(size)),
            None => (text, None),
        };
        let op: Op = name.parse()?;
        let size = match size {
            Some(size) => size.parse().map_err(|_| format!("the size {size:?} is no number of bytes"))?,
            None => op.default_size(),
        };
        op.check_size(size)?;
        Ok(Self { op, size })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.op.as_str(), self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_without_a_size_has_a_sensible_one() {
        for (text, size) in [
            ("ecdsa-p256", 64),
            ("aes-gcm", 1024),
            ("aes-cbc-dec", 1024),
            ("aes-ecb", 16),
            ("rsa2048-oaep", 32),
            ("random", 32),
        ] {
            assert_eq!(text.parse::<Case>().map(|case| case.size), Ok(size), "{text}");
        }
    }

    #[test]
    fn every_operation_is_parsed_from_its_own_name() {
        for op in Op::ALL {
            assert_eq!(format!("{}:48", op.as_str()).parse(), Ok(Case { op, size: 48 }));
        }
    }

    #[test]
    fn what_is_no_operation_and_size_is_refused_with_a_reason() {
        let refused = [
            ("ed448", "no such operation"),
            ("", "no such operation"),
            ("random:", "no number"),
            ("random:x", "no number"),
            ("random:-1", "no number"),
            ("random:0", "sizes go from"),
            ("random:1048577", "sizes go from"),
            ("aes-ecb:17", "multiple of 16"),
            ("aes-cbc-enc:1000", "multiple of 16"),
            ("rsa2048-oaep:215", "up to 214"),
        ];
        for (text, why) in refused {
            let error = text.parse::<Case>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
