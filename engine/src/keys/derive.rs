//! Key agreement: a session key derived from a key pair and the other side's public key.

use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::generate::KeySpec;
use crate::pkcs11::{Mechanism, ObjectHandle, Session};
use crate::token::facts::Curve;
use crate::token::task::Hash;

/// How the shared secret of a key agreement becomes a key (SP 800-56A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AgreementKdf {
    /// The shared secret is the key, or its last bytes if the key is shorter (`CKD_NULL`; PKCS#11 2.40, mechanisms
    /// 2.3.6: "The truncation removes bytes from the leading end of the secret value."): for protocols that derive
    /// their keys from it themselves. The only one that SoftHSM2 2.6.1 has.
    Raw,
    /// The function of ANSI X9.63 (SEC 1, 3.6.1) with this hash (`CKD_SHA256_KDF` and its like). That of SP 800-56C, 4,
    /// is another: it hashes the counter before the secret.
    X963(Hash),
}

impl AgreementKdf {
    /// The algorithm by name, as the audit log has it.
    pub(crate) fn name(self, curve: Curve) -> String {
        let curve = match curve {
            Curve::P256 => "p256",
            Curve::P384 => "p384",
            Curve::P521 => "p521",
        };
        let kdf = match self {
            Self::Raw => "raw",
            Self::X963(Hash::Sha1) => "x963-sha1",
            Self::X963(Hash::Sha256) => "x963-sha256",
            Self::X963(Hash::Sha384) => "x963-sha384",
            Self::X963(Hash::Sha512) => "x963-sha512",
        };
        format!("ecdh-{curve}-{kdf}")
    }
}

/// One half of a key agreement, checked.
pub(crate) struct Agreement {
    pub(crate) kdf: AgreementKdf,
    pub(crate) shared: Vec<u8>,
    pub(crate) peer: Vec<u8>,
}

impl Agreement {
    /// # Errors
    /// `InvalidInput`, if the peer's key is no point of the curve: SEC 1, 3.2.2, has it checked before it is used.
    pub(crate) fn new(curve: Curve, kdf: AgreementKdf, shared: &[u8], peer: &[u8]) -> Result<Self> {
        let on_curve = match curve {
            Curve::P256 => p256::PublicKey::from_sec1_bytes(peer).is_ok(),
            Curve::P384 => p384::PublicKey::from_sec1_bytes(peer).is_ok(),
            Curve::P521 => p521::PublicKey::from_sec1_bytes(peer).is_ok(),
        };
        if !on_curve || peer.len() != 1 + 2 * curve.field_len() {
            let text = "the other side's key is no uncompressed point of the curve";
            return Err(Error::refused(ErrorKind::InvalidInput, text));
        }
        if kdf == AgreementKdf::Raw && !shared.is_empty() {
            let text = "shared information is for a key derivation function";
            return Err(Error::refused(ErrorKind::InvalidInput, text));
        }
        Ok(Self { kdf, shared: shared.to_vec(), peer: peer.to_vec() })
    }

    /// What the token is given: the point, whose length the curve says, and what is shared.
    pub(crate) fn input(&self) -> Vec<u8> {
        [&*self.peer, &*self.shared].concat()
    }

    /// Derives the key as an object of this session.
    pub(crate) fn derive(
        &self,
        session: &mut Session,
        base: ObjectHandle,
        spec: KeySpec,
    ) -> Result<ObjectHandle> {
        let kdf = match self.kdf {
            AgreementKdf::Raw => sys::CKD_NULL,
            AgreementKdf::X963(Hash::Sha1) => sys::CKD_SHA1_KDF,
            AgreementKdf::X963(Hash::Sha256) => sys::CKD_SHA256_KDF,
            AgreementKdf::X963(Hash::Sha384) => sys::CKD_SHA384_KDF,
            AgreementKdf::X963(Hash::Sha512) => sys::CKD_SHA512_KDF,
        };
        let how = Mechanism::Ecdh { kdf, shared: &self.shared, public: &self.peer };
        Ok(session.derive(base, &how, &spec.secret_template()?)?)
    }
}
