//! HMAC and CMAC.

use aes::{Aes128, Aes192, Aes256};
use cmac::{Cmac, KeyInit, Mac};
use cryptoki_sys as sys;
use des::TdesEde3;
use hmac::Hmac;
use sha2::{Sha256, Sha384, Sha512};

use crate::key::Key;
use crate::mechanism::{Hash, Mechanism};

/// The MAC of a message.
pub(super) fn make(key: &Key, how: &Mechanism, data: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
    match (how, key) {
        (Mechanism::Hmac(Hash::Sha256), Key::Mac(key)) => mac::<Hmac<Sha256>>(key, data),
        (Mechanism::Hmac(Hash::Sha384), Key::Mac(key)) => mac::<Hmac<Sha384>>(key, data),
        (Mechanism::Hmac(Hash::Sha512), Key::Mac(key)) => mac::<Hmac<Sha512>>(key, data),
        (Mechanism::Cmac(_), Key::Aes(key)) => match key.len() {
            16 => mac::<Cmac<Aes128>>(key, data),
            24 => mac::<Cmac<Aes192>>(key, data),
            _ => mac::<Cmac<Aes256>>(key, data),
        },
        (Mechanism::Cmac(_), Key::TripleDes(key)) => mac::<Cmac<TdesEde3>>(key, data),
        _ => Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
    let mut mac = <M as KeyInit>::new_from_slice(key).map_err(|_| sys::CKR_KEY_SIZE_RANGE)?;
    mac.update(data);
    Ok(mac.finalize().into_bytes().to_vec())
}
