//! Mechanisms with their parameters, turned into a `CK_MECHANISM` that lives as long as the operation.

use cryptoki_sys as sys;
use smallvec::SmallVec;

use crate::pkcs11::library::to_ulong;

/// A mechanism with borrowed parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mechanism<'a> {
    /// A mechanism without parameters, by its number.
    Plain(sys::CK_MECHANISM_TYPE),
    /// A mechanism whose parameter is these bytes: an IV, or a structure that its caller has laid out.
    Bytes(sys::CK_MECHANISM_TYPE, &'a [u8]),
    /// RSA PSS: the mechanism, hash, mask generation function, salt length in bytes.
    Pss {
        mechanism: sys::CK_MECHANISM_TYPE,
        hash: sys::CK_MECHANISM_TYPE,
        mgf: sys::CK_RSA_PKCS_MGF_TYPE,
        salt_len: u32,
    },
    /// RSA OAEP with a label.
    Oaep { hash: sys::CK_MECHANISM_TYPE, mgf: sys::CK_RSA_PKCS_MGF_TYPE, label: &'a [u8] },
    /// AES-CTR: the first counter block, and how many of its last bits count.
    Ctr { block: [u8; 16], counter_bits: u32 },
    /// AES-GCM.
    Gcm { iv: &'a [u8], aad: &'a [u8], tag_len: usize },
    /// ECDH: key derivation function, shared information, the other side's public point.
    Ecdh { kdf: sys::CK_EC_KDF_TYPE, shared: &'a [u8], public: &'a [u8] },
}

/// A module wrote another IV over the one it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IvReplaced(pub(super) bool);

impl Mechanism<'_> {
    /// Calls `run` with the `CK_MECHANISM`. It and its parameters stay where they are until `run` returns,
    /// which spans Init and the call: modules keep the pointer, and some write the IV they chose into it, which
    /// is said with the result.
    pub(super) fn with<R>(&self, run: impl FnOnce(*mut sys::CK_MECHANISM) -> R) -> (R, IvReplaced) {
        let kept = IvReplaced(false);
        let result = match *self {
            Self::Plain(mechanism) => {
                let mut mechanism =
                    sys::CK_MECHANISM { mechanism, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
                run(&mut mechanism)
            }
            Self::Bytes(mechanism, parameter) => {
                run(&mut bytes(mechanism, &mut aligned(parameter), parameter))
            }
            Self::Pss { mechanism, hash, mgf, salt_len } => {
                let mut parameter = sys::CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf, sLen: salt_len.into() };
                run(&mut raw(mechanism, &mut parameter))
            }
            Self::Oaep { hash, mgf, label } => {
                run(&mut raw(sys::CKM_RSA_PKCS_OAEP, &mut oaep(hash, mgf, label)))
            }
            Self::Ctr { block, counter_bits } => {
                let mut parameter = sys::CK_AES_CTR_PARAMS { ulCounterBits: counter_bits.into(), cb: block };
                run(&mut raw(sys::CKM_AES_CTR, &mut parameter))
            }
            Self::Gcm { iv, aad, tag_len } => {
                let mut copy = SmallVec::<[u8; 16]>::from_slice(iv);
                let mut parameter = sys::CK_GCM_PARAMS {
                    pIv: copy.as_mut_ptr(),
                    ulIvLen: to_ulong(iv.len()),
                    ulIvBits: to_ulong(iv.len() * 8),
                    pAAD: pointer(aad),
                    ulAADLen: to_ulong(aad.len()),
                    ulTagBits: to_ulong(tag_len * 8),
                };
                let result = run(&mut raw(sys::CKM_AES_GCM, &mut parameter));
                return (result, IvReplaced(copy[..] != *iv));
            }
            Self::Ecdh { kdf, shared, public } => {
                let mut parameter = sys::CK_ECDH1_DERIVE_PARAMS {
                    kdf,
                    ulSharedDataLen: to_ulong(shared.len()),
                    pSharedData: pointer(shared),
                    ulPublicDataLen: to_ulong(public.len()),
                    pPublicData: pointer(public),
                };
                run(&mut raw(sys::CKM_ECDH1_DERIVE, &mut parameter))
            }
        };
        (result, kept)
    }
}

/// PKCS#11 2.40, mechanisms 2.1.7: the label is given as "encoding parameter" with its source, and an empty one by
/// no source data.
fn oaep(
    hash: sys::CK_MECHANISM_TYPE,
    mgf: sys::CK_RSA_PKCS_MGF_TYPE,
    label: &[u8],
) -> sys::CK_RSA_PKCS_OAEP_PARAMS {
    sys::CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: hash,
        mgf,
        source: sys::CKZ_DATA_SPECIFIED,
        pSourceData: pointer(label).cast(),
        ulSourceDataLen: to_ulong(label.len()),
    }
}

/// Modules read through it and do not write. Empty data is null: some modules refuse a pointer without a length.
pub(super) const fn pointer(data: &[u8]) -> *mut u8 {
    if data.is_empty() { std::ptr::null_mut() } else { data.as_ptr().cast_mut() }
}

/// A copy that is aligned as any structure may be: modules write into parameters, and the caller's bytes are
/// shared.
fn aligned(parameter: &[u8]) -> SmallVec<[u64; 4]> {
    let mut copy = SmallVec::new();
    for chunk in parameter.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        copy.push(u64::from_ne_bytes(word));
    }
    copy
}

fn bytes(mechanism: sys::CK_MECHANISM_TYPE, copy: &mut [u64], parameter: &[u8]) -> sys::CK_MECHANISM {
    let pointer = if parameter.is_empty() { std::ptr::null_mut() } else { copy.as_mut_ptr().cast() };
    sys::CK_MECHANISM { mechanism, pParameter: pointer, ulParameterLen: to_ulong(parameter.len()) }
}

fn raw<P>(mechanism: sys::CK_MECHANISM_TYPE, parameter: &mut P) -> sys::CK_MECHANISM {
    let len = to_ulong(size_of::<P>());
    sys::CK_MECHANISM { mechanism, pParameter: std::ptr::from_mut(parameter).cast(), ulParameterLen: len }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iv_that_the_module_replaces_is_noticed_and_the_callers_own_is_not_touched() {
        for len in [12, 16, 200] {
            let iv = vec![7; len];
            let how = Mechanism::Gcm { iv: &iv, aad: &[], tag_len: 16 };
            let ((), kept) = how.with(|_| ());
            let ((), replaced) = how.with(|mechanism| {
                // SAFETY: `with` gives a pointer to a live mechanism.
                let parameter = unsafe { *mechanism }.pParameter.cast::<sys::CK_GCM_PARAMS>();
                // SAFETY: its parameter is the one of AES-GCM.
                let iv = unsafe { *parameter }.pIv;
                // SAFETY: the IV has bytes to write to, as for a module.
                unsafe { *iv = 8 };
            });
            assert_eq!((kept, replaced), (IvReplaced(false), IvReplaced(true)));
            assert_eq!(iv, vec![7; len]);
        }
    }
}
