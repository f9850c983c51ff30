//! Mechanisms with their parameters, turned into a `CK_MECHANISM` that lives as long as the operation.

use cryptoki_sys as sys;

use crate::pkcs11::library::to_ulong;

/// A mechanism with borrowed parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mechanism<'a> {
    /// A mechanism without parameters, by its number.
    Plain(sys::CK_MECHANISM_TYPE),
    /// RSA PSS over a digest: hash, mask generation function, salt length in bytes.
    Pss { hash: sys::CK_MECHANISM_TYPE, mgf: sys::CK_RSA_PKCS_MGF_TYPE, salt_len: u32 },
    /// AES-GCM.
    Gcm { iv: &'a [u8], aad: &'a [u8], tag_len: usize },
}

/// The longest IV that is copied for a module to write into; longer ones are the caller's own and only read.
const IV_ROOM: usize = 16;

impl Mechanism<'_> {
    /// Calls `run` with the `CK_MECHANISM`. It and its parameters stay where they are until `run` returns,
    /// which spans Init and the call: modules keep the pointer, and some write the IV they chose into it.
    pub(super) fn with<R>(&self, run: impl FnOnce(*mut sys::CK_MECHANISM) -> R) -> R {
        match *self {
            Self::Plain(mechanism) => {
                run(&mut sys::CK_MECHANISM { mechanism, pParameter: std::ptr::null_mut(), ulParameterLen: 0 })
            }
            Self::Pss { hash, mgf, salt_len } => {
                let mut parameter = sys::CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf, sLen: salt_len.into() };
                run(&mut raw(sys::CKM_RSA_PKCS_PSS, &mut parameter))
            }
            Self::Gcm { iv, aad, tag_len } => {
                let mut copy = [0; IV_ROOM];
                let pointer = match copy.get_mut(..iv.len()) {
                    Some(copy) => {
                        copy.copy_from_slice(iv);
                        copy.as_mut_ptr()
                    }
                    None => iv.as_ptr().cast_mut(),
                };
                let mut parameter = sys::CK_GCM_PARAMS {
                    pIv: pointer,
                    ulIvLen: to_ulong(iv.len()),
                    ulIvBits: to_ulong(iv.len() * 8),
                    pAAD: if aad.is_empty() { std::ptr::null_mut() } else { aad.as_ptr().cast_mut() },
                    ulAADLen: to_ulong(aad.len()),
                    ulTagBits: to_ulong(tag_len * 8),
                };
                run(&mut raw(sys::CKM_AES_GCM, &mut parameter))
            }
        }
    }
}

fn raw<P>(mechanism: sys::CK_MECHANISM_TYPE, parameter: &mut P) -> sys::CK_MECHANISM {
    let len = to_ulong(size_of::<P>());
    sys::CK_MECHANISM { mechanism, pParameter: std::ptr::from_mut(parameter).cast(), ulParameterLen: len }
}
