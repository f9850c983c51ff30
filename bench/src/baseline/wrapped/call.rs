//! One operation through `cryptoki`.

use std::ffi::c_ulong;

use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki_sys::CK_AES_CTR_PARAMS;
use ring::rand::{SecureRandom, SystemRandom};

use crate::baseline::Prepared;
use crate::case::Op;
use crate::failure::Failure;
use crate::inputs::Inputs;

/// What a thread asks for, over and over, with the IVs of the raw loop: its nonces count from a random one, those of
/// CBC come from the kernel.
pub(super) struct Caller {
    op: Op,
    key: Option<ObjectHandle>,
    iv: [u8; 16],
    size: usize,
    random: SystemRandom,
}

/// Length of what counts in an IV.
const NONCE_LEN: usize = 12;

impl Caller {
    pub(super) fn new(inputs: &Inputs, key: Option<ObjectHandle>) -> Self {
        let (random, mut iv) = (SystemRandom::new(), [0; 16]);
        // A kernel that gives none leaves zeros to count from: what is measured here goes to nobody.
        let _drawn = random.fill(&mut iv[..NONCE_LEN]);
        Self { op: inputs.case().op, key, iv, size: inputs.case().size, random }
    }

    /// The IV of the last encryption; empty if there is none.
    pub(super) fn iv(&self) -> &[u8] {
        match self.op {
            Op::AesGcm => &self.iv[..NONCE_LEN],
            Op::AesCbcEncrypt | Op::AesCtr => &self.iv,
            _ => &[],
        }
    }

    /// Runs the operation, with the hash on the host as everywhere here.
    pub(super) fn call(&mut self, session: &Session, message: &[u8]) -> Result<Vec<u8>, Failure> {
        if self.op == Op::Random {
            let mut out = vec![0; self.size];
            session.generate_random_slice(&mut out)?;
            return Ok(out);
        }
        let Some(key) = self.key else { return Err(Failure::Other("an operation without its key".into())) };
        let prepared = Prepared::of(self.op, message);
        let bytes = prepared.bytes();
        Ok(match self.op {
            Op::AesCbcDecrypt => {
                let Some((iv, body)) = bytes.split_first_chunk() else {
                    return Err(Failure::Other("a ciphertext without its IV".into()));
                };
                session.decrypt(&Mechanism::AesCbc(*iv), key, body)?
            }
            Op::Rsa2048Oaep => {
                let (hash, mgf) = (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1);
                let params = PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty());
                session.decrypt(&Mechanism::RsaPkcsOaep(params), key, bytes)?
            }
            Op::AesGcm | Op::AesEcb | Op::AesCbcEncrypt | Op::AesCtr => self.encrypt(session, key, bytes)?,
            _ => session.sign(&self.signing(), key, bytes)?,
        })
    }

    fn encrypt(&mut self, session: &Session, key: ObjectHandle, plain: &[u8]) -> Result<Vec<u8>, Failure> {
        Ok(match self.op {
            Op::AesGcm => {
                count_up(&mut self.iv[..NONCE_LEN]);
                let params = GcmParams::new(&mut self.iv[..NONCE_LEN], &[], 128.into())?;
                session.encrypt(&Mechanism::AesGcm(params), key, plain)?
            }
            Op::AesCtr => {
                count_up(&mut self.iv[..NONCE_LEN]);
                // The crate has no variant for CTR; this is how its users reach it.
                let params = CK_AES_CTR_PARAMS { ulCounterBits: COUNTER_BITS, cb: self.iv };
                let how = VendorDefinedMechanism::new(MechanismType::AES_CTR, Some(&params));
                session.encrypt(&Mechanism::VendorDefined(how), key, plain)?
            }
            Op::AesCbcEncrypt => {
                let _drawn = self.random.fill(&mut self.iv);
                session.encrypt(&Mechanism::AesCbc(self.iv), key, plain)?
            }
            _ => session.encrypt(&Mechanism::AesEcb, key, plain)?,
        })
    }

    fn signing(&self) -> Mechanism<'static> {
        match self.op {
            Op::Rsa2048Sha256 | Op::Rsa4096Sha256 => Mechanism::RsaPkcs,
            Op::Rsa2048Pss => Mechanism::RsaPkcsPss(PkcsPssParams {
                hash_alg: MechanismType::SHA256,
                mgf: PkcsMgfType::MGF1_SHA256,
                s_len: SALT_LEN.into(),
            }),
            Op::EcdsaP256 | Op::EcdsaP384 => Mechanism::Ecdsa,
            Op::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
            Op::AesCmac => Mechanism::AesCMac,
            _ => Mechanism::Sha256Hmac,
        }
    }
}

/// How many bits of the block count.
const COUNTER_BITS: c_ulong = 32;

/// As many bytes as SHA-256 has, like the engine and the raw loop.
const SALT_LEN: c_ulong = 32;

fn count_up(iv: &mut [u8]) {
    for byte in iv.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}
