//! Return codes: the one table that says what each means for the request and for the session.
//!
//! Written from PKCS#11 2.40 and 3.x, section 5.1, and from what modules really do with them.

use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::pkcs11::function::Function;
use crate::pkcs11::kind::ModuleKind;

use ErrorKind as K;
use Outcome as O;
use Retry as R;
use SessionFate as F;

/// A call that did not answer `CKR_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) function: Function,
    pub(crate) code: Code,
    /// Whose code it is.
    kind: ModuleKind,
}

/// What a call answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Returned(u64),
    /// The process was forked after the module was loaded, so no call was made (PKCS#11 2.40, 6.6.1: a child
    /// has to initialise the library anew, which few survive).
    Forked,
    /// The function list has no such function.
    Missing,
    /// The module is being finalised and initialised anew, so no call was made.
    Resetting,
    /// The module answered `CKR_OK`, but had put another IV in the place of the one it was given.
    IvReplaced,
    /// The session had gone with its token when the call was due, so it was not made: its number may be another's.
    SessionGone,
}

/// What becomes of the session after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionFate {
    /// No operation is active: the session can go on.
    Keep,
    /// Dead, or an operation may still be active: close it and open another.
    Close,
    /// It is not there any more. It is not closed: its number may have been given to another session.
    Abandon,
    /// The user is not logged in: no session of the token can do anything.
    LoggedOut,
    /// The token is gone, and all its sessions with it.
    TokenDown,
}

/// What a fault means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) kind: ErrorKind,
    pub(crate) retry: Retry,
    pub(crate) outcome: Outcome,
    pub(crate) session: SessionFate,
}

struct Row {
    code: u64,
    name: &'static str,
    class: Class,
}

impl Fault {
    /// Whether a function answered that there was too little room for its output.
    pub(super) fn is_too_small(&self, function: Function) -> bool {
        self.function == function && self.code == Code::Returned(sys::CKR_BUFFER_TOO_SMALL)
    }

    /// What a module answered.
    pub(crate) const fn returned(kind: ModuleKind, function: Function, code: u64) -> Self {
        Self { function, code: Code::Returned(code), kind }
    }

    /// What a module of which nothing is known answered.
    pub(crate) const fn new(function: Function, code: u64) -> Self {
        Self::returned(ModuleKind::Standard, function, code)
    }

    /// What the engine itself has to say of a call.
    pub(crate) const fn of(function: Function, code: Code) -> Self {
        Self { function, code, kind: ModuleKind::Standard }
    }

    pub(crate) fn is(self, code: u64) -> bool {
        self.code == Code::Returned(code)
    }

    /// Whether the module does not have what was called, or not with this mechanism. Nothing ran.
    pub(crate) fn is_unsupported(self) -> bool {
        let codes =
            [sys::CKR_FUNCTION_NOT_SUPPORTED, sys::CKR_MECHANISM_INVALID, sys::CKR_MECHANISM_PARAM_INVALID];
        self.code == Code::Missing || codes.into_iter().any(|code| self.is(code))
    }

    /// Whether a module says that there are no objects as the one that it was given, of whatever content. Which code says so the
    /// standard leaves open: `CKR_ATTRIBUTE_VALUE_INVALID` for a class that it does not support (PKCS#11 2.40, 4.1.1),
    /// `CKR_TEMPLATE_INCONSISTENT` for all of it, `CKR_ATTRIBUTE_TYPE_INVALID` for an attribute that only this class has; and modules
    /// whose keys are only ever generated have no `C_CreateObject`, or prohibit it. What may be over in a moment is none of these.
    pub(crate) fn refuses_such_objects(self) -> bool {
        let codes = [
            sys::CKR_ATTRIBUTE_VALUE_INVALID,
            sys::CKR_ATTRIBUTE_TYPE_INVALID,
            sys::CKR_TEMPLATE_INCONSISTENT,
            sys::CKR_TEMPLATE_INCOMPLETE,
            sys::CKR_ACTION_PROHIBITED,
            sys::CKR_FUNCTION_NOT_SUPPORTED,
        ];
        self.code == Code::Missing || codes.into_iter().any(|code| self.is(code))
    }

    /// Reads the table, and the few rules that depend on the function.
    pub(crate) fn class(self) -> Class {
        let code = match self.code {
            Code::Returned(code) => code,
            Code::Forked => return class(K::Forked, R::Never, O::NotDone, F::Keep),
            Code::Missing => return class(K::Module, R::Operator, O::NotDone, F::Keep),
            Code::Resetting => return class(K::Busy, R::Later, O::NotDone, F::Keep),
            Code::IvReplaced => return class(K::Device, R::Operator, O::Done, F::Keep),
            Code::SessionGone => return class(K::SessionLost, R::Now, O::NotDone, F::Abandon),
        };
        let own = self.kind.class(code);
        let mut class = own.unwrap_or_else(|| find(code).map_or(UNLISTED, |row| row.class));
        let verdicts = [Function::Decrypt, Function::DecryptUpdate, Function::DecryptMessage];
        if own.is_none() && verdicts.contains(&self.function) && is_bad_ciphertext(code) {
            // All verdicts on a ciphertext look alike; modules differ in which code they use. The session is
            // kept: `C_Decrypt` "always terminates the active decryption operation" unless it answers
            // CKR_BUFFER_TOO_SMALL (PKCS#11 2.40, 5.9), and if each bad ciphertext cost a session, whoever
            // sends them could take all sessions from the others. Should a module not keep to that, the next
            // Init answers CKR_OPERATION_ACTIVE, which closes the session and repeats the request elsewhere.
            class = Class { kind: K::DecryptFailed, retry: R::Never, outcome: O::Done, session: F::Keep };
        }
        if own.is_none() && self.function == Function::UnwrapKey && is_bad_wrapped_key(code) {
            class = Class { kind: K::DecryptFailed, retry: R::Never, outcome: O::Done, session: F::Keep };
        }
        if self.function.is_init() && class.outcome == O::Unknown {
            // Init only prepares: nothing was executed.
            class.outcome = O::NotDone;
        }
        class
    }

    /// Which call it was, and what was answered.
    pub(crate) fn answered(self) -> String {
        format!("{} answered {}", self.function.name(), self.name())
    }

    /// What was answered, by name where the standard has one.
    pub(crate) fn name(self) -> String {
        match self.code {
            Code::Returned(code) => {
                find(code).map_or_else(|| format!("0x{code:08x}"), |row| row.name.to_owned())
            }
            Code::Forked => "nothing: the process was forked".to_owned(),
            Code::Missing => "nothing: the module has no such function".to_owned(),
            Code::Resetting => "nothing: the module is being initialised anew".to_owned(),
            Code::IvReplaced => {
                "under an IV of its own choice, which this engine does not support".to_owned()
            }
            Code::SessionGone => "nothing: the token has gone, and the session with it".to_owned(),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let Class { kind, retry, outcome, .. } = fault.class();
        if kind == K::DecryptFailed {
            return Self::decrypt_failed();
        }
        Self::new(kind, retry, outcome).because(fault.answered())
    }
}

/// Codes by which modules say that a ciphertext is not what it should be. SoftHSM2 2.6.1 answers
/// `CKR_GENERAL_ERROR` or `CKR_ENCRYPTED_DATA_INVALID` to a wrong GCM tag, others `CKR_FUNCTION_FAILED` or
/// `CKR_SIGNATURE_INVALID`.
fn is_bad_ciphertext(code: u64) -> bool {
    matches!(code, 0x05 | 0x06 | 0x20 | 0x21 | 0x35 | 0x40 | 0x41 | 0x42 | 0xc0 | 0xc1)
}

/// The same for a wrapped key, whose padding must show no more than that of a ciphertext. Its length was right.
fn is_bad_wrapped_key(code: u64) -> bool {
    is_bad_ciphertext(code) || matches!(code, 0x110 | 0x112)
}

fn find(code: u64) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.code == code)
}

/// A code that is not listed, or a vendor's own: the token may have done anything.
const UNLISTED: Class = class(K::Device, R::Never, O::Unknown, F::Close);

pub(super) const fn class(kind: ErrorKind, retry: Retry, outcome: Outcome, session: SessionFate) -> Class {
    Class { kind, retry, outcome, session }
}

const fn row(code: u64, name: &'static str, kind: K, retry: R, outcome: O, session: F) -> Row {
    Row { code, name, class: class(kind, retry, outcome, session) }
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row(0x00000001, "CKR_CANCEL", K::Internal, R::Now, O::Unknown, F::Close),
    row(0x00000002, "CKR_HOST_MEMORY", K::Busy, R::Later, O::NotDone, F::Close),
    row(0x00000003, "CKR_SLOT_ID_INVALID", K::TokenLost, R::Later, O::NotDone, F::TokenDown),
    row(0x00000005, "CKR_GENERAL_ERROR", K::Device, R::Now, O::Unknown, F::Close),
    row(0x00000006, "CKR_FUNCTION_FAILED", K::Device, R::Now, O::Unknown, F::Close),
    row(0x00000007, "CKR_ARGUMENTS_BAD", K::Internal, R::Never, O::NotDone, F::Close),
    row(0x00000008, "CKR_NO_EVENT", K::InvalidInput, R::Never, O::Done, F::Keep),
    row(0x00000009, "CKR_NEED_TO_CREATE_THREADS", K::Module, R::Operator, O::NotDone, F::Keep),
    row(0x0000000a, "CKR_CANT_LOCK", K::Module, R::Operator, O::NotDone, F::Keep),
    row(0x00000010, "CKR_ATTRIBUTE_READ_ONLY", K::NotPermitted, R::Never, O::NotDone, F::Keep),
    row(0x00000011, "CKR_ATTRIBUTE_SENSITIVE", K::NotPermitted, R::Never, O::Done, F::Keep),
    row(0x00000012, "CKR_ATTRIBUTE_TYPE_INVALID", K::InvalidInput, R::Never, O::Done, F::Keep),
    row(0x00000013, "CKR_ATTRIBUTE_VALUE_INVALID", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x0000001b, "CKR_ACTION_PROHIBITED", K::NotPermitted, R::Never, O::NotDone, F::Keep),
    row(0x00000020, "CKR_DATA_INVALID", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x00000021, "CKR_DATA_LEN_RANGE", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x00000030, "CKR_DEVICE_ERROR", K::Device, R::Now, O::Unknown, F::Close),
    row(0x00000031, "CKR_DEVICE_MEMORY", K::Busy, R::Now, O::NotDone, F::Close),
    row(0x00000032, "CKR_DEVICE_REMOVED", K::TokenLost, R::Now, O::Unknown, F::TokenDown),
    row(0x00000040, "CKR_ENCRYPTED_DATA_INVALID", K::DecryptFailed, R::Never, O::NotDone, F::Keep),
    row(0x00000041, "CKR_ENCRYPTED_DATA_LEN_RANGE", K::DecryptFailed, R::Never, O::NotDone, F::Keep),
    row(0x00000042, "CKR_AEAD_DECRYPT_FAILED", K::DecryptFailed, R::Never, O::NotDone, F::Keep),
    row(0x00000050, "CKR_FUNCTION_CANCELED", K::Busy, R::Now, O::NotDone, F::Close),
    row(0x00000051, "CKR_FUNCTION_NOT_PARALLEL", K::Internal, R::Never, O::NotDone, F::Keep),
    row(0x00000054, "CKR_FUNCTION_NOT_SUPPORTED", K::MechanismUnavailable, R::Never, O::NotDone, F::Keep),
    row(0x00000060, "CKR_KEY_HANDLE_INVALID", K::KeyNotFound, R::Later, O::NotDone, F::Keep),
    row(0x00000062, "CKR_KEY_SIZE_RANGE", K::KeyMismatch, R::Never, O::NotDone, F::Keep),
    row(0x00000063, "CKR_KEY_TYPE_INCONSISTENT", K::KeyMismatch, R::Never, O::NotDone, F::Keep),
    row(0x00000064, "CKR_KEY_NOT_NEEDED", K::Internal, R::Never, O::NotDone, F::Close),
    row(0x00000065, "CKR_KEY_CHANGED", K::Internal, R::Never, O::NotDone, F::Close),
    row(0x00000066, "CKR_KEY_NEEDED", K::Internal, R::Never, O::NotDone, F::Close),
    row(0x00000067, "CKR_KEY_INDIGESTIBLE", K::KeyMismatch, R::Never, O::NotDone, F::Keep),
    row(0x00000068, "CKR_KEY_FUNCTION_NOT_PERMITTED", K::NotPermitted, R::Never, O::NotDone, F::Keep),
    row(0x00000069, "CKR_KEY_NOT_WRAPPABLE", K::NotPermitted, R::Never, O::NotDone, F::Keep),
    row(0x0000006a, "CKR_KEY_UNEXTRACTABLE", K::NotPermitted, R::Never, O::NotDone, F::Keep),
    row(0x00000070, "CKR_MECHANISM_INVALID", K::MechanismUnavailable, R::Never, O::NotDone, F::Keep),
    row(0x00000071, "CKR_MECHANISM_PARAM_INVALID", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x00000082, "CKR_OBJECT_HANDLE_INVALID", K::KeyNotFound, R::Later, O::NotDone, F::Keep),
    row(0x00000090, "CKR_OPERATION_ACTIVE", K::Internal, R::Now, O::NotDone, F::Close),
    row(0x00000091, "CKR_OPERATION_NOT_INITIALIZED", K::SessionLost, R::Now, O::NotDone, F::Close),
    row(0x000000a0, "CKR_PIN_INCORRECT", K::PinRefused, R::Operator, O::NotDone, F::Keep),
    row(0x000000a1, "CKR_PIN_INVALID", K::PinRefused, R::Operator, O::NotDone, F::Keep),
    row(0x000000a2, "CKR_PIN_LEN_RANGE", K::PinRefused, R::Operator, O::NotDone, F::Keep),
    row(0x000000a3, "CKR_PIN_EXPIRED", K::PinRefused, R::Operator, O::NotDone, F::Keep),
    row(0x000000a4, "CKR_PIN_LOCKED", K::PinLocked, R::Operator, O::NotDone, F::Keep),
    row(0x000000b0, "CKR_SESSION_CLOSED", K::SessionLost, R::Now, O::Unknown, F::Abandon),
    row(0x000000b1, "CKR_SESSION_COUNT", K::Busy, R::Later, O::NotDone, F::Keep),
    row(0x000000b3, "CKR_SESSION_HANDLE_INVALID", K::SessionLost, R::Now, O::NotDone, F::Abandon),
    row(0x000000b4, "CKR_SESSION_PARALLEL_NOT_SUPPORTED", K::Internal, R::Never, O::NotDone, F::Keep),
    row(0x000000b5, "CKR_SESSION_READ_ONLY", K::Internal, R::Never, O::NotDone, F::Keep),
    row(0x000000b6, "CKR_SESSION_EXISTS", K::Internal, R::Never, O::NotDone, F::Keep),
    row(0x000000b7, "CKR_SESSION_READ_ONLY_EXISTS", K::Internal, R::Operator, O::NotDone, F::Keep),
    row(0x000000b8, "CKR_SESSION_READ_WRITE_SO_EXISTS", K::Internal, R::Operator, O::NotDone, F::Keep),
    row(0x000000c0, "CKR_SIGNATURE_INVALID", K::InvalidInput, R::Never, O::Done, F::Keep),
    row(0x000000c1, "CKR_SIGNATURE_LEN_RANGE", K::InvalidInput, R::Never, O::Done, F::Keep),
    row(0x000000d0, "CKR_TEMPLATE_INCOMPLETE", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x000000d1, "CKR_TEMPLATE_INCONSISTENT", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x000000e0, "CKR_TOKEN_NOT_PRESENT", K::TokenLost, R::Now, O::NotDone, F::TokenDown),
    row(0x000000e1, "CKR_TOKEN_NOT_RECOGNIZED", K::TokenLost, R::Operator, O::NotDone, F::TokenDown),
    row(0x000000e2, "CKR_TOKEN_WRITE_PROTECTED", K::Device, R::Operator, O::NotDone, F::Keep),
    row(0x000000f0, "CKR_UNWRAPPING_KEY_HANDLE_INVALID", K::KeyNotFound, R::Later, O::NotDone, F::Keep),
    row(0x000000f1, "CKR_UNWRAPPING_KEY_SIZE_RANGE", K::KeyMismatch, R::Never, O::NotDone, F::Keep),
    row(0x000000f2, "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT", K::KeyMismatch, R::Never, O::NotDone, F::Keep),
    row(0x00000100, "CKR_USER_ALREADY_LOGGED_IN", K::InvalidInput, R::Never, O::Done, F::Keep),
    row(0x00000101, "CKR_USER_NOT_LOGGED_IN", K::TokenLost, R::Now, O::NotDone, F::LoggedOut),
    row(0x00000102, "CKR_USER_PIN_NOT_INITIALIZED", K::PinRefused, R::Operator, O::NotDone, F::Keep),
    row(0x00000103, "CKR_USER_TYPE_INVALID", K::Internal, R::Operator, O::NotDone, F::Keep),
    row(0x00000104, "CKR_USER_ANOTHER_ALREADY_LOGGED_IN", K::SessionLost, R::Operator, O::NotDone, F::Keep),
    row(0x00000105, "CKR_USER_TOO_MANY_TYPES", K::Busy, R::Now, O::NotDone, F::Keep),
    row(0x00000110, "CKR_WRAPPED_KEY_INVALID", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x00000112, "CKR_WRAPPED_KEY_LEN_RANGE", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x00000113, "CKR_WRAPPING_KEY_HANDLE_INVALID", K::KeyNotFound, R::Later, O::NotDone, F::Keep),
    row(0x00000114, "CKR_WRAPPING_KEY_SIZE_RANGE", K::KeyMismatch, R::Never, O::NotDone, F::Keep),
    row(0x00000115, "CKR_WRAPPING_KEY_TYPE_INCONSISTENT", K::KeyMismatch, R::Never, O::NotDone, F::Keep),
    row(0x00000120, "CKR_RANDOM_SEED_NOT_SUPPORTED", K::MechanismUnavailable, R::Never, O::NotDone, F::Keep),
    row(0x00000121, "CKR_RANDOM_NO_RNG", K::MechanismUnavailable, R::Never, O::NotDone, F::Keep),
    row(0x00000130, "CKR_DOMAIN_PARAMS_INVALID", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x00000140, "CKR_CURVE_NOT_SUPPORTED", K::MechanismUnavailable, R::Never, O::NotDone, F::Keep),
    row(0x00000150, "CKR_BUFFER_TOO_SMALL", K::Internal, R::Never, O::NotDone, F::Close),
    row(0x00000160, "CKR_SAVED_STATE_INVALID", K::Internal, R::Never, O::NotDone, F::Close),
    row(0x00000170, "CKR_INFORMATION_SENSITIVE", K::NotPermitted, R::Never, O::NotDone, F::Keep),
    row(0x00000180, "CKR_STATE_UNSAVEABLE", K::Internal, R::Never, O::NotDone, F::Close),
    row(0x00000190, "CKR_CRYPTOKI_NOT_INITIALIZED", K::Module, R::Later, O::NotDone, F::TokenDown),
    row(0x00000191, "CKR_CRYPTOKI_ALREADY_INITIALIZED", K::Module, R::Never, O::Done, F::Keep),
    row(0x000001a0, "CKR_MUTEX_BAD", K::Module, R::Operator, O::Unknown, F::Close),
    row(0x000001a1, "CKR_MUTEX_NOT_LOCKED", K::Module, R::Operator, O::Unknown, F::Close),
    row(0x000001b0, "CKR_NEW_PIN_MODE", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x000001b1, "CKR_NEXT_OTP", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x000001b5, "CKR_EXCEEDED_MAX_ITERATIONS", K::Busy, R::Now, O::NotDone, F::Keep),
    row(0x000001b6, "CKR_FIPS_SELF_TEST_FAILED", K::Module, R::Operator, O::Unknown, F::Close),
    row(0x000001b7, "CKR_LIBRARY_LOAD_FAILED", K::Module, R::Operator, O::NotDone, F::Keep),
    row(0x000001b8, "CKR_PIN_TOO_WEAK", K::PinRefused, R::Operator, O::NotDone, F::Keep),
    row(0x000001b9, "CKR_PUBLIC_KEY_INVALID", K::InvalidInput, R::Never, O::NotDone, F::Keep),
    row(0x00000200, "CKR_FUNCTION_REJECTED", K::NotPermitted, R::Never, O::NotDone, F::Keep),
    row(0x00000201, "CKR_TOKEN_RESOURCE_EXCEEDED", K::Busy, R::Later, O::NotDone, F::Close),
    row(0x00000202, "CKR_OPERATION_CANCEL_FAILED", K::SessionLost, R::Now, O::NotDone, F::Close),
    row(0x00000203, "CKR_KEY_EXHAUSTED", K::Device, R::Never, O::NotDone, F::Keep),
    row(0x00000204, "CKR_PENDING", K::Internal, R::Never, O::Unknown, F::Close),
    row(0x00000205, "CKR_SESSION_ASYNC_NOT_SUPPORTED", K::Internal, R::Never, O::NotDone, F::Keep),
    row(0x00000206, "CKR_SEED_RANDOM_REQUIRED", K::Device, R::Now, O::NotDone, F::Keep),
    row(0x00000207, "CKR_OPERATION_NOT_VALIDATED", K::Device, R::Never, O::NotDone, F::Keep),
    row(0x00000208, "CKR_TOKEN_NOT_INITIALIZED", K::TokenLost, R::Operator, O::NotDone, F::TokenDown),
    row(0x00000209, "CKR_PARAMETER_SET_NOT_SUPPORTED", K::MechanismUnavailable, R::Never, O::NotDone, F::Keep),
    row(0x80000000, "CKR_VENDOR_DEFINED", K::Device, R::Now, O::Unknown, F::Close),
];

#[cfg(test)]
mod tests;
