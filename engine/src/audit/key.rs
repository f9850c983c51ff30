//! Public keys of checkpoints.

use std::fmt;

use data_encoding::{BASE64, BASE64_MIME_PERMISSIVE};
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use spki::SubjectPublicKeyInfoRef;

use super::checkpoint::is_name;
use super::hex;
use super::merkle::sha256;
use crate::error::{Error, ErrorKind, Result};

/// The public key that a log's checkpoints are signed with: Ed25519, or ECDSA on P-256.
///
/// ```
/// # let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
/// let key = hsmux::AuditKey::parse(text.as_bytes())?;
/// assert_eq!(key.to_string(), text);
/// # Ok::<(), hsmux::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AuditKey {
    /// None: the name of the log whose checkpoint is looked at.
    name: Option<String>,
    kind: Kind,
    /// Ed25519: the 32 bytes of RFC 8032. ECDSA: a `SubjectPublicKeyInfo` in DER.
    encoded: Vec<u8>,
    /// As the verifier takes it.
    point: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ed25519,
    EcdsaP256,
}

/// RFC 8410, 3.
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// RFC 5480, 2.1.1.
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// RFC 5480, 2.1.1.1.
const ID_SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

impl AuditKey {
    /// Reads a public key: a verifier key of signed notes (`name+hash+base64`), or a `SubjectPublicKeyInfo` (RFC 5280,
    /// 4.1.2.7) in DER or PEM, which is taken for signatures in the name of the log itself.
    ///
    /// # Errors
    /// `InvalidInput`, if it is none of these, or of another algorithm.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).ok().map(str::trim);
        let parsed = match text {
            Some(text) if text.starts_with(PEM_BEGIN) => {
                pem(text).and_then(|der| Self::from_spki(None, &der))
            }
            Some(text) if text.contains('+') => Self::from_note_key(text),
            _ => Self::from_spki(None, bytes),
        };
        parsed.ok_or_else(|| {
            let text = "this is no public key for checkpoints: Ed25519 or ECDSA on P-256, in PEM, DER or as name+hash+key";
            Error::refused(ErrorKind::InvalidInput, text)
        })
    }

    pub(crate) fn from_spki(name: Option<&str>, der: &[u8]) -> Option<Self> {
        let info = SubjectPublicKeyInfoRef::from_der(der).ok()?;
        let point = info.subject_public_key.as_bytes()?;
        match (info.algorithm.oid, info.algorithm.parameters) {
            (ID_ED25519, None) => Some(Self::ed25519(name, point.try_into().ok()?)),
            (ID_EC_PUBLIC_KEY, Some(curve)) if curve == AnyRef::from(&ID_SECP256R1) => Some(Self {
                name: name.map(str::to_owned),
                kind: Kind::EcdsaP256,
                // Written anew, for the id is a hash of it.
                encoded: info.to_der().ok()?,
                point: point.to_vec(),
            }),
            _ => None,
        }
    }

    pub(crate) fn ed25519(name: Option<&str>, public: &[u8; 32]) -> Self {
        let public = public.to_vec();
        Self { name: name.map(str::to_owned), kind: Kind::Ed25519, encoded: public.clone(), point: public }
    }

    /// `name+hash+base64(type || key)`.
    fn from_note_key(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key = BASE64.decode(key.as_bytes()).ok()?;
        let key = match key.split_first()? {
            (1, public) => Self::ed25519(Some(name), public.try_into().ok()?),
            (2, der) => Self::from_spki(Some(name), der).filter(|key| key.kind == Kind::EcdsaP256)?,
            _ => return None,
        };
        (is_name(name) && hex::text(&key.id(name)) == id).then_some(key)
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The id of the key in signatures under this name.
    pub(super) fn id(&self, name: &str) -> [u8; 4] {
        let digest = match self.kind {
            // "key ID = SHA-256(key name || 0x0A || 0x01 || 32-byte Ed25519 public key)[:4]"
            Kind::Ed25519 => sha256(&[name.as_bytes(), b"\n\x01", &self.encoded].concat()),
            // "the key ID for these signatures is the truncated SHA-256 hash of the DER encoded public key in SPKI format."
            Kind::EcdsaP256 => sha256(&self.encoded),
        };
        [digest[0], digest[1], digest[2], digest[3]]
    }

    pub(super) fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self.kind {
            Kind::Ed25519 => &ED25519,
            Kind::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
        };
        UnparsedPublicKey::new(algorithm, &self.point).verify(text, signature).is_ok()
    }

    const fn type_byte(&self) -> u8 {
        match self.kind {
            Kind::Ed25519 => 1,
            Kind::EcdsaP256 => 2,
        }
    }
}

/// As a verifier key of signed notes. A key without a name has an empty one here, which is to be filled in.
impl fmt::Display for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or_default();
        let key = BASE64.encode(&[&[self.type_byte()], &self.encoded[..]].concat());
        write!(f, "{name}+{}+{key}", hex::text(&self.id(name)))
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditKey").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn pem(text: &str) -> Option<Vec<u8>> {
    let base64 = text.strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    BASE64_MIME_PERMISSIVE.decode(base64.trim().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Signer as _;
    use p256::ecdsa::{DerSignature, SigningKey};
    use p256::pkcs8::{EncodePublicKey, LineEnding};

    use super::super::checkpoint::{AuditCheckpoint, Signer};
    use super::*;

    struct Ec(SigningKey);

    impl Signer for Ec {
        fn key(&self) -> AuditKey {
            let der = self.0.verifying_key().to_public_key_der().unwrap();
            AuditKey::from_spki(None, der.as_bytes()).unwrap()
        }

        fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
            let signature: DerSignature = self.0.sign(text);
            Ok(signature.as_bytes().to_vec())
        }
    }

    fn ec() -> Ec {
        Ec(SigningKey::from_slice(&[7; 32]).unwrap())
    }

    #[test]
    fn a_key_of_the_go_implementation_reads_back() {
        // The example of golang.org/x/mod/sumdb/note.
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = AuditKey::parse(text.as_bytes()).unwrap();
        assert_eq!((key.name(), key.to_string().as_str()), (Some("PeterNeumann"), text));
        let text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signed =
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let signed = BASE64.decode(signed.as_bytes()).unwrap();
        assert_eq!(signed[..4], key.id("PeterNeumann"));
        assert!(key.has_signed(text, &signed[4..]));
    }

    #[test]
    fn a_key_of_p256_signs_checkpoints_in_der_and_is_read_in_every_form() {
        let signer = ec();
        let key = signer.key();
        let checkpoint = AuditCheckpoint::sign("example.com/log", 3, [1; 32], &signer).unwrap();
        assert!(checkpoint.is_signed_by(&key));
        let verifying = signer.0.verifying_key();
        let pem = verifying.to_public_key_pem(LineEnding::LF).unwrap();
        let der = verifying.to_public_key_der().unwrap();
        for bytes in [pem.as_bytes(), der.as_bytes()] {
            assert_eq!(AuditKey::parse(bytes).unwrap(), key);
        }
        let named = AuditKey::from_spki(Some("example.com/log"), der.as_bytes()).unwrap();
        let text = format!("{named}\n");
        assert_eq!(AuditKey::parse(text.as_bytes()).unwrap(), named);
        assert!(checkpoint.is_signed_by(&named));
        let other = AuditKey::from_spki(Some("example.com/other"), der.as_bytes()).unwrap();
        assert!(!checkpoint.is_signed_by(&other), "in the name of another");
    }

    #[test]
    fn what_is_no_key_for_checkpoints_is_refused() {
        let p384 = p384::SecretKey::from_slice(&[7; 48]).unwrap().public_key().to_public_key_der().unwrap();
        let wrong_id = "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let wrong_type = "PeterNeumann+c74f20a3+Axpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let spaced = "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let cut = format!("{PEM_BEGIN}\nMFkw\n");
        let texts = [wrong_id, wrong_type, spaced, &cut, "", "+", "++"];
        for bytes in texts.map(str::as_bytes).into_iter().chain([p384.as_bytes(), b"\xff+"]) {
            assert_eq!(AuditKey::parse(bytes).unwrap_err().kind(), ErrorKind::InvalidInput, "{bytes:?}");
        }
    }
}
