//! Return codes by their names.

use std::fmt;

use cryptoki_sys as sys;

/// What calls answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) sys::CK_RV);

macro_rules! codes {
    ($($name:ident),* $(,)?) => {
        /// The codes with which devices refuse operations; others are written as numbers.
        pub(super) const CODES: &[(&str, sys::CK_RV)] = &[$((stringify!($name), sys::$name)),*];
    };
}

codes!(
    CKR_HOST_MEMORY,
    CKR_GENERAL_ERROR,
    CKR_FUNCTION_FAILED,
    CKR_DEVICE_ERROR,
    CKR_DEVICE_MEMORY,
    CKR_DEVICE_REMOVED,
    CKR_FUNCTION_CANCELED,
    CKR_FUNCTION_NOT_SUPPORTED,
    CKR_KEY_HANDLE_INVALID,
    CKR_MECHANISM_INVALID,
    CKR_OPERATION_NOT_INITIALIZED,
    CKR_SESSION_CLOSED,
    CKR_SESSION_COUNT,
    CKR_SESSION_HANDLE_INVALID,
    CKR_TOKEN_NOT_PRESENT,
    CKR_USER_NOT_LOGGED_IN,
    CKR_CRYPTOKI_NOT_INITIALIZED,
);

impl Code {
    /// A name of [`CODES`], or a number other than that of `CKR_OK`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let named = CODES.iter().find(|(name, _)| *name == text).map(|&(_, code)| code);
        let number = || match text.strip_prefix("0x") {
            Some(hex) => sys::CK_RV::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        named.or_else(number).filter(|&code| code != sys::CKR_OK).map(Self)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CODES.iter().find(|(_, code)| *code == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}
