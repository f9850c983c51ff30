//! Key wrapping with AES.

use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser};
use aes::{Aes128, Aes192, Aes256};
use aes_kw::{AesKw, AesKwp, Error, InnerInit, KeyInit};
use cryptoki_sys as sys;

use super::Direction;
use crate::key::Key;

/// How a key is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// RFC 3394.
    Kw,
    /// RFC 5649.
    Kwp,
}

impl Wrapping {
    pub(crate) const fn by_number(mechanism: sys::CK_MECHANISM_TYPE) -> Result<Self, sys::CK_RV> {
        match mechanism {
            sys::CKM_AES_KEY_WRAP => Ok(Self::Kw),
            // 2.40 leaves the padding of the first open; SoftHSM2 and others took RFC 5649, for which 3.0 has the second.
            sys::CKM_AES_KEY_WRAP_PAD | sys::CKM_AES_KEY_WRAP_KWP => Ok(Self::Kwp),
            _ => Err(sys::CKR_MECHANISM_INVALID),
        }
    }

    pub(crate) fn wrap(self, key: &Key, value: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
        // RFC 3394, 2: "The key data consists of n 64-bit blocks", and 2.2.1: "n" is at least 2.
        if self == Self::Kw && value.len() < 16 {
            return Err(sys::CKR_KEY_SIZE_RANGE);
        }
        self.run(key, value, Direction::Encrypt)?.map_err(|_| sys::CKR_KEY_SIZE_RANGE)
    }

    pub(crate) fn unwrap(self, key: &Key, wrapped: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
        let shortest = if self == Self::Kw { 24 } else { 16 };
        if wrapped.len() < shortest {
            return Err(sys::CKR_WRAPPED_KEY_LEN_RANGE);
        }
        self.run(key, wrapped, Direction::Decrypt)?.map_err(|error| match error {
            Error::IntegrityCheckFailed => sys::CKR_WRAPPED_KEY_INVALID,
            _ => sys::CKR_WRAPPED_KEY_LEN_RANGE,
        })
    }

    fn run(self, key: &Key, data: &[u8], way: Direction) -> Result<Result<Vec<u8>, Error>, sys::CK_RV> {
        let Key::Aes(key) = key else { return Err(sys::CKR_WRAPPING_KEY_TYPE_INCONSISTENT) };
        let size = |_| sys::CKR_WRAPPING_KEY_SIZE_RANGE;
        Ok(match key.len() {
            16 => self.run_with(Aes128::new_from_slice(key).map_err(size)?, data, way),
            24 => self.run_with(Aes192::new_from_slice(key).map_err(size)?, data, way),
            _ => self.run_with(Aes256::new_from_slice(key).map_err(size)?, data, way),
        })
    }

    fn run_with<A>(self, cipher: A, data: &[u8], way: Direction) -> Result<Vec<u8>, Error>
    where
        A: BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt + BlockCipherDecrypt,
    {
        // Whole blocks of 8 bytes and one more.
        let mut out = vec![0; data.len() + 16];
        let written = match (self, way) {
            (Self::Kw, Direction::Encrypt) => AesKw::inner_init(cipher).wrap_key(data, &mut out),
            (Self::Kw, Direction::Decrypt) => AesKw::inner_init(cipher).unwrap_key(data, &mut out),
            (Self::Kwp, Direction::Encrypt) => AesKwp::inner_init(cipher).wrap_key(data, &mut out),
            (Self::Kwp, Direction::Decrypt) => AesKwp::inner_init(cipher).unwrap_key(data, &mut out),
        };
        written.map(<[u8]>::to_vec)
    }
}
