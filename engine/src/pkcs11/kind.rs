//! What single vendors mean by codes that the standard has for something else.

use cryptoki_sys as sys;

use crate::error::{ErrorKind, Outcome, Retry};
use crate::pkcs11::codes::{Class, SessionFate, class};

/// Whose module it is, where its codes do not mean what the standard says.
///
/// Nothing is guessed from the names that a module gives itself: they change, and some stand in front of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModuleKind {
    /// Codes mean what PKCS#11 says.
    #[default]
    Standard,
    /// AWS CloudHSM, Client SDK 5: `CKR_FUNCTION_FAILED` says that the HSM is busy, and nothing was executed. The SDK has
    /// tried three times by then: the request is answered with `Busy`, and fewer are sent.
    CloudHsmSdk5,
    /// AWS CloudHSM, Client SDK 3: `CKR_OPERATION_ACTIVE` says that the HSM is busy.
    CloudHsmSdk3,
    /// YubiHSM 2: `CKR_FUNCTION_FAILED` says that the connector cannot be reached, also where a ciphertext was to be
    /// decrypted.
    YubiHsm,
    /// A module behind pkcs11-proxy: the first call after the proxy was restarted answers `CKR_DEVICE_ERROR`, and its session
    /// is not there any more.
    Pkcs11Proxy,
    /// Thales Luna in a group for high availability: `CKR_DEVICE_ERROR` says that all members are lost. That this code is
    /// the one was inferred from the vendor's texts, not seen.
    LunaHa,
}

impl ModuleKind {
    /// The class of a code that this module means otherwise than the standard.
    pub(super) const fn class(self, code: u64) -> Option<Class> {
        use {ErrorKind as K, Outcome as O, Retry as R, SessionFate as F};
        Some(match (self, code) {
            (Self::CloudHsmSdk5, sys::CKR_FUNCTION_FAILED) => class(K::Busy, R::Later, O::NotDone, F::Keep),
            (Self::CloudHsmSdk3, sys::CKR_OPERATION_ACTIVE) => class(K::Busy, R::Later, O::NotDone, F::Close),
            (Self::YubiHsm, sys::CKR_FUNCTION_FAILED) => class(K::Device, R::Now, O::Unknown, F::Close),
            (Self::Pkcs11Proxy, sys::CKR_DEVICE_ERROR) => {
                class(K::SessionLost, R::Now, O::Unknown, F::Abandon)
            }
            (Self::LunaHa, sys::CKR_DEVICE_ERROR) => class(K::TokenLost, R::Now, O::Unknown, F::TokenDown),
            _ => return None,
        })
    }
}
