//! Key agreement: ECDH and what makes a key of the shared secret.

use cryptoki_sys as sys;

use super::digest;
use crate::key::Key;
use crate::mechanism::Hash;

/// How a shared secret becomes a key.
pub(crate) struct Agreement {
    /// None takes the secret itself.
    pub(crate) kdf: Option<Hash>,
    pub(crate) shared: Vec<u8>,
    /// The other side's point, uncompressed.
    pub(crate) peer: Vec<u8>,
}

impl Agreement {
    /// The value of a key of `len` bytes.
    pub(crate) fn agree(&self, key: &Key, len: usize) -> Result<Vec<u8>, sys::CK_RV> {
        let secret = self.secret(key)?;
        match self.kdf {
            Some(hash) => Ok(x963(hash, &secret, &self.shared, len)),
            None => {
                // PKCS#11 2.40, curves 2.3.5: "truncation removes bytes from the leading end of the secret value".
                let from = secret.len().checked_sub(len).ok_or(sys::CKR_KEY_SIZE_RANGE)?;
                Ok(secret[from..].to_vec())
            }
        }
    }

    fn secret(&self, key: &Key) -> Result<Vec<u8>, sys::CK_RV> {
        macro_rules! on_curve {
            ($curve:ident, $key:expr) => {{
                let peer = $curve::PublicKey::from_sec1_bytes(&self.peer);
                let peer = peer.map_err(|_| sys::CKR_MECHANISM_PARAM_INVALID)?;
                let secret = $curve::ecdh::diffie_hellman($key.as_nonzero_scalar(), peer.as_affine());
                Ok(secret.raw_secret_bytes().to_vec())
            }};
        }
        match key {
            Key::P256(key) => on_curve!(p256, key),
            Key::P384(key) => on_curve!(p384, key),
            Key::P521(key) => on_curve!(p521, key),
            _ => Err(sys::CKR_KEY_TYPE_INCONSISTENT),
        }
    }
}

/// ANSI X9.63 (SEC 1, 3.6.1): digests of secret, a counter from 1 and the shared information, in a row.
fn x963(hash: Hash, secret: &[u8], shared: &[u8], len: usize) -> Vec<u8> {
    let block = |counter: u32| digest(hash, &[secret, &counter.to_be_bytes(), shared]);
    let mut key: Vec<u8> = (1..).take(len.div_ceil(hash.len())).flat_map(block).collect();
    key.truncate(len);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivation_function_is_that_of_nist() {
        // CAVP, ANSI X9.63-2001, the first case of SHA-256.
        let secret = 0x96c0_5619_d56c_328a_b95f_e84b_1826_4b08_u128.to_be_bytes();
        let secret = [&secret[..], &0x725b_85e3_3fd3_4f08_u64.to_be_bytes()].concat();
        let expected = 0x4430_24c3_dae6_6b95_e6f5_6706_0155_8f71_u128.to_be_bytes();
        assert_eq!(x963(Hash::Sha256, &secret, &[], 16), expected);
    }
}
