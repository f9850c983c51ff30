//! Software that knows the keys' material and checks what tokens made: RustCrypto, which shares no code with the
//! engine or with SoftHSM2.

mod case;
mod ciphers;

use hmac::{KeyInit, Mac};
use rsa::pkcs8::DecodePublicKey;
use rsa::signature::Verifier;
use sha2::Sha256;

use crate::mixed::{Done, Work};

pub use self::case::{CaseKey, is_right};

/// The material of the keys of a mixed load: public keys as SubjectPublicKeyInfo in DER, secret keys themselves.
/// Only keys that protect nothing are known like this.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it holds keys")]
pub struct Material<'a> {
    /// The public RSA key.
    pub rsa: &'a [u8],
    /// The public key on P-256.
    pub p256: &'a [u8],
    /// The public key on P-384.
    pub p384: &'a [u8],
    /// The AES-256 key.
    pub aes: &'a [u8; 32],
    /// The key for HMAC.
    pub hmac: &'a [u8],
    /// Of the further keys.
    pub further: Option<FurtherMaterial<'a>>,
}

/// The material of the further keys of a mixed load.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it holds keys")]
pub struct FurtherMaterial<'a> {
    /// The public key on P-256.
    pub p256: &'a [u8],
    /// The AES-256 key.
    pub aes: &'a [u8; 32],
    /// The key for HMAC.
    pub hmac: &'a [u8],
    /// The AES-256 key for CMAC.
    pub cmac: &'a [u8; 32],
    /// The triple DES key.
    pub des: &'a [u8; 24],
    /// The triple DES key for CMAC.
    pub des_mac: &'a [u8; 24],
}

/// The keys, in the hands of software.
pub struct Software {
    rsa_pkcs1: rsa::pkcs1v15::VerifyingKey<Sha256>,
    rsa_pss: rsa::pss::VerifyingKey<Sha256>,
    p384: p384::ecdsa::VerifyingKey,
    /// Of each kind the first is the common one.
    p256: Vec<p256::ecdsa::VerifyingKey>,
    aes: Vec<[u8; 32]>,
    hmac: Vec<hmac::Hmac<Sha256>>,
    /// For AES-CMAC, triple DES and its CMAC. Zeros where there are no further keys: nothing is asked of them then.
    cmac: [u8; 32],
    des: [u8; 24],
    des_mac: [u8; 24],
}

impl Software {
    /// Reads the keys.
    ///
    /// # Errors
    /// A text, if a key cannot be read.
    pub fn new(material: Material<'_>) -> Result<Self, String> {
        let rsa = rsa::PublicKey::from_public_key_der(material.rsa).map_err(|e| format!("RSA: {e}"))?;
        let p384 = p384::ecdsa::VerifyingKey::from_public_key_der(material.p384);
        let further = material.further.as_ref();
        let p256 = |der: &[u8]| p256::ecdsa::VerifyingKey::from_public_key_der(der);
        let p256s = [material.p256].into_iter().chain(further.map(|it| it.p256)).map(p256);
        let hmac = |key: &[u8]| hmac::Hmac::new_from_slice(key);
        let hmacs = [material.hmac].into_iter().chain(further.map(|it| it.hmac)).map(hmac);
        Ok(Self {
            rsa_pkcs1: rsa::pkcs1v15::VerifyingKey::new(rsa.clone()),
            rsa_pss: rsa::pss::VerifyingKey::new(rsa),
            p384: p384.map_err(|e| format!("P-384: {e}"))?,
            p256: p256s.collect::<Result<_, _>>().map_err(|e| format!("P-256: {e}"))?,
            aes: [material.aes].into_iter().chain(further.map(|it| it.aes)).copied().collect(),
            hmac: hmacs.collect::<Result<_, _>>().map_err(|e| format!("HMAC: {e}"))?,
            cmac: further.map_or([0; 32], |it| *it.cmac),
            des: further.map_or([0; 24], |it| *it.des),
            des_mac: further.map_or([0; 24], |it| *it.des_mac),
        })
    }

    /// Whether there are second keys of the common kinds.
    pub(crate) fn has_second(&self) -> bool {
        self.aes.len() > 1
    }

    /// Whether the output is right: a signature of this message, or a ciphertext or plaintext that belongs to it.
    ///
    /// Of random bytes only the length can be checked here; whether any come twice, the report says.
    #[must_use]
    pub fn check(&self, done: &Done) -> bool {
        let (message, output) = (done.message.as_slice(), done.output.as_slice());
        let aes = of(&self.aes, done.second);
        match done.work {
            Work::SignRsaPkcs1 => rsa::pkcs1v15::Signature::try_from(output)
                .is_ok_and(|signature| self.rsa_pkcs1.verify(message, &signature).is_ok()),
            Work::SignRsaPss => rsa::pss::Signature::try_from(output)
                .is_ok_and(|signature| self.rsa_pss.verify(message, &signature).is_ok()),
            Work::SignP256 => self.verify_p256(done, p256::ecdsa::Signature::from_slice(output)),
            Work::SignP256Der => self.verify_p256(done, p256::ecdsa::Signature::from_der(output)),
            Work::SignP384 => self.verify_p384(message, p384::ecdsa::Signature::from_slice(output)),
            Work::SignP384Der => self.verify_p384(message, p384::ecdsa::Signature::from_der(output)),
            Work::SignHmac => {
                let mut mac = of(&self.hmac, done.second).clone();
                mac.update(message);
                mac.verify_slice(output).is_ok()
            }
            Work::SignCmac => ciphers::aes_cmac(&self.cmac, message) == output,
            Work::SignDesCmac => ciphers::des_cmac(&self.des_mac, message) == output,
            Work::EncryptGcm => ciphers::open_gcm(aes, output, &done.aad).is_some_and(|it| it == message),
            Work::EncryptEcb => ciphers::aes_ecb(aes, message) == output,
            Work::EncryptDesEcb => ciphers::des_ecb(&self.des, message) == output,
            // The IV is the engine's: software encrypts under it again.
            Work::EncryptCbcPad | Work::EncryptCbc | Work::EncryptCtr => output
                .first_chunk()
                .and_then(|iv| self.sealed(done.work.decryption()?, done.second, iv, message, &[]))
                .is_some_and(|sealed| sealed == output),
            Work::EncryptDesCbc => {
                output.first_chunk::<8>().is_some_and(|iv| ciphers::des_cbc(&self.des, iv, message) == output)
            }
            // Software has made the ciphertext of this message.
            Work::DecryptGcm
            | Work::DecryptEcb
            | Work::DecryptCbcPad
            | Work::DecryptCbc
            | Work::DecryptCtr
            | Work::DecryptDesEcb
            | Work::DecryptDesCbc => output == message,
            Work::Random => output.len() == message.len(),
        }
    }

    /// What the token is given for a message: its ciphertext where it decrypts, with the IV in front.
    pub(crate) fn sealed(
        &self,
        work: Work,
        second: bool,
        iv: &[u8; 16],
        message: &[u8],
        aad: &[u8],
    ) -> Option<Vec<u8>> {
        let aes = of(&self.aes, second);
        Some(match work {
            Work::DecryptGcm => ciphers::gcm(aes, iv.first_chunk()?, message, aad)?,
            Work::DecryptEcb => ciphers::aes_ecb(aes, message),
            Work::DecryptCbcPad => ciphers::aes_cbc_padded(aes, iv, message),
            Work::DecryptCbc => ciphers::aes_cbc(aes, iv, message),
            Work::DecryptCtr => ciphers::aes_ctr(aes, iv, message),
            Work::DecryptDesEcb => ciphers::des_ecb(&self.des, message),
            Work::DecryptDesCbc => ciphers::des_cbc(&self.des, iv.first_chunk()?, message),
            _ => message.to_vec(),
        })
    }

    fn verify_p256<E>(&self, done: &Done, signature: Result<p256::ecdsa::Signature, E>) -> bool {
        let key = of(&self.p256, done.second);
        signature.is_ok_and(|signature| key.verify(&done.message, &signature).is_ok())
    }

    fn verify_p384<E>(&self, message: &[u8], signature: Result<p384::ecdsa::Signature, E>) -> bool {
        signature.is_ok_and(|signature| self.p384.verify(message, &signature).is_ok())
    }
}

/// The key of a kind that was asked.
fn of<T>(keys: &[T], second: bool) -> &T {
    &keys[if second { keys.len() - 1 } else { 0 }]
}

impl std::fmt::Debug for Software {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Software").finish_non_exhaustive()
    }
}
